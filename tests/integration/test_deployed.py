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

from handler.events import senders
from local import aws
from local.stack import NAME, Stack
from sim.cloudwatch import Alarm, CloudWatch
from sim.functions import Function, Functions
from sim.topics import PENDING, Topics
from tests.template.conftest import EVERYTHING
from tools import commands
from tools import template as reading
from tools.errors import CommandError
from tools.operate import doctor, logs, samconfig, secrets, target, trial
from tools.operate.logs import Reader
from tools.operate.target import Deployed, Relay
from tools.operate.trial import Trial
from tools.senders import preview, sign
from tools.senders.payload import Payload

ADDRESS = "ops@relay.invalid"
OLD, NEW = (f"whsec_{sign.development_secret(name, senders.load('stripe').schemes[0])}" for name in ("old", "new"))


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
        listed["FunctionName"]
        for listed in bare.client("lambda").list_functions()["Functions"]
        if listed["FunctionName"].startswith(f"{NAME}-DeliverFunction")
    )
    queue = {"QueueUrl": target.find(NAME, bare.client).outputs["EventsQueueUrl"], "AttributeNames": ["QueueArn"]}
    arn = bare.client("sqs").get_queue_attributes(**queue)["Attributes"]["QueueArn"]
    mapping = bare.client("lambda").create_event_source_mapping(
        EventSourceArn=arn, FunctionName=function, Enabled=False
    )
    return str(mapping["UUID"])


@pytest.fixture
def fresh(bare: aws.Aws) -> Deployed:
    """The stack with two secrets as a deployment leaves them."""
    deployed = target.find(NAME, bare.client)
    manager, outputs = deployed.client("secretsmanager"), dict(deployed.outputs)
    for output in ("SourcesSecretName", "KlaviyoSecretName"):
        outputs[output] = manager.create_secret(Name=f"{output}-{time.time_ns()}", SecretString="{}")["ARN"]
    return replace(deployed, outputs=outputs)


@pytest.fixture
def ready(fresh: Deployed) -> Deployed:
    fresh.write("SourcesSecretName", {"stripe": [OLD]})
    fresh.write("KlaviyoSecretName", {"api_key": "pk_one"})
    return fresh


def log(deployed: Deployed, group: str, **line: Any) -> None:
    """One line as the functions log it."""
    client, name = deployed.client("logs"), f"stream-{time.time_ns()}"
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    client.create_log_stream(logGroupName=deployed.outputs[group], logStreamName=name)
    client.put_log_events(
        logGroupName=deployed.outputs[group],
        logStreamName=name,
        logEvents=[{"timestamp": int(time.time() * 1000), "message": json.dumps({"timestamp": at} | line)}],
    )


def tried(
    deployed: Deployed,
    *lines: tuple[str, dict[str, Any]],
    status: int = 200,
    answer: dict[str, Any] | None = None,
    seconds: float = 60,
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
            log(deployed, group, event_ids=[event_id], **line)
        return status, json.dumps({"accepted": 1, "event_ids": [event_id]} if answer is None else answer)

    attempt = Trial(deployed, said.append, post, sleep=lambda _: time.sleep(0.05), seconds=seconds)
    return attempt.run(None), said


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
        ({"challenge": "1"}, "No event was made of it"),
    ],
)
def test_the_answers_document_says_what_became_of_an_authentic_sample(
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

    assert Trial(fresh, said.append, post, sleep=lambda _: time.sleep(0.05), seconds=60).run("twilio"), said


def test_a_refusal_of_klaviyos_names_the_next_step(ready: Deployed) -> None:
    refused = {"message": "job", "outcome": "configuration", "status": 401, "reason": "key_refused"}
    arrived, said = tried(ready, ACCEPTED, ("DeliverLogGroup", refused))
    assert not arrived
    assert "key_refused" in said[-2]
    assert "make check STACK=relay" in said[-1]


def test_no_answer_in_time_is_no_success_and_the_last_deferral_is_shown(ready: Deployed) -> None:
    deferred = {"message": "deferred", "reason": "no_key: the Klaviyo secret holds none", "cause": "NoSlot"}
    log(ready, "DeliverLogGroup", **deferred, sources={"stripe": 1})
    arrived, said = tried(ready, ACCEPTED, seconds=3)
    assert not arrived
    assert said[-1].startswith("Timed out after 3 s waiting for Klaviyo")
    assert "no_key" in said[-1]


def test_the_real_thing_is_followed_too(stack: Stack) -> None:
    said: list[str] = []

    def post(sent: Payload, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        parts = urlsplit(url)
        local = urlsplit(stack.url("x"))._replace(path=parts.path, query=parts.query).geturl()
        status, answer = stack.post(local, body, headers, method=sent.method)
        return status, json.dumps(answer)

    deployed = target.find(NAME, stack.aws.client)
    assert Trial(deployed, said.append, post, sleep=lambda _: time.sleep(0.2)).run("stripe"), said
    (event,) = stack.arrived()
    groups = [stack.outputs["ReceiveLogGroup"], stack.outputs["DeliverLogGroup"]]
    lines = logs.matching(deployed.client("logs"), groups, event["unique_id"])
    assert [line["message"] for line in lines] == ["webhook", "job"]
    # The questions of the runbook, by the webhook's own id and the event's at the sender.
    reader = Reader(Relay(stack.aws.client, stack.outputs, stack.parameters))
    for words in (lines[0]["webhook_id"], event["unique_id"].split(":")[-1]):
        printed = list(logs.answers(reader, commands.parser("logs")[0].parse_args(["--id", words])))
        assert printed[-1].startswith(f"{event['unique_id']}: delivered at ")
    stack.post(stack.url("stripe"), b"{}", {})
    printed = list(logs.answers(reader, commands.parser("logs")[0].parse_args(["--refused", "--source", "stripe"])))
    assert "signature_missing" in printed[1]
    printed = list(logs.answers(reader, commands.parser("logs")[0].parse_args(["--rate"])))
    assert "JOBS OF " in printed[0]
    # A line for each minute in which there were jobs, one or two, comes before it.
    assert any(line.startswith("keeping up: ") for line in printed)


def test_without_a_secret_nothing_is_sent(fresh: Deployed) -> None:
    for source in ("stripe", None):
        with pytest.raises(CommandError, match="make secrets STACK=relay"):
            Trial(fresh, print, trial.post).run(source)


def test_a_stack_that_is_none_is_named(bare: aws.Aws) -> None:
    with pytest.raises(CommandError, match="No stack 'nowhere'"):
        target.find("nowhere", bare.client)


def test_a_secret_joins_the_others_and_is_shown_to_nobody(fresh: Deployed) -> None:
    said: list[str] = []
    fresh.write("SourcesSecretName", {"shopify": "kept"})
    typed = iter([f" {OLD}\n", NEW])
    for _ in range(2):
        secrets.write_source(fresh, "stripe", lambda _: next(typed), lambda _: "", said.append)
    secrets.write_key(fresh, lambda _: "pk_typed_in", said.append)
    secrets.write_key(fresh, lambda _: "", said.append)
    assert fresh.secret("SourcesSecretName") == {"shopify": "kept", "stripe": [NEW, OLD]}
    assert fresh.secret("KlaviyoSecretName") == {"api_key": "pk_typed_in"}
    shown = secrets.overview(fresh) + "".join(said)
    assert "shopify (1), stripe (2)" in shown
    assert not [secret for secret in (OLD, NEW, "kept", "pk_typed_in") if secret in shown]


def test_an_old_secret_goes_when_it_is_said_so(fresh: Deployed) -> None:
    fresh.write("SourcesSecretName", {"stripe": [NEW, OLD]})
    secrets.write_source(fresh, "stripe", lambda _: NEW, lambda _: "n", print)
    assert fresh.secret("SourcesSecretName") == {"stripe": [NEW]}


def test_a_secret_of_two_sources_is_written_with_a_warning_that_shows_nothing_of_it(
    fresh: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    fresh.write("SourcesSecretName", {"stripe": [NEW]})
    secrets.write_source(fresh, "resend", lambda _: NEW, lambda _: "", said.append)
    assert fresh.secret("SourcesSecretName") == {"stripe": [NEW], "resend": [NEW]}
    warned = capsys.readouterr().err
    assert warned.startswith("warning: resend and stripe list the same secret")
    assert any("resend and stripe list the same secret" in warning for warning in doctor.warnings(fresh))
    assert NEW not in "".join([*said, warned, *doctor.warnings(fresh)])


@pytest.mark.parametrize(
    ("source", "typed"),
    [
        ("strpe", NEW),
        ("standard_webhooks", "whsec_***"),
        ("stripe", "sk_live_51Qrelay"),
        ("sendgrid", "SG.Qrelay.key"),
        ("twilio", "token:anything"),
        ("freshdesk", "password-alone"),
    ],
)
def test_a_secret_that_could_not_work_is_not_written(fresh: Deployed, source: str, typed: str) -> None:
    with pytest.raises(CommandError, match=source) as error:
        secrets.write_source(fresh, source, lambda _: typed, lambda _: "", print)
    assert typed not in str(error.value)
    assert fresh.secret("SourcesSecretName") == {}


@pytest.mark.parametrize(
    ("source", "typed"), [("twilio", "0123456789abcdef" * 2), ("clerk", "C2FVsBQIhrscChlQIMV+b5s")]
)
def test_a_secret_in_any_spelling_that_works_is_written(fresh: Deployed, source: str, typed: str) -> None:
    secrets.write_source(fresh, source, lambda _: typed, lambda _: "", print)
    assert fresh.secret("SourcesSecretName") == {source: [typed]}


def test_a_refused_secret_says_what_is_expected_and_what_to_do(fresh: Deployed) -> None:
    with pytest.raises(CommandError, match="Not a secret of stripe: expected the signing secret") as error:
        secrets.write_source(fresh, "stripe", lambda _: "rk_live_1", lambda _: "", print)
    assert f"Nothing was written. Enter the right one with: make secrets STACK={NAME} SOURCE=stripe" in str(error.value)


def test_a_check_names_what_a_deployment_lacks(fresh: Deployed) -> None:
    fresh.write("SourcesSecretName", {"strpe": []})
    dead_letters = {"QueueUrl": fresh.outputs["DeadLetterQueueUrl"]}
    fresh.client("sqs").send_message(**dead_letters, MessageBody="{}")
    free = fresh.client("lambda").get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    crowded = replace(fresh, parameters=fresh.parameters | {"MaximumConcurrency": str(free - 10)})
    text = "\n".join(doctor.warnings(crowded))
    for words in ("leaves 10 for webhooks", "has no `api_key`", "No source has a secret", "'strpe'", "1 message(s)"):
        assert words in text
    reserved = replace(crowded, parameters=crowded.parameters | {"ReceiveReservedConcurrency": "50"})
    assert "for webhooks" not in "\n".join(doctor.warnings(reserved))
    fresh.client("sqs").purge_queue(**dead_letters)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain", {}),
        ("second", {"PacingTable": "x"}),
        ("least", {"Monitoring": "essential"}),
        ("everything", EVERYTHING),
    ],
)
def test_the_template_deploys_with_all_its_resources(bare: aws.Aws, name: str, options: dict[str, Any]) -> None:
    template, left_out = aws.translate(aws.ROOT / "template.yaml", {})
    aws.deploy(bare, name, template, {parameter: str(value) for parameter, value in options.items()})
    pages = bare.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=name)
    created = {resource["LogicalResourceId"]: resource for page in pages for resource in page["StackResourceSummaries"]}
    wanted = reading.resources(**options)
    assert {resource["ResourceStatus"] for resource in created.values()} == {"CREATE_COMPLETE"}
    assert wanted.keys() - created.keys() == left_out.keys() & wanted.keys()
    assert {resource["Type"] for resource in left_out.values()} == {
        "AWS::Logs::QueryDefinition",
        "AWS::Lambda::EventSourceMapping",
        "AWS::CloudWatch::Alarm",
        "AWS::Budgets::Budget",
    }
    # MiniStack ignores the API's document: its three routes are resources of their own there.
    assert created.keys() - wanted.keys() == {
        f"WebhookApi{kind}{number}" for kind in ("Integration", "Route") for number in range(3)
    }


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("RequestsPerMinute", "1.5", "a whole number from 1 to 150"),
        ("MaximumConcurrency", "1", "a whole number from 2 to 1000"),
        ("TimeZone", "+02:00", "an IANA time zone"),
        ("ThrottleRate", "0", "a whole number from 1 to 10000"),
        ("MonthlyBudget", "-1", "a whole number of dollars"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_is_made(
    bare: aws.Aws, parameter: str, value: str, expected: str
) -> None:
    template, _ = aws.translate(aws.ROOT / "template.yaml", {})
    with pytest.raises(CommandError, match=f"{parameter}.*must be {expected}"):
        aws.deploy(bare, "refused", template, {parameter: value})
    with pytest.raises(CommandError, match="No stack 'refused'"):
        target.find("refused", bare.client)


# -------------------------------------------------------------------- check
def physical(deployed: Deployed, logical: str) -> str:
    """The id of a resource of the stack."""
    resource = {"StackName": deployed.name, "LogicalResourceId": logical}
    answer = deployed.client("cloudformation").describe_stack_resource(**resource)
    return str(answer["StackResourceDetail"]["PhysicalResourceId"])


def instead(deployed: Deployed, **clients: Any) -> Deployed:
    """The stack with these clients, by service, instead of MiniStack's."""
    return replace(deployed, client=lambda service: clients.get(service) or deployed.client(service))


def allow_loops(deployed: Deployed, setting: str) -> str:
    """Set deliver's RecursiveLoop, which MiniStack does not take from the template; returns deliver's name."""
    name = physical(deployed, "DeliverFunction")
    deployed.client("lambda").put_function_recursion_config(FunctionName=name, RecursiveLoop=setting)
    return name


@pytest.fixture
def finished(ready: Deployed, trigger: str) -> Iterator[Deployed]:
    """A stack that lacks nothing."""
    ready.client("lambda").update_event_source_mapping(UUID=trigger, Enabled=True)
    allow_loops(ready, "Allow")
    yield ready
    ready.client("lambda").update_event_source_mapping(UUID=trigger, Enabled=False)


def test_a_check_of_a_finished_stack_finds_nothing(finished: Deployed) -> None:
    assert list(doctor.warnings(finished)) == []


def test_a_check_reports_a_disabled_trigger(finished: Deployed, trigger: str) -> None:
    finished.client("lambda").update_event_source_mapping(UUID=trigger, Enabled=False)
    (warning,) = doctor.warnings(finished)
    assert "is disabled; no events are being delivered" in warning
    assert f"update-event-source-mapping --uuid {trigger} --enabled" in warning


def test_a_check_reports_that_no_trigger_takes_events(finished: Deployed) -> None:
    queue = finished.client("sqs").create_queue(QueueName="untouched")["QueueUrl"]
    untouched = replace(finished, outputs=finished.outputs | {"EventsQueueUrl": queue})
    (warning,) = doctor.warnings(untouched)
    assert "No SQS trigger reads the events queue" in warning


def test_a_check_reports_that_nobody_is_notified(finished: Deployed) -> None:
    nobody = replace(finished, parameters=finished.parameters | {"AlarmEmail": ""})
    assert ["AlarmEmail is not set" in warning for warning in doctor.warnings(nobody)] == [True]
    other = replace(finished, parameters=finished.parameters | {"AlarmEmail": "other@relay.invalid"})
    (warning,) = doctor.warnings(other)
    assert "other@relay.invalid has not confirmed" in warning
    assert "--topic-arn arn:" in warning


def test_a_subscription_that_waits_for_its_confirmation_notifies_nobody(finished: Deployed) -> None:
    # MiniStack takes every address as confirmed.
    topics = Topics({physical(finished, "AlarmTopic"): {ADDRESS: PENDING}})
    (warning,) = doctor.warnings(instead(finished, sns=topics))
    assert f"{ADDRESS} has not confirmed" in warning


def test_a_check_names_the_alarms_that_are_on(finished: Deployed) -> None:
    watch = finished.client("cloudwatch")
    (name,) = (
        alarm["AlarmName"] for alarm in watch.describe_alarms(AlarmNamePrefix=f"{NAME}-NoKeyAlarm")["MetricAlarms"]
    )
    watch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
    try:
        (warning,) = doctor.warnings(finished)
        assert f"Alarm {name} is on: " in warning
        assert "docs/runbook.md#no-key" in warning
    finally:
        watch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="a test")


def last_actions(deployed: Deployed, *actions: dict[str, Any]) -> Deployed:
    """The stack with an alarm for each of these last actions, of which MiniStack keeps none."""
    alarms = (Alarm(f"{NAME}-{number}", last=action) for number, action in enumerate(actions))
    return instead(deployed, cloudwatch=CloudWatch(*alarms))


SENT = {"actionState": "Succeeded", "notificationResource": "arn:aws:sns:eu-west-1:111122223333:alarms"}
UNSENT = SENT | {
    "actionState": "Failed",
    "error": "CloudWatch Alarms does not have authorization to access the SNS topic encryption key.",
}


def test_a_check_reports_alarms_that_cannot_be_sent(finished: Deployed) -> None:
    (warning,) = doctor.warnings(last_actions(finished, SENT, UNSENT, UNSENT))
    assert "The last message of 2 alarm(s) could not be sent" in warning
    assert UNSENT["error"] in warning
    assert "docs/settings.md#a-key-of-your-own" in warning
    assert f"set-alarm-state --alarm-name {NAME}-" in warning


def test_alarms_that_were_sent_are_no_matter(finished: Deployed) -> None:
    assert list(doctor.warnings(last_actions(finished, SENT, SENT))) == []


def test_a_check_names_an_invalid_time_zone(finished: Deployed) -> None:
    wrong = replace(finished, parameters=finished.parameters | {"TimeZone": "Europe/Pariss"})
    (warning,) = doctor.warnings(wrong)
    assert warning.startswith("TimeZone: 'Europe/Pariss' is not an IANA time zone")
    assert f"sam deploy --stack-name {NAME} --parameter-overrides TimeZone=" in warning
    good = replace(finished, parameters=finished.parameters | {"TimeZone": "Europe/Paris"})
    assert list(doctor.warnings(good)) == []


def test_a_check_names_a_watched_source_that_cannot_be_right(finished: Deployed) -> None:
    parameters = finished.parameters | {"WatchedSource1": "stripe", "WatchedSource2": "Stripe"}
    (warning,) = doctor.warnings(replace(finished, parameters=parameters))
    assert "WatchedSource2 is 'Stripe'" in warning


def test_a_check_reports_a_reservation_that_is_too_low(finished: Deployed) -> None:
    few = replace(finished, parameters=finished.parameters | {"ReceiveReservedConcurrency": "3"})
    (warning,) = doctor.warnings(few)
    assert "limits receive to 3 webhooks" in warning


def test_a_check_reports_that_lambda_would_stop_what_waits(finished: Deployed) -> None:
    name = allow_loops(finished, "Terminate")
    (warning,) = doctor.warnings(finished)
    assert "stops deliver after about 16 rounds" in warning
    assert f"aws lambda put-function-recursion-config --function-name {name} --recursive-loop Allow" in warning
    assert "lambda:PutFunctionRecursionConfig" in warning


def quota(deployed: Deployed, total: int, unreserved: int, **parameters: str) -> Deployed:
    """The stack in an account of that many functions at a time; MiniStack has a limit of its own."""
    queue = {"QueueUrl": deployed.outputs["EventsQueueUrl"], "AttributeNames": ["QueueArn"]}
    arn = deployed.client("sqs").get_queue_attributes(**queue)["Attributes"]["QueueArn"]
    deliver = Function(physical(deployed, "DeliverFunction"), queue=arn, loops="Allow")
    stack = instead(deployed, **{"lambda": Functions(deliver, total=total, unreserved=unreserved)})
    return replace(stack, parameters=deployed.parameters | parameters)


@pytest.mark.parametrize("total", [10, 50])
def test_a_check_never_suggests_a_reservation_that_aws_refuses(finished: Deployed, total: int) -> None:
    (warning,) = doctor.warnings(quota(finished, total, total, MaximumConcurrency=str(total - 5)))
    assert "leaves 5 for webhooks" in warning
    assert "Lower MaximumConcurrency" in warning
    assert f"ReceiveReservedConcurrency cannot help: AWS refuses what leaves fewer than {total}" in warning


def test_a_check_says_how_much_a_crowded_account_can_reserve(finished: Deployed) -> None:
    (warning,) = doctor.warnings(quota(finished, 1000, 300, MaximumConcurrency="290"))
    assert "Or set ReceiveReservedConcurrency, to 200 at most" in warning


@pytest.mark.parametrize(("total", "unreserved", "possible"), [(10, 10, 0), (50, 50, 0), (100, 100, 0), (150, 150, 50)])
def test_a_reservation_that_aws_would_refuse_is_found_before_it_is_deployed(
    finished: Deployed, total: int, unreserved: int, possible: int
) -> None:
    name = "ReceiveReservedConcurrency"
    small = quota(finished, total, unreserved, MaximumConcurrency="2")
    for wanted, refused in ((possible, False), (possible + 1, True)):
        saved = samconfig.Saved("default", "", {name: str(wanted)}, {name: 7})
        reservations = [
            warning for warning in doctor.warnings(replace(small, saved=saved)) if "AWS refuses what" in warning
        ]
        named = [
            warning for warning in reservations if warning.startswith(f"{name} in samconfig.toml:7 reserves {wanted}")
        ]
        assert bool(named) is refused
    assert not refused or f"this account can reserve {possible}" in named[0]


def test_what_is_reserved_already_is_not_counted_twice(finished: Deployed) -> None:
    fine = quota(finished, 1000, 100, ReceiveReservedConcurrency="900", MaximumConcurrency="5")
    assert list(doctor.warnings(fine)) == []


def test_a_check_says_first_whether_all_is_well(finished: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.report(finished) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "OK: no problems found",
        f"note: not at the template's defaults: AlarmEmail={ADDRESS}",
    ]
    assert said.err == ""
    assert doctor.report(replace(finished, parameters=finished.parameters | {"AlarmEmail": ""})) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == ["relay: 1 problem(s) found"]
    assert said.err.startswith("warning: AlarmEmail is not set")


def test_a_check_compares_the_parameters_with_the_template(finished: Deployed) -> None:
    old = replace(finished, parameters=finished.parameters | {"KlaviyoRevision": "2025-01-15"})
    (warning,) = doctor.warnings(old)
    assert warning.startswith("KlaviyoRevision is 2025-01-15 in the deployed stack")
