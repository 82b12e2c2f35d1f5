"""What is authentic is never refused: what cannot be read or mapped is parked as it came, with its reason.

Both functions settle raw webhooks here, ``receive`` when they come and
``redriven`` after a redrive. Neither an unreadable body nor a fault of our own
costs a webhook (docs/decisions/0029).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from .. import messages
from ..errors import SourceError, UnknownSource, Unmapped
from ..messages import Outgoing, Raw
from ..telemetry import crash, logger
from .mapping import Outcome, UnmappedItem

_Made = TypeVar("_Made")


class DeadLetter(NamedTuple):
    """A message for the dead-letter queue, with its reason as logs and metrics have it."""

    reason: str
    detail: str
    outgoing: Outgoing


def settled(source: str, make: Callable[[], _Made]) -> _Made | Outcome:
    """What ``make`` makes of a webhook of ``source``; if it fails, the whole of it parked with the reason."""
    try:
        return make()
    except Unmapped as error:
        reason, detail = error.reason, error.detail
    except (SourceError, UnknownSource) as error:
        reason, detail = "source_file", str(error)
    except RecursionError:
        reason, detail = "nested_too_deep", "the body is nested deeper than its mapping goes"
    except Exception as error:  # noqa: BLE001 (a fault of our own must not cost an authentic webhook: it is parked)
        cause, place = crash(error)
        logger.error("mapping crashed", extra={"source": source, "cause": cause, "place": place})
        reason, detail = "mapping_crashed", f"{cause} at {place}"
    return Outcome(parked=[UnmappedItem(None, reason, detail)])


def letters(raw: Raw, parked: Sequence[UnmappedItem], *, at: str) -> Iterator[DeadLetter]:
    """``raw`` for the dead-letter queue, once for each reason, with the places of its items; ``at`` is ISO 8601.

    If no message has room for a list of places, the whole webhook is parked
    without one. What became events already then comes again after a redrive,
    under the same ids.
    """
    places: dict[tuple[str, str], list[int | None]] = {}
    for one in parked:
        places.setdefault((one.reason, one.detail), []).append(one.index)
    for (reason, detail), indices in places.items():
        only = tuple(index for index in indices if index is not None) or raw.only
        outgoing = messages.parked(raw._replace(only=only), reason=reason, detail=detail, at=at)
        if not messages.fits(outgoing):
            outgoing = messages.parked(raw._replace(only=None), reason=reason, detail=detail, at=at)
        yield DeadLetter(reason, detail, outgoing)
