"""``make secrets``, ``make try``, ``make check``: a deployed stack, with the credentials of the environment.

``secrets`` writes what is typed in, without showing it; ``try`` sends a signed
sample and follows it to Klaviyo's answer; ``check`` looks for what a deployment
lacks. All three find the stack's parts by its outputs.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from handler import zones
from handler.events import senders

from . import aws, parameters, payload, samconfig, secret_forms, sign
from .logs import matching, readable
from .payload import Payload
from .preview import event_ids, preview_request
from .terminal import say, visible

FOLLOW_SECONDS = 90  # a batching window, a slot and Klaviyo's answer; logs arrive some seconds late
POLL_SECONDS = 2.0
ROOM = 20  # functions at a time that the door should find free
# What a reservation has to leave to functions without one (Lambda guide, "Configuring reserved concurrency"); where the
# quota itself is less, nothing can be reserved (observed, quotas of 10 and 50).
UNRESERVED = 100
EVENTS = aws.ROOT / "events"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Deployed:
    """A deployed stack: outputs and parameters by name, boto3 clients by service, what samconfig.toml has for it."""

    name: str
    outputs: dict[str, str]
    parameters: dict[str, str]
    client: Callable[[str], Any]
    saved: samconfig.Saved = field(default_factory=samconfig.Saved)

    def secret(self, output: str) -> dict[str, Any]:
        """The document of one of the two secrets; ``ValueError`` if it is not a JSON object."""
        text = self.client("secretsmanager").get_secret_value(SecretId=self.outputs[output])["SecretString"]
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ValueError(f"the secret {self.outputs[output]} is not a JSON object; put {{}} into it to start anew")
        return document

    def write(self, output: str, document: Mapping[str, Any]) -> None:
        """Put ``document`` into one of the two secrets."""
        self.client("secretsmanager").put_secret_value(
            SecretId=self.outputs[output], SecretString=json.dumps(document, ensure_ascii=False)
        )


def clients(name: str) -> Callable[[str], Any]:
    """boto3 clients by service, with the credentials of the environment, in the region of the stack ``name``.

    That is the environment's (boto3 itself reads no ``AWS_REGION``), else the one
    that ``sam deploy --guided`` wrote into samconfig.toml beside the stack's name.
    """
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or samconfig.read(name).region
    session = boto3.session.Session(region_name=region or None)
    if not session.region_name:
        raise ValueError(f"in which region is {name!r}? Set AWS_REGION, or AWS_PROFILE to a profile that names one")
    if session.get_credentials() is None:
        raise ValueError("no AWS credentials: set AWS_PROFILE, or sign in with `aws configure` or `aws sso login`")

    def client(service: str) -> Any:
        return session.client(service)  # type: ignore[call-overload]  # the services' names are literals in the stubs

    return client


def find(name: str, client: Callable[[str], Any]) -> Deployed:
    """The stack ``name``.

    Raises
    ------
    ValueError
        There is none of that name in this account and region, or it is not a relay.
    """
    try:
        (found,) = client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if error.response["Error"].get("Code") == "ValidationError":
            raise ValueError(f"no stack {name!r} in this account and region (AWS_PROFILE, AWS_REGION)") from None
        raise
    outputs = {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}
    if "SourcesSecretName" not in outputs:
        raise ValueError(f"the stack {name!r} is not this relay, or not deployed to the end: {found['StackStatus']}")
    given = {one["ParameterKey"]: one["ParameterValue"] for one in found.get("Parameters", [])}
    return Deployed(name, outputs, given, client, samconfig.read(name))


# ------------------------------------------------------------------ secrets
def _listed(document: Mapping[str, Any], source: str) -> list[str]:
    found = document.get(source, [])
    return [found] if isinstance(found, str) else list(found)


def overview(stack: Deployed) -> str:
    """Which secrets there are, and how many; none of them."""
    key = "set" if stack.secret("KlaviyoSecretName").get("api_key") else "NOT SET"
    document = stack.secret("SourcesSecretName")
    counts = ", ".join(f"{visible(source)} ({len(_listed(document, source))})" for source in sorted(document))
    return f"Klaviyo key: {key}\nsources with secrets: {counts or 'NONE'}"


def write_key(stack: Deployed, ask: Callable[[str], str], say: Say) -> None:
    """Ask for the Klaviyo key; an empty answer keeps what is there."""
    typed = ask("Klaviyo private key, with the scope events:write (empty keeps what is there): ").strip()
    if not typed:
        return
    if not (typed.isascii() and typed.isprintable() and " " not in typed):
        raise ValueError("that is no key: it holds spaces or characters that no key has")
    if not typed.startswith("pk_"):
        say("note: private keys begin with pk_; this does not, so Klaviyo may refuse it")
    stack.write("KlaviyoSecretName", stack.secret("KlaviyoSecretName") | {"api_key": typed})
    say("Klaviyo key written")


def write_source(
    stack: Deployed, source: str, ask: Callable[[str], str], confirm: Callable[[str], str], say: Say
) -> None:
    """Ask for a secret of ``source``; it goes before the older ones, which stay until the sender has switched."""
    if source not in senders.names():
        raise ValueError(f"no source {source!r}; there are: {', '.join(senders.names())}")
    typed = ask(f"signing secret of {source} (empty adds none): ").strip()
    if typed and (wrong := secret_forms.wrong(source, typed)):
        again = f"make secrets STACK={stack.name} SOURCE={source}"
        raise ValueError(
            f"this is not a secret of {source}: {wrong}. Nothing was written. Paste the right one: {again}"
        )
    document = stack.secret("SourcesSecretName")
    kept = list(dict.fromkeys([*([typed] if typed else []), *_listed(document, source)]))
    if len(kept) > 1 and confirm(f"keep the {len(kept) - 1} older, until the sender has switched? [Y/n] ") in (
        "n",
        "N",
    ):
        kept = kept[:1]
    written = document | ({source: kept} if kept else {})
    if kept:
        stack.write("SourcesSecretName", written)
    say(f"{source}: {len(kept)} secret(s), the newest first; in use within a minute")
    for names in secret_forms.shared(written):
        if source in names:
            say(f"warning: {_crossing(names)}")


def _crossing(names: Sequence[str]) -> str:
    return (
        f"{' and '.join(names)} list the same secret, so a webhook of one is accepted at the URL of another and read "
        "by that one's file; give each a secret of its own if their senders can"
    )


# ---------------------------------------------------------------------- try
@dataclass
class Trial:
    """One sample on its way; ``post`` sends it, ``clock`` and ``sleep`` are in seconds."""

    stack: Deployed
    say: Say
    post: Callable[[Payload, str, dict[str, str], bytes], tuple[int, str]]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    seconds: float = FOLLOW_SECONDS
    began: float = field(init=False, default=0.0)

    def run(self, source: str | None) -> bool:
        """Send a sample of ``source``, else of the first that has a secret; true once Klaviyo took it."""
        self.began = self.clock()
        name, secret = self._choose(source)
        path = _sample(name)
        self.say(f"1. sending {path.relative_to(aws.ROOT)}, signed, to {self._url(name)}")
        sent = payload.request(path)
        status, text = self._send(name, secret, sent)
        self.say(f"2. the webhook endpoint answers {status}: {text[:300]}")
        answer = _document(text)
        ids = event_ids(status, answer, preview_request(name, sent, self.began))
        if not ids:
            self.say(f"   {_why(status, answer, self.stack.name)}")
            return False
        return self._follow(ids[0])

    def _choose(self, source: str | None) -> tuple[str, str]:
        document = self.stack.secret("SourcesSecretName")
        known = [name for name in senders.names() if _listed(document, name)]
        named = [source] if source else [name for name in known if _can_sign(name) and (EVENTS / name).is_dir()]
        if not named or not _listed(document, named[0]):
            what = f"{source} has no secret yet" if source else "no source with a sample has a secret yet"
            raise ValueError(f"{what}: make secrets STACK={self.stack.name}")
        return named[0], _listed(document, named[0])[0]

    def _url(self, name: str) -> str:
        return self.stack.outputs["WebhookUrl"].replace("{source}", name)

    def _send(self, name: str, secret: str, sent: Payload) -> tuple[int, str]:
        now = self.clock()
        body = sign.fresh(name, sent.body, now)
        url, headers = sign.sign(
            name, secret, body=body, headers=sent.headers, url=sent.at(self._url(name)), now=now, method=sent.method
        )
        return self.post(sent, url, headers, body)

    def _follow(self, event_id: str) -> bool:
        client = self.stack.client("logs")
        groups = [self.stack.outputs[name] for name in ("ReceiveLogGroup", "DeliverLogGroup")]
        shown: set[str] = set()
        while self.clock() < self.began + self.seconds:
            for line in matching(client, groups, event_id, since=self.began - 1):
                text = readable(line)
                if text in shown:
                    continue
                shown.add(text)
                self.say(f"{2 + len(shown)}. {text}")
                if line.get("message") == "job" and line.get("outcome") == "delivered":
                    self.say("done: Klaviyo took it. Its profile is an invented person's; delete it there if you like")
                    return True
                if line.get("message") == "parked" or line.get("outcome") == "configuration":
                    self.say(f"not delivered; what to do: docs/runbook.md, and make check STACK={self.stack.name}")
                    return False
            self.sleep(POLL_SECONDS)
        self.say(f"no answer of Klaviyo's within {self.seconds:.0f} s. {self._last_deferral(client, groups)}")
        return False

    def _last_deferral(self, client: Any, groups: list[str]) -> str:
        """Deferred events are counted and not named, so the latest line of that kind has to do."""
        lines = [line for line in matching(client, groups[1:], "deferred", since=self.began - 1) if "cause" in line]
        if lines:
            return readable(lines[-1])
        return f"It may only be the logs that are late; else: make check STACK={self.stack.name}"


def _document(text: str) -> dict[str, Any]:
    """The answer as an object; empty if it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _why(status: int, answer: Mapping[str, Any], stack: str) -> str:
    """Why no event came of a webhook: by what became of it if it is authentic, otherwise by the status."""
    if answer.get("parked"):
        return f"It was parked ({answer['parked'][0]['reason']}). To list what is parked: make redrive STACK={stack}"
    if answer.get("ignored"):
        return "This topic is deliberately not relayed."
    return _REFUSED.get(status, "No event came of it; the answer says why.")


_REFUSED = {
    401: "The secret in the stack is not the one that signed this, or this machine's clock is wrong.",
    403: "There is no such path at this address, or something in front of it refuses the request.",
    404: "The deployed stack does not have this source: sam build && sam deploy",
    500: "receive crashed; its log group says where.",
    503: "receive cannot read the secret or reach the queue (docs/runbook.md#door-unavailable).",
}


def _can_sign(name: str) -> bool:
    return senders.load(name).schemes[0].scheme != "ecdsa"  # the private half is the sender's


def _sample(name: str) -> Path:
    """The first sample of ``name`` that becomes an event."""
    for path in sorted((EVENTS / name).glob("*.json")):
        if preview_request(name, payload.request(path), time.time())["events"]:
            return path
    raise ValueError(f"events/{name}/ holds no sample that becomes an event: name another SOURCE=")


def post(sent: Payload, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    """Send it; status and text of the answer."""
    answer = urllib3.request(sent.method, url, body=body, headers=headers, retries=False, timeout=30)
    return answer.status, answer.data.decode("utf-8", "replace")


# -------------------------------------------------------------------- check
_RUNNING = ("Enabled", "Enabling", "Creating", "Updating")  # states of an event source mapping
_WAITING = "ApproximateNumberOfMessages"


def warnings(stack: Deployed) -> Iterator[str]:
    """What a person should mend, a sentence each."""
    yield from _concurrency(stack)
    if not stack.secret("KlaviyoSecretName").get("api_key"):
        yield f"the Klaviyo secret holds no key, so nothing is delivered: make secrets STACK={stack.name}"
    document = stack.secret("SourcesSecretName")
    if not any(_listed(document, source) for source in document):
        yield f"no source has a secret, so every webhook is refused: make secrets STACK={stack.name}"
    for source in sorted(set(document) - set(senders.names())):
        yield f"there is a secret for {source!r}, and no such source in this version"
    for names in secret_forms.shared(document):
        yield _crossing(names)
    for number in "123":
        watched = stack.parameters.get(f"WatchedSource{number}", "")
        if watched and not (watched in senders.names() and _listed(document, watched)):
            yield f"WatchedSource{number} is {watched!r}, and no source of that name has a secret: its alarm never ends"
    yield from _zone(stack)
    yield from _trigger(stack)
    yield from _recursion(stack)
    yield from parameters.warnings(stack.name, stack.parameters, stack.saved)
    parked = int(_queue(stack, "DeadLetterQueueUrl", _WAITING))
    if parked:
        yield f"{parked} message(s) lie in the dead-letter queue: make redrive STACK={stack.name} lists them"
    yield from _told(stack)
    yield from _alarms(stack)
    yield from _unsent(stack)


def _zone(stack: Deployed) -> Iterator[str]:
    try:
        zones.load(stack.parameters.get("TimeZone", "UTC"))
    except ValueError as error:
        yield (
            f"TimeZone: {error}, so the functions do not start: "
            f"sam deploy --stack-name {stack.name} --parameter-overrides TimeZone=…"
        )


def _trigger(stack: Deployed) -> Iterator[str]:
    arn = _queue(stack, "EventsQueueUrl", "QueueArn")
    found = stack.client("lambda").list_event_source_mappings(EventSourceArn=arn)["EventSourceMappings"]
    if not found:
        yield "no function takes events from the events queue, so nothing is delivered: sam deploy"
    for one in found:
        if one["State"] not in _RUNNING:
            name = one["FunctionArn"].rpartition(":")[2]
            yield (
                f"the trigger of {name} is {one['State']}, so nothing is delivered: "
                f"aws lambda update-event-source-mapping --uuid {one['UUID']} --enabled"
            )


def _recursion(stack: Deployed) -> Iterator[str]:
    """Deferred events are sent again, which Lambda takes for a loop unless it is told otherwise."""
    name = _physical(stack, "DeliverFunction")
    setting = stack.client("lambda").get_function_recursion_config(FunctionName=name)["RecursiveLoop"]
    if setting != "Allow":
        yield (
            f"RecursiveLoop of {name} is {setting}: Lambda stops deliver after about 16 rounds of waiting, and events "
            f"then wait for days. Allow it with: aws lambda put-function-recursion-config --function-name {name} "
            "--recursive-loop Allow. The identity that deploys needs lambda:PutFunctionRecursionConfig for it"
        )


def _told(stack: Deployed) -> Iterator[str]:
    address = stack.parameters.get("AlarmEmail")
    if not address:
        yield "no AlarmEmail is set, so nobody is told when an alarm goes off"
        return
    topic = _physical(stack, "AlarmTopic")
    pages = stack.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
    confirmed = {one["Endpoint"] for page in pages for one in page["Subscriptions"] if _confirmed(one)}
    if address not in confirmed:
        yield (
            f"{address} has not confirmed its subscription to the alarms, or has ended it, so nobody is told: look for "
            f"AWS's mail, or let it come again with aws sns subscribe --topic-arn {topic} --protocol email "
            f"--notification-endpoint {address}"
        )


def _confirmed(subscription: Mapping[str, str]) -> bool:
    return subscription["SubscriptionArn"].startswith("arn:")  # else PendingConfirmation, or Deleted


def _alarms(stack: Deployed) -> Iterator[str]:
    for one in _own_alarms(stack, StateValue="ALARM"):
        yield f"alarm {one['AlarmName']} is on: {one.get('AlarmDescription', '')}"


def _own_alarms(stack: Deployed, **which: str) -> Iterator[Mapping[str, Any]]:
    watch = stack.client("cloudwatch").get_paginator("describe_alarms")
    for page in watch.paginate(AlarmNamePrefix=f"{stack.name}-", **which):
        yield from page["MetricAlarms"]


def _unsent(stack: Deployed) -> Iterator[str]:
    """Alarms whose last message never left CloudWatch: only their history shows it, neither the alarm nor the topic."""
    if not stack.parameters.get("AlarmEmail"):
        return
    watch = stack.client("cloudwatch")
    found = {one["AlarmName"]: _failure(watch, one["AlarmName"]) for one in _own_alarms(stack)}
    failed = {name: error for name, error in found.items() if error}
    if failed:
        name, error = next(iter(failed.items()))
        yield (
            f"the last message of {len(failed)} alarm(s) could not be sent ({error}). The policy of a KmsKeyArn must "
            "name cloudwatch.amazonaws.com (docs/settings.md#a-key-of-your-own). Then try it: "
            f"aws cloudwatch set-alarm-state --alarm-name {name} --state-value ALARM --state-reason test"
        )


def _failure(watch: Any, alarm: str) -> str:
    """Why the alarm's last action failed, empty if it did not."""
    history = watch.describe_alarm_history(AlarmName=alarm, HistoryItemType="Action", MaxRecords=1)
    for item in history["AlarmHistoryItems"]:
        action = json.loads(item.get("HistoryData") or "{}")
        return str(action.get("error")) if action.get("actionState") == "Failed" else ""
    return ""


def _physical(stack: Deployed, logical: str) -> str:
    found = stack.client("cloudformation").describe_stack_resource(StackName=stack.name, LogicalResourceId=logical)
    return str(found["StackResourceDetail"]["PhysicalResourceId"])


def _concurrency(stack: Deployed) -> Iterator[str]:
    limit = stack.client("lambda").get_account_settings()["AccountLimit"]
    total, free = int(limit["ConcurrentExecutions"]), int(limit["UnreservedConcurrentExecutions"])
    most = int(stack.parameters.get("MaximumConcurrency", 0))
    reserved = int(stack.parameters.get("ReceiveReservedConcurrency", 0))
    least = min(UNRESERVED, total)
    possible = max(0, free + reserved - least)
    if reserved and reserved < ROOM:
        yield f"ReceiveReservedConcurrency lets no more than {reserved} webhooks in at a time: raise it, or set it to 0"
    if not reserved and free - most < ROOM:
        yield (
            f"this account runs {free} unreserved functions at a time and deliver may take {most} of them, which "
            f"leaves {max(0, free - most)} for webhooks: lower MaximumConcurrency (2 at least), and ask AWS for a "
            f"higher quota (Service Quotas, Lambda, Concurrent executions). {_reservation(possible, least)}"
        )
    if reserved and free < most:
        yield f"this account runs {free} unreserved functions at a time, fewer than MaximumConcurrency ({most})"
    for place, wanted in _wanted(stack, reserved):
        if wanted > possible:
            yield (
                f"{place} reserves {wanted} for receive, and this account can reserve {possible}: AWS refuses "
                f"what leaves fewer than {least} of its {total} unreserved. Set it to 0, or ask AWS for a higher quota"
            )


def _reservation(possible: int, least: int) -> str:
    if possible < ROOM:
        return f"ReceiveReservedConcurrency is no way out: AWS refuses what leaves fewer than {least} unreserved"
    return f"Or set ReceiveReservedConcurrency, to {possible} at most"


def _wanted(stack: Deployed, reserved: int) -> Iterator[tuple[str, int]]:
    """Reservations for receive, and where each is set: in the stack, and for its next deployment."""
    name = "ReceiveReservedConcurrency"
    yield name, reserved
    saved = stack.saved.parameters.get(name, "")
    if saved.isdecimal() and int(saved) != reserved:
        yield f"{name} in {stack.saved.place(name)}", int(saved)


def _queue(stack: Deployed, output: str, attribute: str) -> str:
    answer = stack.client("sqs").get_queue_attributes(QueueUrl=stack.outputs[output], AttributeNames=[attribute])
    return str(answer["Attributes"][attribute])


def main(arguments: list[str]) -> int:
    """Run one of the three; 0 if all is well, 1 if not, 2 if it could not be done."""
    parser = argparse.ArgumentParser(prog="make", description=__doc__)
    parser.add_argument("what", choices=["secrets", "try", "check"])
    parser.add_argument("--stack", required=True)
    parser.add_argument("--source")
    options = parser.parse_args(arguments)
    try:
        if not options.stack:
            raise ValueError("name the stack: STACK=klaviyo-relay")
        stack = find(options.stack, clients(options.stack))
        if options.what == "secrets":
            return _secrets(stack, options.source)
        if options.what == "try":
            return 0 if Trial(stack, say, post).run(options.source) else 1
        return report(stack)
    except (ValueError, ClientError, BotoCoreError, urllib3.exceptions.HTTPError, EOFError) as error:
        say(f"{options.what}: {error or 'nothing was typed in'}", error=True)
        return 2


def report(stack: Deployed) -> int:
    """Print whether anything is wrong, the warnings, and notes; 1 if there is a warning."""
    found = list(warnings(stack))
    say(f"{stack.name}: {len(found)} problem(s) found" if found else "OK: no problems found")
    say(*(f"warning: {warning}" for warning in found), error=True)
    say(*(f"note: {note}" for note in parameters.notes(stack.parameters)))
    return 1 if found else 0


def _secrets(stack: Deployed, source: str | None) -> int:
    say(*overview(stack).split("\n"))
    if source:
        write_source(stack, source, getpass.getpass, input, say)
        return 0
    write_key(stack, getpass.getpass, say)
    while name := input("source to write a secret for (empty ends): ").strip():
        write_source(stack, name, getpass.getpass, input, say)
    say(*overview(stack).split("\n"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
