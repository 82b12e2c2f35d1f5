"""Events that an invocation defers or parks: packed into messages and sent to a queue."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from .. import messages
from ..closing import NO_SLOT, THROTTLED
from ..errors import NoSlot
from ..messages import MAX_DELAY, Message, Outgoing
from ..pauses import Pauses
from ..telemetry import logger
from .jobs import Job, Row
from .records import Parcel, Record

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

DAY = 86_400
LONGEST_WAIT = 13 * DAY  # of a message that is sent repeatedly; SQS starts its 14 days again each time
_MOST_DEFERRALS = 8  # from here on the delay no longer grows


def defer(
    jobs: Iterable[Job],
    owners: Mapping[int, Message],
    *,
    cause: NoSlot | None,
    now: float,
    random: Callable[[], float],
    pauses: Pauses,
    late_after: float = 0.0,
) -> list[Parcel]:
    """Return the events that were not delivered, packed into messages to be sent again.

    ``owners[row.owner]`` is the message that a row came in. Small messages travel
    together. The rows of a suspect job stay in messages of their own, so that taking a
    refused job apart continues where it ended. Events older than ``late_after`` seconds
    (0: never) move to the group of the backfills, behind live events.
    """
    oldest = now - late_after if late_after else float("-inf")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for number, job in enumerate(jobs):
        # Rounded up, so that no request accepted before the refusal counts as one after it.
        refused_at = None if job.refused_at is None else math.ceil(job.refused_at)
        for row in job.rows:
            message = owners[row.owner]
            refusals = max(job.refusals, message.refusals)
            own = (number, row.owner if refusals else -1) if job.suspect else ()
            # Grouped by the day on which the wait began, since events of one message are also parked together.
            waits = message.waiting_since // DAY
            kind = (message.source, message.private_ids, repr(message.extra))
            fate = (min(message.deferred, _MOST_DEFERRALS), message.suspect, waits)
            backfill = message.backfill or row.event.time < oldest
            groups.setdefault((own, refusals, refused_at, backfill, *kind, *fate), []).append(row)
    parcels: list[Parcel] = []
    for (_, refusals, refused_at, backfill, *_), rows in groups.items():
        like = _like(
            [owners[row.owner] for row in rows],
            now=now,
            refused_at=refused_at,
            refusals=refusals,
            backfill=backfill,
            cause=cause,
        )
        for part, places in _packed(rows, like):
            wait = delay(cause, like.deferred, now=now, random=random, pauses=pauses)
            parcels.append(Parcel(Outgoing(messages.encode(part), messages.group(part), wait), places))
    return parcels


def overdue(
    left: Sequence[Job], owners: Mapping[int, Message], *, cause: NoSlot | None, now: float
) -> tuple[list[Job], list[RefusedRows]]:
    """Return ``left`` without the rows that have waited too long, and those rows, to be parked.

    Nothing else ends a loop through the queue: Lambda allows this one (RecursiveLoop in template.yaml).
    """

    def is_overdue(row: Row) -> bool:
        return now - (owners[row.owner].waiting_since or now) > LONGEST_WAIT

    kept = [
        part for job in left for part in job.without(index for index, row in enumerate(job.rows) if is_overdue(row))
    ]
    old = tuple(row for job in left for row in job.rows if is_overdue(row))
    detail = f"waited for {LONGEST_WAIT // DAY} days; last deferral: {cause.closing if cause else 'not settled'}"
    return kept, [RefusedRows(old, "waited_too_long", detail)] if old else []


def _like(
    sent: Sequence[Message], *, now: float, refused_at: int | None, refusals: int, backfill: bool, cause: NoSlot | None
) -> Message:
    """Return the header for events of ``sent`` that are sent again; suspect if there is a ``refused_at``."""
    deferred = max(message.deferred for message in sent)
    if refused_at is not None and not sent[0].suspect:
        deferred = 0  # counts from the refusal on
    elif not _ends_when_it_says(cause):
        deferred += 1
    return sent[0]._replace(
        received=min(message.received for message in sent),
        deferred=deferred,
        suspect=refused_at is not None,
        refused_at=refused_at or 0,
        refusals=refusals,
        # The latest of a day, so that no event is parked before it has waited long enough.
        waiting_since=max(message.waiting_since for message in sent) or math.ceil(now),
        backfill=backfill,
    )


def _packed(rows: Sequence[Row], like: Message) -> list[tuple[Message, set[int]]]:
    owner_of = {id(row.event): row.owner for row in rows}
    parts = messages.pack((row.event for row in rows), like)
    return [(part, {owner_of[id(event)] for event in part.events}) for part in parts]


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


def park(parked: Iterable[RefusedRows], owners: Mapping[int, Message], *, at: str) -> list[Parcel]:
    """Return messages for the dead-letter queue, one for all rows of a source with the same reason.

    A redrive brings them back as if new, but still suspect if Klaviyo did not name
    them.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for part in parked:
        for row in part.rows:
            message = owners[row.owner]
            kind = (message.source, message.backfill, message.private_ids, repr(message.extra))
            groups.setdefault((*kind, part.reason, part.detail, part.suspect), []).append(row)
    parcels: list[Parcel] = []
    for (*_, reason, detail, suspect), rows in groups.items():
        like = owners[rows[0].owner]
        refused_at = like.refused_at if suspect else 0
        like = like._replace(deferred=0, suspect=bool(suspect), refused_at=refused_at, refusals=0, waiting_since=0)
        for message, places in _packed(rows, like):
            outgoing = messages.parked(message, reason=str(reason), detail=str(detail), at=at)
            parcels.append(Parcel(outgoing, places))
    return parcels


@dataclass(frozen=True, slots=True)
class Queues:
    """The calls of SQS that an invocation makes, each for ten messages, until ``is_late()``."""

    client: SQSClient
    is_late: Callable[[], bool]

    def send(self, url: str, parcels: Sequence[Parcel]) -> set[int]:
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
                    left = messages.send(self.client, url, part, is_late=self.is_late)
                except (ClientError, BotoCoreError) as error:
                    _unavailable(error)
                    reached = isinstance(error, ClientError)  # it may refuse this part for its form, and take the next
            refused.update(id(outgoing) for outgoing in left)
        return {owner for parcel in parcels if id(parcel.outgoing) in refused for owner in parcel.owners}

    def delete(self, url: str, records: Sequence[Record]) -> bool:
        """Acknowledge now rather than with the invocation's answer; return whether all were deleted in time."""
        return self._each(records, lambda entries: self.client.delete_message_batch(QueueUrl=url, Entries=entries))

    def show(self, url: str, records: Sequence[Record], *, after: Callable[[], float]) -> bool:
        """Let the queue hand over ``records`` again, each ``after()`` seconds from now; return as ``delete``."""
        return self._each(
            records,
            lambda entries: self.client.change_message_visibility_batch(
                QueueUrl=url, Entries=[entry | {"VisibilityTimeout": round(after())} for entry in entries]
            ),
        )

    def _each(self, records: Sequence[Record], call: Callable[[list[Any]], Any]) -> bool:
        for start in range(0, len(records), messages.BATCH_ENTRIES):
            part = records[start : start + messages.BATCH_ENTRIES]
            entries = [{"Id": str(index), "ReceiptHandle": record.receipt} for index, record in enumerate(part)]
            try:
                if self.is_late() or call(entries).get("Failed"):
                    return False
            except (ClientError, BotoCoreError) as error:
                _unavailable(error)
                return False
        return True


def _unavailable(error: Exception) -> None:
    logger.error("queue unavailable", extra={"cause": type(error).__name__})
