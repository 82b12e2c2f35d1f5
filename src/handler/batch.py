"""An invocation's records: read them, set crashers apart, send back or park what is left.

SQS counts receives; ``deliver`` answers every record unless it dies, so an
earlier receive is a crash. Who crashed it is not known: the suspicion narrows
until one message is handled alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from . import messages
from .errors import MessageError, NewerMessage, NoSlot, TooLate
from .jobs import Job, Row
from .messages import MAX_DELAY, Message, Outgoing, Raw
from .telemetry import logger

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

ALONE_AT = 3  # on this receive a message is handled alone ...
PARKED_AT = 4  # ... and on this one parked
SHAKY = 32  # messages on their second receive that one invocation risks together
STAGGER_SECONDS = 6  # longer than the trigger's batching window, so that they come one at a time
CRASHED = "the function ended without an answer each time that it handled this message, at last alone"
_MOST_DEFERRALS = 8  # from here on the delay grows no more
_LONGEST_SPREAD = 780.0  # with a closing and the batching window, a backlog is back within a quarter of an hour


class Received(NamedTuple):
    """One record; ``receives`` counts this receive and the crashes of all copies before it."""

    record_id: str
    receipt: str
    message: Message | Raw
    receives: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """Something to send, and the places in the batch of the messages that it relieves."""

    outgoing: Outgoing
    owners: frozenset[int]


@dataclass(slots=True)
class Batch:
    """What an invocation was given.

    ``unreadable`` are to be parked as they are. ``newer`` are left to the code
    that wrote them: they come back after the visibility timeout.
    """

    received: list[Received] = field(default_factory=list)
    unreadable: list[tuple[str, Outgoing]] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Triage:
    """``handle`` now; ``resend`` with these delays in seconds, and ``park``, before that."""

    handle: list[Received] = field(default_factory=list)
    resend: list[tuple[Received, int]] = field(default_factory=list)
    park: list[Received] = field(default_factory=list)


def read(records: Iterable[Mapping[str, Any]], *, at: str) -> Batch:
    """Decode the ``Records`` of a Lambda event from SQS; ``at`` is ISO 8601."""
    batch = Batch()
    for record in records:
        receives = int(record["attributes"]["ApproximateReceiveCount"])
        try:
            message = messages.decode(record["body"])
        except MessageError as error:
            newer = isinstance(error, NewerMessage)
            if newer and receives < ALONE_AT:
                batch.newer.append(record["messageId"])
                continue
            reason = "newer_format" if newer else "unreadable_message"
            batch.unreadable.append((record["messageId"], _unreadable(record["body"], reason, str(error), at)))
            continue
        if "reason" in record.get("messageAttributes", ()) and isinstance(message, Message):
            # It was parked, and came back with the reason beside it: it yields to live events from now on.
            message = message._replace(backfill=True, redriven=True)
        batch.received.append(
            Received(record["messageId"], record["receiptHandle"], message, message.crashes + receives)
        )
    return batch


def _unreadable(body: str, reason: str, detail: str, at: str) -> Outgoing:
    attributes = {"reason": reason, "detail": detail, "source": "unknown", "parked_at": at}
    return Outgoing(body, "unreadable", 0, attributes)


def triage(received: Sequence[Received]) -> Triage:
    """Apply the crash rule.

    One message on its third receive is handled alone; everything else is sent
    anew before, so that a crash costs nobody else a receive. Many on their
    second are risked a few at a time, lest all of them need handling alone.
    """
    result = Triage(park=[one for one in received if one.receives >= PARKED_AT])
    alive = [one for one in received if one.receives < PARKED_AT]
    third = [one for one in alive if one.receives == ALONE_AT]
    shaky = [one for one in alive if one.receives == ALONE_AT - 1]
    if third:
        result.handle = third[:1]
    else:
        result.handle = [one for one in alive if one not in shaky[SHAKY:]] if len(shaky) > SHAKY else alive
    chosen = {id(one) for one in result.handle}
    late = 0
    for one in alive:
        if id(one) in chosen:
            continue
        if one.receives > 1:
            late += 1
        group = late if one.receives == ALONE_AT else -(-late // SHAKY)
        result.resend.append((one, min(MAX_DELAY, group * STAGGER_SECONDS) if one.receives > 1 else 0))
    return result


def again(one: Received, delay: int) -> Outgoing:
    """``one`` to be sent anew, with the crashes it has seen."""
    return _outgoing(one.message._replace(crashes=one.receives - 1), delay)


def _outgoing(message: Message | Raw, delay: int = 0) -> Outgoing:
    return Outgoing(messages.encode(message), messages.group(message), delay)


def defer(
    jobs: Iterable[Job],
    received: Sequence[Received],
    *,
    cause: NoSlot | None,
    now: float,
    random: Callable[[], float],
    late_after: float = 0.0,
) -> list[Parcel]:
    """What was not delivered, packed into messages to be sent anew.

    Small ones travel together; the rows of a suspect job stay by themselves, so
    that taking a refused job apart goes on where it ended. Events older than
    ``late_after`` seconds (0: never) go on in the group of the backfills, behind
    what happens today.
    """
    oldest = now - late_after if late_after else float("-inf")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for number, job in enumerate(jobs):
        for row in job.rows:
            message = _message(received[row.owner])
            own = number if job.suspect else -1
            fate = (min(message.deferred, _MOST_DEFERRALS), received[row.owner].receives, message.suspect)
            backfill = message.backfill or row.event.time < oldest
            groups.setdefault((own, backfill, message.source, message.private_ids, *fate), []).append(row)
    parcels: list[Parcel] = []
    for (own, backfill, *_), rows in groups.items():
        like = _like(rows, received, suspect=own != -1, backfill=backfill, cause=cause)
        parcels += [
            Parcel(_outgoing(part, delay(cause, like.deferred, now=now, random=random)), owners)
            for part, owners in _packed(rows, like)
        ]
    return parcels


def _message(one: Received) -> Message:
    if isinstance(one.message, Raw):
        raise TypeError("a raw webhook has no events yet")
    return one.message


def _like(
    rows: list[Row], received: Sequence[Received], *, suspect: bool, backfill: bool, cause: NoSlot | None
) -> Message:
    """What the messages have in common in which ``rows`` are sent anew."""
    first = received[rows[0].owner]
    message = _message(first)
    deferred = max(_message(received[row.owner]).deferred for row in rows)
    if suspect and not message.suspect:
        deferred = 0  # counts from the refusal on
    elif not _ends_when_it_says(cause):
        deferred += 1
    return message._replace(
        received=min(_message(received[row.owner]).received for row in rows),
        deferred=deferred,
        crashes=first.receives - 1,
        suspect=suspect,
        backfill=backfill,
    )


def _packed(rows: Sequence[Row], like: Message) -> list[tuple[Message, frozenset[int]]]:
    owner_of = {id(row.event): row.owner for row in rows}
    return [
        (part, frozenset(owner_of[id(event)] for event in part.events))
        for part in messages.pack((row.event for row in rows), like)
    ]


def _ends_when_it_says(cause: NoSlot | None) -> bool:
    """A slot comes when it comes, and Klaviyo's windows end when it says; of an outage nobody knows."""
    return isinstance(cause, TooLate) or (cause is not None and cause.reason.startswith("throttled"))


def delay(cause: NoSlot | None, deferred: int, *, now: float, random: Callable[[], float]) -> int:
    """Seconds until a deferred message comes back: not before it can go, and spread.

    If nobody knows when that is, the more often it was deferred the longer, up
    to 13 minutes, which bounds what an outage of a day costs and lets a backlog
    return within a quarter of an hour.
    """
    wait = max(0.0, cause.retry_at - now) if cause else 0.0
    if _ends_when_it_says(cause):
        spread = 10 * random()
    else:
        spread = min(_LONGEST_SPREAD, 5.0 * 2 ** min(deferred, _MOST_DEFERRALS)) * (0.5 + 0.5 * random())
    return max(1, min(MAX_DELAY, round(wait + spread)))


@dataclass(frozen=True, slots=True)
class Parked:
    """Rows that Klaviyo will not take; ``detail`` is free of personal data."""

    rows: tuple[Row, ...]
    reason: str
    detail: str
    suspect: bool = False


def park(parked: Iterable[Parked], received: Sequence[Received], *, at: str) -> list[Parcel]:
    """Messages for the dead-letter queue, one for all rows of a source with the same reason.

    They come back from a redrive as if new, but still suspect if it was not
    Klaviyo that named them.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for part in parked:
        for row in part.rows:
            message = _message(received[row.owner])
            key = (message.source, message.backfill, message.private_ids, part.reason, part.detail, part.suspect)
            groups.setdefault(key, []).append(row)
    parcels: list[Parcel] = []
    for (*_, reason, detail, suspect), rows in groups.items():
        like = _message(received[rows[0].owner])._replace(deferred=0, crashes=0, suspect=bool(suspect))
        for message, owners in _packed(rows, like):
            outgoing = messages.parked(message, reason=str(reason), detail=str(detail), at=at)
            parcels.append(Parcel(outgoing, owners))
    return parcels


def crashed(one: Received, *, at: str) -> Outgoing:
    """``one`` for the dead-letter queue; after a redrive it is handled alone at once."""
    message = one.message._replace(deferred=0, crashes=ALONE_AT - 1)
    return messages.parked(message, reason="crashed", detail=CRASHED, at=at)


def send(client: SQSClient, queue_url: str, parcels: Sequence[Parcel]) -> frozenset[int]:
    """Send ``parcels``; returns the owners of what the queue did not take.

    What it took before it could not be reached any more counts as sent: those
    messages would come again beside their copies, and again double.
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


def delete(client: SQSClient, queue_url: str, received: Sequence[Received]) -> None:
    """Acknowledge now rather than with the invocation's answer; what fails comes again and is a repeat."""
    for start in range(0, len(received), messages.BATCH_ENTRIES):
        part = received[start : start + messages.BATCH_ENTRIES]
        try:
            client.delete_message_batch(
                QueueUrl=queue_url,
                Entries=[{"Id": str(index), "ReceiptHandle": one.receipt} for index, one in enumerate(part)],
            )
        except (ClientError, BotoCoreError) as error:
            logger.error("queue unavailable", extra={"cause": type(error).__name__})
