"""An invocation's records from SQS: read and decode them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .. import messages
from ..errors import MessageError, NewerMessage
from ..messages import Message, Outgoing, Raw

NEWER_WAIT = 3 * 86_400  # seconds for which a message waits for the version that wrote it


class Record(NamedTuple):
    """A record as it came, not decoded: decoding may be what crashes the function.

    ``receives`` is 1 unless it came back; ``sent_at`` is when SQS got it (epoch seconds).
    """

    id: str
    receipt: str
    body: str
    attributes: Mapping[str, str]
    receives: int = 1
    sent_at: float = 0.0


class Received(NamedTuple):
    """A decoded record. The body of a raw webhook is still compressed, and empty here."""

    record: Record
    message: Message | Raw


@dataclass(slots=True)
class Decoded:
    """The decoded records of one invocation.

    ``unreadable`` are to be parked unchanged. ``newer`` stay in the queue: the later
    version that wrote them reads them again once it is back.
    """

    received: list[Received] = field(default_factory=list)
    unreadable: list[tuple[Record, Outgoing]] = field(default_factory=list)
    newer: list[Record] = field(default_factory=list)


def of_event(items: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Return the ``Records`` of a Lambda event from SQS."""
    return [_record(item) for item in items]


def _record(item: Mapping[str, Any]) -> Record:
    counted = item["attributes"]
    typed = item.get("messageAttributes") or {}
    return Record(
        item["messageId"],
        item["receiptHandle"],
        item["body"],
        {name: value["stringValue"] for name, value in typed.items() if "stringValue" in value} if typed else {},
        int(counted["ApproximateReceiveCount"]),
        int(counted.get("SentTimestamp", 0)) / 1000,
    )


def read(records: Iterable[Record], *, at: str, now: float) -> Decoded:
    """Decode records; ``at`` is ISO 8601, ``now`` epoch seconds."""
    decoded = Decoded()
    for record in records:
        try:
            message = messages.decode(record.body, inflate=False)
        except MessageError as error:
            newer = isinstance(error, NewerMessage)
            if newer and not 0 < record.sent_at < now - NEWER_WAIT:
                decoded.newer.append(record)
                continue
            reason = "newer_format" if newer else "unreadable_message"
            outgoing = messages.parked_text(record.body, "unknown", reason=reason, detail=str(error), at=at)
            decoded.unreadable.append((record, outgoing))
            continue
        if "reason" in record.attributes and isinstance(message, Message):
            # It was parked and has come back with its reason. It yields to live events from now on. Its time in the
            # dead-letter queue and before does not count as waiting.
            message = message._replace(backfill=True, redriven=True, waiting_since=0)
        decoded.received.append(Received(record, message))
    return decoded
