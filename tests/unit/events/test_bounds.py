"""The work for a webhook is linear in its bytes, and what would be more is parked whole, now and after a redrive."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench import worst
from handler import messages
from handler.delivery import redriven
from handler.delivery.records import Record
from handler.events import entry, mapping, parking, senders
from handler.events.entry import Draft
from handler.events.expressions import Expression
from handler.events.mapping import Defaults, Outcome
from handler.events.senders import Source
from handler.events.webhook import Webhook
from handler.messages import Raw
from handler.pauses import PAUSES
from tests import mutations
from tests.unit.door import test_receive
from tests.unit.door.test_receive import post
from tests.unit.support_delivery import DEAD
from tests.unit.support_door import Door
from tools.senders import outcome

door = test_receive.door  # the fixture
RECEIVED = outcome.RECEIVED
# What a machine that is busy with other things adds to one of two measurements, in seconds.
FLOOR = 0.05


def understand(source: str, body: bytes, **headers: str) -> Outcome:
    return mapping.understand(
        senders.load(source),
        Webhook.posted(
            {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()},
            body,
        ),
        received=RECEIVED,
        defaults=Defaults("DE"),
    )


def cpu(make: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    begun = time.process_time()
    make()
    return time.process_time() - begun


def is_linear(small: Callable[[], object], large: Callable[[], object]) -> bool:
    """Whether ``large`` takes at most 2.5 times as long; tried again, since other programs share the processor."""
    small()  # loads what is loaded once
    return any(cpu(large) < 2.5 * cpu(small) + FLOOR for _ in range(4))


def settled(source: str, body: bytes, headers: dict[str, str]) -> Outcome:
    """What becomes of it, as in ``receive``."""
    return parking.settled(
        source,
        lambda: mapping.understand(
            senders.load(source), Webhook.posted(headers, body), received=RECEIVED, defaults=Defaults("DE")
        ),
    )


def grown(node: Any, times: int) -> Any:
    """``node`` with each list, and each text that is no id, so many times as long."""
    if isinstance(node, dict):
        return {name: grown(value, times) for name, value in node.items()}
    if isinstance(node, list):
        return [grown(value, 1) for value in node for _ in range(times)]
    return node


def sample(source: str) -> tuple[dict[str, str], Callable[[int], bytes]]:
    """The headers of a source's largest sample, and what makes ``n`` bytes of it: longer lists, more fields."""
    sent = max(
        mutations.samples(source), key=lambda sent: sent.headers.get("content-type") == worst.JSON and len(sent.body)
    )
    try:
        document = json.loads(sent.body)
    except ValueError:
        filling = [b"&field%d=" % number for number in range(3_000)]
        return sent.headers, lambda n: sent.body + b"".join(name + b"x" * (n // 3_000) for name in filling)
    fields = document if isinstance(document, dict) else {}

    def make(size: int) -> bytes:
        more = {f"field {number}": "x" * 80 for number in range(size // 2 // 100)}
        times = max(2, size // 2 // len(sent.body))
        if isinstance(document, list):
            return json.dumps(grown(document, 2 * times)).encode()
        return json.dumps(grown(fields, times) | more).encode()

    return sent.headers, make


SHIPPED = [path.stem for path in sorted(senders.SHIPPED.glob("*.toml")) if mutations.samples(path.stem)]


@pytest.mark.parametrize("source", SHIPPED)
def test_a_webhook_of_twice_the_bytes_takes_twice_the_work(source: str) -> None:
    headers, make = sample(source)
    small, large = make(300_000), make(600_000)
    assert 1.5 < len(large) / len(small) < 2.5
    assert is_linear(lambda: settled(source, small, headers), lambda: settled(source, large, headers))


@pytest.mark.parametrize("name", worst.SHAPES)
def test_a_shape_of_twice_the_bytes_takes_twice_the_work(name: str) -> None:
    shape = worst.SHAPES[name]
    small, large = shape.body(300_000), shape.body(600_000)
    assert 1.5 < len(large) / len(small) < 2.5
    assert is_linear(
        lambda: settled(shape.source, small, shape.headers), lambda: settled(shape.source, large, shape.headers)
    )


# --------------------------------------------------------------------------------------------- what is in the way


LISTED = [{"id": f"e{number}", "email": "kim@mail.example"} for number in range(4_000)]
DOCUMENT = {
    "type": "x",
    "list": LISTED,
    "numbers": [1, 2, 3] * 2_000,
    "words": ["word"] * 4_000,
    "text": "some text, " * 10_000,
    "object": {f"k{number}": number for number in range(4_000)},
    "huge": [10**30] * 4_000,
    "nothing": {f"k{number}": None for number in range(8_000)},
    "empty": [{}] * 20_000,
}
TOO_OFTEN = [
    "_webhook.list[?id == 'none'] | [0]",
    "length(_webhook.list[].id)",
    "length(_webhook.list[].{a: id, b: id}[].a)",
    "_webhook.object.* | [0]",
    "length(_webhook.list[::2])",
    "length(sort_by(_webhook.list, &id))",
    "find(_webhook.list, 'id', 'none')",
    "contains(_webhook.words, 'none')",
    "contains(_webhook.text, 'none')",
    "length(join(_webhook.text, _webhook.words))",
    "to_string(_webhook) == 'none'",
    "digest(_webhook)",
    "length(public(_webhook).list)",
    "length(with(_webhook.list, 'all', _webhook)[].all.list[][].all)",
    "length(scalars(_webhook.object))",
    "length(without(_webhook.object, 'none'))",
    "length(object(pairs(_webhook.object)))",
    "length(relabel(_webhook.object, _webhook.object))",
    "like(_webhook.object, 'none')",
    "add(_webhook.numbers)",
    "split(_webhook.text, ',') | [0]",
    "length(plain(_webhook.text))",
    "_webhook.[list, object] == _webhook.[list, object]",
]
PLACES: list[dict[str, Any]] = [
    *({"when": f"!({expression}) || `true`"} for expression in TOO_OFTEN),
    *({"properties": {"P": f"_webhook.{name}"}} for name in ("text", "words", "list", "huge", "object")),
    {"metric_from": "_webhook.text"},
    {"properties_from": "_webhook.nothing"},
    {"properties": {"P": "_webhook.empty"}},
]


def acme(*events: dict[str, Any]) -> Source:
    return senders.build(
        "acme",
        {
            "title": "Acme",
            "signature": {"header": "x-sign"},
            "webhook": {"topic": "type", "key": "id"},
            "profile": {"email": "email"},
            "event": [{"topic": "*", "metric": "M"} | event for event in events],
        },
    )


def is_too_much(source: Source, document: Any, **headers: str) -> bool:
    """Whether ``document`` is parked as too much work, within the time that a webhook may take."""
    begun = time.process_time()
    body = json.dumps(document).encode()
    outcome = parking.settled(
        source.name,
        lambda: mapping.understand(source, Webhook.posted(headers, body), received=RECEIVED, defaults=Defaults()),
    )
    assert time.process_time() - begun < worst.CPU_SECONDS
    return {parked.reason for parked in outcome.parked} == {"too_much_work"} and not outcome.events


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_going_through_the_webhook_for_each_of_its_entries_is_too_much_work(place: dict[str, Any]) -> None:
    assert is_too_much(acme({"each": "list", **place}), DOCUMENT)


@pytest.mark.parametrize("expression", ["to_string(with(list, 'all', text))", "join(text, words)"])
def test_what_would_not_fit_the_memory_is_not_made(expression: str) -> None:
    assert is_too_much(acme({"when": f"{expression} == 'none'"}), DOCUMENT)


def test_rules_entries_and_expressions_count_whatever_becomes_of_them() -> None:
    entries = {"type": "x", "list": [{}] * 15_000}
    assert is_too_much(acme(*[{"each": "list", "when": "id"}] * 30), entries)
    assert not is_too_much(acme({"each": "list", "when": "id"}), entries)
    properties = {f"P{number}": "none" for number in range(100)}
    assert is_too_much(acme({"each": "list", "properties": properties}), entries)


def test_items_and_topics_count_whatever_becomes_of_them() -> None:
    assert is_too_much(senders.load("sendgrid"), [1] * 45_000)
    assert is_too_much(senders.load("custom"), {"events": [{}] * 45_000})
    topics = {"x-shopify-topic": "x" * 8_000}
    assert is_too_much(senders.load("shopify"), [{"id": 1}] * 2_000, **topics)


def test_a_text_that_is_cut_for_each_event_is_too_much_work() -> None:
    profile = {"email": worst.EMAIL, "properties": {"p": "\xe9" * 2_000_000}}
    assert is_too_much(senders.load("custom"), {"profile": profile, "events": [{"metric": "M"}] * 150})


@pytest.mark.parametrize(
    "text", ["<" * 1_000, "<" + "@" * 999, "<a@" * 333, "&#" * 50_000, "<p " * 33_000, " " * 100_000]
)
def test_one_text_takes_no_longer_than_its_length(text: str) -> None:
    for function in ("address", "plain", "title", "time", "money", "first_name", "trim"):
        assert cpu(lambda function=function: Expression(f"{function}(@)").of(text)) < 0.1  # type: ignore[misc]


def test_each_property_is_measured_once() -> None:
    draft = Draft({"email": worst.EMAIL}, "M", "1", RECEIVED, {f"p{number}": "x" * 50_000 for number in range(399)})
    event, notes = entry.build(draft)
    assert 800_000 < len(event.entry) < entry.ENTRY_BYTES
    assert {note.code for note in notes} == {"too_large"}
    assert cpu(lambda: entry.build(draft)) < 2  # 0.2 s; it was 25


# ------------------------------------------------------------------------------------------------- what is parked


def copied(count: int) -> bytes:
    """Events that share a profile of 80 kB."""
    profile = {"email": worst.EMAIL, "properties": {f"p{number}": "x" * 200 for number in range(390)}}
    return json.dumps(
        {"profile": profile, "events": [{"metric": "M", "unique_id": str(i)} for i in range(count)]}
    ).encode()


def test_what_would_be_too_much_is_parked_whole() -> None:
    outcome = settled("custom", copied(1_000), {"content-type": worst.JSON})
    assert not outcome.events
    (parked,) = outcome.parked
    assert (parked.index, parked.reason) == (None, "too_much_work")
    assert worst.EMAIL not in parked.detail


def test_a_webhook_has_a_budget_of_its_own() -> None:
    for _ in range(3):
        assert settled("custom", copied(1_000), {"content-type": worst.JSON}).parked
        assert len(settled("custom", copied(3), {"content-type": worst.JSON}).events) == 3


def most() -> int:
    """The most events with a common profile that pass."""
    least, above = 3, 1_000
    while above - least > 1:
        middle = (least + above) // 2
        passes = settled("custom", copied(middle), {"content-type": worst.JSON}).events
        least, above = (middle, above) if passes else (least, middle)
    return least


def test_what_passes_once_passes_always() -> None:
    count = most()
    assert count == most() > 20


def test_a_redrive_has_the_same_budget() -> None:
    count = most()
    raws = [
        Raw("custom", copied(number), {"content-type": worst.JSON}, RECEIVED, webhook_id="w")
        for number in (count, count + 1)
    ]
    group = [Record("m", "r", messages.encode(raw), {}) for raw in raws]
    mapped, parcels, _ = redriven.replay(
        dict(enumerate(raws)), group, defaults=Defaults("DE"), at="2026-11-30T00:00:00Z", stagger=PAUSES.stagger
    )
    assert {place: len(message.events) for place, message in mapped.items()} == {0: count, 1: 0}
    assert [(parcel.outgoing.attributes["reason"], parcel.owners) for parcel in parcels] == [("too_much_work", {1})]


def test_the_sender_gets_200_and_the_reason(door: Door) -> None:
    status, answer = post(door, "custom", copied(1_000))
    assert (status, answer["accepted"]) == (200, 0)
    assert [item["reason"] for item in answer["parked"]] == ["too_much_work"]
    (kept,) = door.bodies(DEAD)
    raw = messages.decode(kept)
    assert isinstance(raw, Raw)
    assert (raw.body, raw.only) == (copied(1_000), None)


BATCHES: list[tuple[str, Any]] = [
    (
        "custom",
        [{"profile": {"phone_number": f"+4915112{i:06}"}, "metric": "M", "unique_id": str(i)} for i in range(9_000)],
    ),
    (
        "custom",
        {"profile": {"email": worst.EMAIL, "properties": {"p": "x" * 5_000}}, "events": [{"metric": "M"}] * 500},
    ),
    ("sendgrid", [{"email": worst.EMAIL, "event": "open", "sg_event_id": f"e{i}"} for i in range(10_000)]),
    (
        "shopify",
        worst.order(30, tags="t," * 200, line_items=[{"title": "Book", "quantity": 1, "price": "9.90"}] * 500),
    ),
]


@pytest.mark.parametrize(("source", "document"), BATCHES)
def test_what_senders_really_send_is_not_too_much(source: str, document: Any) -> None:
    outcome = understand(source, json.dumps(document).encode(), x_shopify_topic="orders/updated")
    assert outcome.events
    assert not outcome.parked


# The others take minutes together: python -m bench.worst
@pytest.mark.parametrize(
    ("shape", "packed"),
    [("one object of many members", True), ("one emoji in a long text", True), ("entries", False), ("events", False)],
)
def test_the_largest_request_takes_at_most_5_seconds_and_300_mb(shape: str, packed: bool) -> None:
    figures = worst.measure(shape, packed=packed)
    assert figures["status"] == 200
    assert figures["cpu"] <= worst.CPU_SECONDS
    assert 50 < figures["megabytes"] <= worst.MEGABYTES
