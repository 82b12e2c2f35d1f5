"""Samples as if they happened now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from handler.events import mapping, senders
from handler.events.mapping import Defaults
from handler.events.webhook import Webhook
from tools.paths import SAMPLES
from tools.senders import payload, recent
from tools.senders.payload import Payload

NOW = 1_900_000_000.0


@pytest.mark.parametrize("path", ["stripe/checkout.session.completed", "stripe/invoice.paid", "shopify/orders.paid"])
def test_a_sample_is_no_longer_late_and_else_the_same_event(path: str) -> None:
    name = path.split("/")[0]
    file = next(SAMPLES.glob(f"{path}*.json"), None) or sorted((SAMPLES / name).glob("order*.json"))[0]
    sent = payload.request(file)
    dated = recent.dated_now(name, sent, NOW)

    def made(sample: Payload) -> list[Any]:
        return mapping.understand(
            senders.load(name), Webhook.posted(sample.headers, sample.body), received=NOW, defaults=Defaults()
        ).events

    assert [event.unique_id for event in made(dated)] == [event.unique_id for event in made(sent)]
    if name == "stripe":
        assert all(NOW - 5 <= event.time <= NOW for event in made(dated))


def test_what_is_new_or_not_json_is_sent_as_it_stands() -> None:
    for body in (json.dumps({"type": "x", "created": int(NOW) - 60}).encode(), b"{", b"a=1"):
        sent = Payload("POST", {}, {"content-type": "application/json"}, body)
        assert recent.dated_now("stripe", sent, NOW) is sent
