"""What cannot become an event takes nothing else down with it, and nothing is left out without a word."""

from __future__ import annotations

import json
from typing import Any

import pytest

from handler.events import mapping, senders
from handler.events.mapping import Defaults, Outcome
from handler.events.webhook import Webhook
from tools.paths import SAMPLES
from tools.senders import payload
from tools.senders.outcome import RECEIVED


def understood(source: str, document: Any) -> Outcome:
    body = json.dumps(document).encode()
    return mapping.understand(senders.load(source), Webhook.posted({}, body), received=RECEIVED, defaults=Defaults())


def absence(guests: Any) -> dict[str, Any]:
    return {
        "triggerEvent": "AFTER_GUESTS_CAL_VIDEO_NO_SHOW",
        "createdAt": "2026-11-20T10:00:00Z",
        "payload": {"bookingUid": "b1", "guests": guests},
    }


def test_a_guest_who_cannot_be_reached_does_not_hide_the_next_one() -> None:
    outcome = understood("cal_com", absence([{"name": "Kim"}, {"email": "ada@letters.example"}]))
    assert ["ada@letters.example" in event.entry for event in outcome.events] == [True]
    assert [parked.reason for parked in outcome.parked] == ["no_identifier"]


def test_guests_that_are_no_list_are_parked_and_not_taken_for_none() -> None:
    assert understood("cal_com", absence([])).ignored
    assert [parked.reason for parked in understood("cal_com", absence({"first": {}})).parked] == ["mapping_failed"]


def test_an_entry_of_klaviyos_form_without_events_is_parked_and_the_others_go() -> None:
    profile = {"data": {"type": "profile", "attributes": {"email": "ada@letters.example"}}}
    event = {"type": "event", "attributes": {"metric": {"data": {"attributes": {"name": "Met"}}}, "unique_id": "1"}}
    whole, bare = (
        {"type": "event-bulk-create", "attributes": {"profile": profile, "events": events}}
        for events in ({"data": [event]}, [event])
    )
    job = {"data": {"type": "event-bulk-create-job", "attributes": {"events-bulk-create": {"data": [whole, bare]}}}}
    outcome = understood("custom", job)
    assert [event.unique_id for event in outcome.events] == ["1"]
    assert [(parked.index, parked.reason) for parked in outcome.parked] == [(1, "not_an_object")]


def test_a_subscription_is_not_taken_for_the_order_that_an_unsigned_header_says() -> None:
    headers, body = payload.read(SAMPLES / "woocommerce/subscription.updated.json")
    headers |= {"x-wc-webhook-topic": "order.created"}
    source = senders.load("woocommerce")
    outcome = mapping.understand(source, Webhook.posted(headers, body), received=RECEIVED, defaults=Defaults())
    assert not outcome.events
    assert [parked.reason for parked in outcome.parked] == ["topic_contradicted"]


def test_what_an_entry_reads_of_the_whole_webhook_is_in_each_event() -> None:
    tables = {
        "title": "Acme",
        "signature": {"header": "x-sign"},
        "webhook": {"topic": "type", "key": "id"},
        "profile": {"email": "_root.email"},
        "event": [
            {
                "topic": "*",
                "metric": "M",
                "each": "list",
                "properties": {
                    "All": "_root.list[].id",
                    "Own": "id",
                    "Bad": "sum(_root.list)",
                    "Type": "_webhook.type",
                },
            }
        ],
    }
    document = {"type": "x", "email": "kim@mail.example", "list": [{"id": "a"}, {"id": "b"}]}
    outcome = mapping.understand(
        senders.build("acme", tables),
        Webhook.posted({}, json.dumps(document).encode()),
        received=1.7e9,
        defaults=Defaults(),
    )
    properties = [
        json.loads(event.entry)["attributes"]["events"]["data"][0]["attributes"]["properties"]
        for event in outcome.events
    ]
    common = {"All": ["a", "b"], "Type": "x", "RelayDropped": ["Bad: mapping_failed"]}
    assert properties == [common | {"Own": "a"}, common | {"Own": "b"}]
    assert list(properties[1]) == ["All", "Own", "Type", "RelayDropped"]


@pytest.mark.parametrize(
    ("source", "place"),
    [("stripe", "the body"), ("shopify", "x-shopify-topic"), ("woocommerce", "x-wc-webhook-topic or the body")],
)
def test_a_webhook_without_a_topic_says_where_its_sender_names_it(source: str, place: str) -> None:
    (parked,) = understood(source, {"id": 1}).parked
    assert (parked.reason, parked.detail) == ("no_topic", f"no topic found; this sender names it in {place}")
