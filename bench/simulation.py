"""The delivery whole on virtual time: the real ``deliver``, SQS and its event source in memory, a Klaviyo that fails.

A day passes in a minute or two, and every run is the same for its seed. Real
are the handler and all that it calls, one object for each container; the event
source's batches and fair groups are ``local.trigger``'s; queues, table, secret and
Klaviyo are those of ``sim``. Recursive loops are counted by the header that
botocore sends, and end after 16 rounds unless the template allows them
(``local.lineage``). Billing counts what AWS bills; a function's time is its virtual
waiting plus the processor time that this machine took, scaled to the processor's
share that its memory buys.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import time as real_time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from botocore.handlers import add_recursion_detection_header

from handler import messages, telemetry
from handler.delivery import report
from handler.delivery.dispatch import Dispatcher
from handler.delivery.function import Deliver
from handler.delivery.pacing import Pacer, interval
from handler.messages import Event, Message
from handler.pauses import PAUSES
from handler.secret import Key, Secret
from handler.settings import for_deliver
from local import lineage
from local.trigger import POLLERS, Batch, Fair, Held
from sim import environment
from sim.klaviyo import Klaviyo, Windows
from sim.queue import MOST_IN_FLIGHT, Call, Queue, Sqs, nothing
from sim.queue import Message as Queued
from sim.secrets import Secrets
from sim.time import Time

from .cost import CHUNK, FULL_PROCESSOR_MB, PRICES
from .virtual import START, distant_table, worst

_FUNCTION = environment.properties("DeliverFunction")
_QUEUE = environment.properties("EventsQueue")
_TRIGGER = _FUNCTION["Events"]["Queue"]["Properties"]
TIMEOUT = float(_FUNCTION["Timeout"])
DELIVER_MB = int(_FUNCTION["MemorySize"])
ENVIRONMENT = environment.deliver()
FUNCTION = "deliver"
_NAME = re.compile(r'"unique_id":"([^"]+)"')


@dataclass(slots=True)
class Bill:
    """What AWS charges for, counted."""

    invocations: int = 0
    seconds: float = 0.0
    sent: int = 0
    send_chunks: int = 0
    receive_chunks: int = 0
    deletes: int = 0
    table_reads: int = 0
    table_writes: int = 0
    secret_reads: int = 0
    log_bytes: int = 0

    def dollars(self) -> dict[str, float]:
        """By part, at the list prices of ``prices.toml``."""
        requests = self.send_chunks + self.receive_chunks + self.deletes
        return {
            "deliver": self.invocations * PRICES["lambda_request"]
            + self.seconds * DELIVER_MB / 1_024 * PRICES["lambda_gb_second"],
            "SQS": requests * (PRICES["sqs_request"] + PRICES["sqs_fair_request"]),
            "DynamoDB": self.table_writes * PRICES["dynamodb_write"] + self.table_reads * PRICES["dynamodb_read"],
            "secret": self.secret_reads * PRICES["secret_request"],
            "logs": self.log_bytes / 1e9 * PRICES["logs_gb"],
        }


class EventSource:
    """The event source that takes from ``queue``; ``invoke`` is called with each batch."""

    def __init__(
        self,
        time: Time,
        queue: Queue,
        chance: random.Random,
        bill: Bill,
        invoke: Callable[[Batch], None],
        *,
        concurrency: int,
        window: float,
        batch_size: int,
        long_poll: float,
        loops: bool,
    ) -> None:
        queue.shown = self._shown
        self._time = time
        self._queue = queue
        self._invoke = invoke
        self._long_poll = long_poll
        self._loops = loops
        self._chance = chance
        self._bill = bill
        self._window = window
        self._size = batch_size
        self._pool = Fair()
        self._idle = [self._batch() for _ in range(concurrency)]
        self.refused = 0
        self.most_in_flight = 0

    def _batch(self) -> Batch:
        return Batch(self._size, self._window, self._long_poll)

    def _shown(self, message: Queued) -> None:
        weight = len(message.body) + message.body.count('"') + 700
        self._pool.put(Held(message.id, message.handle, message.group, message.body, weight, message.trace))
        self._consider()

    def _consider(self) -> None:
        """Give what is ready to idle pollers, whichever is quickest; five until there is a backlog."""
        flying = self._queue.in_flight
        while self._pool.count and self._idle and len(flying) < self._queue.most_in_flight:
            place = self._chance.randrange(min(POLLERS, len(self._idle)))
            batch = self._idle[place]
            opened = not batch.messages
            before = len(batch.messages)
            due = batch.fill(self._pool, self._time.now)
            for one in batch.messages[before:]:
                self._queue.take(self._queue.messages[one.id])
            self.most_in_flight = max(self.most_in_flight, len(flying))
            if due:
                self._go(batch)
            elif opened:
                self._look_again(batch)

    def _look_again(self, batch: Batch) -> None:
        patience = batch.patience(self._time.now) or 0.0
        self._time.call(self._time.now + patience, lambda: self._window_over(batch))

    def _window_over(self, batch: Batch) -> None:
        if not any(batch is one for one in self._idle):
            return
        if batch.fill(self._pool, self._time.now):
            self._go(batch)
        else:
            self._look_again(batch)

    def _go(self, batch: Batch) -> None:
        self._idle = [one for one in self._idle if one is not batch]
        for start in range(0, len(batch.messages), 10):
            size = sum(len(one.text) for one in batch.messages[start : start + 10])
            self._bill.receive_chunks += max(1, math.ceil(size / CHUNK))
        if lineage.refused(self.trace(batch), FUNCTION) and not self._loops:
            self.refused += 1
            self.done(batch, {one.id for one in batch.messages})
            return
        self._invoke(batch)

    def trace(self, batch: Batch) -> str:
        """The trace header of the invocation that hands ``batch`` over."""
        return lineage.following([one.trace for one in batch.messages], FUNCTION)

    def records(self, batch: Batch) -> list[dict[str, Any]]:
        """The ``Records`` of the event."""
        return [self._queue.messages[one.id].record() for one in batch.messages]

    def done(self, batch: Batch, failed: set[str]) -> None:
        """The function has answered: delete what it did not name, and let the poller go on."""
        gone = [one.id for one in batch.messages if one.id not in failed]
        self._bill.deletes += math.ceil(len(gone) / 10)
        for name in gone:
            self._queue.delete(name)
        self._pool.landed(batch.messages)
        self._idle.append(self._batch())
        self._consider()


def header(invoked_with: str) -> str:
    """What botocore itself sends in a function with this ``_X_AMZN_TRACE_ID``."""
    params: dict[str, Any] = {"headers": {}}
    given = {"AWS_LAMBDA_FUNCTION_NAME": FUNCTION, lineage.VARIABLE: invoked_with}
    os.environ.update(given)
    try:
        add_recursion_detection_header(params)
    finally:
        for name in given:
            del os.environ[name]
    return str(params["headers"].get(lineage.HEADER, ""))


@dataclass(slots=True)
class Container:
    """One function with its client of SQS, and the trace header of the invocation under way."""

    sqs: Sqs
    invoked_with: str = ""
    handler: Callable[[dict[str, Any], Any], dict[str, Any]] = field(init=False)


class _Log:
    """Where log lines and metrics go: counted, and the closings noted with their time."""

    def __init__(self, time: Time, bill: Bill) -> None:
        self._time = time
        self._bill = bill
        self.closed: list[tuple[float, str]] = []

    def write(self, text: str) -> int:
        self._bill.log_bytes += len(text)
        if '"Closed":' in text and (found := re.search(r'"reason":"(\w+)"', text)):
            self.closed.append((self._time.now, found[1]))
        return len(text)

    def flush(self) -> None:
        pass


class Simulation:
    """Everything together. ``run`` until a time, look, change something, run on."""

    def __init__(
        self,
        *,
        seed: int = 1,
        concurrency: int = 5,
        window: float = 5.0,
        long_poll: float = 0.0,
        answer: float = 0.3,
        batch_size: int = int(_TRIGGER["BatchSize"]),
        most_in_flight: int = MOST_IN_FLIGHT,
        loops: bool | None = None,
    ) -> None:
        self.chance = random.Random(seed)  # noqa: S311 (a simulation)
        self.time = Time(START)
        self.bill = Bill()
        self.table = distant_table(self.time, self.chance)
        self.dead = Queue("dead", self.time)
        self.events = Queue(
            "events",
            self.time,
            visibility=_QUEUE["VisibilityTimeout"],
            max_receives=_QUEUE["RedrivePolicy"]["maxReceiveCount"],
            dead=self.dead,
            most_in_flight=most_in_flight,
        )
        self.source = EventSource(
            self.time,
            self.events,
            self.chance,
            self.bill,
            self._invoke,
            concurrency=concurrency,
            window=window,
            batch_size=batch_size,
            long_poll=long_poll,
            loops=loops_allowed() if loops is None else loops,
        )
        self.klaviyo = Klaviyo(self.time, Windows.anywhere(self.chance), seconds=answer)
        self.secrets = Secrets({})
        self.use_key("pk_first")
        self.log = _Log(self.time, self.bill)
        self.faults: list[str] = []
        self.sent: dict[str, float] = {}
        self.heard: Call = nothing  # told of each call that a function makes of SQS
        self._containers = deque(self._container() for _ in range(concurrency))

    def use_key(self, key: str) -> None:
        """Put ``key`` into Klaviyo's secret."""
        self.secrets.documents[ENVIRONMENT["KLAVIYO_SECRET"]] = {"api_key": key}

    def _container(self) -> Container:
        """A function with this world in place of AWS's."""
        urls = {ENVIRONMENT["EVENTS_QUEUE_URL"]: self.events, ENVIRONMENT["DEAD_LETTER_QUEUE_URL"]: self.dead}
        found = Container(Sqs(urls, before=self._asked, trace=lambda: header(found.invoked_with)))
        clock, sleep, chance = self.time, self.time.sleep, self.chance.random
        settings = for_deliver(ENVIRONMENT)
        secret = Secret(
            cast("Any", self.secrets), settings.klaviyo_secret, clock, kept=PAUSES.kept, reread=PAUSES.key_reread
        )
        spacing = interval(settings.requests_per_minute, settings.arrival_spread)
        dispatcher = Dispatcher(
            pacer=Pacer(self.table, spacing=spacing, clock=clock, sleep=sleep, pauses=PAUSES),
            poster=self.klaviyo,
            key=Key(secret, clock, PAUSES),
            clock=clock,
            sleep=sleep,
            random=chance,
            record=report.posted,
            pauses=PAUSES,
        )
        function = Deliver(
            settings=settings,
            sqs=cast("Any", found.sqs),
            dispatcher=dispatcher,
            pauses=PAUSES,
            clock=clock,
            random=chance,
        )
        found.handler = telemetry.metrics.log_metrics(function)
        return found

    def _asked(self, operation: str, asked: Mapping[str, Any]) -> None:
        """Bill a call of SQS, and call the listener."""
        if operation == "SendMessageBatch":
            size = sum(len(entry["MessageBody"].encode()) for entry in asked["Entries"])
            self.bill.sent += len(asked["Entries"])
            self.bill.send_chunks += max(1, math.ceil(size / CHUNK))
        else:
            self.bill.deletes += 1
        self.heard(operation, asked)

    def _invoke(self, batch: Batch) -> None:
        container = self._containers.pop()  # the one used last, as Lambda does
        self.time.spawn(lambda: self._run_function(container, batch))

    def _run_function(self, container: Container, batch: Batch) -> None:
        began, cpu = self.time.now, real_time.thread_time()
        records = self.source.records(batch)
        container.invoked_with = self.source.trace(batch)
        context = SimpleNamespace(
            get_remaining_time_in_millis=lambda: 1000 * (began + TIMEOUT - self.time.now), aws_request_id="r"
        )
        try:
            answer = container.handler({"Records": records}, context)
            failed = {one["itemIdentifier"] for one in answer["batchItemFailures"]}
        except Exception as error:  # noqa: BLE001 (as Lambda: the batch comes again)
            self.faults.append(f"{type(error).__name__}: {error}")
            failed = {one.id for one in batch.messages}
        self.faults += container.sqs.mistakes
        container.sqs.mistakes.clear()
        took = self.time.now - began + (real_time.thread_time() - cpu) * FULL_PROCESSOR_MB / DELIVER_MB
        if took > TIMEOUT:
            self.faults.append(f"the function ran for {took:.0f} s")
        self.bill.invocations += 1
        self.bill.seconds += took
        self._containers.append(container)
        self.source.done(batch, failed)

    # ---- the world's side

    def event(self, name: str, *, size: int = 0) -> Event:
        """One event that happens now, as small as can be or of ``size`` bytes."""
        self.sent[name] = self.time.now
        return Event(name, int(self.time.now), entry(name, size))

    def send(self, events: list[Event], *, source: str = "shop", backfill: bool = False) -> None:
        """Queue ``events`` as the door does, in messages of at most 100."""
        like = Message(source, (), self.time.now, backfill=backfill)
        for message in messages.pack(events, like):
            self.events.put(messages.encode(message), messages.group(message))

    def every(self, seconds: float, until: float, make: Callable[[int], None]) -> None:
        """Call ``make`` with 0, 1, 2, ... every ``seconds`` until the time ``until``."""
        numbers = iter(range(1 << 62))

        def again() -> None:
            if self.time.now < until:
                make(next(numbers))
                self.time.call(self.time.now + seconds, again)

        self.time.call(self.time.now, again)

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until ``until`` (epoch seconds), or ``done``, which is asked every ten seconds."""

        def keep() -> None:
            while self.time.now < until and not done():
                self.time.sleep(min(10.0, until - self.time.now))

        with self._quiet():
            self.time.run([keep])

    def drained(self) -> bool:
        """Whether everything sent has arrived, and nothing waits."""
        return len(self.events) == 0 and len(self.klaviyo.first) + len(self.dead) >= len(self.sent)

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        stream = telemetry.logger.registered_handler.stream  # type: ignore[attr-defined]
        telemetry.logger.registered_handler.stream = self.log  # type: ignore[attr-defined]
        try:
            with contextlib.redirect_stdout(self.log):
                yield
        finally:
            telemetry.logger.registered_handler.stream = stream  # type: ignore[attr-defined]
            self.bill.table_reads, self.bill.table_writes = self.table.reads, self.table.writes
            self.bill.secret_reads = self.secrets.reads

    # ---- what came of it

    def times(self, *statuses: int) -> list[float]:
        """When requests were answered so; all without an argument."""
        return [one.at for one in self.klaviyo.requests if not statuses or one.status in statuses]

    def worst(self, length: float, times: list[float] | None = None) -> int:
        """Most requests in any ``length`` seconds."""
        return worst(sorted(self.times() if times is None else times), length)

    def lost(self) -> int:
        """Events that are neither stored nor in a queue any more."""
        held = {name for body in self.bodies() for name in _NAME.findall(body)}
        return len(self.sent.keys() - self.klaviyo.first.keys() - held)

    def bodies(self) -> Iterator[str]:
        """Of every message that waits or is parked."""
        for queue in (self.events, self.dead):
            yield from (message.body for message in queue.messages.values())


def loops_allowed(template: Path = environment.TEMPLATE) -> bool:
    """Whether the template lets ``deliver`` send to its own queue as often as it must."""
    return bool(environment.properties("DeliverFunction", template).get("RecursiveLoop") == "Allow")


def entry(name: str, size: int = 0) -> str:
    """An ``event-bulk-create`` entry of about ``size`` bytes."""
    short = (
        '{"type":"event-bulk-create","attributes":{"profile":{"data":{"type":"profile","attributes":'
        f'{{"email":"{name}@mail.example"}}}}}},"events":{{"data":[{{"type":"event","attributes":{{'
        '"metric":{"data":{"type":"metric","attributes":{"name":"Placed Order"}}},"properties":'
        f'{{"Note":"%"}},"unique_id":"{name}"}}}}]}}}}}}'
    )
    return short.replace("%", "x" * max(0, size - len(short)))
