"""The commands for a deployed stack, on the one of this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from handler import sources
from local import aws, deployed, logs, preview, sign
from local.deployed import Deployed, Trial
from local.payload import Payload
from local.stack import NAME, Stack
from tests.template import reading
from tests.template.conftest import EVERYTHING

ADDRESS = "ops@relay.invalid"
OLD, NEW = (sign.development_secret(name, sources.load("stripe").schemes[0]) for name in ("old", "new"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[aws.Aws]:
    """The template deployed, and nothing that runs it."""
    with (tmp_path_factory.mktemp("deployed") / "log").open("wb") as log:
        cloud = aws.Aws(log)
        try:
            cloud.client("s3").create_bucket(Bucket=aws.BUCKET)
            cloud.client("s3").put_object(Bucket=aws.BUCKET, Key="code.zip", Body=aws.package())
            template, _ = aws.translate(aws.ROOT / "template.yaml", {})
            aws.deploy(cloud, NAME, template, {"AlarmEmail": ADDRESS})
            yield cloud
        finally:
            cloud.close()


@pytest.fixture(scope="module")
def trigger(bare: aws.Aws) -> str:
    """The id of an event source as the template asks for it; MiniStack gets none from there."""
    (function,) = (
        one["FunctionName"]
        for one in bare.client("lambda").list_functions()["Functions"]
        if one["FunctionName"].startswith(f"{NAME}-DeliverFunction")
    )
    queue = {"QueueUrl": deployed.find(NAME, bare.client).outputs["EventsQueueUrl"], "AttributeNames": ["QueueArn"]}
    arn = bare.client("sqs").get_queue_attributes(**queue)["Attributes"]["QueueArn"]
    made = bare.client("lambda").create_event_source_mapping(EventSourceArn=arn, FunctionName=function, Enabled=False)
    return str(made["UUID"])


@pytest.fixture
def fresh(bare: aws.Aws) -> Deployed:
    """The stack with two secrets as a deployment leaves them."""
    found = deployed.find(NAME, bare.client)
    manager, outputs = found.client("secretsmanager"), dict(found.outputs)
    for output in ("SourcesSecretName", "KlaviyoSecretName"):
        outputs[output] = manager.create_secret(Name=f"{output}-{time.time_ns()}", SecretString="{}")["ARN"]
    return replace(found, outputs=outputs)


@pytest.fixture
def ready(fresh: Deployed) -> Deployed:
    fresh.write("SourcesSecretName", {"stripe": [OLD]})
    fresh.write("KlaviyoSecretName", {"api_key": "pk_one"})
    return fresh


def log(found: Deployed, group: str, **line: Any) -> None:
    """One line as the functions log it."""
    client, name = found.client("logs"), f"stream-{time.time_ns()}"
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    client.create_log_stream(logGroupName=found.outputs[group], logStreamName=name)
    client.put_log_events(
        logGroupName=found.outputs[group],
        logStreamName=name,
        logEvents=[{"timestamp": int(time.time() * 1000), "message": json.dumps({"timestamp": at} | line)}],
    )


def tried(
    found: Deployed, *lines: tuple[str, dict[str, Any]], status: int = 200, answer: dict[str, Any] | None = None
) -> tuple[bool, list[str]]:
    """What ``try`` says if the door answers so (with an accepted event if nothing else is given) and logs ``lines``."""
    said: list[str] = []
    event_id = f"stripe:placed-order:{time.time_ns()}"

    def post(sent: Payload, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        assert "/webhooks/stripe" in url
        assert "stripe-signature" in headers
        assert sent.method == "POST"
        assert body
        for group, line in lines:
            log(found, group, event_ids=[event_id], **line)
        return status, json.dumps({"accepted": 1, "event_ids": [event_id]} if answer is None else answer)

    trial = Trial(found, said.append, post, sleep=lambda _: time.sleep(0.05), seconds=3)
    return trial.run(None), said


ACCEPTED = ("ReceiveLogGroup", {"message": "webhook", "source": "stripe", "outcome": "accepted", "status": 200})
DELIVERED = ("DeliverLogGroup", {"message": "job", "sources": ["stripe"], "outcome": "delivered", "status": 202})


def test_a_sample_is_followed_to_klaviyos_answer(ready: Deployed) -> None:
    arrived, said = tried(ready, ACCEPTED, DELIVERED)
    assert arrived
    assert [line[:2] for line in said[:4]] == ["1.", "2.", "3.", "4."]
    text = "\n".join(said)
    assert "the webhook endpoint answers 200" in text
    assert "webhook  stripe accepted 200" in text
    assert "job  stripe delivered 202" in text
    assert OLD not in text


def test_a_refusal_at_the_door_says_what_to_do(ready: Deployed) -> None:
    arrived, said = tried(ready, status=401, answer={"error": "signature_wrong"})
    assert not arrived
    assert "signature_wrong" in said[1]
    assert "The secret in the stack is not the one" in said[2]


@pytest.mark.parametrize(
    ("became", "words"),
    [
        ({"accepted": 0, "ignored": "no flow needs it"}, "deliberately not relayed"),
        ({"parked": [{"index": None, "reason": "not_json"}]}, "parked (not_json). To list what is parked:"),
        ({"challenge": "1"}, "No event came of it"),
    ],
)
def test_what_became_of_an_authentic_sample_is_told_by_the_answers_document(
    ready: Deployed, became: dict[str, Any], words: str
) -> None:
    arrived, said = tried(ready, answer={"accepted": 0, "event_ids": []} | became)
    assert not arrived
    assert words in said[-1]


def test_a_sample_whose_sender_gets_no_document_is_followed_all_the_same(fresh: Deployed) -> None:
    fresh.write("SourcesSecretName", {"twilio": [OLD]})
    said: list[str] = []

    def post(sent: Payload, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        (event_id,) = preview.event_ids(204, {}, preview.preview_request("twilio", sent, time.time()))
        log(fresh, "DeliverLogGroup", event_ids=[event_id], **DELIVERED[1])
        return 204, ""

    assert Trial(fresh, said.append, post, sleep=lambda _: time.sleep(0.05), seconds=3).run("twilio"), said


def test_a_refusal_of_klaviyos_names_the_next_step(ready: Deployed) -> None:
    refused = {"message": "job", "outcome": "configuration", "status": 401, "reason": "key_refused"}
    arrived, said = tried(ready, ACCEPTED, ("DeliverLogGroup", refused))
    assert not arrived
    assert "key_refused" in said[-2]
    assert "make check STACK=relay" in said[-1]


def test_no_answer_in_time_is_no_success_and_the_last_deferral_is_shown(ready: Deployed) -> None:
    deferred = {"message": "deferred", "reason": "no_key: the Klaviyo secret holds none", "cause": "NoSlot"}
    log(ready, "DeliverLogGroup", **deferred, sources={"stripe": 1})
    arrived, said = tried(ready, ACCEPTED)
    assert not arrived
    assert said[-1].startswith("no answer of Klaviyo's within 3 s")
    assert "no_key" in said[-1]


def test_the_real_thing_is_followed_too(stack: Stack) -> None:
    said: list[str] = []

    def post(sent: Payload, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        parts = urlsplit(url)
        target = urlsplit(stack.url("x"))._replace(path=parts.path, query=parts.query).geturl()
        status, answer = stack.post(target, body, headers, method=sent.method)
        return status, json.dumps(answer)

    found = deployed.find(NAME, stack.aws.client)
    assert Trial(found, said.append, post, sleep=lambda _: time.sleep(0.2)).run("stripe"), said
    (event,) = stack.arrived()
    groups = [stack.outputs["ReceiveLogGroup"], stack.outputs["DeliverLogGroup"]]
    lines = logs.matching(found.client("logs"), groups, event["unique_id"])
    assert [line["message"] for line in lines] == ["webhook", "job"]
    # The questions of the runbook, by the webhook's own id and the event's at the sender.
    relay = logs.Relay(stack.aws.client, stack.outputs, stack.parameters)
    for words in (lines[0]["webhook_id"], event["unique_id"].split(":")[-1]):
        told = list(logs.answers(relay, logs.options(["--id", words])))
        assert told[-1].startswith(f"{event['unique_id']}: delivered at ")
    stack.post(stack.url("stripe"), b"{}", {})
    told = list(logs.answers(relay, logs.options(["--refused", "--source", "stripe"])))
    assert "signature_missing" in told[0]
    told = list(logs.answers(relay, logs.options(["--rate"])))
    assert "JOBS OF " in told[0]
    assert told[1].startswith("keeping up: ")


def test_without_a_secret_nothing_is_sent(fresh: Deployed) -> None:
    for source in ("stripe", None):
        with pytest.raises(ValueError, match="make secrets STACK=relay"):
            Trial(fresh, print, deployed.post).run(source)


def test_a_stack_that_is_none_is_named(bare: aws.Aws) -> None:
    with pytest.raises(ValueError, match="no stack 'nowhere'"):
        deployed.find("nowhere", bare.client)


def test_a_secret_joins_the_others_and_is_shown_to_nobody(fresh: Deployed) -> None:
    said: list[str] = []
    fresh.write("SourcesSecretName", {"shopify": "kept"})
    typed = iter([f" {OLD}\n", NEW])
    for _ in range(2):
        deployed.write_source(fresh, "stripe", lambda _: next(typed), lambda _: "", said.append)
    deployed.write_key(fresh, lambda _: "pk_typed_in", said.append)
    deployed.write_key(fresh, lambda _: "", said.append)
    assert fresh.secret("SourcesSecretName") == {"shopify": "kept", "stripe": [NEW, OLD]}
    assert fresh.secret("KlaviyoSecretName") == {"api_key": "pk_typed_in"}
    shown = deployed.overview(fresh) + "".join(said)
    assert "shopify (1), stripe (2)" in shown
    assert not [secret for secret in (OLD, NEW, "kept", "pk_typed_in") if secret in shown]


def test_an_old_secret_goes_when_it_is_said_so(fresh: Deployed) -> None:
    fresh.write("SourcesSecretName", {"stripe": [NEW, OLD]})
    deployed.write_source(fresh, "stripe", lambda _: NEW, lambda _: "n", print)
    assert fresh.secret("SourcesSecretName") == {"stripe": [NEW]}


@pytest.mark.parametrize(("source", "typed"), [("strpe", NEW), ("standard_webhooks", "whsec_***")])
def test_a_secret_that_could_not_work_is_not_written(fresh: Deployed, source: str, typed: str) -> None:
    with pytest.raises(ValueError, match=source) as error:
        deployed.write_source(fresh, source, lambda _: typed, lambda _: "", print)
    assert typed not in str(error.value)
    assert fresh.secret("SourcesSecretName") == {}


def test_a_check_names_what_a_deployment_lacks(fresh: Deployed) -> None:
    fresh.write("SourcesSecretName", {"strpe": []})
    dead_letters = {"QueueUrl": fresh.outputs["DeadLetterQueueUrl"]}
    fresh.client("sqs").send_message(**dead_letters, MessageBody="{}")
    free = fresh.client("lambda").get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    crowded = replace(fresh, parameters=fresh.parameters | {"MaximumConcurrency": str(free - 10)})
    text = "\n".join(deployed.warnings(crowded))
    for words in ("leaves 10 for webhooks", "holds no key", "no source has a secret", "'strpe'", "1 message(s)"):
        assert words in text
    reserved = replace(crowded, parameters=crowded.parameters | {"ReceiveReservedConcurrency": "50"})
    assert "for webhooks" not in "\n".join(deployed.warnings(reserved))
    fresh.client("sqs").purge_queue(**dead_letters)


@pytest.mark.parametrize(("name", "options"), [("plain", {}), ("second", {"PacingTable": "x"}), ("full", EVERYTHING)])
def test_the_template_deploys_with_all_its_resources(bare: aws.Aws, name: str, options: dict[str, Any]) -> None:
    template, left_out = aws.translate(aws.ROOT / "template.yaml", {})
    aws.deploy(bare, name, template, {parameter: str(value) for parameter, value in options.items()})
    pages = bare.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=name)
    made = {one["LogicalResourceId"]: one for page in pages for one in page["StackResourceSummaries"]}
    wanted = reading.resources(**options)
    assert {one["ResourceStatus"] for one in made.values()} == {"CREATE_COMPLETE"}
    assert wanted.keys() - made.keys() == left_out.keys()
    assert {one["Type"] for one in left_out.values()} == {
        "AWS::Logs::QueryDefinition",
        "AWS::Lambda::EventSourceMapping",
    }
    # MiniStack ignores the API's document: its three routes are resources of their own there.
    assert made.keys() - wanted.keys() == {
        f"WebhookApi{kind}{number}" for kind in ("Integration", "Route") for number in range(3)
    }


# -------------------------------------------------------------------- check
@pytest.fixture
def finished(ready: Deployed, trigger: str) -> Iterator[Deployed]:
    """A stack that lacks nothing."""
    ready.client("lambda").update_event_source_mapping(UUID=trigger, Enabled=True)
    yield ready
    ready.client("lambda").update_event_source_mapping(UUID=trigger, Enabled=False)


def test_a_check_of_a_finished_stack_finds_nothing(finished: Deployed) -> None:
    assert list(deployed.warnings(finished)) == []


def test_a_check_sees_that_the_trigger_is_disabled(finished: Deployed, trigger: str) -> None:
    finished.client("lambda").update_event_source_mapping(UUID=trigger, Enabled=False)
    (warning,) = deployed.warnings(finished)
    assert "Disabled, so nothing is delivered" in warning
    assert f"update-event-source-mapping --uuid {trigger} --enabled" in warning


def test_a_check_sees_that_nothing_takes_events(finished: Deployed) -> None:
    queue = finished.client("sqs").create_queue(QueueName="untouched")["QueueUrl"]
    untouched = replace(finished, outputs=finished.outputs | {"EventsQueueUrl": queue})
    (warning,) = deployed.warnings(untouched)
    assert "no function takes events" in warning


def test_a_check_sees_that_nobody_is_told(finished: Deployed) -> None:
    nobody = replace(finished, parameters=finished.parameters | {"AlarmEmail": ""})
    assert ["no AlarmEmail" in one for one in deployed.warnings(nobody)] == [True]
    other = replace(finished, parameters=finished.parameters | {"AlarmEmail": "other@relay.invalid"})
    (warning,) = deployed.warnings(other)
    assert "other@relay.invalid has not confirmed" in warning
    assert "--topic-arn arn:" in warning


def test_a_subscription_that_waits_for_its_confirmation_tells_nobody(finished: Deployed) -> None:
    # MiniStack takes every address as confirmed, so that AWS's answer before that is made up here.
    class Unconfirmed:
        def get_paginator(self, _: str) -> Unconfirmed:
            return self

        def paginate(self, **_: str) -> list[dict[str, Any]]:
            return [{"Subscriptions": [{"Endpoint": ADDRESS, "SubscriptionArn": "PendingConfirmation"}]}]

    def client(service: str) -> Any:
        return Unconfirmed() if service == "sns" else finished.client(service)

    (warning,) = deployed.warnings(replace(finished, client=client))
    assert f"{ADDRESS} has not confirmed" in warning


def test_a_check_names_the_alarms_that_are_on(finished: Deployed) -> None:
    watch = finished.client("cloudwatch")
    (name,) = (one["AlarmName"] for one in watch.describe_alarms(AlarmNamePrefix=f"{NAME}-NoKeyAlarm")["MetricAlarms"])
    watch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
    try:
        (warning,) = deployed.warnings(finished)
        assert f"alarm {name} is on: " in warning
        assert "docs/runbook.md#no-key" in warning
    finally:
        watch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="a test")


def test_a_check_sees_that_a_watched_source_cannot_be_right(finished: Deployed) -> None:
    parameters = finished.parameters | {"WatchedSource1": "stripe", "WatchedSource2": "Stripe"}
    (warning,) = deployed.warnings(replace(finished, parameters=parameters))
    assert "WatchedSource2 is 'Stripe'" in warning


def test_a_check_sees_that_too_few_webhooks_are_let_in(finished: Deployed) -> None:
    few = replace(finished, parameters=finished.parameters | {"ReceiveReservedConcurrency": "3"})
    (warning,) = deployed.warnings(few)
    assert "no more than 3 webhooks" in warning
