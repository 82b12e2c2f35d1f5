"""SQS in memory, with its clock, receive counts and bad days; and the whole delivery function upon it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from handler import messages
from handler.closing import Closing
from handler.delivery.dispatch import Poster
from handler.delivery.klaviyo import Answer
from handler.delivery.pacing import Item, Value
from handler.errors import TableUnavailable
from handler.messages import Message, Raw
from handler.secret import Key
from tests.unit.fakes_delivery import Clock, Klaviyo, Table, deliver

EVENTS, DEAD = "events", "dead-letters"
VISIBILITY = 725.0
MOST_RECEIVES = 1_000


class Killed(BaseException):
    """The process is gone: nothing catches this."""


@dataclass
class Kept:
    """A message in a queue."""

    id: str
    body: str
    group: str
    attributes: dict[str, Any]
    visible_at: float
    receives: int = 0


@dataclass
class Points:
    """Every call out of the function is two points, before and after it; at those in ``kill`` it dies."""

    kill: set[int] = field(default_factory=set)
    passed: int = 0

    def at(self) -> None:
        self.passed += 1
        if self.passed in self.kill:
            raise Killed

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **named: Any) -> Any:
            self.at()
            found = call(*arguments, **named)
            self.at()
            return found

        return guarded


class Sqs:
    """Both queues. ``refuses`` is the chance that an entry is listed as ``Failed``, ``away`` that a call raises."""

    def __init__(self, clock: Clock, seed: int = 0) -> None:
        self.clock = clock
        self.queues: dict[str, dict[str, Kept]] = {EVENTS: {}, DEAD: {}}
        self.moved: list[Kept] = []  # by SQS itself, without a reason
        self.refuses = 0.0
        self.away = 0.0
        self.chance = random.Random(seed)  # noqa: S311 (chances, no secret)
        self._number = 0

    def put(self, queue: str, body: str, *, group: str = "", delay: float = 0, attributes: Any = None) -> None:
        self._number += 1
        name = f"m{self._number}"
        self.queues[queue][name] = Kept(name, body, group, dict(attributes or {}), self.clock() + delay)

    def _check(self, operation: str) -> None:
        if self.chance.random() < self.away:
            raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, operation)

    def _failed(self, entry: dict[str, Any], failed: list[dict[str, Any]]) -> bool:
        if self.chance.random() < self.refuses:
            failed.append({"Id": entry["Id"], "Code": "InternalError", "SenderFault": False})
            return True
        return False

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        self._check("SendMessageBatch")
        assert len(Entries) <= 10
        assert sum(len(entry["MessageBody"].encode()) for entry in Entries) <= 1_048_576
        failed: list[dict[str, Any]] = []
        for entry in Entries:
            if not self._failed(entry, failed):
                self.put(
                    QueueUrl,
                    entry["MessageBody"],
                    group=entry["MessageGroupId"],
                    delay=entry.get("DelaySeconds", 0),
                    attributes=entry.get("MessageAttributes"),
                )
        return {"Failed": failed} if failed else {}

    def delete_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        self._check("DeleteMessageBatch")
        failed: list[dict[str, Any]] = []
        for entry in Entries:
            if not self._failed(entry, failed):
                self.queues[QueueUrl].pop(entry["ReceiptHandle"], None)
        return {"Failed": failed} if failed else {}

    def receive(self, limit: int) -> list[dict[str, Any]]:
        """Records as Lambda hands them over."""
        now = self.clock()
        records: list[dict[str, Any]] = []
        for kept in list(self.queues[EVENTS].values()):
            if kept.visible_at > now or len(records) == limit:
                continue
            kept.receives += 1
            if kept.receives > MOST_RECEIVES:
                self.queues[DEAD][kept.id] = self.queues[EVENTS].pop(kept.id)
                self.moved.append(kept)
                continue
            kept.visible_at = now + VISIBILITY
            records.append(
                {
                    "messageId": kept.id,
                    "receiptHandle": kept.id,
                    "body": kept.body,
                    "attributes": {"ApproximateReceiveCount": str(kept.receives), "MessageGroupId": kept.group},
                    "messageAttributes": {
                        name: {"stringValue": value["StringValue"], "dataType": "String"}
                        for name, value in kept.attributes.items()
                    },
                }
            )
        return records

    def parked(self) -> list[tuple[str, Message | Raw]]:
        """Reason and message of what is in the dead-letter queue; what SQS moved has no reason."""
        return [
            (kept.attributes.get("reason", {"StringValue": ""})["StringValue"], messages.decode(kept.body))
            for kept in self.queues[DEAD].values()
        ]


class FlakyTable(Table):
    """A pacing item that does not answer with a ``chance``; each call is two points."""

    def __init__(self, clock: Clock, chance: random.Random, points: Points) -> None:
        super().__init__()
        self.away = 0.0
        self._clock = clock
        self._chance = chance
        self._points = points

    def read(self) -> Item:
        found: Item = self._points.around(super().read)()
        return found

    def advance(self, **step: Any) -> tuple[bool, Item]:
        found: tuple[bool, Item] = self._points.around(super().advance)(**step)
        return found

    def swap(self, expected: Mapping[str, Value], changed: Mapping[str, Value]) -> tuple[bool, Item]:
        found: tuple[bool, Item] = self._points.around(super().swap)(expected, changed)
        return found

    def _check(self) -> None:
        super()._check()
        if self._chance.random() < self.away:
            raise TableUnavailable(self._clock() + 30, Closing("no_table", "the pacing table does not answer (a test)"))


class Counted:
    """Klaviyo, each of whose requests is two points."""

    def __init__(self, klaviyo: Klaviyo, points: Points) -> None:
        self._klaviyo = klaviyo
        self._points = points

    def open(self) -> Answer | None:
        return self._klaviyo.open()

    def post(self, body: bytes, key: str) -> Answer:
        found: Answer = self._points.around(self._klaviyo.post)(body, key)
        return found


class Delivery:
    """``deliver`` whole, with SQS, table and Klaviyo in memory."""

    def __init__(
        self,
        *,
        points: Points,
        seed: int = 0,
        clock: Clock | None = None,
        poster: Poster | None = None,
        key: Key | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.sqs = Sqs(self.clock, seed)
        self.klaviyo = Klaviyo(self.clock)
        self.points = points
        self.table = FlakyTable(self.clock, self.sqs.chance, points)
        self.killed = 0
        self.twice = 0  # so many batches are handed over twice
        self.queue = SimpleNamespace(
            send_message_batch=points.around(self.sqs.send_message_batch),
            delete_message_batch=points.around(self.sqs.delete_message_batch),
        )
        poster = poster or Counted(self.klaviyo, points)
        self._handler = points.around(
            deliver(sqs=self.queue, table=self.table, poster=poster, clock=self.clock, key=key)
        )

    def put(self, message: Message | Raw, **attributes: str) -> None:
        typed = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        self.sqs.put(EVENTS, messages.encode(message), group=messages.group(message), attributes=typed)

    def invoke(self, limit: int = 10_000) -> None:
        """One batch, as the event source hands it over and acknowledges it; now and then it does so twice."""
        records = self.sqs.receive(limit)
        if not records:
            return
        context = SimpleNamespace(get_remaining_time_in_millis=lambda: 120_000, aws_request_id="r-1")
        self.twice -= 1
        for _ in range(2 if self.twice >= 0 else 1):
            try:
                answer = self._handler({"Records": records}, context)
            except Killed:
                self.killed += 1
                return
        failed = {one["itemIdentifier"] for one in answer["batchItemFailures"]}
        for record in records:
            if record["messageId"] not in failed:
                self.sqs.queues[EVENTS].pop(record["messageId"], None)

    def run(self, *, limit: int = 10_000, days: float = 14.0) -> None:
        """Invoke whenever something can be received, until the events queue is empty."""
        end = self.clock() + days * 86_400
        while kept := self.sqs.queues[EVENTS]:
            first = min(one.visible_at for one in kept.values())
            self.clock.now = max(self.clock.now, first)
            assert self.clock() < end, "the queue never empties"
            assert len(kept) < 2_000, "the queue grows by itself"
            self.invoke(limit)


@contextmanager
def delivery(kill: set[int] | None = None, **parts: Any) -> Iterator[Delivery]:
    """A ``Delivery`` that dies at the points in ``kill``."""
    yield Delivery(points=Points(kill or set()), **parts)
