"""Backfills and what has become old: marked as such, and behind what is new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from handler import messages
from handler.events import mapping, senders
from handler.events.mapping import Defaults
from handler.events.webhook import Webhook
from handler.messages import Event, Message
from tests.unit.door.test_receive import custom, door, event, post
from tests.unit.support_delivery import EVENTS
from tests.unit.support_door import Door
from tests.unit.support_queue import delivery

__all__ = ["door"]  # the fixture
SAMPLE = Path(__file__).parents[3] / "events" / "stripe" / "customer.created.json"


def groups(door: Door) -> list[str]:
    return [entry.group for _, entry in door.taken()]


def test_a_request_of_backfills_travels_in_a_group_of_its_own(door: Door) -> None:
    post(door, "custom", custom(event(backfill=True), event(unique_id="v2", backfill=True)))
    post(door, "custom", json.dumps({"backfill": True, "events": [event(unique_id="v3")]}).encode())
    post(door, "custom", custom(event(unique_id="v4"), event(unique_id="v5", backfill=True)))
    assert groups(door) == ["custom#backfill", "custom#backfill", "custom"]
    assert [body.count('"backfill":true}') for body in door.bodies(EVENTS)] == [2, 1, 1]


def test_a_source_of_backfills_marks_each_event_and_has_a_group_of_its_own(custom_senders: Path) -> None:
    (custom_senders / "history.toml").write_text('extends = "stripe"\n\n[webhook]\nbackfill = true\n')
    sample = json.loads(SAMPLE.read_text())
    outcome = mapping.understand(
        senders.load("history"),
        Webhook.posted(sample["headers"], json.dumps(sample["body"]).encode()),
        received=1_790_000_000.0,
        defaults=Defaults(),
    )
    assert outcome.backfill
    assert [json.loads(event.entry)["attributes"]["backfill"] for event in outcome.events] == [True]
    assert (
        messages.group(Message("history", tuple(outcome.events), 0.0, backfill=outcome.backfill)) == "history#backfill"
    )


def test_a_redrive_after_days_brings_events_back_as_late_ones() -> None:
    entry = {
        "type": "event-bulk-create",
        "attributes": {
            "profile": {"data": {"type": "profile", "attributes": {"email": "old@mail.example", "first_name": "Ada"}}},
            "events": {"data": [{"type": "event", "attributes": {"unique_id": "old"}}]},
        },
    }
    with delivery() as world:
        sent: list[dict[str, Any]] = []
        world.klaviyo.told = lambda request: sent.append(request.rows[0])
        world.klaviyo.bad = {"old"}
        world.put(Message("shop", (Event("old", int(world.clock()), json.dumps(entry)),), world.clock()))
        world.run()
        (parked,) = world.dead.messages.values()
        world.klaviyo.bad = set()
        world.clock.sleep(2 * 86_400)
        world.redrive()
        world.run()
    assert parked.group == "shop#redrive"
    first, last = sent
    assert "backfill" not in first["attributes"]
    assert last["attributes"]["backfill"] is True
    assert last["attributes"]["profile"]["data"]["attributes"] == {"email": "old@mail.example"}
