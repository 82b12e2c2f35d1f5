"""One webhook's story: the request, the events that it became, what Klaviyo got and answered.

The events are made by ``handler.events.mapping``, with the source's file as it stood
when the webhook came; what happened to them is read from the log and from the
stand-in, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from handler.errors import SourceError, UnknownSource
from handler.events import mapping, parking, senders, values
from handler.events.entry import MARK, identifiers_only
from handler.events.mapping import Defaults, Outcome
from handler.events.senders import Source
from handler.events.webhook import Webhook
from handler.telemetry import event_id
from local import standin

from .exchanges import Exchange
from .trail import History, Trail, state

SHOWN_EVENTS = 20
RECEIPT_SECONDS = 10.0  # a request on its way from the front door to a function that has to start first

# What a note's code means, for a person. The codes are those of ``schema`` and ``mapping``.
NOTES = {
    "invalid_email": "not an address that Klaviyo accepts: left out",
    "invalid_phone": "not a valid number, or without a country: left out",
    "invalid_external_id": "longer than 255 characters: left out",
    "invalid_anonymous_id": "longer than 255 characters: left out",
    "klaviyo_drops_domain": "Klaviyo accepts events for this domain and stores none of them",
    "cut": "cut to Klaviyo's length",
    "string_cut": "cut to 100,000 bytes",
    "array_cut": "cut to 4,000 entries",
    "too_many_properties": "only the first 399 were kept",
    "nested_too_deep": "nested more than 10 deep: left out there",
    "number_out_of_range": "a number that Klaviyo does not accept: left out",
    "number_not_finite": "not a number in JSON: left out",
    "out_of_range": "not a coordinate: left out",
    "wrong_type": "of a type that Klaviyo does not accept: left out",
    "profile_too_large": "left out, so that the profile fits",
    "too_large": "left out, so that the event fits",
    "mapping_failed": "the expression met a value that it cannot use: left out",
    "time_of_receipt": "no usable time in the webhook: the time of receipt is used",
    "reserved_name": "a name that Klaviyo or the relay reads as its own: left out",
    "unknown_field": "a field that the schema does not know was left out",
}


@dataclass(frozen=True, slots=True)
class Told:
    """One event: its entry as normalised, what became of it, and what the stand-in stored of it."""

    event_id: str
    unique_id: str
    metric: str
    entry: Mapping[str, Any]
    marks: list[str]
    silent: bool
    history: History
    stored: list[dict[str, Any]] = field(default_factory=list)
    repeats: int | None = None  # the number of the webhook that brought this event before

    @property
    def state(self) -> str:
        """``delivered``, ``parked`` or ``waiting``."""
        return state([self.history])

    @property
    def plain(self) -> dict[str, Any]:
        """The event without the envelopes of the wire format."""
        return plain(self.entry)

    @property
    def late(self) -> bool:
        """True if Klaviyo got a backfill with identifiers only, because the event was old when it was delivered."""
        late = json.loads(identifiers_only(json.dumps(self.entry)))
        return late != self.entry and any(alike(event.get("entry"), late) for event in self.stored)

    @property
    def same(self) -> bool:
        """True if what is stored is what this webhook became."""
        return any(alike(event.get("entry"), self.entry) for event in self.stored)


def outcome_of(exchange: Exchange, defaults: Defaults) -> Outcome:
    """Return what the mapping makes of it; empty for what was not authentic or not understood.

    What was parked whole is mapped again when it is re-queued, by the file as it is then.
    """
    source = exchange.mapping
    if source is None or exchange.outcome in ("refused", "handshake"):
        return Outcome()
    try:
        if exchange.outcome == "parked":
            source = senders.load(exchange.source)
    except (UnknownSource, SourceError):
        return Outcome()
    known = exchange.understood.get((source.name, defaults))
    if known is None or known[0] is not source:
        known = (source, _understood(exchange, source, defaults))
        exchange.understood[source.name, defaults] = known
    return known[1]


def _understood(exchange: Exchange, source: Source, defaults: Defaults) -> Outcome:
    return parking.settled(
        source.name,
        lambda: mapping.understand(
            source, Webhook.posted(exchange.headers, exchange.body), received=exchange.at, defaults=defaults
        ),
    )


def unknown_topics(exchange: Exchange, defaults: Defaults) -> list[str]:
    """Return the topics of a parked webhook that its source's file does not name."""
    outcome = outcome_of(exchange, defaults)
    return unknown(senders.load(exchange.source), outcome) if outcome.parked else []


def unknown(source: Source, outcome: Outcome) -> list[str]:
    """Return the topics of an outcome that were parked because the file says nothing about them."""
    parked = any(item.reason == "unknown_topic" for item in outcome.parked)
    return [
        topic
        for topic in outcome.topics
        if parked and not source.rules_for(topic) and source.why_ignored(topic) is None
    ]


def state_of(exchange: Exchange, trail: Trail, defaults: Defaults) -> str:
    """Return ``refused``, ``ignored``, ``handshake``, ``parked``, ``waiting`` or ``delivered``."""
    if exchange.outcome == "accepted":
        return state([history_of(name, exchange, trail) for name in exchange.event_ids])
    if exchange.outcome == "parked":
        outcome = outcome_of(exchange, defaults)
        ids = [event_id(event.unique_id, private=outcome.private_ids) for event in outcome.events]
        if ids and state([history_of(name, exchange, trail) for name in ids]) == "delivered":
            return "delivered"
    return exchange.outcome


def history_of(event_id: str, exchange: Exchange, trail: Trail) -> History:
    """Return what became of an event that this webhook brought, even if others brought it too."""
    receipts = exchange.receipts(event_id)
    return trail.of(event_id, [at for _, at in receipts], receipts.index((exchange.number, exchange.at)))


def events_of(
    exchange: Exchange, trail: Trail, defaults: Defaults, stored: Callable[[str], list[dict[str, Any]]]
) -> tuple[list[Told], Outcome]:
    """Return the first events of a webhook, and its whole outcome.

    ``stored`` returns what Klaviyo has of a ``unique_id``.
    """
    outcome = outcome_of(exchange, defaults)
    rows = []
    for event in outcome.events[:SHOWN_EVENTS]:
        name = event_id(event.unique_id, private=outcome.private_ids)
        entry = json.loads(event.entry)
        history = history_of(name, exchange, trail)
        repeats = _before(exchange, name)
        # The event may be there from before, which does not show that a repeat has arrived.
        there = stored(event.unique_id) if history.delivered or repeats is None else []
        rows.append(
            Told(
                event_id=name,
                unique_id=event.unique_id,
                metric=entry["attributes"]["events"]["data"][0]["attributes"]["metric"]["data"]["attributes"]["name"],
                entry=entry,
                marks=marks_of(entry),
                silent=is_silent(entry),
                history=history,
                stored=[kept for kept in there if _is_whose(kept, entry)],
                repeats=repeats,
            )
        )
    return rows, outcome


def _before(exchange: Exchange, event_id: str) -> int | None:
    """Return the webhook that brought the event first; ``None`` if this one did."""
    (first, _), *_ = exchange.receipts(event_id)
    return None if first == exchange.number else first


def _is_whose(stored: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Return whether a stored event is of this entry's profile and metric.

    For Klaviyo a ``unique_id`` counts within them.
    """
    metric = _event(entry)["metric"]["data"]["attributes"]["name"]
    return (stored["profile"], stored["metric"]) == (
        standin.identity(entry["attributes"]["profile"]["data"]),
        metric,
    )


def alike(stored: Mapping[str, Any] | None, entry: Mapping[str, Any]) -> bool:
    """Return whether both are one event, except for a time of receipt.

    The front door receives a webhook before the function does.
    """
    if not stored:
        return False
    ours, theirs = plain(entry), plain(stored)
    times = [values.time(row.pop("time", None)) or 0.0 for row in (ours, theirs)]
    return ours == theirs and abs(times[0] - times[1]) <= RECEIPT_SECONDS


def plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an ``event-bulk-create`` entry in reading order: profile, metric, time, value, properties."""
    outer, event = entry["attributes"], dict(_event(entry))
    profile = outer["profile"]["data"]
    metric = event.pop("metric")["data"]["attributes"]
    properties = event.pop("properties")
    return {
        "metric": metric["name"],
        **event,
        **({"backfill": True} if outer.get("backfill") else {}),
        "profile": {name: value for name, value in profile.items() if name not in ("type", "attributes")}
        | profile["attributes"],
        "properties": properties,
    }


def _event(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes: Mapping[str, Any] = entry["attributes"]["events"]["data"][0]["attributes"]
    return attributes


def marks_of(entry: Mapping[str, Any]) -> list[str]:
    """Return ``where: code`` of everything that was left out or cut, as the event itself carries it."""
    return list(_event(entry)["properties"].get(MARK, []))


def is_silent(entry: Mapping[str, Any]) -> bool:
    """Return whether Klaviyo accepts this event and stores nothing."""
    email = entry["attributes"]["profile"]["data"]["attributes"].get("email", "")
    return values.is_dropped(email)


def explained(mark: str) -> str:
    """Return a mark in words: ``phone_number: not a valid number, or without a country: left out``."""
    where, _, code = mark.rpartition(": ")
    return f"{where}: {NOTES.get(code, code)}"
