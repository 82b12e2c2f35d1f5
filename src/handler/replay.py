"""Raw webhooks that a redrive brought back: map them again, or park them again.

Loaded only when there is one: mapping brings the parsers along, which an
ordinary delivery does not need.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from typing import Any

from . import mapping, messages, sources
from .batch import Parcel, Received
from .errors import Refused, SourceError, Unmapped
from .mapping import Defaults, Outcome
from .messages import Message, Raw
from .report import parked_whole
from .telemetry import event_id, logger

_IDS_PER_LINE = 500  # as in the job's line, which has all of them


def replay(received: Sequence[Received], *, defaults: Defaults, at: str) -> tuple[list[Received], list[Parcel]]:
    """``received`` with its raw webhooks mapped, and what of them is to be parked again (owners are places in it)."""
    mapped: list[Received] = []
    parcels: list[Parcel] = []
    for owner, one in enumerate(received):
        if isinstance(one.message, Message):
            mapped.append(one)
            continue
        outcome = _understand(one.message, defaults)
        parcels += _parked(one.message, outcome, owner, at)
        logger.info(
            "webhook mapped again",
            extra=_line(one.message, outcome),
        )
        mapped.append(one._replace(message=_message(one.message, outcome)))
    return mapped, parcels


def _line(raw: Raw, outcome: Outcome) -> dict[str, Any]:
    ids = [event_id(event.unique_id, private=outcome.private_ids) for event in outcome.events[:_IDS_PER_LINE]]
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
        backfill=True,  # what a redrive brought back yields to live events
        redriven=True,
        private_ids=outcome.private_ids,
    )


def _understand(raw: Raw, defaults: Defaults) -> Outcome:
    try:
        return mapping.understand(
            sources.load(raw.source),
            headers=raw.headers,
            body=raw.body,
            received=raw.received,
            defaults=defaults,
            only=raw.only,
        )
    except (Refused, Unmapped) as error:
        reason, detail = error.reason, error.detail
    except SourceError as error:
        reason, detail = "source_file", str(error)
    except Exception as error:  # noqa: BLE001 (as at the door: a fault of the mapping costs this webhook a try, not its neighbours a crash)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = "mapping_crashed"
        detail = f"{type(error).__name__} at {os.path.basename(frame.filename)}:{frame.lineno}"
    return Outcome(parked=[mapping.Parked(None, reason, detail)])


def _parked(raw: Raw, outcome: Outcome, owner: int, at: str) -> list[Parcel]:
    by_reason: dict[tuple[str, str], list[int | None]] = {}
    for parked in outcome.parked:
        by_reason.setdefault((parked.reason, parked.detail), []).append(parked.index)
    parcels: list[Parcel] = []
    for (reason, detail), places in by_reason.items():
        only = tuple(place for place in places if place is not None) or raw.only
        part = raw._replace(only=only)
        parked_whole(reason, detail, raw.source, webhook_id=raw.webhook_id, sender_ids=outcome.sender_ids[:20])
        parcels.append(Parcel(messages.parked(part, reason=reason, detail=detail, at=at), frozenset({owner})))
    return parcels
