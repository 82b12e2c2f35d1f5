"""The whole delivery function, with AWS and Klaviyo in memory: nothing is acknowledged before its time."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from handler import messages
from handler.messages import Message, Raw
from sim import queue as sim
from sim.klaviyo import Request
from tests.unit.support_delivery import DEAD, EVENTS, event
from tests.unit.support_queue import Delivery, Points

SECRET_WORDS = ("mail.example", "pk_one")


@dataclass(frozen=True)
class Given:
    """A record to hand over: received ``receives`` times, and parked before for ``reason``."""

    body: str
    name: str
    receives: int = 1
    reason: str = ""


class World(Delivery):
    """The function, called with records of a test's own; ``down`` are the queues that cannot be reached."""

    def __init__(self) -> None:
        super().__init__(points=Points())
        self.down: set[str] = set()
        self.given: dict[str, str] = {}
        self.sqs.before = self._reaches

    def _reaches(self, operation: str, asked: Mapping[str, Any]) -> None:
        if asked["QueueUrl"] in self.down:
            raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, operation)

    def deliver(self, *records: Given) -> list[str]:
        """The records that stay in the queue."""
        received = [self.received(record) for record in records]
        self.given |= {message.id: record.name for message, record in zip(received, records, strict=True)}
        stay = self.hand_over([message.record() for message in received])
        return [self.given[message.id] for message in received if message.id in stay]

    def received(self, record: Given) -> sim.Message:
        reason = {"reason": {"DataType": "String", "StringValue": record.reason}} if record.reason else {}
        message = self.events.put(record.body, "shop", attributes=reason)
        message.receives = record.receives - 1
        self.events.take(message)
        return message

    def deleted(self) -> list[str]:
        """The records that the function itself has deleted."""
        return [name for key, name in self.given.items() if key not in self.events.messages]

    def again(self) -> list[sim.Message]:
        """What was sent again."""
        return [message for key, message in self.events.messages.items() if key not in self.given]


@pytest.fixture
def world() -> World:
    return World()


def queued(name: str, *names: str, receives: int = 1, reason: str = "", **flags: Any) -> Given:
    message = Message("shop", tuple(event(unique_id) for unique_id in names or (name,)), 1_789_999_990.0, **flags)
    return Given(messages.encode(message), name, receives, reason)


def reasons(world: World) -> list[str]:
    return [message.texts["reason"] for message in world.dead.messages.values()]


def test_delivered_records_are_acknowledged(world: World) -> None:
    assert world.deliver(queued("a"), queued("b")) == []
    assert sorted(world.klaviyo.stored) == ["a", "b"]
    assert len(world.klaviyo.requests) == 1
    assert not world.again()
    assert not world.dead


def test_what_klaviyo_does_not_take_now_is_sent_anew_together(world: World) -> None:
    world.klaviyo.told = lambda _: world.klaviyo.answer(429, Retry_After="300")
    assert world.deliver(queued("a"), queued("b")) == []
    (entry,) = world.again()
    assert 300 <= entry.delay <= 330
    body = messages.decode(entry.body)
    assert [event.unique_id for event in body.events] == ["a", "b"] if isinstance(body, Message) else False


def test_what_cannot_be_sent_anew_stays_and_the_delivered_do_not(world: World) -> None:
    world.klaviyo.bad = {"bad"}
    world.down = {EVENTS, DEAD}
    assert world.deliver(queued("a"), queued("bad")) == ["bad"]
    world.klaviyo.told = lambda _: world.klaviyo.answer(429, Retry_After="300")
    assert sorted(world.deliver(queued("a"), queued("b"))) == ["a", "b"]


def resent(capsys: pytest.CaptureFixture[str]) -> float:
    lines = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    return sum(sum(line.get("Resent", [])) for line in lines)


def test_each_message_that_is_sent_again_is_counted(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deliver(queued("delivered"))
    assert resent(capsys) == 0
    world.deliver(queued("one", receives=2), queued("two", receives=9), queued("new"))
    assert resent(capsys) == 0 == len(world.again())
    world.klaviyo.told = lambda _: world.klaviyo.answer(429, Retry_After="300")
    world.deliver(queued("a"), queued("b", backfill=True))
    assert resent(capsys) == 2 == len(world.again())


def test_a_refused_event_is_parked_with_its_reason_and_its_neighbours_go(world: World) -> None:
    world.klaviyo.bad = {"bad"}
    assert world.deliver(queued("m", "a", "bad", "b")) == []
    assert sorted(world.klaviyo.stored) == ["a", "b"]
    assert reasons(world) == ["refused_by_klaviyo"]


def test_garbage_is_parked_and_a_newer_format_waits(world: World) -> None:
    newer = Given('{"v":9,"kind":"events"}', "newer")
    assert world.deliver(Given("garbage", "garbage"), newer, queued("a")) == ["newer"]
    assert reasons(world) == ["unreadable_message"]
    assert world.klaviyo.stored == ["a"]


def test_what_is_parked_unread_is_logged_and_counted(
    world: World, capsys: pytest.CaptureFixture[str], log: io.StringIO
) -> None:
    world.deliver(Given("garbage", "garbage"))
    lines = [json.loads(line) for line in (log.getvalue() + capsys.readouterr().out).splitlines()]
    assert [line["reason"] for line in lines if line.get("message") == "parked"] == ["unreadable_message"]
    assert [(line["reason"], line["Parked"]) for line in lines if "Parked" in line] == [("unreadable_message", [1.0])]


def test_what_came_back_is_touched_once_what_is_new_was_deleted(world: World) -> None:
    gone: list[tuple[list[str], list[str]]] = []

    def note(request: Request) -> None:
        gone.append((request.names, sorted(world.deleted())))

    world.klaviyo.told = note
    back, parked = queued("back", receives=2), queued("parked", reason="crashed")
    assert world.deliver(parked, back, queued("new1"), queued("new2")) == []
    assert gone == [
        (["new1", "new2"], []),
        (["back"], ["new1", "new2"]),
        (["parked"], ["back", "new1", "new2"]),
    ]
    assert not world.again()


def test_what_a_redrive_brings_back_for_another_reason_is_handled_as_new(world: World) -> None:
    assert world.deliver(queued("refused", reason="refused_by_klaviyo"), queued("new")) == []
    assert [request.names for request in world.klaviyo.requests] == [["new"], ["refused"]]
    assert world.deleted() == []


def test_what_came_back_for_a_week_is_parked_unchanged_before_sqs_moves_it(world: World) -> None:
    stuck, young = queued("stuck", receives=900), queued("young", receives=900)
    records = [world.received(message) for message in (stuck, young)]
    records[0].sent_at -= 7 * 86_400 + 1
    records[1].sent_at -= 7 * 86_400 - 1
    assert world.hand_over([message.record() for message in records]) == set()
    (kept,) = world.dead.messages.values()
    assert (kept.body, kept.texts["reason"], kept.texts["source"]) == (stuck.body, "waited_too_long", "shop")
    assert world.klaviyo.stored == ["young"]


def test_what_came_back_without_the_time_at_which_it_was_sent_is_delivered(world: World) -> None:
    record = world.received(queued("back", receives=900)).record()
    del record["attributes"]["SentTimestamp"]
    assert world.hand_over([record]) == set()
    assert world.klaviyo.stored == ["back"]


def test_who_can_be_neither_handled_nor_sent_elsewhere_stays(world: World) -> None:
    world.down = {EVENTS, DEAD}
    world.klaviyo.bad = {"bad1", "bad2"}
    stays = world.deliver(queued("bad1"), queued("new"), queued("bad2", receives=2), queued("back", receives=2))
    assert sorted(stays) == ["back", "bad1", "bad2"]
    assert world.klaviyo.stored == ["new"]  # what came back waits until what is settled can be deleted
    assert world.deleted() == []


def test_a_late_event_speaks_as_backfill(world: World) -> None:
    seen: list[dict[str, Any]] = []
    world.klaviyo.told = lambda request: seen.extend(request.rows)
    old = Message("shop", (event("old", time=1_789_000_000), event("new")), 1_789_000_000.0)
    world.deliver(Given(messages.encode(old), "m"))
    assert [row["attributes"].get("backfill", False) for row in seen] == [True, False]


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
    stays = world.deliver(*(Given(messages.encode(raw), str(n)) for n, raw in enumerate((good, bad, unknown))))
    assert stays == []
    assert world.klaviyo.stored == ["again"]
    assert len(world.dead.messages.values()) == 2
    assert all(isinstance(messages.decode(kept.body), Raw) for kept in world.dead.messages.values())


def test_raw_webhook_that_the_dead_letter_queue_refuses_stays_and_its_neighbour_does_not(world: World) -> None:
    raw = Raw("custom", b"{}", {"content-type": "application/json"}, 1_789_999_990.0, webhook_id="refused")
    unmapped, cut = messages.encode(raw), messages.encode(raw)[:-4] + "AAAA"
    world.sqs.refuse = lambda entry: '"refused"' in entry["MessageBody"]
    taken = messages.encode(raw._replace(webhook_id="taken"))
    assert world.deliver(*(Given(body, name) for name, body in zip("abc", (taken, unmapped, cut), strict=True))) == [
        "b",
        "c",
    ]
    assert len(reasons(world)) == 1


def test_mapped_webhook_keeps_ids_that_may_name_a_person_out_of_the_log(world: World, log: io.StringIO) -> None:
    body = {"profile": {"email": "ada@mail.example"}, "metric": "M", "unique_id": "Eva Adams"}
    raw = Raw("custom", json.dumps(body).encode(), {"content-type": "application/json"}, 1_789_999_990.0)
    world.deliver(Given(messages.encode(raw), "m"))
    assert "Adams" in world.klaviyo.stored[0]
    assert "Adams" not in log.getvalue()


def large(name: str, letter: str) -> Raw:
    """A webhook of ten events of 720,000 characters each, one of which is ``letter``."""
    properties = {f"p{number}": "x" * 90_000 for number in range(8)} | {"letter": letter}
    person = {"profile": {"email": "ada@mail.example"}, "metric": "M", "properties": properties}
    body = json.dumps([person | {"unique_id": f"{name}{number}"} for number in range(10)], ensure_ascii=False)
    return Raw("custom", body.encode(), {"content-type": "application/json"}, 1_789_999_990.0, only=tuple(range(10)))


# Python keeps four bytes for each character of a text with such a letter, so these are 29 MB, and the others 7 MB.
@pytest.mark.parametrize(("letter", "mapped"), [("x", 5), ("\N{GRINNING FACE}", 4)], ids=["1 byte", "4 bytes"])
def test_of_many_large_raw_webhooks_some_are_mapped_later(world: World, letter: str, mapped: int) -> None:
    raws = [large(name, letter) for name in "abcde"]
    records = [Given(messages.encode(raw), name) for name, raw in zip("abcde", raws, strict=True)]
    assert world.deliver(*records) == []
    assert len(world.klaviyo.stored) == 10 * mapped
    assert [messages.decode(entry.body) for entry in world.again()] == raws[mapped:]
    world.down = {EVENTS}
    assert world.deliver(*records) == list("abcde")[mapped:]


def test_what_a_redrive_brings_back_is_found_by_the_webhooks_and_the_senders_id(world: World, log: io.StringIO) -> None:
    order = {"id": "evt_1", "type": "charge.refunded", "data": {"object": {"id": "ch_1"}}}
    corrected = {"id": 1, "receipt_email": "ada@mail.example"}
    still = Raw("stripe", json.dumps(order).encode(), {}, 1_789_999_990.0, webhook_id="still")
    order["data"] = {"object": corrected}
    goes = Raw("stripe", json.dumps(order).encode(), {}, 1_789_999_990.0, webhook_id="goes")
    world.deliver(*(Given(messages.encode(raw), str(n)) for n, raw in enumerate((still, goes))))
    lines = [json.loads(text) for text in log.getvalue().splitlines()]
    again = {line["webhook_id"]: line for line in lines if line["message"] == "webhook mapped again"}
    (parked,) = [line for line in lines if line["message"] == "parked"]
    assert (parked["webhook_id"], parked["sender_ids"]) == ("still", ["evt_1"])
    assert (again["still"]["events"], again["still"]["sender_ids"]) == (0, ["evt_1"])
    assert (again["goes"]["events"], again["goes"]["event_ids"]) == (1, world.klaviyo.stored)
    (kept,) = world.dead.messages.values()
    assert messages.decode(kept.body) == still


def test_the_log_tells_the_events_and_names_nobody(
    world: World, capsys: pytest.CaptureFixture[str], log: io.StringIO
) -> None:
    world.klaviyo.bad = {"bad"}
    private = Message("custom", (event("eva@mail.example"),), 1_789_999_990.0, private_ids=True)
    world.deliver(queued("m", "a", "bad"), Given(messages.encode(private), "p"))
    output = log.getvalue() + capsys.readouterr().out
    lines = [json.loads(line) for line in output.splitlines()]
    assert not [word for word in SECRET_WORDS if word in output]
    outcomes = [line["outcome"] for line in lines if line.get("message") == "job"]
    assert outcomes == ["rows", "delivered", "rows"]  # what Klaviyo named is refused once more, alone
    assert any("a" in line.get("event_ids", []) for line in lines)
    (totals,) = [line for line in lines if "Delivered" in line]
    assert totals["Delivered"] == [2.0]
    assert [line["Parked"] for line in lines if "Parked" in line and line.get("reason") == "refused_by_klaviyo"] == [
        [1.0]
    ]
