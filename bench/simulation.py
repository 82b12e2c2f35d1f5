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
import itertools
import math
import os
import random
import re
import threading
import time as real_time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import patch

from botocore.exceptions import ClientError
from botocore.handlers import add_recursion_detection_header

from handler import messages, telemetry
from handler.delivery import jobs
from handler.messages import Event, Message
from local import lineage
from local.trigger import POLLERS, Batch, Fair, Held
from sim import environment, faults, lines, relay
from sim.faults import Fate, Killed, Point
from sim.hooks import Call, nothing
from sim.klaviyo import Klaviyo, Windows
from sim.queue import MOST_IN_FLIGHT, Queue, Sqs
from sim.queue import Message as Queued
from sim.secrets import Secrets
from sim.table import Table, silent
from sim.time import Time

from .cost import CHUNK, FULL_PROCESSOR_MB, PRICES
from .virtual import START, TABLE_SECONDS, worst

_FUNCTION = environment.properties("DeliverFunction")
_QUEUE = environment.properties("EventsQueue")
_TRIGGER = _FUNCTION["Events"]["Queue"]["Properties"]
TIMEOUT = float(_FUNCTION["Timeout"])
VISIBILITY = float(_QUEUE["VisibilityTimeout"])
DELIVER_MB = int(_FUNCTION["MemorySize"])
FUNCTION = "deliver"
# A signed request must reach AWS within 5 minutes of its time stamp "in most cases" (IAM guide, "AWS Signature Version
# 4 for API requests"), within about 15 at most (AWS Developer Blog, "Clock-skew correction"). boto3 corrects no clock.
SIGNED_SECONDS = 900.0
_NAME = re.compile(r'"unique_id":"([^"]+)"')
Clocks = Callable[[int, random.Random], float]


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
        """Return dollars by part, at the list prices of ``prices.toml``."""
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
            for held in batch.messages[before:]:
                self._queue.take(self._queue.messages[held.id])
            self.most_in_flight = max(self.most_in_flight, len(flying))
            if due:
                self._go(batch)
            elif opened:
                self._look_again(batch)

    def _look_again(self, batch: Batch) -> None:
        patience = batch.patience(self._time.now) or 0.0
        self._time.call(self._time.now + patience, lambda: self._window_over(batch))

    def _window_over(self, batch: Batch) -> None:
        if not any(batch is idle for idle in self._idle):
            return
        if batch.fill(self._pool, self._time.now):
            self._go(batch)
        else:
            self._look_again(batch)

    def _go(self, batch: Batch) -> None:
        self._idle = [idle for idle in self._idle if idle is not batch]
        for start in range(0, len(batch.messages), 10):
            size = sum(len(held.text) for held in batch.messages[start : start + 10])
            self._bill.receive_chunks += max(1, math.ceil(size / CHUNK))
        if lineage.refused(self.trace(batch), FUNCTION) and not self._loops:
            self.refused += 1
            self.done(batch, {held.id for held in batch.messages})
            return
        self._invoke(batch)

    def trace(self, batch: Batch) -> str:
        """Return the trace header of the invocation that hands ``batch`` over."""
        return lineage.following([held.trace for held in batch.messages], FUNCTION)

    def records(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the ``Records`` of the event."""
        return [self._queue.messages[held.id].record() for held in batch.messages]

    def done(self, batch: Batch, failed: set[str]) -> None:
        """Delete what the function did not name in its answer, and let the poller go on."""
        gone = [held.id for held in batch.messages if held.id not in failed]
        self._bill.deletes += math.ceil(len(gone) / 10)
        for name in gone:
            self._queue.delete(name)
        self._pool.landed(batch.messages)
        self._idle.append(self._batch())
        self._consider()


def header(invoked_with: str) -> str:
    """Return what botocore itself sends in a function with this ``_X_AMZN_TRACE_ID``."""
    params: dict[str, Any] = {"headers": {}}
    variables = {"AWS_LAMBDA_FUNCTION_NAME": FUNCTION, lineage.VARIABLE: invoked_with}
    os.environ.update(variables)
    try:
        add_recursion_detection_header(params)
    finally:
        for name in variables:
            del os.environ[name]
    return str(params["headers"].get(lineage.HEADER, ""))


class Container:
    """One sandbox: the function with its clients and its own clock, until an invocation kills it.

    ``ahead`` is by how many seconds its clock is wrong.
    """

    def __init__(self, world: Simulation, ahead: float) -> None:
        self.world = world
        self.ahead = ahead
        self.fate: Fate | None = None
        self._header = ""
        self._ends = math.inf
        time = world.time
        self.sqs = Sqs(
            {
                world.environment["EVENTS_QUEUE_URL"]: world.events,
                world.environment["DEAD_LETTER_QUEUE_URL"]: world.dead,
            },
            refuse=lambda _: world.chance.random() < world.refuses,
            before=self._asks,
            after=self._asked,
            trace=lambda: self._header,
        )
        function = relay.deliver(
            world.environment,
            sqs=self.sqs,
            table=world.table,
            klaviyo=world.klaviyo,
            secrets=world.secrets,
            clock=lambda: time.now + self.ahead,
            sleep=self.wait,
            random=world.chance.random,
            stack=world.environment["POWERTOOLS_SERVICE_NAME"],
        )
        self._handler = telemetry.metrics.log_metrics(function)

    def invoke(self, records: list[dict[str, Any]], trace: str, fate: Fate | None) -> set[str]:
        """Return the ids of the records that stay in the queue; raise what the function raises, and ``Killed``."""
        time = self.world.time
        ends = self._ends = time.now + TIMEOUT
        self._header, self.fate = header(trace), fate
        context = SimpleNamespace(get_remaining_time_in_millis=lambda: 1000 * (ends - time.now), aws_request_id="r")
        self.passes("start")
        answer = self._handler({"Records": records}, context)
        self.passes("end")
        return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}

    def passes(self, *points: Point) -> None:
        """Go past a point of the work, if neither the fate nor the time-out is against it."""
        if self.world.time.now > self._ends:
            self.world.faults.append("the function timed out")
            raise Killed
        for point in points:
            if self.fate:
                self.fate.at(point)

    def wait(self, seconds: float) -> None:
        """Wait, at most until a moment after the time-out."""
        time = self.world.time
        time.sleep(seconds if seconds < 0 else min(seconds, max(0.0, self._ends + 0.001 - time.now)))
        self.passes()

    @property
    def can_sign(self) -> bool:
        """Whether AWS takes the time stamp of its requests."""
        return abs(self.ahead) <= SIGNED_SECONDS

    def _asks(self, operation: str, asked: Mapping[str, Any]) -> None:
        self.wait(self.world.queue_seconds)
        if not self.can_sign:
            raise ClientError({"Error": {"Code": "InvalidSignatureException"}}, operation)
        self.world.asked(operation, asked)
        self.passes("call")

    def _asked(self, operation: str, _: Mapping[str, Any]) -> None:
        self.passes(*(("copied",) if operation == "SendMessageBatch" else ()))


class _Log:
    """Where log lines and metrics go: counted, and the closings noted with their time."""

    def __init__(self, time: Time, bill: Bill) -> None:
        self._time = time
        self._bill = bill
        self.closed: list[tuple[float, str]] = []

    def write(self, text: str) -> int:
        self._bill.log_bytes += len(text)
        if '"Closed":' in text and (match := re.search(r'"reason":"(\w+)"', text)):
            self.closed.append((self._time.now, match[1]))
        return len(text)

    def flush(self) -> None:
        pass


class Simulation:
    """Everything together. ``run`` until a time, look, change something, run on.

    What may be changed at any time, also by ``time.call``:

    Attributes
    ----------
    fates : callable
        What happens to the next invocation: a ``Fate``, or ``None``.
    poison : dict
        What raises, by the event's name ("" for all), when a message with that event is decoded (``poison_at``
        "decode") or when it is about to be posted ("post").
    refuses : float
        The chance that SQS lists an entry as ``Failed``.
    queue_seconds : float
        Seconds that each call of SQS takes.
    table_away : float
        The chance that a call of the pacing table fails; half of those take effect before.
    klaviyo.told : callable
        What Klaviyo answers.
    """

    chance: random.Random
    time: Time
    here: threading.local  # with the thread's container
    table: Table
    klaviyo: Klaviyo
    secrets: Secrets
    log: _Log

    def __init__(
        self,
        *,
        seed: int = 1,
        parameters: Mapping[str, str] | None = None,
        concurrency: int | None = None,
        window: float = 5.0,
        long_poll: float = 0.0,
        answer: float = 0.3,
        batch_size: int = int(_TRIGGER["BatchSize"]),
        most_in_flight: int = MOST_IN_FLIGHT,
        loops: bool | None = None,
        job_events: int | None = None,
        clocks: Clocks = lambda *_: 0.0,
        jitter: float = 0.0,
        beside: Simulation | None = None,
    ) -> None:
        """Make a world, or a second stack ``beside`` another one's table and Klaviyo.

        ``parameters`` are the template's; ``concurrency`` is by default what they say. ``job_events`` makes jobs
        smaller than Klaviyo's 1,000. ``clocks`` gives the error of the n-th sandbox's clock (from 0), ``jitter`` is
        the most that a request travels; both in seconds.
        """
        overrides = dict(parameters or {})
        name = "beside" if beside else "relay"
        self.environment = environment.deliver(**overrides) | {"POWERTOOLS_SERVICE_NAME": name}
        self.bill = Bill()
        self.faults: list[str] = []
        self.sent: dict[str, float] = {}
        self.heard: Call = nothing  # told of each call that a function makes of SQS
        self.fates: Callable[[], Fate | None] = lambda: None
        self.poison: dict[str, type[BaseException]] = {}
        self.poison_at: Literal["decode", "post"] = "decode"
        self.refuses = self.queue_seconds = self.table_away = 0.0
        self.died = 0
        self._clocks = clocks
        self._jitter = jitter
        self._job_events = job_events
        self._made = itertools.count()
        if beside:
            self.chance, self.time, self.here = beside.chance, beside.time, beside.here
            self.table, self.klaviyo, self.secrets, self.log = (
                beside.table,
                beside.klaviyo,
                beside.secrets,
                beside.log,
            )
        else:
            self.chance = random.Random(seed)  # noqa: S311 (a simulation)
            self.time = Time(START)
            self.here = threading.local()
            self.table = Table(before=self._asks_table, after=self._table_asked)
            self.klaviyo = Klaviyo(
                self.time,
                Windows.anywhere(self.chance),
                seconds=answer,
                leaving=self._leaves,
                before=self._posts,
                after=lambda _: self.container.passes("posted"),
            )
            self.secrets = Secrets({})
            self.use_key("pk_first")
            self.log = _Log(self.time, self.bill)
        self.dead: Queue = Queue("dead", self.time)
        self.events: Queue = Queue(
            "events",
            self.time,
            visibility=VISIBILITY,
            max_receives=_QUEUE["RedrivePolicy"]["maxReceiveCount"],
            dead=self.dead,
            most_in_flight=most_in_flight,
        )
        scaling = environment.properties("DeliverFunction", environment.TEMPLATE, **overrides)["Events"]["Queue"][
            "Properties"
        ]["ScalingConfig"]
        most = int(scaling["MaximumConcurrency"]) if concurrency is None else concurrency
        self.source = EventSource(
            self.time,
            self.events,
            self.chance,
            self.bill,
            self._invoke,
            concurrency=most,
            window=window,
            batch_size=batch_size,
            long_poll=long_poll,
            loops=loops_allowed() if loops is None else loops,
        )
        self._containers: list[Container] = []  # that are idle; one is made when there is none

    @property
    def container(self) -> Container:
        """The sandbox in which this thread runs."""
        sandbox: Container = self.here.container
        return sandbox

    def use_key(self, key: str) -> None:
        """Put ``key`` into Klaviyo's secret."""
        self.secrets.documents[self.environment["KLAVIYO_SECRET"]] = {"api_key": key}

    # ---- calls of a function

    def asked(self, operation: str, asked: Mapping[str, Any]) -> None:
        """Bill a call of SQS, and call the listener."""
        if operation == "SendMessageBatch":
            size = sum(len(entry["MessageBody"].encode()) for entry in asked["Entries"])
            self.bill.sent += len(asked["Entries"])
            self.bill.send_chunks += max(1, math.ceil(size / CHUNK))
        else:
            self.bill.deletes += 1
        self.heard(operation, asked)

    def _asks_table(self, _: str) -> None:
        self.time.sleep(self.chance.uniform(*TABLE_SECONDS))
        self.container.passes("call", "work")
        self._fail_table()

    def _table_asked(self, _: str) -> None:
        self.time.sleep(self.chance.uniform(*TABLE_SECONDS))
        self._fail_table()

    def _fail_table(self) -> None:
        away = self.container.world.table_away
        if not self.container.can_sign or (away and self.chance.random() < away / 2):
            raise silent(self.time.now + self.container.ahead)

    def _leaves(self, body: bytes) -> None:
        world = self.container.world
        if world.poison and world.poison_at == "post":
            world._suffer(body.decode())

    def _posts(self, _: str) -> None:
        self.container.passes("call", "work")
        if self._jitter:
            self.time.sleep(self.chance.uniform(0, self._jitter))

    def _decodes(self, body: str) -> None:
        world = self.container.world
        if world.poison and world.poison_at == "decode":
            world._suffer(body)

    def _suffer(self, text: str) -> None:
        for name, error in self.poison.items():
            if not name or f'"{name}"' in text:
                raise error

    # ---- Lambda

    def _invoke(self, batch: Batch) -> None:
        # The one used last, as Lambda does.
        container = (
            self._containers.pop() if self._containers else Container(self, self._clocks(next(self._made), self.chance))
        )
        self.time.spawn(lambda: self._run_function(container, batch))

    def _run_function(self, container: Container, batch: Batch) -> None:
        self.here.container = container
        began, cpu = self.time.now, real_time.thread_time()
        failed, lives = {held.id for held in batch.messages}, True
        try:
            failed = container.invoke(self.source.records(batch), self.source.trace(batch), self.fates())
        except Killed:
            self.died += 1
            lives = False
        except Exception as error:  # noqa: BLE001 (as Lambda: the batch comes again)
            self._raised(container, error)
        self.faults += container.sqs.mistakes
        container.sqs.mistakes.clear()
        if lives:
            self._containers.append(container)
        took = self.time.now - began + (real_time.thread_time() - cpu) * FULL_PROCESSOR_MB / DELIVER_MB
        self.bill.invocations += 1
        self.bill.seconds += took
        self.source.done(batch, failed)

    def _raised(self, container: Container, error: Exception) -> None:
        """Note what a function raised, unless it was told to."""
        if not container.fate and not self.poison:
            self.faults.append(f"{type(error).__name__}: {error}")

    # ---- the world's side

    def event(self, name: str, *, size: int = 0) -> Event:
        """Return one event that happens now, as small as can be or of ``size`` bytes."""
        self.sent[name] = self.time.now
        return Event(name, int(self.time.now), entry(name, size))

    def send(
        self,
        events: list[Event],
        *,
        source: str = "shop",
        backfill: bool = False,
        attributes: Mapping[str, str] | None = None,
        receives: int = 0,
    ) -> None:
        """Queue ``events`` as the door does, in messages of at most 100; ``receives``: they came back so often."""
        like = Message(source, (), self.time.now, backfill=backfill)
        typed = {name: {"DataType": "String", "StringValue": text} for name, text in (attributes or {}).items()}
        for message in messages.pack(events, like):
            body, group = messages.encode(message), messages.group(message)
            self.events.put(body, group, attributes=typed, receives=receives)

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
        """Return whether everything sent has arrived, and nothing waits."""
        return len(self.events) == 0 and len(self.klaviyo.first) + len(self.dead) >= len(self.sent)

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        with contextlib.ExitStack() as patches:
            patches.enter_context(lines.into(self.log))
            patches.enter_context(contextlib.redirect_stdout(self.log))
            patches.enter_context(faults.decoding(self._decodes))
            patches.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "No application metrics")  # of an invocation that dies early
            if self._job_events:
                patches.enter_context(patch.object(jobs, "JOB_EVENTS", self._job_events))
            yield
        self.bill.table_reads, self.bill.table_writes = self.table.reads, self.table.writes
        self.bill.secret_reads = self.secrets.reads

    # ---- what came of it

    def times(self, *statuses: int) -> list[float]:
        """Return when requests were answered so; all without an argument."""
        return [request.at for request in self.klaviyo.requests if not statuses or request.status in statuses]

    def worst(self, length: float, times: list[float] | None = None) -> int:
        """Return the most requests in any ``length`` seconds."""
        return worst(sorted(self.times() if times is None else times), length)

    def lost(self) -> int:
        """Return the events that are neither stored nor in a queue any more."""
        return len(self.sent.keys() - self.klaviyo.first.keys() - names(self.events) - names(self.dead))

    def bodies(self) -> Iterator[str]:
        """Yield the bodies of every message that waits or is parked."""
        for queue in (self.events, self.dead):
            yield from (message.body for message in queue.messages.values())


def names(queue: Queue) -> set[str]:
    """Return the events in the messages of ``queue``."""
    return {name for message in queue.messages.values() for name in _NAME.findall(message.body)}


def loops_allowed(template: Path = environment.TEMPLATE) -> bool:
    """Return whether the template lets ``deliver`` send to its own queue as often as it must."""
    return bool(environment.properties("DeliverFunction", template).get("RecursiveLoop") == "Allow")


def entry(name: str, size: int = 0) -> str:
    """Return an ``event-bulk-create`` entry of about ``size`` bytes."""
    short = (
        '{"type":"event-bulk-create","attributes":{"profile":{"data":{"type":"profile","attributes":'
        f'{{"email":"{name}@mail.example"}}}}}},"events":{{"data":[{{"type":"event","attributes":{{'
        '"metric":{"data":{"type":"metric","attributes":{"name":"Placed Order"}}},"properties":'
        f'{{"Note":"%"}},"unique_id":"{name}"}}}}]}}}}}}'
    )
    return short.replace("%", "x" * max(0, size - len(short)))
