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
from .crashes import account
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


def unmapped(record: Received, raw: Raw, delay: int) -> Outgoing:
    """Return ``record``, which is ``raw``, to be sent again unchanged: there was no time or no room to map it."""
    return Outgoing(messages.encode(raw), f"{raw.source}#redrive", delay, account(record.crashes))


def _outgoing(message: Message, crashes: int, delay: int) -> Outgoing:
    return Outgoing(messages.encode(message), messages.group(message), delay, account(crashes))


def defer(
    jobs: Iterable[Job],
    received: Sequence[Received],
    *,
    cause: NoSlot | None,
    now: float,
    random: Callable[[], float],
    pauses: Pauses,
    late_after: float = 0.0,
    refused_at: float = float("inf"),
) -> list[Parcel]:
    """Return the events that were not delivered, packed into messages to be sent again.

    Small messages travel together. The rows of a suspect job stay in messages of their
    own, so that taking a refused job apart continues where it ended. Events older than
    ``late_after`` seconds (0: never) move to the group of the backfills, behind live
    events. ``refused_at``: see ``dispatch.Result``.
    """
    oldest = now - late_after if late_after else float("-inf")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for number, job in enumerate(jobs):
        for row in job.rows:
            message = _message(received[row.owner])
            own = number if job.suspect else -1
            # Grouped by the day on which the wait began, since events of one message are also parked together.
            waits = message.waiting_since // DAY
            fate = (min(message.deferred, _MOST_DEFERRALS), received[row.owner].crashes, message.suspect, waits)
            backfill = message.backfill or row.event.time < oldest
            groups.setdefault((own, backfill, message.source, message.private_ids, *fate), []).append(row)
    parcels: list[Parcel] = []
    for (own, backfill, *_), rows in groups.items():
        refused = math.ceil(min(now, refused_at)) if own != -1 else 0
        like = _like(rows, received, now=now, refused_at=refused, backfill=backfill, cause=cause)
        crashes = received[rows[0].owner].crashes
        parcels += [
            Parcel(_outgoing(part, crashes, delay(cause, like.deferred, now=now, random=random, pauses=pauses)), owners)
            for part, owners in _packed(rows, like)
        ]
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
    rows: list[Row], received: Sequence[Received], *, now: float, refused_at: int, backfill: bool, cause: NoSlot | None
) -> Message:
    """Return the header of the messages in which ``rows`` are sent again; suspect if there is a ``refused_at``."""
    message = _message(received[rows[0].owner])
    # The latest of a day, so that no event is parked before it has waited long enough.
    waiting_since = max(_message(received[row.owner]).waiting_since for row in rows)
    deferred = max(_message(received[row.owner]).deferred for row in rows)
    if refused_at and not message.suspect:
        deferred = 0  # counts from the refusal on
    elif not _ends_when_it_says(cause):
        deferred += 1
    return message._replace(
        received=min(_message(received[row.owner]).received for row in rows),
        deferred=deferred,
        suspect=refused_at > 0,
        refused_at=(message.refused_at or refused_at) if refused_at else 0,
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
            key = (message.source, message.backfill, message.private_ids, part.reason, part.detail, part.suspect)
            groups.setdefault(key, []).append(row)
    parcels: list[Parcel] = []
    for (*_, reason, detail, suspect), rows in groups.items():
        like = _message(received[rows[0].owner])
        refused_at = like.refused_at if suspect else 0
        like = like._replace(deferred=0, suspect=bool(suspect), refused_at=refused_at, waiting_since=0)
        for message, owners in _packed(rows, like):
            outgoing = messages.parked(message, reason=str(reason), detail=str(detail), at=at)
            parcels.append(Parcel(outgoing, owners))
    return parcels


def send(client: SQSClient, queue_url: str, parcels: Sequence[Parcel]) -> frozenset[int]:
    """Send ``parcels``; return the owners of those that the queue did not accept.

    Parcels accepted before the queue became unreachable count as sent. Otherwise
    their messages would come again together with their copies, and double each time.
    """
    refused: set[int] = set()
    reached = True
    for part in messages.batches([parcel.outgoing for parcel in parcels]):
        try:
            left = messages.send(client, queue_url, part) if reached else part
        except (ClientError, BotoCoreError) as error:
            logger.error("queue unavailable", extra={"cause": type(error).__name__})
            left, reached = part, False
        refused.update(id(outgoing) for outgoing in left)
    return frozenset(owner for parcel in parcels if id(parcel.outgoing) in refused for owner in parcel.owners)


def delete(client: SQSClient, queue_url: str, records: Sequence[Record]) -> None:
    """Acknowledge now rather than with the invocation's answer; a record for which that fails is repeated."""
    for start in range(0, len(records), messages.BATCH_ENTRIES):
        part = records[start : start + messages.BATCH_ENTRIES]
        try:
            client.delete_message_batch(
                QueueUrl=queue_url,
                Entries=[{"Id": str(index), "ReceiptHandle": record.receipt} for index, record in enumerate(part)],
            )
        except (ClientError, BotoCoreError) as error:
            logger.error("queue unavailable", extra={"cause": type(error).__name__})
