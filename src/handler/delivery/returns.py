"""Events that an invocation defers or parks: packed into messages and sent to a queue."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from .. import messages
from ..closing import NO_SLOT, THROTTLED
from ..errors import NoSlot
from ..messages import MAX_DELAY, Message, Outgoing, Raw
from ..pauses import Pauses
from ..telemetry import logger
from .jobs import Job, Row
from .records import Received, Record

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

DAY = 86_400
LONGEST_WAIT = 13 * DAY  # of a message that is sent repeatedly; SQS starts its 14 days again each time
_MOST_DEFERRALS = 8  # from here on the delay no longer grows


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message to send, and the places of the records whose events it carries."""

    outgoing: Outgoing
    owners: frozenset[int]


def unmapped(record: Record, source: str, delay: int) -> Outgoing:
    """Return a raw webhook to be sent again unchanged: there was no time or no room to map it."""
    return Outgoing(record.body, f"{source}#redrive", delay)


def defer(
    jobs: Iterable[Job],
    received: Sequence[Received],
    *,
    cause: NoSlot | None,
    now: float,
    random: Callable[[], float],
    pauses: Pauses,
    late_after: float = 0.0,
) -> list[Parcel]:
    """Return the events that were not delivered, packed into messages to be sent again.

    Small messages travel together. The rows of a suspect job stay in messages of their
    own, so that taking a refused job apart continues where it ended. Events older than
    ``late_after`` seconds (0: never) move to the group of the backfills, behind live
    events.
    """
    oldest = now - late_after if late_after else float("-inf")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for number, job in enumerate(jobs):
        # Rounded up, so that no request accepted before the refusal counts as one after it.
        refused_at = None if job.refused_at is None else math.ceil(job.refused_at)
        own = -1 if refused_at is None else number
        for row in job.rows:
            message = _message(received[row.owner])
            # Grouped by the day on which the wait began, since events of one message are also parked together.
            waits = message.waiting_since // DAY
            kind = (message.source, message.private_ids, repr(message.extra))
            fate = (min(message.deferred, _MOST_DEFERRALS), message.suspect, waits)
            backfill = message.backfill or row.event.time < oldest
            groups.setdefault((own, refused_at, backfill, *kind, *fate), []).append(row)
    parcels: list[Parcel] = []
    for (_, refused_at, backfill, *_), rows in groups.items():
        like = _like(rows, received, now=now, refused_at=refused_at, backfill=backfill, cause=cause)
        for part, owners in _packed(rows, like):
            wait = delay(cause, like.deferred, now=now, random=random, pauses=pauses)
            parcels.append(Parcel(Outgoing(messages.encode(part), messages.group(part), wait), owners))
    return parcels


def overdue(
    left: Iterable[Job], received: Sequence[Received], *, cause: NoSlot | None, now: float
) -> tuple[list[Job], list[RefusedRows]]:
    """Return ``left`` without the rows that have waited too long, and those rows, to be parked.

    Nothing else ends a loop through the queue: Lambda allows this one (RecursiveLoop in template.yaml).
    """
    kept: list[Job] = []
    parked: list[RefusedRows] = []
    why = cause.closing if cause else "Klaviyo gave no reason"
    for job in left:
        old = {index for index, row in enumerate(job.rows) if _waited(received[row.owner], now) > LONGEST_WAIT}
        if old:
            rows = tuple(job.rows[index] for index in sorted(old))
            detail = f"waited for {LONGEST_WAIT // DAY} days; last deferral: {why}"
            parked.append(RefusedRows(rows, "waited_too_long", detail))
        kept += job.without(old)
    return kept, parked


def _waited(record: Received, now: float) -> float:
    since = _message(record).waiting_since
    return now - since if since else 0.0


def _message(record: Received) -> Message:
    if isinstance(record.message, Raw):
        raise TypeError("a raw webhook has no events yet")
    return record.message


def _like(
    rows: list[Row],
    received: Sequence[Received],
    *,
    now: float,
    refused_at: int | None,
    backfill: bool,
    cause: NoSlot | None,
) -> Message:
    """Return the header of the messages in which ``rows`` are sent again; suspect if there is a ``refused_at``."""
    message = _message(received[rows[0].owner])
    # The latest of a day, so that no event is parked before it has waited long enough.
    waiting_since = max(_message(received[row.owner]).waiting_since for row in rows)
    deferred = max(_message(received[row.owner]).deferred for row in rows)
    if refused_at is not None and not message.suspect:
        deferred = 0  # counts from the refusal on
    elif not _ends_when_it_says(cause):
        deferred += 1
    return message._replace(
        received=min(_message(received[row.owner]).received for row in rows),
        deferred=deferred,
        suspect=refused_at is not None,
        refused_at=refused_at or 0,
        waiting_since=waiting_since or math.ceil(now),
        backfill=backfill,
    )


def _packed(rows: Sequence[Row], like: Message) -> list[tuple[Message, frozenset[int]]]:
    owner_of = {id(row.event): row.owner for row in rows}
    return [
        (part, frozenset(owner_of[id(event)] for event in part.events))
        for part in messages.pack((row.event for row in rows), like)
    ]


def _ends_when_it_says(cause: NoSlot | None) -> bool:
    """Return whether the end of the wait is known: slots and Klaviyo's windows have one, an outage does not."""
    return cause is not None and cause.closing.code in (NO_SLOT, THROTTLED)


def delay(cause: NoSlot | None, deferred: int, *, now: float, random: Callable[[], float], pauses: Pauses) -> int:
    """Return the seconds until a deferred message comes back: not before it can be sent, and spread.

    If that time is not known, the delay grows with each deferral up to 13 minutes.
    This bounds the cost of an outage of a day, and lets a backlog return within a
    quarter of an hour.
    """
    wait = max(0.0, cause.retry_at - now) if cause else 0.0
    if _ends_when_it_says(cause):
        spread = pauses.spread * random()
    else:
        longest = min(pauses.longest_deferral, pauses.deferral * 2 ** min(deferred, _MOST_DEFERRALS))
        spread = longest * (0.5 + 0.5 * random())
    return max(1, min(MAX_DELAY, round(wait + spread)))


@dataclass(frozen=True, slots=True)
class RefusedRows:
    """Rows that Klaviyo does not accept; ``detail`` is free of personal data."""

    rows: tuple[Row, ...]
    reason: str
    detail: str
    suspect: bool = False


def park(parked: Iterable[RefusedRows], received: Sequence[Received], *, at: str) -> list[Parcel]:
    """Return messages for the dead-letter queue, one for all rows of a source with the same reason.

    A redrive brings them back as if new, but still suspect if Klaviyo did not name
    them.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for part in parked:
        for row in part.rows:
            message = _message(received[row.owner])
            kind = (message.source, message.backfill, message.private_ids, repr(message.extra))
            groups.setdefault((*kind, part.reason, part.detail, part.suspect), []).append(row)
    parcels: list[Parcel] = []
    for (*_, reason, detail, suspect), rows in groups.items():
        like = _message(received[rows[0].owner])
        refused_at = like.refused_at if suspect else 0
        like = like._replace(deferred=0, suspect=bool(suspect), refused_at=refused_at, waiting_since=0)
        for message, owners in _packed(rows, like):
            outgoing = messages.parked(message, reason=str(reason), detail=str(detail), at=at)
            parcels.append(Parcel(outgoing, owners))
    return parcels


class Queues:
    """The calls of SQS that an invocation makes, each for ten messages, until ``is_late()``."""

    def __init__(self, client: SQSClient, is_late: Callable[[], bool]) -> None:
        self._client = client
        self._is_late = is_late

    def send(self, url: str, parcels: Sequence[Parcel]) -> frozenset[int]:
        """Send ``parcels``; return the owners of those that the queue did not accept.

        Parcels that were accepted before the queue became unreachable count as sent.
        Otherwise their messages would come again together with their copies, and double
        each time.
        """
        refused: set[int] = set()
        reached = True
        for part in messages.batches([parcel.outgoing for parcel in parcels]):
            left = part
            if reached:
                try:
                    left = messages.send(self._client, url, part, is_late=self._is_late)
                except ClientError as error:  # SQS may refuse this part for its form, and accept the next one
                    _unavailable(error)
                except BotoCoreError as error:
                    _unavailable(error)
                    reached = False
            refused.update(id(outgoing) for outgoing in left)
        return frozenset(owner for parcel in parcels if id(parcel.outgoing) in refused for owner in parcel.owners)

    def delete(self, url: str, records: Sequence[Record]) -> bool:
        """Acknowledge now rather than with the invocation's answer; return whether all were deleted in time."""
        return self._each(records, lambda entries: self._client.delete_message_batch(QueueUrl=url, Entries=entries))

    def show(self, url: str, records: Sequence[Record], *, after: Callable[[], float]) -> bool:
        """Let the queue hand over ``records`` again, each ``after()`` seconds from now; return as ``delete``."""

        def change(entries: list[Any]) -> Any:
            timed = [entry | {"VisibilityTimeout": round(after())} for entry in entries]
            return self._client.change_message_visibility_batch(QueueUrl=url, Entries=timed)

        return self._each(records, change)

    def _each(self, records: Sequence[Record], call: Callable[[list[Any]], Any]) -> bool:
        for start in range(0, len(records), messages.BATCH_ENTRIES):
            if self._is_late():
                return False
            part = records[start : start + messages.BATCH_ENTRIES]
            try:
                answer = call(
                    [{"Id": str(index), "ReceiptHandle": record.receipt} for index, record in enumerate(part)]
                )
            except (ClientError, BotoCoreError) as error:
                _unavailable(error)
                return False
            if answer.get("Failed"):
                return False
        return True


def _unavailable(error: Exception) -> None:
    logger.error("queue unavailable", extra={"cause": type(error).__name__})
