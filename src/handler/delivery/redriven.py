"""Raw webhooks that a redrive brought back: map them again, or park them again.

Loaded only when there is one: mapping also loads the parsers, which an
ordinary delivery does not need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from .records import Parcel, Record
from .report import dead_letter

_MOST_IDS = 500  # the job's lines have all of them
# A batch of 6 MB may hold a thousand raw webhooks, each of which may become 30 MB and take seconds. One invocation maps
# less than this plus one webhook. It sends the others to the queue again.
MOST_BYTES = 100_000_000


def replay(
    raws: Mapping[int, Raw],
    group: Sequence[Record],
    *,
    defaults: Defaults,
    at: str,
    stagger: int,
    is_late: Callable[[], bool] = lambda: False,
) -> tuple[dict[int, Message], list[Parcel], list[Parcel]]:
    """Return the messages that ``raws`` are mapped to, what to park again, and what to map later.

    ``raws`` stand under the places of their records in ``group``. Once ``is_late()``, or
    once there are ``MOST_BYTES`` of events in memory, the others are sent again with a
    delay of ``stagger`` seconds. The first webhook is always mapped.
    """
    mapped: dict[int, Message] = {}
    parcels: list[Parcel] = []
    later: list[Parcel] = []
    size = 0
    for place, raw in raws.items():
        body = group[place].body
        if (mapped or parcels) and (size > MOST_BYTES or is_late()):
            later.append(Parcel(Outgoing(body, f"{raw.source}#redrive", stagger), {place}))
            continue
        try:
            whole = messages.inflated(raw, body)  # only now, since each may take 30 MB
        except MessageError as error:
            outgoing = messages.parked_text(body, "unknown", reason="unreadable_message", detail=str(error), at=at)
            dead_letter(outgoing)
            parcels.append(Parcel(outgoing, {place}))
            continue
        outcome = parking.settled(raw.source, partial(_understand, whole, defaults))
        for outgoing in parking.letters(whole, outcome, at=at):
            dead_letter(outgoing, webhook_id=raw.webhook_id, sender_ids=outcome.sender_ids[:20])
            parcels.append(Parcel(outgoing, {place}))
        logger.info("webhook mapped again", extra=_line(raw, outcome))
        mapped[place] = Message(
            raw.source,
            tuple(outcome.events),
            raw.received,
            backfill=True,  # redriven events yield to live ones
            redriven=True,
            private_ids=outcome.private_ids,
        )
        size += sum(getsizeof(event.entry) for event in outcome.events)  # up to 4 bytes for each character
    return mapped, parcels, later


def _line(raw: Raw, outcome: Outcome) -> dict[str, Any]:
    line = {
        "webhook_id": raw.webhook_id,
        "source": raw.source,
        "events": len(outcome.events),
        "ignored": outcome.ignored,
        "sender_ids": outcome.sender_ids[:20],
        "event_ids": [event_id(event.unique_id, private=outcome.private_ids) for event in outcome.events[:_MOST_IDS]],
    }
    return {name: value for name, value in line.items() if name == "events" or value}


def _understand(raw: Raw, defaults: Defaults) -> Outcome:
    source = senders.load(raw.source)
    webhook = Webhook.posted(raw.headers, raw.body)
    if check := handshakes.find(source, webhook, signed=True):
        handshakes.answer(*check)
        return Outcome(ignored="a URL verification request, whose sender no longer waits for the answer")
    outcome = mapping.understand(
        source, webhook, received=raw.received, defaults=defaults, only=raw.only, items=raw.items
    )
    if outcome.ignored and not outcome.topics:  # it would be lost, and it held something when it was parked
        raise Unmapped("no_events", "the source's `items` selects nothing in this webhook")
    return outcome
