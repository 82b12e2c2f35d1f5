"""``make redrive``: what lies in the dead-letter queue and why, and back with it to the events queue.

It works on the relay that ``make local`` runs, or with ``--stack`` on a deployed
one, with the credentials of the environment. Without ``--go`` it only lists.
A message goes back as AWS's own redrive sends it: with its attributes, under a
new id. It leaves the dead-letter queue only once the events queue has it.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from . import aws, deployed
from .stack import RUNNING
from .terminal import say, table

HIDDEN_SECONDS = 120
RATE = 50
_ROUNDS_WITHOUT_NEWS = 3


@dataclass(frozen=True, slots=True)
class Parked:
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


def parked(message: Mapping[str, Any]) -> Parked:
    """Read a received message; what lacks the relay's attributes shows as ``unknown``."""
    attributes = message.get("MessageAttributes", {})
    told = {name: value.get("StringValue", "") for name, value in attributes.items()}
    try:
        head = json.loads(message["Body"].split("\n", 1)[0])
        events = len(head.get("events", [None]))
    except (ValueError, AttributeError):
        events = 1
    return Parked(
        message["MessageId"],
        message["ReceiptHandle"],
        message["Body"],
        attributes,
        told.get("reason", "unknown"),
        told.get("detail", ""),
        told.get("source", "unknown"),
        told.get("parked_at", ""),
        events,
    )


def read(sqs: Any, queue: str, *, wait: int = 1) -> Iterator[Parked]:
    """Every message of ``queue`` once, hidden from others for two minutes; each receive waits ``wait`` seconds."""
    seen: set[str] = set()
    quiet = 0
    while quiet < _ROUNDS_WITHOUT_NEWS:
        found = sqs.receive_message(
            QueueUrl=queue,
            MaxNumberOfMessages=10,
            VisibilityTimeout=HIDDEN_SECONDS,
            WaitTimeSeconds=wait,
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        fresh = [message for message in found if message["MessageId"] not in seen]
        quiet = 0 if fresh else quiet + 1
        seen.update(message["MessageId"] for message in fresh)
        yield from map(parked, fresh)


def wanted(one: Parked, source: str | None, reason: str | None) -> bool:
    """Whether the choice of source and reason takes ``one``."""
    return source in (None, one.source) and reason in (None, one.reason)


def put_back(
    sqs: Any, chosen: Iterable[Parked], queue: str, dead_letters: str, *, rate: float, sleep: Callable[[float], None]
) -> int:
    """Send each of ``chosen`` to ``queue`` and delete it from ``dead_letters``; at most ``rate`` a second."""
    moved = 0
    for one in chosen:
        attributes = {
            name: {"DataType": value["DataType"], "StringValue": value["StringValue"]}
            for name, value in one.attributes.items()
        }
        sqs.send_message(
            QueueUrl=queue, MessageBody=one.body, MessageAttributes=attributes, MessageGroupId=f"{one.source}#redrive"
        )
        sqs.delete_message(QueueUrl=dead_letters, ReceiptHandle=one.receipt)
        moved += 1
        sleep(1 / rate)
    return moved


def release(sqs: Any, queue: str, messages: Sequence[Parked]) -> None:
    """Show ``messages`` to others again, at once; those whose two minutes are over need it no more."""
    for start in range(0, len(messages), 10):
        entries = [
            {"Id": str(number), "ReceiptHandle": one.receipt, "VisibilityTimeout": 0}
            for number, one in enumerate(messages[start : start + 10])
        ]
        sqs.change_message_visibility_batch(QueueUrl=queue, Entries=entries)


class Sorted:
    """Parked messages on their way through: ``chosen`` and ``kept`` fill up without the bodies."""

    def __init__(self, source: str | None, reason: str | None, before: datetime | None) -> None:
        self._source = source
        self._reason = reason
        self._before = before
        self.chosen: list[Parked] = []
        self.kept: list[Parked] = []

    def through(self, found: Iterable[Parked]) -> Iterator[Parked]:
        """Those to send back: chosen by source and reason, and not parked since the redrive began.

        Without that a redrive whose cause persists would take up again what it
        sent back, and never end.
        """
        for one in found:
            chosen = wanted(one, self._source, self._reason) and not self._anew(one)
            (self.chosen if chosen else self.kept).append(replace(one, body="", attributes={}))
            if chosen:
                yield one

    def _anew(self, one: Parked) -> bool:
        try:
            return self._before is not None and datetime.fromisoformat(one.parked_at) >= self._before
        except ValueError:  # SQS itself moved it, without our attributes
            return False


def summary(found: Sequence[Parked]) -> list[str]:
    """Messages and events by source and reason, with one detail each, in lines."""
    if not found:
        return ["nothing is parked"]
    counts: Counter[tuple[str, str]] = Counter()
    details: dict[tuple[str, str], str] = {}
    since: dict[tuple[str, str], str] = {}
    for one in found:
        key = (one.source, one.reason)
        counts[key] += one.events
        details.setdefault(key, one.detail)
        at = _utc(one.parked_at)
        since[key] = min(since.get(key, at), at)
    rows = [("SOURCE", "REASON", "EVENTS", "SINCE", "DETAIL")]
    rows += [
        (*key, str(count), since[key], textwrap.shorten(details[key], 90, placeholder=" …"))
        for key, count in counts.most_common()
    ]
    return table(rows)


def _utc(parked_at: str) -> str:
    """The door and the delivery write their times differently; what SQS itself moved has none."""
    try:
        return datetime.fromisoformat(parked_at).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return parked_at or "-"


def drop(
    sqs: Any, dead_letters: str, source: str | None, reason: str | None, ask: Callable[[str], str]
) -> list[Parked]:
    """List what is chosen, ask, and delete it: what came meanwhile stays. Returns what was deleted."""
    listed = Sorted(source, reason, None)
    release(sqs, dead_letters, [*listed.through(read(sqs, dead_letters)), *listed.kept])
    say(*summary(listed.chosen))
    events = str(sum(one.events for one in listed.chosen))
    if not listed.chosen or ask(f"delete them for good? Type {events}, the number of events: ").strip() != events:
        return []
    known = {one.message_id for one in listed.chosen}
    again, gone = Sorted(source, reason, None), []
    for one in again.through(read(sqs, dead_letters)):
        if one.message_id in known:
            sqs.delete_message(QueueUrl=dead_letters, ReceiptHandle=one.receipt)
            gone.append(one)
        else:
            again.kept.append(one)
    release(sqs, dead_letters, again.kept)
    return gone


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _queues(stack: str | None) -> tuple[Any, dict[str, str]]:
    """An SQS client and the outputs of the stack: the local one's, or those of ``stack``."""
    if stack is None:
        if not RUNNING.exists():
            raise ValueError("no relay is running here: start one with `make local`, or name one with STACK=")
        state = json.loads(RUNNING.read_text())
        return aws.client("sqs", state["aws"]), state["outputs"]
    found = deployed.find(stack, deployed.clients(stack))
    return found.client("sqs"), found.outputs


def main(
    arguments: list[str],
    *,
    queues: Callable[[str | None], tuple[Any, dict[str, str]]] = _queues,
    clock: Callable[[], float] = time.time,
) -> int:
    """List what is parked; with ``--go`` send it back. ``clock`` gives epoch seconds."""
    parser = argparse.ArgumentParser(prog="make redrive", description=__doc__)
    parser.add_argument("--stack", help="a deployed stack; the one of `make local` if not given")
    parser.add_argument("--source", help="only what this source sent")
    parser.add_argument("--reason", help="only what was parked for this reason")
    parser.add_argument("--rate", type=float, default=RATE, help="messages a second at the most")
    parser.add_argument("--go", action="store_true", help="send them back; without it they are only listed")
    parser.add_argument("--drop", action="store_true", help="delete what is chosen, after a question")
    options = parser.parse_args(arguments)
    if options.drop and (options.go or not (options.source or options.reason)):
        parser.error("DROP=1 deletes: choose by SOURCE= or REASON=, and not with GO=1")
    try:
        sqs, outputs = queues(options.stack)
        dead_letters = outputs["DeadLetterQueueUrl"]
        if options.drop:
            gone = drop(sqs, dead_letters, options.source, options.reason, input)
            say(f"deleted {_messages(len(gone))}")
            return 0
        began = datetime.fromtimestamp(int(clock()), UTC) if options.go else None
        parcels = Sorted(options.source, options.reason, began)
        back = parcels.through(read(sqs, dead_letters))
        if options.go:
            put_back(sqs, back, outputs["EventsQueueUrl"], dead_letters, rate=options.rate, sleep=time.sleep)
            release(sqs, dead_letters, parcels.kept)
        else:
            release(sqs, dead_letters, [*back, *parcels.kept])
        say(*summary(parcels.chosen))
    except (ValueError, ClientError, BotoCoreError, EOFError) as error:
        say(f"redrive: {error or 'nothing was typed in'}", error=True)
        return 2
    if options.go:
        say(f"sent back {_messages(len(parcels.chosen))}")
    elif parcels.chosen:
        say("nothing was sent; GO=1 sends them back")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
