"""Parking of authentic webhooks that cannot be read or mapped: as they came, with the reason.

Both functions settle raw webhooks here, ``receive`` when they come and
``redriven`` after a redrive. No webhook is lost through an unreadable body or
through a fault in our code (docs/decisions/0029).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from .. import messages
from ..errors import SourceError, UnknownSource, Unmapped
from ..messages import Outgoing, Raw
from ..telemetry import crash, logger
from .mapping import Outcome, UnmappedItem

_Made = TypeVar("_Made")


def settled(source: str, make: Callable[[], _Made]) -> _Made | Outcome:
    """Return what ``make`` makes of a webhook of ``source``; if it fails, park the whole webhook with the reason."""
    try:
        return make()
    except Unmapped as error:
        reason, detail = error.reason, error.detail
    except (SourceError, UnknownSource) as error:
        reason, detail = "source_file", str(error)
    except RecursionError:
        reason, detail = "nested_too_deep", "the body is nested too deeply to be mapped"
    except Exception as error:  # noqa: BLE001 (a fault in our code must not lose an authentic webhook)
        cause, place = crash(error)
        logger.error("mapping crashed", extra={"source": source, "cause": cause, "place": place})
        reason, detail = "mapping_crashed", f"{cause} at {place}"
    return Outcome(parked=[UnmappedItem(None, reason, detail)])


def letters(raw: Raw, outcome: Outcome, *, at: str) -> Iterator[Outgoing]:
    """Yield ``raw`` for the dead-letter queue, once for each reason, with the places of its items; ``at`` is ISO 8601.

    What was parked as a whole keeps the places that it came with, and their digest.
    If no message has room for a list of places, the whole webhook is parked
    without one. A redrive then repeats the items that became events already,
    under the same ids.
    """
    places: dict[tuple[str, str], list[int | None]] = {}
    for item in outcome.parked:
        places.setdefault((item.reason, item.detail), []).append(item.index)
    for (reason, detail), indices in places.items():
        only = tuple(index for index in indices if index is not None)
        kept = raw._replace(only=only, items=outcome.items) if only else raw
        outgoing = messages.parked(kept, reason=reason, detail=detail, at=at)
        if not messages.fits(outgoing):
            outgoing = messages.parked(raw._replace(only=None), reason=reason, detail=detail, at=at)
        yield outgoing
