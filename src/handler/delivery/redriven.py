"""Raw webhooks that a redrive brought back: map them again, or park them again.

Loaded only when there is one: mapping also loads the parsers, which an
ordinary delivery does not need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from sys import getsizeof
from typing import Any

from .. import messages
from ..errors import MessageError, Unmapped
from ..events import handshakes, mapping, parking, senders
from ..events.mapping import Defaults, Outcome
from ..events.webhook import Webhook
from ..messages import Message, Outgoing, Raw
from ..telemetry import event_id, logger
from .records import Received
from .report import dead_letter
from .returns import Parcel, unmapped

_MOST_IDS = 500  # the job's lines have all of them
# A batch of 6 MB may hold a thousand raw webhooks, each of which may become 30 MB and take seconds. One invocation maps
# less than this plus one webhook. It sends the others to the queue again.
MOST_BYTES = 100_000_000
_LATE = "a URL verification request, whose sender no longer waits for the answer"


def replay(
    received: Sequence[Received],
    *,
    defaults: Defaults,
    at: str,
    stagger: int,
    is_late: Callable[[], bool] = lambda: False,
) -> tuple[list[Received], list[Parcel], list[Parcel]]:
    """Return ``received`` with its raw webhooks mapped, what to park again, and what to map later.

    Owners are places in ``received``. Once ``is_late()``, or once there are
    ``MOST_BYTES`` of events in memory, the others are sent again with a delay of ``stagger``
    seconds. The first webhook is always mapped.
    """
    mapped: list[Received] = []
    parcels: list[Parcel] = []
    later: list[Parcel] = []
    size, begun = 0, False
    for owner, record in enumerate(received):
        if isinstance(record.message, Message):
            mapped.append(record)
            continue
        if begun and (size > MOST_BYTES or is_late()):
            again = unmapped(record.record, record.message.source, stagger)
            later.append(Parcel(again, frozenset({owner})))
            mapped.append(record)
            continue
        begun = True
        try:
            raw = messages.inflated(record.message, record.record.body)  # only now, since each may take 30 MB
        except MessageError as error:
            parcels.append(Parcel(_unreadable(record, str(error), at), frozenset({owner})))
            mapped.append(record)
            continue
        outcome = parking.settled(raw.source, partial(_understand, raw, defaults))
        parcels += _parked(raw, outcome, owner, at)
        logger.info("webhook mapped again", extra=_line(raw, outcome))
        mapped.append(record._replace(message=_message(raw, outcome)))
        size += sum(getsizeof(event.entry) for event in outcome.events)  # up to 4 bytes for each character
    return mapped, parcels, later


def _unreadable(record: Received, detail: str, at: str) -> Outgoing:
    outgoing = messages.parked_text(record.record.body, "unknown", reason="unreadable_message", detail=detail, at=at)
    dead_letter("unreadable_message", detail, "unknown")
    return outgoing


def _line(raw: Raw, outcome: Outcome) -> dict[str, Any]:
    ids = [event_id(event.unique_id, private=outcome.private_ids) for event in outcome.events[:_MOST_IDS]]
    line = {
        "webhook_id": raw.webhook_id,
        "source": raw.source,
        "events": len(outcome.events),
        "ignored": outcome.ignored,
        "sender_ids": outcome.sender_ids[:20],
        "event_ids": ids,
    }
    return {name: value for name, value in line.items() if name == "events" or value}


def _message(raw: Raw, outcome: Outcome) -> Message:
    return Message(
        raw.source,
        tuple(outcome.events),
        raw.received,
        backfill=True,  # redriven events yield to live ones
        redriven=True,
        private_ids=outcome.private_ids,
    )


def _understand(raw: Raw, defaults: Defaults) -> Outcome:
    source = senders.load(raw.source)
    webhook = Webhook.posted(raw.headers, raw.body)
    if check := handshakes.find(source, webhook, signed=True):
        handshakes.answer(*check)
        return Outcome(ignored=_LATE)
    outcome = mapping.understand(
        source, webhook, received=raw.received, defaults=defaults, only=raw.only, items=raw.items
    )
    if outcome.ignored and not outcome.topics:  # it would be lost, and it held something when it was parked
        raise Unmapped("no_events", "the source's `items` selects nothing in this webhook")
    return outcome


def _parked(raw: Raw, outcome: Outcome, owner: int, at: str) -> list[Parcel]:
    parcels: list[Parcel] = []
    for reason, detail, outgoing in parking.letters(raw, outcome, at=at):
        dead_letter(reason, detail, raw.source, webhook_id=raw.webhook_id, sender_ids=outcome.sender_ids[:20])
        parcels.append(Parcel(outgoing, frozenset({owner})))
    return parcels
