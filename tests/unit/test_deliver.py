"""The whole delivery function, with AWS and Klaviyo in memory: nothing is acknowledged before its time."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from handler import messages, telemetry
from handler.delivery import redriven
from handler.delivery.klaviyo import Answer
from handler.events import mapping
from handler.messages import Message, Raw
from tests.unit.fakes_delivery import Clock, Klaviyo, Table, deliver, event

SECRET_WORDS = ("mail.example", "pk_one")


class Queue:
    """SQS in memory; ``down`` names the queues that cannot be reached."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.deleted: list[str] = []
        self.down: set[str] = set()

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        if QueueUrl in self.down:
            raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, "SendMessageBatch")
        self.sent += [(QueueUrl, entry) for entry in Entries]
        return {}

    def delete_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        self.deleted += [entry["ReceiptHandle"] for entry in Entries]
        return {}

    def to(self, queue: str) -> list[dict[str, Any]]:
        return [entry for url, entry in self.sent if url == queue]


class World:
    """The function and its surroundings."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.queue = Queue()
        self.klaviyo = Klaviyo(self.clock)
        self._handler = deliver(sqs=self.queue, table=Table(), poster=self.klaviyo, clock=self.clock)

    def deliver(self, *records: dict[str, Any]) -> list[str]:
        """The records that stay in the queue."""
        context = SimpleNamespace(get_remaining_time_in_millis=lambda: 120_000, aws_request_id="r-1")
        answer = self._handler({"Records": list(records)}, context)
        return [one["itemIdentifier"] for one in answer["batchItemFailures"]]


@pytest.fixture
def world() -> World:
    return World()


def record(body: str, name: str, receives: int = 1, crashes: int = 0) -> dict[str, Any]:
    attributes = {"ApproximateReceiveCount": str(receives)}
    told = {"crashes": {"stringValue": str(crashes), "dataType": "String"}} if crashes else {}
    return {
        "messageId": name,
        "receiptHandle": f"receipt-{name}",
        "body": body,
        "attributes": attributes,
        "messageAttributes": told,
    }


def queued(name: str, *names: str, receives: int = 1, crashes: int = 0, **flags: Any) -> dict[str, Any]:
    message = Message("shop", tuple(event(one) for one in names or (name,)), 1_789_999_990.0, **flags)
    return record(messages.encode(message), name, receives, crashes)


def reasons(world: World) -> list[str]:
    return [entry["MessageAttributes"]["reason"]["StringValue"] for entry in world.queue.to("dead-letters")]


def test_delivered_records_are_acknowledged(world: World) -> None:
    assert world.deliver(queued("a"), queued("b")) == []
    assert sorted(world.klaviyo.stored) == ["a", "b"]
    assert len(world.klaviyo.requests) == 1
    assert not world.queue.sent


def test_what_klaviyo_does_not_take_now_is_sent_anew_together(world: World) -> None:
    world.klaviyo.told = lambda names: world.klaviyo.answer(429, Retry_After="300")
    assert world.deliver(queued("a"), queued("b")) == []
    (entry,) = world.queue.to("events")
    assert 300 <= entry["DelaySeconds"] <= 330
    body = messages.decode(entry["MessageBody"])
    assert [one.unique_id for one in body.events] == ["a", "b"] if isinstance(body, Message) else False


def test_what_cannot_be_sent_anew_stays_and_the_delivered_do_not(world: World) -> None:
    world.klaviyo.bad = {"bad"}
    world.queue.down = {"events", "dead-letters"}
    assert world.deliver(queued("a"), queued("bad")) == ["bad"]
    world.klaviyo.told = lambda names: world.klaviyo.answer(429, Retry_After="300")
    assert sorted(world.deliver(queued("a"), queued("b"))) == ["a", "b"]


def resent(capsys: pytest.CaptureFixture[str]) -> float:
    lines = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    return sum(sum(line.get("Resent", [])) for line in lines)


def test_each_message_that_is_sent_again_is_counted(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deliver(queued("delivered"))
    assert resent(capsys) == 0
    world.deliver(queued("one", crashes=2), queued("two", crashes=2), queued("new"))
    assert resent(capsys) == 2 == len(world.queue.to("events"))
    world.klaviyo.told = lambda names: world.klaviyo.answer(429, Retry_After="300")
    world.deliver(queued("a"), queued("b", backfill=True))
    assert resent(capsys) == 2 == len(world.queue.to("events")) - 2


def test_a_refused_event_is_parked_with_its_reason_and_its_neighbours_go(world: World) -> None:
    world.klaviyo.bad = {"bad"}
    assert world.deliver(queued("m", "a", "bad", "b")) == []
    assert sorted(world.klaviyo.stored) == ["a", "b"]
    assert reasons(world) == ["refused_by_klaviyo"]


def test_garbage_is_parked_and_a_newer_format_waits(world: World) -> None:
    newer = record('{"v":9,"kind":"events"}', "newer")
    assert world.deliver(record("garbage", "garbage"), newer, queued("a")) == ["newer"]
    assert reasons(world) == ["unreadable_message"]
    assert world.klaviyo.stored == ["a"]


def test_a_suspected_crasher_is_alone_in_hand_before_it_is_touched(world: World) -> None:
    gone: list[str] = []

    def note(names: list[str]) -> None:
        gone.extend(world.queue.deleted)

    world.klaviyo.told = note
    assert world.deliver(queued("one", crashes=2), queued("two", crashes=2), queued("new")) == []
    assert world.klaviyo.stored == ["one"]
    assert sorted(gone) == ["receipt-new", "receipt-two"]
    accounts = [entry.get("MessageAttributes", {}).get("crashes") for entry in world.queue.to("events")]
    assert sorted(account["StringValue"] if account else "" for account in accounts) == ["", "2"]


def test_what_comes_back_from_being_handled_alone_is_parked(world: World) -> None:
    assert world.deliver(queued("x", receives=2, crashes=2), queued("a")) == []
    assert reasons(world) == ["crashed"]
    assert world.klaviyo.stored == ["a"]


def test_who_can_be_neither_handled_nor_sent_elsewhere_stays(world: World) -> None:
    world.queue.down = {"events", "dead-letters"}
    stays = world.deliver(queued("one", crashes=2), queued("two", crashes=2), queued("x", receives=2, crashes=2))
    assert sorted(stays) == ["two", "x"]
    assert world.queue.deleted == []


def test_a_late_event_speaks_as_backfill(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    post = world.klaviyo.post

    def noted(body: bytes, key: str) -> Answer:
        seen.append(body)
        return post(body, key)

    monkeypatch.setattr(world.klaviyo, "post", noted)
    old = Message("shop", (event("old", time=1_789_000_000), event("new")), 1_789_000_000.0)
    world.deliver(record(messages.encode(old), "m"))
    rows = json.loads(seen[0])["data"]["attributes"]["events-bulk-create"]["data"]
    assert [row["attributes"].get("backfill", False) for row in rows] == [True, False]


def test_a_raw_webhook_is_mapped_again_or_parked_again_once(world: World) -> None:
    body = {
        "profile": {"email": "ada@mail.example"},
        "metric": {"name": "Placed Order"},
        "properties": {},
        "unique_id": "again",
    }
    headers = {"content-type": "application/json"}
    good = Raw("custom", json.dumps(body).encode(), headers, 1_789_999_990.0)
    bad = Raw("custom", b"{}", headers, 1_789_999_990.0)
    unknown = Raw("no_such_source", b"{}", headers, 1_789_999_990.0)
    stays = world.deliver(*(record(messages.encode(raw), str(n)) for n, raw in enumerate((good, bad, unknown))))
    assert stays == []
    assert world.klaviyo.stored == ["again"]
    assert len(world.queue.to("dead-letters")) == 2
    assert all(isinstance(messages.decode(one["MessageBody"]), Raw) for one in world.queue.to("dead-letters"))


@pytest.mark.parametrize("why", ["MOST_BYTES", "time"])
def test_of_many_large_raw_webhooks_some_are_mapped_later(
    world: World, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "MOST_BYTES":
        monkeypatch.setattr(redriven, "MOST_BYTES", 10)
    else:
        understand = mapping.understand

        def slow(*given: Any, **named: Any) -> Any:
            world.clock.sleep(60)
            return understand(*given, **named)

        monkeypatch.setattr(mapping, "understand", slow)
    raws = [
        Raw(
            "custom",
            json.dumps({"profile": {"email": "ada@mail.example"}, "metric": "M", "unique_id": name}).encode(),
            {"content-type": "application/json"},
            1_789_999_990.0,
            only=(0,),
        )
        for name in ("one", "two", "three")
    ]
    assert world.deliver(*(record(messages.encode(raw), str(n)) for n, raw in enumerate(raws))) == []
    assert world.klaviyo.stored == ["one"]
    assert [messages.decode(one["MessageBody"]) for one in world.queue.to("events")] == raws[1:]
    world.queue.down = {"events"}
    assert world.deliver(*(record(messages.encode(raw), str(n)) for n, raw in enumerate(raws[1:]))) == ["1"]


def test_what_a_redrive_brings_back_is_found_by_the_webhooks_and_the_senders_id(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(telemetry.logger.registered_handler, "stream", log)
    order = {"id": "evt_1", "type": "charge.refunded", "data": {"object": {"id": "ch_1"}}}
    corrected = {"id": 1, "receipt_email": "ada@mail.example"}
    still = Raw("stripe", json.dumps(order).encode(), {}, 1_789_999_990.0, webhook_id="still")
    order["data"] = {"object": corrected}
    goes = Raw("stripe", json.dumps(order).encode(), {}, 1_789_999_990.0, webhook_id="goes")
    world.deliver(*(record(messages.encode(raw), str(n)) for n, raw in enumerate((still, goes))))
    lines = [json.loads(text) for text in log.getvalue().splitlines()]
    again = {line["webhook_id"]: line for line in lines if line["message"] == "webhook mapped again"}
    (parked,) = [line for line in lines if line["message"] == "parked"]
    assert (parked["webhook_id"], parked["sender_ids"]) == ("still", ["evt_1"])
    assert (again["still"]["events"], again["still"]["sender_ids"]) == (0, ["evt_1"])
    assert (again["goes"]["events"], again["goes"]["event_ids"]) == (1, world.klaviyo.stored)
    (kept,) = world.queue.to("dead-letters")
    assert messages.decode(kept["MessageBody"]) == still


def test_the_log_tells_the_events_and_names_nobody(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(telemetry.logger.registered_handler, "stream", log)
    world.klaviyo.bad = {"bad"}
    private = Message("custom", (event("eva@mail.example"),), 1_789_999_990.0, private_ids=True)
    world.deliver(queued("m", "a", "bad"), record(messages.encode(private), "p"))
    output = log.getvalue() + capsys.readouterr().out
    lines = [json.loads(line) for line in output.splitlines()]
    assert not [word for word in SECRET_WORDS if word in output]
    outcomes = [line["outcome"] for line in lines if line.get("message") == "job"]
    assert outcomes == ["rows", "delivered"]
    assert any("a" in line.get("event_ids", []) for line in lines)
    (totals,) = [line for line in lines if "Delivered" in line]
    assert totals["Delivered"] == [2.0]
    assert [line["Parked"] for line in lines if "Parked" in line and line.get("reason") == "refused_by_klaviyo"] == [
        [1.0]
    ]
