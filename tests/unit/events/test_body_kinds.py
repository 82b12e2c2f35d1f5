"""Nothing that is not signed changes what a webhook becomes: no label, and a topic only where the body bears it out."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from handler.errors import Unmapped
from handler.events import bodies, senders
from handler.events.bodies import Body
from tools.senders import payload
from tools.senders.payload import Payload
from tools.senders.preview import preview, preview_request

RECEIVED = 1_795_500_000.0
EVENTS = Path(__file__).parents[3] / "events"
NAMES = sorted({path.parent.name for path in EVENTS.glob("*/*.json")})
TYPES = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "text/plain",
    "application/xml",
)
CHARSETS = ("", "; charset=utf-8", "; charset=utf-16", "; charset=utf-7", "; charset=iso-8859-1", "; charset=none")
ENCODINGS = ("gzip", "br", "deflate", "identity", "utf-8", "gzip, gzip")
LABELS: list[dict[str, str]] = [
    {},
    {"content-type": ""},
    *({"content-type": kind + charset} for kind, charset in product(TYPES, CHARSETS)),
    *({"content-type": kind, "content-encoding": encoding} for kind, encoding in product(TYPES[:3], ENCODINGS)),
]


def samples(name: str) -> Iterable[tuple[str, Payload]]:
    return ((path.stem, payload.request(path)) for path in sorted((EVENTS / name).glob("*.json")))


def relabelled(sent: Payload, labels: dict[str, str]) -> Payload:
    kept = {name: text for name, text in sent.headers.items() if name not in ("content-type", "content-encoding")}
    return Payload(sent.method, sent.query, kept | labels, sent.body)


@pytest.mark.parametrize("name", NAMES)
def test_no_label_changes_what_a_sample_becomes(name: str) -> None:
    for stem, sent in samples(name):
        first = preview_request(name, sent, RECEIVED)
        for labels in LABELS:
            assert preview_request(name, relabelled(sent, labels), RECEIVED) == first, (stem, labels)


@pytest.mark.parametrize("name", NAMES)
def test_gzip_and_a_byte_order_mark_are_read_whatever_the_labels_say(name: str) -> None:
    for stem, sent in samples(name):
        if sent.method == "POST" and senders.load(name).body.kinds != (bodies.MULTIPART,):
            first = preview(name, sent.headers, sent.body, RECEIVED)
            assert preview(name, sent.headers, gzip.compress(sent.body), RECEIVED) == first, stem
            if not senders.load(name).body.once:  # there the mark would be in the signed text
                assert preview(name, sent.headers, b"\xef\xbb\xbf" + sent.body, RECEIVED) == first, stem


# A note of a customer that is a form, in a body that is JSON (docs/decisions/0032).
NOTE = "x&id=990001&order_key=k&line_items[]=a&status=processing&total=99999.00&billing[email]=victim%40mail.example&x="


def test_a_note_that_is_a_form_stays_a_note() -> None:
    sent = payload.request(EVENTS / "woocommerce/order.created.json")
    body = json.dumps(json.loads(sent.body) | {"customer_note": NOTE}).encode()
    for labels in LABELS:
        noted = relabelled(Payload(sent.method, sent.query, sent.headers, body), labels)
        (event,) = preview_request("woocommerce", noted, RECEIVED)["events"]
        attributes = event["attributes"]["events"]["data"][0]["attributes"]
        assert attributes["unique_id"] == "woocommerce:placed-order:2301", labels
        assert attributes["properties"]["Note"] == NOTE, labels


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_of_no_other_kind_than_its_senders_file_says(name: str) -> None:
    source = senders.load(name)
    for stem, sent in samples(name):
        if sent.method != "POST":
            continue
        read = bodies.parse(sent.body, source.body)
        for kind in bodies.KINDS:
            try:
                other = bodies.parse(sent.body, Body((kind,), source.body.form, once=source.body.once))
            except Unmapped:
                continue
            # A form's parser reads anything with "=" in it: what keeps JSON from it is the sender's file alone.
            assert other == read or kind == bodies.FORM, (stem, kind)


# ------------------------------------------------------------------ topics
# A topic that no sender signs, in a header: a sample that passes under another topic than its own, and why it may.
# A "" is the header taken off. What holds: the body itself says it, or nothing in the body tells the two apart.
ALSO_TRUE = "the body says so itself: under the id that the true webhook had"
ALIKE = "the body says nothing of which of these it is: it is true of both, or the state that it says is"
CHANGES = {f"subscription/{change}" for change in ("activated", "paused", "skipped", "swapped", "unskipped", "updated")}
UPDATED = {"subscription/swapped", "subscription/updated"}  # one event
PAIRS: list[tuple[str, set[str], set[str], str]] = [
    (
        "shopify",
        {f"orders/{state}" for state in ("cancelled", "fulfilled", "paid", "updated")},
        {"orders/create"},
        ALSO_TRUE,
    ),
    ("shopify", {"orders/create", "orders/fulfilled"}, {"orders/paid"}, ALSO_TRUE),
    ("shopify", {"fulfillments/update"}, {"fulfillments/create"}, ALSO_TRUE),
    ("woocommerce", {"subscription.updated"}, {"", "subscription.created"}, ALSO_TRUE),
    ("woocommerce", {"subscription.created"}, {"subscription.updated"}, ALIKE),
    (
        "commerce_layer",
        {f"orders.{state}" for state in ("approve", "cancel", "fulfill", "pay", "refund")},
        {"orders.place"},
        ALSO_TRUE,
    ),
    ("commerce_layer", {"orders.fulfill"}, {"orders.pay"}, ALSO_TRUE),
    ("commerce_layer", {"orders.refund"}, {"", "orders.cancel"}, ALSO_TRUE),
    (
        "commerce_layer",
        {"in_stock_subscriptions.notify"},
        {"", "in_stock_subscriptions.create", "in_stock_subscriptions.activate"},
        ALSO_TRUE,
    ),
    ("recharge", {"charge/created"}, {"charge/upcoming"}, ALSO_TRUE),
    ("recharge", {"charge/failed"}, {"charge/max_retries_reached"}, ALIKE),
    ("recharge", {"charge/max_retries_reached"}, {"", "charge/failed"}, ALSO_TRUE),
    ("recharge", CHANGES, {"", "subscription/created"}, ALSO_TRUE),
    ("recharge", {"subscription/created", "subscription/cancelled"}, UPDATED, ALIKE),
    *(
        ("recharge", {change}, CHANGES - (UPDATED if change in UPDATED else {change}), ALIKE)
        for change in sorted(CHANGES)
    ),
]
LISTED = {(name, own, other) for name, owns, others, _ in PAIRS for own in owns for other in others}
WITH_HEADER = [name for name in NAMES if senders.load(name).topic_header]


def by_id(shown: dict[str, Any]) -> dict[str, Any]:
    return {entry["attributes"]["events"]["data"][0]["attributes"]["unique_id"]: entry for entry in shown["events"]}


def passing(name: str) -> set[tuple[str, str, str]]:
    """The pairs of topics under which a sample becomes what it does not become under its own."""
    source = senders.load(name)
    topics = {topic for rule in source.rules for topic in rule.topics} | {*source.ignored, *source.nobody}
    pairs: set[tuple[str, str, str]] = set()
    for _, sent in samples(name):
        own = sent.headers.get(source.topic_header, "")
        first = by_id(preview_request(name, sent, RECEIVED))
        for place, topic in enumerate(sorted({"", *topics} - {own})):
            labels = LABELS[place % len(LABELS)] | ({source.topic_header: topic} if topic else {})
            headers = {header: text for header, text in sent.headers.items() if header != source.topic_header}
            other = relabelled(Payload(sent.method, sent.query, headers, sent.body), labels)
            again = by_id(preview_request(name, other, RECEIVED))
            if any(first.get(unique_id) != event for unique_id, event in again.items()):
                pairs.add((name, own, topic))
    return pairs


@pytest.mark.parametrize("name", WITH_HEADER)
def test_a_topic_that_is_not_signed_passes_only_where_the_body_bears_it_out(name: str) -> None:
    assert passing(name) == {pair for pair in LISTED if pair[0] == name}


def test_only_senders_with_a_topic_header_are_listed() -> None:
    assert {name for name, *_ in PAIRS} <= set(WITH_HEADER)


# Topics whose ids hold the time of the last change: a webhook of a topic without a sample, such as Recharge's
# charge/updated, of the same thing in the same state passes as a new one of them. No body says what changed.
LATER = {
    *(("recharge", topic) for topic in ("charge/failed", "charge/max_retries_reached")),
    *(("recharge", change) for change in CHANGES),
    *(("commerce_layer", f"order_subscriptions.{change}") for change in ("activate", "cancel", "deactivate")),
    ("commerce_layer", "in_stock_subscriptions.notify"),
    *(("woocommerce", topic) for topic in ("order.updated", "subscription.updated")),
}
TIME_OF_CHANGE = {"updated_at", "date_modified", "date_modified_gmt"}


def changed_later(node: Any) -> Any:
    if isinstance(node, dict):
        later = "2026-11-20T09:00:00Z"
        return {name: later if name in TIME_OF_CHANGE else changed_later(member) for name, member in node.items()}
    return [changed_later(item) for item in node] if isinstance(node, list) else node


def test_a_later_webhook_of_the_same_state_is_another_event_of_the_listed_topics_only() -> None:
    repeats: set[tuple[str, str]] = set()
    for name in WITH_HEADER:
        for _, sent in samples(name):
            if bodies.looks(sent.body) != bodies.JSON:
                continue
            body = json.dumps(changed_later(json.loads(sent.body))).encode()
            again = preview_request(name, Payload(sent.method, sent.query, sent.headers, body), RECEIVED)
            if by_id(again).keys() - by_id(preview_request(name, sent, RECEIVED)).keys():
                repeats.add((name, sent.headers.get(senders.load(name).topic_header, "")))
    assert repeats == LATER


# ------------------------------------------------------------------ a form's fields
@pytest.mark.parametrize("stem", [stem for stem, _ in samples("twilio")])
def test_a_signed_text_that_is_cut_elsewhere_gets_no_new_id(stem: str) -> None:
    sent = payload.request(EVENTS / f"twilio/{stem}.json")
    first = by_id(preview("twilio", sent.headers, sent.body, RECEIVED))
    fields = sorted(bodies.plain_fields(sent.body))
    for place, (name, value) in enumerate(fields[:-1]):
        following = "".join(fields[place + 1])
        for cut in range(1, len(following)):
            # The next field's first characters move to the end of this one's value, and its name begins later.
            moved = [*fields[:place], (name, value + following[:cut]), (following[cut], following[cut + 1 :])]
            body = urlencode([*moved, *fields[place + 2 :]]).encode()
            try:
                again = by_id(preview("twilio", sent.headers, body, RECEIVED))
            except Unmapped:
                continue
            assert again.keys() <= first.keys(), (name, cut)
