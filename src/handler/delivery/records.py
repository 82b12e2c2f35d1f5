"""An invocation's records from SQS: read and decode them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
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


class Parcel(NamedTuple):
    """A message to send, and the places of the records whose events it carries."""

    outgoing: Outgoing
    owners: Set[int]


@dataclass(slots=True)
class Decoded:
    """The decoded records of one invocation, by their places.

    The bodies of ``raw`` webhooks are still compressed, and empty here. ``unreadable``
    are to be parked unchanged. ``newer`` stay in the queue: the later version that
    wrote them reads them again once it is back.
    """

    messages: dict[int, Message] = field(default_factory=dict)
    raw: dict[int, Raw] = field(default_factory=dict)
    unreadable: list[Parcel] = field(default_factory=list)
    newer: list[Record] = field(default_factory=list)


def of_event(items: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Return the ``Records`` of a Lambda event from SQS."""
    return [
        Record(
            item["messageId"],
            item["receiptHandle"],
            item["body"],
            {
                name: value["stringValue"]
                for name, value in (item.get("messageAttributes") or {}).items()
                if "stringValue" in value
            },
            int(item["attributes"]["ApproximateReceiveCount"]),
            int(item["attributes"].get("SentTimestamp", 0)) / 1000,
        )
        for item in items
    ]


def read(records: Iterable[Record], *, at: str, now: float) -> Decoded:
    """Decode records; ``at`` is ISO 8601, ``now`` epoch seconds."""
    decoded = Decoded()
    for place, record in enumerate(records):
        try:
            message = messages.decode(record.body, inflate=False)
        except MessageError as error:
            newer = isinstance(error, NewerMessage)
            if newer and not 0 < record.sent_at < now - NEWER_WAIT:
                decoded.newer.append(record)
            else:
                outgoing = messages.parked_text(
                    record.body,
                    "unknown",
                    reason="newer_format" if newer else "unreadable_message",
                    detail=str(error),
                    at=at,
                )
                decoded.unreadable.append(Parcel(outgoing, {place}))
            continue
        if isinstance(message, Raw):
            decoded.raw[place] = message
        else:
            # What was parked and has come back with its reason yields to live events from now on. Its time in the
            # dead-letter queue and before does not count as waiting.
            decoded.messages[place] = (
                message._replace(backfill=True, redriven=True, waiting_since=0)
                if "reason" in record.attributes
                else message
            )
    return decoded
