"""An invocation's records from SQS: read and decode them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .. import messages
from ..errors import MessageError, NewerMessage
from ..messages import Message, Outgoing, Raw

ALONE_AT = 2  # a message that came back so often is handled alone ...
_COUNTED = ("1", "2")


class Record(NamedTuple):
    """A record as it came, not decoded: decoding may be what crashes the function.

    ``returned`` is true if it was received before. ``crashes`` is how often it, or
    the message of which it is a copy, has come back.
    """

    id: str
    receipt: str
    body: str
    group: str
    attributes: Mapping[str, str]
    crashes: int = 0
    returned: bool = False


class Received(NamedTuple):
    """A decoded record; ``crashes`` is the record's."""

    record_id: str
    message: Message | Raw
    crashes: int = 0


@dataclass(slots=True)
class Batch:
    """The decoded records of one invocation.

    ``unreadable`` are to be parked unchanged. ``newer`` are left to the later version
    that wrote them: they come back after the visibility timeout.
    """

    received: list[Received] = field(default_factory=list)
    unreadable: list[tuple[str, Outgoing]] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)


def of_event(items: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Return the ``Records`` of a Lambda event from SQS."""
    return [_record(item) for item in items]


def _record(item: Mapping[str, Any]) -> Record:
    counted, body = item["attributes"], item["body"]
    returned = int(counted["ApproximateReceiveCount"]) > 1
    group = counted.get("MessageGroupId") or messages.source(body)
    if not (typed := item.get("messageAttributes")):  # the fast path for nearly all records
        return Record(item["messageId"], item["receiptHandle"], body, group, {}, int(returned), returned)
    attributes = {name: value["stringValue"] for name, value in typed.items() if "stringValue" in value}
    told = attributes.pop("crashes", "")
    crashes = (int(told) if told in _COUNTED else 0) + returned
    return Record(item["messageId"], item["receiptHandle"], body, group, attributes, crashes, returned)


def read(records: Iterable[Record], *, at: str) -> Batch:
    """Decode records; ``at`` is ISO 8601."""
    batch = Batch()
    for record in records:
        try:
            message = messages.decode(record.body)
        except MessageError as error:
            newer = isinstance(error, NewerMessage)
            if newer and record.crashes < ALONE_AT:
                batch.newer.append(record.id)
                continue
            reason = "newer_format" if newer else "unreadable_message"
            outgoing = messages.parked_text(record.body, "unknown", reason=reason, detail=str(error), at=at)
            batch.unreadable.append((record.id, outgoing))
            continue
        if "reason" in record.attributes and isinstance(message, Message):
            # It was parked and has come back with its reason. It yields to live events from now on. Its time in the
            # dead-letter queue and before does not count as waiting.
            message = message._replace(backfill=True, redriven=True, waiting_since=0)
        batch.received.append(Received(record.id, message, record.crashes))
    return batch
