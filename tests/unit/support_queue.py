"""The whole delivery function in ``sim``, with chances that what is around it fails, and points at which it dies."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from handler import messages
from handler.delivery.dispatch import Poster
from handler.messages import Message, Raw
from handler.secret import Key
from sim import environment
from sim.klaviyo import Klaviyo
from sim.queue import Queue, Sqs
from sim.table import Table
from sim.time import Time
from tests.unit.support_delivery import DEAD, EVENTS, deliver, no_table

_QUEUE = environment.properties("EventsQueue")


class Killed(BaseException):
    """The process is gone: nothing catches this."""


@dataclass
class Points:
    """Every call out of the function is two points, before and after it; at those in ``kill`` it dies."""

    kill: set[int] = field(default_factory=set)
    passed: int = 0

    def at(self, *_: object) -> None:
        self.passed += 1
        if self.passed in self.kill:
            raise Killed


class Delivery:
    """``deliver`` whole, with SQS, table and Klaviyo in memory.

    ``refuses`` is the chance that SQS lists an entry as failed, ``away`` that a call of it raises,
    ``table_away`` that the table does not answer; the next ``twice`` batches are delivered twice.
    """

    def __init__(
        self,
        *,
        points: Points,
        seed: int = 0,
        clock: Time | None = None,
        poster: Poster | None = None,
        key: Key | None = None,
    ) -> None:
        self.clock = clock or Time()
        self.chance = random.Random(seed)  # noqa: S311 (chances, no secret)
        self._own_chance = random.Random(seed)  # noqa: S311 (the function's own, no secret)
        self.refuses = self.away = self.table_away = 0.0
        self.killed = self.twice = 0
        self.points = points
        self.dead = Queue("dead", self.clock)
        self.events = Queue(
            "events",
            self.clock,
            visibility=_QUEUE["VisibilityTimeout"],
            max_receives=_QUEUE["RedrivePolicy"]["maxReceiveCount"],
            dead=self.dead,
        )
        self.sqs = Sqs(
            {EVENTS: self.events, DEAD: self.dead},
            refuse=lambda _: self.chance.random() < self.refuses,
            before=self._calls_sqs,
            after=points.at,
        )
        self.seconds = 120.0  # of an invocation
        self.table = Table(before=self._calls_table, after=points.at)
        self.klaviyo = Klaviyo(self.clock, before=points.at, after=points.at)
        self._poster = poster or self.klaviyo
        self._key = key
        self.start()

    def start(self) -> None:
        """Replace the process by a new one, which knows nothing of what the one before it did."""
        self.handler: Callable[[Any, Any], dict[str, Any]] = deliver(
            sqs=self.sqs,
            table=self.table,
            poster=self._poster,
            clock=self.clock,
            random=self._own_chance.random,
            key=self._key,
        )

    def _calls_sqs(self, operation: str, _: object) -> None:
        self.points.at()
        if self.chance.random() < self.away:
            raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, operation)

    def _calls_table(self, _: str) -> None:
        self.points.at()
        if self.chance.random() < self.table_away:
            raise no_table(self.clock)

    def put(self, message: Message | Raw, **attributes: str) -> None:
        typed = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        self.events.put(messages.encode(message), messages.group(message), attributes=typed)

    def parked(self) -> list[tuple[str, Message | Raw]]:
        """Reason and message of what is in the dead-letter queue; what SQS moved has no reason."""
        return [(kept.texts.get("reason", ""), messages.decode(kept.body)) for kept in self.dead.messages.values()]

    def redrive(self) -> int:
        """As AWS moves messages back: attributes and group kept, id and receive count new."""
        parked = list(self.dead.messages.values())
        for kept in parked:
            self.dead.delete(kept.id)
            self.events.put(kept.body, kept.group, attributes=kept.attributes)
        return len(parked)

    def invoke(self, limit: int = 10_000) -> None:
        """One batch, as the event source hands it over and acknowledges it; now and then it does so twice."""
        records = [message.record() for message in self.events.receive(limit)]
        if not records:
            return
        self.twice -= 1
        for _ in range(2 if self.twice >= 0 else 1):
            try:
                self.points.at()
                failed = self.hand_over(records)
                self.points.at()
            except Killed:
                self.killed += 1
                self.start()
                return
        for record in records:
            if record["messageId"] not in failed:
                self.events.delete(record["messageId"])

    def hand_over(self, records: list[dict[str, Any]]) -> set[str]:
        """Call the function; the ids of the records that stay in the queue."""
        context = SimpleNamespace(get_remaining_time_in_millis=lambda: 1_000 * self.seconds, aws_request_id="r-1")
        answer = self.handler({"Records": records}, context)
        return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}

    def wait(self) -> None:
        """Until something can be received."""
        self.clock.until(self.events.next_visible() or 0.0)

    def run(self, *, limit: int = 10_000, days: float = 14.0) -> None:
        """Invoke whenever something can be received, until the events queue is empty."""
        end = self.clock() + days * 86_400
        while len(self.events):
            self.wait()
            assert self.clock() < end, "the queue never empties"
            assert len(self.events) < 2_000, "the queue grows without end"
            self.invoke(limit)
        assert not self.sqs.mistakes


@contextmanager
def delivery(kill: set[int] | None = None, **parts: Any) -> Iterator[Delivery]:
    """A ``Delivery`` that dies at the points in ``kill``."""
    yield Delivery(points=Points(kill or set()), **parts)
