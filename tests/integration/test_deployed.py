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
from local import aws, deployed, logs, sign
from local.deployed import Deployed, Trial
from local.payload import Payload
from local.stack import NAME, Stack

OLD, NEW = (sign.development_secret(name, sources.load("stripe").schemes[0]) for name in ("old", "new"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[aws.Aws]:
    """The template deployed, and nothing that runs it."""
    with (tmp_path_factory.mktemp("deployed") / "log").open("wb") as log:
        cloud = aws.Aws(log)
        try:
            cloud.client("s3").create_bucket(Bucket=aws.BUCKET)
            cloud.client("s3").put_object(Bucket=aws.BUCKET, Key="code.zip", Body=aws.package())
            aws.deploy(cloud, NAME, aws.translate(aws.ROOT / "template.yaml", {})[0], {})
            yield cloud
        finally:
            cloud.close()


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


def tried(found: Deployed, *lines: tuple[str, dict[str, Any]], status: int = 202) -> tuple[bool, list[str]]:
    """What ``try`` says if the door answers ``status`` and the functions log ``lines``."""
    said: list[str] = []
    event_id = f"stripe:placed-order:{time.time_ns()}"

    def post(sent: Payload, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        assert "/webhooks/stripe" in url
        assert "stripe-signature" in headers
        assert sent.method == "POST"
        assert body
        for group, line in lines:
            log(found, group, event_ids=[event_id], **line)
        return status, json.dumps({"event_ids": [event_id]} if status == 202 else {"error": "signature_wrong"})

    trial = Trial(found, said.append, post, sleep=lambda _: time.sleep(0.05), seconds=3)
    return trial.run(None), said


ACCEPTED = ("ReceiveLogGroup", {"message": "webhook", "source": "stripe", "outcome": "accepted", "status": 202})
DELIVERED = ("DeliverLogGroup", {"message": "job", "sources": ["stripe"], "outcome": "delivered", "status": 202})


def test_a_sample_is_followed_to_klaviyos_answer(ready: Deployed) -> None:
    arrived, said = tried(ready, ACCEPTED, DELIVERED)
    assert arrived
    assert [line[:2] for line in said[:4]] == ["1.", "2.", "3.", "4."]
    text = "\n".join(said)
    assert "the door answers 202" in text
    assert "webhook  stripe accepted 202" in text
    assert "job  stripe delivered 202" in text
    assert OLD not in text


def test_a_refusal_at_the_door_says_what_to_do(ready: Deployed) -> None:
    arrived, said = tried(ready, status=401)
    assert not arrived
    assert "signature_wrong" in said[1]
    assert "the secret in the stack is not the one" in said[2]


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


def test_a_check_of_a_finished_stack_finds_nothing(ready: Deployed) -> None:
    finished = replace(ready, parameters=ready.parameters | {"AlarmEmail": "ops@relay.invalid"})
    assert list(deployed.warnings(finished)) == []
