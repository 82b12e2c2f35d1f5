"""What is parked arrives after a redrive, whatever was changed in the source's file meanwhile."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import messages
from handler.delivery import redriven
from handler.delivery.records import Record
from handler.events import parking, senders
from handler.events.mapping import Defaults, Outcome, UnmappedItem
from handler.messages import Message, Raw
from handler.pauses import PAUSES
from sim import lines
from sim.time import Time
from tests.unit.door.test_receive import post
from tests.unit.support_delivery import DEAD, EVENTS, event
from tests.unit.support_door import Door
from tests.unit.support_queue import Delivery, delivery
from tests.unit.support_senders import custom_folder, toml

Change = Callable[[dict[str, Any]], None]
FILE: dict[str, Any] = {
    "title": "Acme",
    "signature": {"header": "stripe-signature", "layout": "pairs", "timestamp": "t", "signed": "{timestamp}.{body}"},
    "webhook": {"topic": "type", "key": "id"},
    "event": [{"topic": "known", "metric": "Known", "profile": {"email": "email"}}],
}


class Relay:
    """``receive`` and ``deliver`` with one source, called ``stripe``, whose ``file`` may change between them."""

    def __init__(self, folder: Path, **webhook: str) -> None:
        self.folder = folder
        self.file: dict[str, Any] = json.loads(json.dumps(FILE))
        self.file["webhook"] |= webhook
        self.log = io.StringIO()
        self.door = Door()

    def save(self) -> None:
        (self.folder / "stripe.toml").write_text(toml(self.file), "utf-8")
        senders.load.cache_clear()

    def receive(self, body: Any, **headers: str) -> set[str]:
        """Return the ids of the events that were queued at once."""
        self.save()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with lines.into(self.log):
            assert post(self.door, "stripe", json.dumps(body).encode(), headers=named)[0] == 200
        queued = [messages.decode(text) for text in self.door.bodies(EVENTS)]
        return {event.unique_id for message in queued if isinstance(message, Message) for event in message.events}

    def parked(self) -> list[Raw]:
        raws = [messages.decode(text) for text in self.door.bodies(DEAD)]
        return [raw for raw in raws if isinstance(raw, Raw)]

    def learn(self, *topics: str) -> None:
        """Correct the file: these topics are events, too."""
        self.file["event"] = [*FILE["event"], *(FILE["event"][0] | {"topic": topic} for topic in topics)]

    def redrive(self, *raws: Raw) -> Delivery:
        self.save()
        with delivery() as world, lines.into(self.log):
            for raw in raws or self.parked():
                world.put(raw, reason="unknown_topic", detail="as it was")
            world.run()
            return world

    def ignored(self) -> list[Any]:
        lines = [json.loads(text) for text in self.log.getvalue().splitlines()]
        return [line["ignored"] for line in lines if "ignored" in line]


def item(number: int, topic: str = "known") -> dict[str, Any]:
    return {"type": topic, "id": f"i{number}", "email": "kim@letters.example"}


def names(*numbers: int) -> set[str]:
    return {f"stripe:known:i{number}" for number in numbers}


def test_only_what_was_parked_is_mapped_again_while_the_items_are_the_same(custom_senders: Path) -> None:
    relay = Relay(custom_senders, items="all")
    assert relay.receive({"all": [item(0), item(1), item(2, "later")]}) == names(0, 1)
    relay.learn("later")
    assert set(relay.redrive().klaviyo.stored) == names(2)


def test_every_event_arrives_if_items_is_corrected_meanwhile(custom_senders: Path) -> None:
    relay = Relay(custom_senders, items="old")
    relay.receive({"old": [item(0), item(1), item(2, "later")], "new": [item(3), item(4), item(5, "later")]})
    relay.learn("later")
    relay.file["webhook"]["items"] = "new"
    assert set(relay.redrive().klaviyo.stored) == names(3, 4, 5)
    assert relay.ignored() == []


def test_every_event_arrives_if_the_first_release_parked_it_and_items_is_corrected(custom_senders: Path) -> None:
    relay = Relay(custom_senders, items="old")
    relay.receive({"old": [item(0), item(1, "later")], "new": [item(3, "later"), item(4)]})
    relay.learn("later")
    relay.file["webhook"]["items"] = "new"
    (raw,) = relay.parked()
    redriven = relay.redrive(raw._replace(items="")).klaviyo.stored
    assert set(redriven) == {"stripe:known:i3", "stripe:known:i4"}


def test_every_event_arrives_if_the_place_of_what_was_parked_is_gone(custom_senders: Path) -> None:
    relay = Relay(custom_senders, items="old")
    relay.receive({"old": [item(0), item(1), item(2, "later")], "new": [item(6)]})
    relay.file["webhook"]["items"] = "new"
    (raw,) = relay.parked()
    assert set(relay.redrive(raw).klaviyo.stored) == names(6)
    of_first_release = raw._replace(items="")
    assert set(relay.redrive(of_first_release).klaviyo.stored) == names(6)
    assert relay.ignored() == []


@pytest.mark.parametrize("only", [(), (-1,), (0, 7), (10**30,)])
def test_places_that_do_not_exist_leave_nothing_out(custom_senders: Path, only: tuple[int, ...]) -> None:
    relay = Relay(custom_senders)
    body = json.dumps([item(0), item(1)]).encode()
    raw = Raw("stripe", body, {}, 1.7e9, only=only)
    assert set(relay.redrive(raw).klaviyo.stored) == names(0, 1)
    relay.file = {"title": "Own", "signature": FILE["signature"], "format": "klaviyo"}
    events = [{"metric": "M", "profile": {"email": "kim@letters.example"}, "unique_id": name} for name in "ab"]
    own = raw._replace(body=json.dumps(events).encode())
    assert set(relay.redrive(own).klaviyo.stored) == {"a", "b"}


def test_a_file_that_becomes_one_of_klaviyos_format_maps_every_item(custom_senders: Path) -> None:
    relay = Relay(custom_senders)
    relay.receive([item(0), item(1, "later")])
    relay.file = {"title": "Own", "signature": FILE["signature"], "format": "klaviyo"}
    (raw,) = relay.parked()
    events = [{"metric": "M", "profile": {"email": "kim@letters.example"}, "unique_id": name} for name in "ab"]
    assert set(relay.redrive(raw._replace(body=json.dumps(events).encode())).klaviyo.stored) == {"a", "b"}


def test_what_is_parked_again_has_its_places_under_the_file_as_it_is_now(custom_senders: Path) -> None:
    relay = Relay(custom_senders, items="old")
    relay.receive({"old": [item(0, "later"), item(1)], "new": [item(2), item(3), item(4, "never"), item(5, "later")]})
    (first,) = relay.parked()
    relay.learn("later")
    relay.file["webhook"]["items"] = "new"
    world = relay.redrive()
    assert set(world.klaviyo.stored) == names(2, 3, 5)
    ((_, again),) = world.parked()
    assert isinstance(again, Raw)
    assert (first.only, again.only) == ((0,), (2,))
    assert first.items != again.items
    relay.learn("later", "never")
    assert set(relay.redrive(again).klaviyo.stored) == names(4)


def test_a_webhook_in_which_the_file_selects_nothing_is_parked_again(custom_senders: Path) -> None:
    relay = Relay(custom_senders, items="old")
    relay.receive({"old": [item(0), item(1, "later")], "new": []})
    relay.file["webhook"]["items"] = "new"
    ((reason, again),) = relay.redrive().parked()
    assert (reason, [again], relay.ignored()) == ("no_events", relay.parked(), [])


def test_a_topic_that_the_file_ignores_by_now_is_not_parked_again(custom_senders: Path) -> None:
    relay = Relay(custom_senders)
    relay.receive([item(0), item(1, "later")])
    relay.file["ignore"] = {"later": "not useful for messaging customers"}
    world = relay.redrive()
    assert (world.klaviyo.stored, world.parked()) == ([], [])
    assert relay.ignored() == ["not useful for messaging customers"]


def test_what_is_parked_again_as_a_whole_keeps_its_places_and_their_digest(custom_senders: Path) -> None:
    relay = Relay(custom_senders, items="old")
    relay.receive({"old": [item(0), item(1, "later")]})
    relay.file["event"][0]["when"] = "this is no expression ("
    ((_, again),) = relay.redrive().parked()
    assert [again] == relay.parked()


def test_a_header_that_only_the_corrected_file_reads_is_there(custom_senders: Path) -> None:
    relay = Relay(custom_senders)
    body = {"id": "i1", "email": "kim@letters.example"}
    assert relay.receive(body, x_acme_topic="known", x_forwarded_for="192.0.2.1") == set()
    relay.file["webhook"] = {"topic_header": "X-Acme-Topic", "key": "id"}
    world = relay.redrive()
    assert (set(world.klaviyo.stored), world.parked()) == (names(1), [])


def test_every_event_arrives_if_its_topic_is_renamed(custom_senders: Path) -> None:
    relay = Relay(custom_senders)
    assert relay.receive([item(0), item(1, "new.name")]) == names(0)
    relay.file["event"] = [FILE["event"][0] | {"topic": ["new.name"]}]
    world = relay.redrive()
    assert (set(world.klaviyo.stored), world.parked()) == (names(1), [])


EXPRESSIONS = ["@", "a", "b", "[a, b][]", "[b, a][]", "a[1:]", "a[::-1]", "a[0]", "c"]


@given(
    st.lists(st.sampled_from(["known", "later", "never"]), max_size=4),
    st.lists(st.sampled_from(["known", "later"]), max_size=4),
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(EXPRESSIONS),
    st.booleans(),
)
def test_a_redrive_loses_nothing_that_the_file_then_selects(
    first: list[str], second: list[str], before: str, after: str, of_first_release: bool
) -> None:
    body = {"a": [item(n, topic) for n, topic in enumerate(first)]}
    body["b"] = [item(10 + n, topic) for n, topic in enumerate(second)]
    with tempfile.TemporaryDirectory() as folder, custom_folder(Path(folder)) as custom_senders:
        relay = Relay(custom_senders, items=before)
        accepted = relay.receive(body)
        parked = relay.parked()
        if not parked:
            return
        relay.learn("later", "never")
        relay.file["webhook"]["items"] = after
        if of_first_release:
            parked = [raw._replace(items="") for raw in parked]
        world = relay.redrive(*parked)
        stored = set(world.klaviyo.stored)
        assert stored or world.parked()
        relay.door.empty()
        everything = relay.receive(body)  # what the corrected file makes of it
        if not of_first_release:  # then a place means another item under another expression
            assert everything <= accepted | stored
        assert relay.ignored() == []


# ------------------------------------------------- many webhooks, and live events beside them


def custom(name: str) -> Raw:
    body = {"profile": {"email": "kim@letters.example"}, "metric": "M", "unique_id": name}
    return Raw("custom", json.dumps(body).encode(), {"content-type": "application/json"}, 1_789_999_990.0)


def test_first_webhook_is_mapped_although_there_is_no_time_from_the_start() -> None:
    group = [Record(name, name, messages.encode(custom(name)), {}) for name in ("one", "two", "three")]
    mapped, parcels, later = redriven.replay(
        {place: custom(record.id) for place, record in enumerate(group)},
        group,
        defaults=Defaults(),
        at="2026-09-21T14:13:20+00:00",
        stagger=PAUSES.stagger,
        is_late=lambda: True,
    )
    assert [event.unique_id for event in mapped[0].events] == ["one"]
    assert parcels == []
    assert [(parcel.outgoing.body, parcel.owners) for parcel in later] == [(group[1].body, {1}), (group[2].body, {2})]


class Slow(Time):
    """A machine on which a second passes each time that the function looks at the clock."""

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_webhooks_for_which_there_was_no_time_come_back_after_the_batching_window() -> None:
    with delivery(clock=Slow()) as world:
        for number in range(100):
            world.put(custom(f"w{number}"), reason="unknown_topic")
        world.invoke()
        waiting = [kept for kept in world.events.messages.values() if isinstance(messages.decode(kept.body), Raw)]
        assert 10 < len(waiting) < 100
        assert {kept.delay for kept in waiting} == {PAUSES.stagger}


def test_webhook_that_is_mapped_again_shares_no_job_with_live_events() -> None:
    """Klaviyo may refuse what it refused before, and would refuse the live events with it."""
    with delivery() as world:
        world.put(custom("again"), reason="unknown_topic")
        world.put(Message("shop", (event("live"),), 1_789_999_990.0))
        world.invoke()
        assert [request.names for request in world.klaviyo.requests] == [["live"], ["again"]]


# ------------------------------------------------- fields of a later release
LATER = {"colour": "red", "size": {"a": [1, None]}}


def test_fields_of_a_later_release_stay_with_a_webhook_that_is_parked_again(custom_senders: Path) -> None:
    relay = Relay(custom_senders)
    body = json.dumps([item(0), item(1, "later"), item(2, "never")]).encode()
    relay.learn("later")
    raw = Raw("stripe", body, {"x-acme": "1"}, 1.7e9, webhook_id="w", extra=LATER)
    world = relay.redrive(raw)
    assert set(world.klaviyo.stored) == names(0, 1)
    ((_, again),) = world.parked()
    assert again == raw._replace(only=(2,), items=relay.door.load("stripe").items_digest)


def test_fields_of_a_later_release_stay_without_a_list_of_places() -> None:
    raw = Raw("stripe", b"{}", {}, 1.7e9, extra=LATER)
    too_many = range(messages.MESSAGE_BYTES // 2)  # a list of them fits no message
    parked = Outcome(parked=[UnmappedItem(place, "unknown_topic", "d") for place in too_many], items="0" * 16)
    (letter,) = parking.letters(raw, parked, at="now")
    assert messages.decode(letter.body) == raw


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4), st.booleans())
def test_any_field_of_a_later_release_survives_reading_and_writing(more: dict[str, Any], is_raw: bool) -> None:
    event = messages.Event("u", 1, "{}")
    plain = Raw("shop", b"{}", {}, 1.0) if is_raw else Message("shop", (event,), 1.0)
    head, rest = messages.encode(plain).split("\n", 1)
    named = {name: value for name, value in more.items() if name not in json.loads(head) and name not in Raw._fields}
    later = {f"later-{name}": value for name, value in named.items()}
    body = json.dumps(json.loads(head) | later) + "\n" + rest
    assert json.loads(messages.encode(messages.decode(body)).split("\n")[0]) == json.loads(head) | later


@given(
    st.none() | st.lists(st.integers(0, 10**6), max_size=5).map(tuple),
    st.text("0123456789abcdef", max_size=16),
    st.dictionaries(st.text(max_size=10), st.text(st.characters(), max_size=10), max_size=4),
)
def test_a_raw_message_is_read_as_it_was_written(
    only: tuple[int, ...] | None, digest: str, headers: dict[str, str]
) -> None:
    raw = Raw("shop", b"\x00\xff", headers, 1.5, only, "w", digest if only is not None else "")
    assert messages.decode(messages.encode(raw)) == raw
