"""The table of bad input, on the running stack."""

from __future__ import annotations

import json
import random
import time

import pytest
import urllib3

from handler import messages
from handler.messages import Raw
from local.stack import Stack
from tests.integration.support import custom, event, until
from tools.operate.logs import Reader
from tools.operate.target import Relay
from tools.senders import sign

JSON = {"content-type": "application/json"}


def signed(stack: Stack, source: str, body: bytes, now: float | None = None) -> dict[str, str]:
    secret = stack.secrets["sources"][source][0]
    return sign.sign(source, secret, body=body, headers=JSON, url=stack.url(source), now=now or time.time())[1]


def test_an_unknown_source_is_not_found(stack: Stack) -> None:
    status, answer = stack.post(stack.url("nobody"), b"{}", JSON)
    assert (status, answer["error"]) == (404, "unknown_source")


@pytest.mark.parametrize("header", ["", "t=,v1=", "v1=\x80", "t=1,v1=é", "t=99999999999999999999,v1=00", "=" * 4000])
def test_nothing_unsigned_gets_in(stack: Stack, header: str) -> None:
    headers = JSON | {"stripe-signature": header.encode("utf-8").decode("latin-1")}
    status, answer = stack.post(stack.url("stripe"), b'{"id":"evt_1"}', headers)
    assert status == 401
    assert answer["error"] in ("signature_missing", "signature_malformed", "signature_wrong")
    assert stack.waiting() == 0
    assert stack.parked() == []


@pytest.mark.parametrize(("age", "reason"), [(301, "timestamp_stale"), (-301, "timestamp_future")])
def test_old_and_future_signatures_are_refused(stack: Stack, age: int, reason: str) -> None:
    body = b'{"id":"evt_1"}'
    status, answer = stack.post(stack.url("stripe"), body, signed(stack, "stripe", body, time.time() - age))
    assert (status, answer["error"]) == (401, reason)


def test_an_altered_body_is_refused(stack: Stack) -> None:
    status, answer = stack.post(stack.url("stripe"), b'{"id":"evt_2"}', signed(stack, "stripe", b'{"id":"evt_1"}'))
    assert (status, answer["error"]) == (401, "signature_wrong")


@pytest.mark.parametrize(
    ("body", "reason"), [(b"{", "not_json"), (b'{"id":"\xff"}', "not_utf8")], ids=["cut", "not UTF-8"]
)
def test_an_authentic_webhook_that_cannot_be_read_is_parked_as_it_came(stack: Stack, body: bytes, reason: str) -> None:
    # As bytes: what the platform takes for text it hands over as text, with other bytes than were signed.
    status, answer = stack.send("custom", body, {"content-type": "application/octet-stream"})
    assert (status, [item["reason"] for item in answer["parked"]]) == (200, [reason])
    (parked,) = stack.parked()
    assert parked["reason"] == reason
    raw = messages.decode(parked["body"])
    assert isinstance(raw, Raw)
    assert raw.body == body


def test_what_no_message_could_hold_is_refused(stack: Stack) -> None:
    dense = random.Random(1).randbytes(900_000).hex()  # noqa: S311 (incompressible text, no secret)
    status, answer = custom(stack, event("dense", properties={"dense": dense}))
    assert (status, answer["error"]) == (413, "too_large")


def test_what_lambdas_event_cannot_hold_never_reaches_receive(stack: Stack) -> None:
    since = time.time() - 1
    relay = Reader(Relay(stack.aws.client, stack.outputs, stack.parameters), since)
    headers = {"content-type": "application/x-www-form-urlencoded"}
    status, answer = stack.send("custom", b"a" * 4_800_000, headers)
    assert (status, answer) == (413, {"message": "Request Entity Too Large"})
    stack.send("custom", b"[" * 12_345, headers)

    def sizes() -> set[int]:
        return {line["bytes"] for line in relay.lines("ReceiveLogGroup", kind="webhook")}

    in_base64 = 12_345 * 4 // 3
    until(lambda: in_base64 in sizes(), "the line of the smaller webhook, which came later")
    assert max(sizes()) < 4_800_000


def test_a_topic_that_is_not_relayed_is_counted_and_left(stack: Stack) -> None:
    body = json.dumps({"id": "evt_1", "type": "setup_intent.created", "data": {"object": {"id": "seti_1"}}}).encode()
    status, answer = stack.send("stripe", body, JSON)
    assert status == 200
    assert answer["ignored"]
    assert stack.waiting() == 0


def test_an_authentic_webhook_without_identifier_is_parked_raw_with_the_reason(stack: Stack) -> None:
    body = json.dumps({"id": "evt_1", "type": "customer.created", "data": {"object": {"name": "Ada"}}}).encode()
    status, answer = stack.send("stripe", body, JSON)
    assert (status, answer["accepted"]) == (200, 0)
    (parked,) = stack.parked()
    assert parked["reason"] == "no_identifier"
    assert parked["source"] == "stripe"
    assert json.loads(parked["body"].split("\n")[0])["kind"] == "raw"


def test_a_body_that_comes_as_bytes_is_verified_byte_for_byte(stack: Stack) -> None:
    body = json.dumps([event("bytes", properties={"name": "Zoë ☕ \U0001f600"})], ensure_ascii=False).encode()
    headers = {"content-type": "application/octet-stream"}
    status, _ = stack.send("custom", body, headers)
    assert status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_url_checks_are_answered(stack: Stack, method: str) -> None:
    assert urllib3.request(method, stack.url("stripe"), retries=False).status == 200


def test_unreadable_secrets_make_the_sender_retry() -> None:
    with Stack(environment={"SOURCES_SECRET": "there-is-none"}, deliver=False) as stack:
        status, answer = custom(stack, event("waits"))
        assert (status, answer["error"]) == (503, "secret_unreadable")


def test_a_queue_that_is_away_makes_the_sender_retry() -> None:
    with Stack(deliver=False) as stack:
        stack.aws.client("sqs").delete_queue(QueueUrl=stack.outputs["EventsQueueUrl"])
        status, answer = custom(stack, event("waits"))
        assert (status, answer["error"]) == (503, "unavailable")
