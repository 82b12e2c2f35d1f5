"""The messages of a dead-letter queue: read, choose, send back to the events queue, delete.

A message goes back as AWS's own redrive sends it: with its attributes, under a
new id. It leaves the dead-letter queue only once the events queue has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

HIDDEN_SECONDS = 120
_ROUNDS_WITHOUT_NEWS = 3


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the dead-letter queue; ``events`` is how many it holds, a raw webhook counts one."""

    message_id: str
    receipt: str
    body: str
    attributes: Mapping[str, Any]
    reason: str
    detail: str
    source: str
    parked_at: str
    events: int


def dead_letter(message: Mapping[str, Any]) -> DeadLetter:
    """Read a received message; what lacks the relay's attributes shows as ``unknown``."""
    attributes = message.get("MessageAttributes", {})
    texts = {name: value.get("StringValue", "") for name, value in attributes.items()}
    try:
        head = json.loads(message["Body"].split("\n", 1)[0])
        events = len(head.get("events", [None]))
    except (ValueError, AttributeError):
        events = 1
    return DeadLetter(
        message["MessageId"],
        message["ReceiptHandle"],
        message["Body"],
        attributes,
        texts.get("reason", "unknown"),
        texts.get("detail", ""),
        texts.get("source", "unknown"),
        texts.get("parked_at", ""),
        events,
    )


def read(sqs: Any, queue: str, *, wait: int = 1) -> Iterator[DeadLetter]:
    """Yield every message of ``queue`` once.

    Each is hidden from others for two minutes; each receive waits ``wait`` seconds.
    """
    seen: set[str] = set()
    quiet = 0
    while quiet < _ROUNDS_WITHOUT_NEWS:
        messages = sqs.receive_message(
            QueueUrl=queue,
            MaxNumberOfMessages=10,
            VisibilityTimeout=HIDDEN_SECONDS,
            WaitTimeSeconds=wait,
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        fresh = [message for message in messages if message["MessageId"] not in seen]
        quiet = 0 if fresh else quiet + 1
        seen.update(message["MessageId"] for message in fresh)
        yield from map(dead_letter, fresh)


def wanted(letter: DeadLetter, source: str | None, reason: str | None) -> bool:
    """Return whether the choice of source and reason includes ``one``."""
    return source in (None, letter.source) and reason in (None, letter.reason)


def put_back(
    sqs: Any,
    chosen: Iterable[DeadLetter],
    queue: str,
    dead_letters: str,
    *,
    rate: float,
    sleep: Callable[[float], None],
) -> int:
    """Send each of ``chosen`` to ``queue`` and delete it from ``dead_letters``; at most ``rate`` a second."""
    moved = 0
    for letter in chosen:
        attributes = {
            name: {"DataType": value["DataType"], "StringValue": value["StringValue"]}
            for name, value in letter.attributes.items()
        }
        sqs.send_message(
            QueueUrl=queue,
            MessageBody=letter.body,
            MessageAttributes=attributes,
            MessageGroupId=f"{letter.source}#redrive",
        )
        sqs.delete_message(QueueUrl=dead_letters, ReceiptHandle=letter.receipt)
        moved += 1
        sleep(1 / rate)
    return moved


def release(sqs: Any, queue: str, messages: Sequence[DeadLetter]) -> None:
    """Show ``messages`` to others again, at once; those whose two minutes are over no longer need it."""
    for start in range(0, len(messages), 10):
        entries = [
            {"Id": str(number), "ReceiptHandle": letter.receipt, "VisibilityTimeout": 0}
            for number, letter in enumerate(messages[start : start + 10])
        ]
        sqs.change_message_visibility_batch(QueueUrl=queue, Entries=entries)


class Sorted:
    """Parked messages on their way through: ``chosen`` and ``kept`` fill up without the bodies."""

    def __init__(self, source: str | None, reason: str | None, before: datetime | None) -> None:
        self._source = source
        self._reason = reason
        self._before = before
        self.chosen: list[DeadLetter] = []
        self.kept: list[DeadLetter] = []

    def through(self, letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        """Yield the messages to re-queue: chosen by source and reason, and not parked since the redrive began.

        Without the second condition a redrive whose cause persists would re-queue
        the same messages again and never end.
        """
        for letter in letters:
            chosen = wanted(letter, self._source, self._reason) and not self._anew(letter)
            (self.chosen if chosen else self.kept).append(replace(letter, body="", attributes={}))
            if chosen:
                yield letter

    def _anew(self, letter: DeadLetter) -> bool:
        try:
            return self._before is not None and datetime.fromisoformat(letter.parked_at) >= self._before
        except ValueError:  # SQS itself moved it, without our attributes
            return False


def delete(
    sqs: Any, queue: str, letters: Iterable[DeadLetter], known: Collection[str]
) -> tuple[list[DeadLetter], list[DeadLetter]]:
    """Delete those of ``letters`` whose ``message_id`` is in ``known``; return what was deleted, and the others."""
    gone: list[DeadLetter] = []
    others: list[DeadLetter] = []
    for letter in letters:
        if letter.message_id in known:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=letter.receipt)
        (gone if letter.message_id in known else others).append(letter)
    return gone, others
