"""``make check``: what a deployed stack lacks, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from handler import zones
from handler.events import senders
from tools.senders import secret_forms
from tools.terminal import say, warning

from . import parameters, secrets, shares, target
from .target import Deployed

ROOM = 20  # functions at a time that the door should find free
# What a reservation has to leave to functions without one (Lambda guide, "Configuring reserved concurrency"); where the
# quota itself is less, nothing can be reserved (observed, quotas of 10 and 50).
UNRESERVED = 100


_RUNNING = ("Enabled", "Enabling", "Creating", "Updating")  # states of an event source mapping
_WAITING = "ApproximateNumberOfMessages"


def warnings(stack: Deployed) -> Iterator[str]:
    """Yield what a person should correct, a sentence or two each."""
    yield from _concurrency(stack)
    if not stack.secret("KlaviyoSecretName").get("api_key"):
        yield f"The Klaviyo secret has no `api_key`; nothing is delivered. Add it with: make secrets STACK={stack.name}"
    document = stack.secret("SourcesSecretName")
    if not any(secrets.listed(document, source) for source in document):
        yield f"No source has a secret; every webhook is refused. Add one with: make secrets STACK={stack.name}"
    for source in sorted(set(document) - set(senders.names())):
        yield f"Secret for unknown source {source!r} (not in this version)"
    for names in secret_forms.shared(document):
        yield secrets.crossing(names)
    for number in "123":
        watched = stack.parameters.get(f"WatchedSource{number}", "")
        if watched and not (watched in senders.names() and secrets.listed(document, watched)):
            yield f"WatchedSource{number} is {watched!r}, but no source of that name has a secret; its alarm never ends"
    yield from _zone(stack)
    yield from _trigger(stack)
    yield from _recursion(stack)
    yield from shares.warnings(stack)
    yield from parameters.warnings(stack.name, stack.parameters, stack.saved)
    parked = int(_queue(stack, "DeadLetterQueueUrl", _WAITING))
    if parked:
        yield f"{parked} message(s) are in the dead-letter queue. List them with: make redrive STACK={stack.name}"
    yield from _recipient(stack)
    yield from _alarms(stack)
    yield from _unsent(stack)


def _zone(stack: Deployed) -> Iterator[str]:
    try:
        zones.load(stack.parameters.get("TimeZone", "UTC"))
    except ValueError as error:
        yield (
            f"TimeZone: {error}. The functions do not start. Correct it with: "
            f"sam deploy --stack-name {stack.name} --parameter-overrides TimeZone=…"
        )


def _trigger(stack: Deployed) -> Iterator[str]:
    arn = _queue(stack, "EventsQueueUrl", "QueueArn")
    mappings = stack.client("lambda").list_event_source_mappings(EventSourceArn=arn)["EventSourceMappings"]
    if not mappings:
        yield "No SQS trigger reads the events queue; no events are being delivered. Deploy again with: sam deploy"
    for mapping in mappings:
        if mapping["State"] not in _RUNNING:
            name = mapping["FunctionArn"].rpartition(":")[2]
            yield (
                f"The SQS trigger of {name} is {mapping['State'].lower()}; no events are being delivered. "
                f"Enable it with: aws lambda update-event-source-mapping --uuid {mapping['UUID']} --enabled"
            )


def _recursion(stack: Deployed) -> Iterator[str]:
    """Yield a warning if Lambda would stop deferred events as a loop: its configuration must allow them."""
    name = _physical(stack, "DeliverFunction")
    setting = stack.client("lambda").get_function_recursion_config(FunctionName=name)["RecursiveLoop"]
    if setting != "Allow":
        yield (
            f"RecursiveLoop of {name} is {setting}: Lambda stops deliver after about 16 rounds of waiting, and events "
            f"then wait for days. Allow it with: aws lambda put-function-recursion-config --function-name {name} "
            "--recursive-loop Allow. The identity that deploys needs lambda:PutFunctionRecursionConfig for it"
        )


def _recipient(stack: Deployed) -> Iterator[str]:
    address = stack.parameters.get("AlarmEmail")
    if not address:
        yield "AlarmEmail is not set; nobody is notified when an alarm goes off"
        return
    topic = _physical(stack, "AlarmTopic")
    pages = stack.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
    confirmed = {
        subscription["Endpoint"] for page in pages for subscription in page["Subscriptions"] if _confirmed(subscription)
    }
    if address not in confirmed:
        yield (
            f"{address} has not confirmed (or has cancelled) the alarm subscription. Confirm the email from AWS, or "
            f"resend it with: aws sns subscribe --topic-arn {topic} --protocol email --notification-endpoint {address}"
        )


def _confirmed(subscription: Mapping[str, str]) -> bool:
    return subscription["SubscriptionArn"].startswith("arn:")  # otherwise PendingConfirmation, or Deleted


def _alarms(stack: Deployed) -> Iterator[str]:
    for alarm in _own_alarms(stack, StateValue="ALARM"):
        yield f"Alarm {alarm['AlarmName']} is on: {alarm.get('AlarmDescription', '')}"


def _own_alarms(stack: Deployed, **which: str) -> Iterator[Mapping[str, Any]]:
    watch = stack.client("cloudwatch").get_paginator("describe_alarms")
    for page in watch.paginate(AlarmNamePrefix=f"{stack.name}-", **which):
        yield from page["MetricAlarms"]


def _unsent(stack: Deployed) -> Iterator[str]:
    """Yield a warning if an alarm's last message never left CloudWatch.

    Only the alarm's history shows it, neither the alarm nor the topic.
    """
    if not stack.parameters.get("AlarmEmail"):
        return
    watch = stack.client("cloudwatch")
    failures = {alarm["AlarmName"]: _failure(watch, alarm["AlarmName"]) for alarm in _own_alarms(stack)}
    failed = {name: error for name, error in failures.items() if error}
    if failed:
        name, error = next(iter(failed.items()))
        yield (
            f"The last message of {len(failed)} alarm(s) could not be sent ({error}). The policy of a KmsKeyArn must "
            "name cloudwatch.amazonaws.com (docs/settings.md#a-key-of-your-own). Then try it with: "
            f"aws cloudwatch set-alarm-state --alarm-name {name} --state-value ALARM --state-reason test"
        )


def _failure(watch: Any, alarm: str) -> str:
    """Return why the alarm's last action failed; empty if it did not."""
    history = watch.describe_alarm_history(AlarmName=alarm, HistoryItemType="Action", MaxRecords=1)
    for item in history["AlarmHistoryItems"]:
        action = json.loads(item.get("HistoryData") or "{}")
        return str(action.get("error")) if action.get("actionState") == "Failed" else ""
    return ""


def _physical(stack: Deployed, logical: str) -> str:
    answer = stack.client("cloudformation").describe_stack_resource(StackName=stack.name, LogicalResourceId=logical)
    return str(answer["StackResourceDetail"]["PhysicalResourceId"])


def _concurrency(stack: Deployed) -> Iterator[str]:
    limit = stack.client("lambda").get_account_settings()["AccountLimit"]
    total, free = int(limit["ConcurrentExecutions"]), int(limit["UnreservedConcurrentExecutions"])
    most = int(stack.parameters.get("MaximumConcurrency", 0))
    reserved = int(stack.parameters.get("ReceiveReservedConcurrency", 0))
    least = min(UNRESERVED, total)
    possible = max(0, free + reserved - least)
    if reserved and reserved < ROOM:
        yield f"ReceiveReservedConcurrency limits receive to {reserved} webhooks at a time. Raise it, or set it to 0"
    if not reserved and free - most < ROOM:
        yield (
            f"This account runs {free} unreserved functions at a time and deliver may take {most} of them, which "
            f"leaves {max(0, free - most)} for webhooks. Lower MaximumConcurrency (2 at least), and ask AWS for a "
            f"higher quota (Service Quotas, Lambda, Concurrent executions). {_reservation(possible, least)}"
        )
    if reserved and free < most:
        yield f"This account runs {free} unreserved functions at a time, fewer than MaximumConcurrency ({most})"
    for place, wanted in _wanted(stack, reserved):
        if wanted > possible:
            yield (
                f"{place} reserves {wanted} for receive, but this account can reserve {possible}: AWS refuses "
                f"what leaves fewer than {least} of its {total} unreserved. Set it to 0, or ask AWS for a higher quota"
            )


def _reservation(possible: int, least: int) -> str:
    if possible < ROOM:
        return f"ReceiveReservedConcurrency cannot help: AWS refuses what leaves fewer than {least} unreserved"
    return f"Or set ReceiveReservedConcurrency, to {possible} at most"


def _wanted(stack: Deployed, reserved: int) -> Iterator[tuple[str, int]]:
    """Yield the reservations for receive, and where each is set: in the stack, and for its next deployment."""
    name = "ReceiveReservedConcurrency"
    yield name, reserved
    saved = stack.saved.parameters.get(name, "")
    if saved.isdecimal() and int(saved) != reserved:
        yield f"{name} in {stack.saved.place(name)}", int(saved)


def _queue(stack: Deployed, output: str, attribute: str) -> str:
    answer = stack.client("sqs").get_queue_attributes(QueueUrl=stack.outputs[output], AttributeNames=[attribute])
    return str(answer["Attributes"][attribute])


def report(stack: Deployed) -> int:
    """Print whether anything is wrong, the warnings, and notes; return 1 if there is a warning."""
    problems = list(warnings(stack))
    say(f"{stack.name}: {len(problems)} problem(s) found" if problems else "OK: no problems found")
    warning(*problems)
    say(*(f"note: {note}" for note in parameters.notes(stack.parameters)))
    return 1 if problems else 0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``make check``."""
    target.argument(parser)


def run(asked: argparse.Namespace) -> int:
    """Print what is wrong; return 1 if anything is."""
    return report(target.deployed(asked.stack))
