"""The delivery whole on virtual time: the real ``deliver``, SQS and its event source in memory, a Klaviyo that fails.

A day passes in a minute or two, and every run is the same for its seed. Real
are the handler and all that it calls, one object for each container; the event
source's batches and fair groups are ``local.trigger``'s. In memory are the queue
(delays, receive counts, visibility, attributes, at most 120,000 messages in
flight, the limits of a SendMessageBatch), the pacing table, the secret, and
Klaviyo: two fixed windows of a random phase, and faults. Recursive loops are
counted by the header that botocore sends, and end after 16 rounds unless the
template allows them (``local.lineage``). Billing counts what AWS bills; a
function's time is its virtual waiting plus the processor time that this machine
took, scaled to the processor's share that its memory buys.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import time as real_time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from botocore.handlers import add_recursion_detection_header
from samtranslator.yaml_helper import yaml_parse

from handler import messages, telemetry
from handler.delivery import report
from handler.delivery.dispatch import Dispatcher
from handler.delivery.function import Deliver
from handler.delivery.klaviyo import Answer, sort_answer
from handler.delivery.pacing import Pacer, interval
from handler.messages import Event, Message
from handler.pauses import PAUSES
from handler.secret import Key, Secret
from handler.settings import for_deliver
from local import aws, lineage
from local.trigger import POLLERS, Batch, Fair, Held

from .cost import CHUNK, FULL_PROCESSOR_MB, PRICES
from .virtual import MemoryTable, Time, Windows, worst

TIMEOUT = 120.0  # of deliver, as in the template
VISIBILITY = 725.0
MAX_RECEIVES = 1_000
BATCH_SIZE = 10_000
IN_FLIGHT = 120_000
DELIVER_MB = 1_024
ENVIRONMENT = {
    "EVENTS_QUEUE_URL": "events",
    "DEAD_LETTER_QUEUE_URL": "dead-letters",
    "REQUESTS_PER_MINUTE": "150",
    "PHONE_REGION": "",
    "TIME_ZONE": "UTC",
    "KLAVIYO_SECRET": "klaviyo",
    "KLAVIYO_URL": "https://klaviyo.invalid",
    "KLAVIYO_REVISION": "2026-10-15",
    "PACING_TABLE": "pacing",
    "PACING_ACCOUNT": "default",
    "ARRIVAL_SPREAD": "0.4",
    "LATE_AFTER_HOURS": "24",
}
FUNCTION = "deliver"
_NAME = re.compile(rb'"unique_id":"([^"]+)"')


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


@dataclass(slots=True)
class _Kept:
    """A message in the queue."""

    body: str
    group: str
    receives: int = 0
    weight: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    trace: str = ""


class Queue:
    """SQS in memory, with the event source that takes from it; ``invoke`` is called with each batch."""

    def __init__(
        self,
        time: Time,
        chance: random.Random,
        bill: Bill,
        invoke: Callable[[Batch], None],
        *,
        concurrency: int,
        window: float,
        long_poll: float,
        loops: bool,
    ) -> None:
        self._time = time
        self._invoke = invoke
        self._long_poll = long_poll
        self._loops = loops
        self._chance = chance
        self._bill = bill
        self._window = window
        self._kept: dict[str, _Kept] = {}
        self._pool = Fair()
        self._flying: set[str] = set()
        self._number = 0
        self._idle = [self._batch() for _ in range(concurrency)]
        self.dead: list[dict[str, Any]] = []
        self.unexplained = 0
        self.refused = 0
        self.most_in_flight = 0

    def _batch(self) -> Batch:
        return Batch(BATCH_SIZE, self._window, self._long_poll)

    def __len__(self) -> int:
        return len(self._kept)

    def bodies(self) -> Iterator[str]:
        """Of every message that waits or is parked."""
        yield from (kept.body for kept in self._kept.values())
        yield from (entry["MessageBody"] for entry in self.dead)

    # ---- what the function calls, through its Sender

    def accept(self, url: str, Entries: list[dict[str, Any]], trace: str) -> dict[str, Any]:  # noqa: N803
        """As SQS: at most 10 entries and 1 MiB, whole delays of at most 900 s; ``trace`` is the request's header."""
        size = sum(len(entry["MessageBody"].encode()) for entry in Entries)
        if not 1 <= len(Entries) <= 10 or size > messages.MESSAGE_BYTES:
            raise ValueError(f"{len(Entries)} entries, {size} bytes")
        self._bill.sent += len(Entries)
        self._bill.send_chunks += max(1, math.ceil(size / CHUNK))
        for entry in Entries:
            delay = entry.get("DelaySeconds", 0)
            if not (isinstance(delay, int) and 0 <= delay <= 900):
                raise ValueError(f"a delay of {delay}")
            if url == ENVIRONMENT["DEAD_LETTER_QUEUE_URL"]:
                self.dead.append(entry)
            else:
                typed = entry.get("MessageAttributes", {})
                self.put(entry["MessageBody"], entry["MessageGroupId"], delay, attributes=typed, trace=trace)
        return {}

    def delete(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        """Acknowledge by receipt, which here is the id."""
        self._bill.deletes += 1
        for entry in Entries:
            self._delete(entry["ReceiptHandle"])
        return {}

    # ---- the queue

    def put(
        self, body: str, group: str, delay: float = 0, *, attributes: dict[str, Any] | None = None, trace: str = ""
    ) -> None:
        """A new message, to be seen after ``delay`` seconds."""
        self._number += 1
        name = str(self._number)
        weight = len(body) + body.count('"') + 700
        self._kept[name] = _Kept(body, group, weight=weight, attributes=attributes or {}, trace=trace)
        if delay:
            self._time.call(self._time.now + delay, lambda: self._ready(name))
        else:
            self._ready(name)

    def _delete(self, name: str) -> None:
        self._kept.pop(name, None)
        self._flying.discard(name)

    def _ready(self, name: str) -> None:
        kept = self._kept.get(name)
        if kept is None:
            return
        self._flying.discard(name)
        if kept.receives >= MAX_RECEIVES:
            self._delete(name)
            self.unexplained += 1  # moved by SQS itself, without a reason
            return
        self._pool.put(Held(name, name, kept.group, kept.body, kept.weight, kept.trace))
        self._consider()

    # ---- the event source

    def _consider(self) -> None:
        """Give what is ready to idle pollers, whichever is quickest; five until there is a backlog."""
        while self._pool.count and self._idle and len(self._flying) < IN_FLIGHT:
            place = self._chance.randrange(min(POLLERS, len(self._idle)))
            batch = self._idle[place]
            opened = not batch.messages
            before = len(batch.messages)
            due = batch.fill(self._pool, self._time.now)
            for one in batch.messages[before:]:
                self._kept[one.id].receives += 1
                self._flying.add(one.id)
            self.most_in_flight = max(self.most_in_flight, len(self._flying))
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
            self.done(batch, {one.id for one in batch.messages}, self._time.now)
            return
        self._invoke(batch)

    def trace(self, batch: Batch) -> str:
        """The trace header of the invocation that hands ``batch`` over."""
        return lineage.following([one.trace for one in batch.messages], FUNCTION)

    def records(self, batch: Batch) -> list[dict[str, Any]]:
        """The ``Records`` of the event."""
        return [
            {
                "messageId": one.id,
                "receiptHandle": one.handle,
                "body": one.text,
                "attributes": {
                    "ApproximateReceiveCount": str(self._kept[one.id].receives),
                    "MessageGroupId": one.group,
                },
                "messageAttributes": {
                    name: {"stringValue": value["StringValue"], "dataType": value["DataType"]}
                    for name, value in self._kept[one.id].attributes.items()
                },
            }
            for one in batch.messages
        ]

    def done(self, batch: Batch, failed: set[str], began: float) -> None:
        """The function has answered: delete what it did not name, and let the poller go on."""
        gone = [one.id for one in batch.messages if one.id not in failed]
        self._bill.deletes += math.ceil(len(gone) / 10)
        for name in gone:
            self._delete(name)
        for name in failed:
            self._time.call(began + VISIBILITY, lambda name=name: self._ready(name))  # type: ignore[misc]
        self._pool.landed(batch.messages)
        self._idle.append(self._batch())
        self._consider()


def _record(one: Held, kept: _Kept) -> dict[str, Any]:
    return {
        "messageId": one.id,
        "receiptHandle": one.handle,
        "body": one.text,
        "attributes": {"ApproximateReceiveCount": str(kept.receives), "MessageGroupId": one.group},
        "messageAttributes": {
            name: {"stringValue": value["StringValue"], "dataType": value["DataType"]}
            for name, value in kept.attributes.items()
        },
    }


class Sender:
    """A container's SQS client: its requests carry the trace header of the invocation under way."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.invoked_with = ""

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        """See ``Queue.accept``."""
        return self._queue.accept(QueueUrl, Entries, self._header())

    def delete_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: ARG002, N803
        """See ``Queue.delete``."""
        return self._queue.delete(Entries)

    def _header(self) -> str:
        """What botocore itself sends in a function with this ``_X_AMZN_TRACE_ID``."""
        params: dict[str, Any] = {"headers": {}}
        given = {"AWS_LAMBDA_FUNCTION_NAME": FUNCTION, lineage.VARIABLE: self.invoked_with}
        os.environ.update(given)
        try:
            add_recursion_detection_header(params)
        finally:
            for name in given:
                del os.environ[name]
        return str(params["headers"].get(lineage.HEADER, ""))


@dataclass(frozen=True, slots=True)
class Container:
    """One function, and the client through which it sends."""

    sqs: Sender
    handler: Callable[[dict[str, Any], Any], dict[str, Any]]


@dataclass(slots=True)
class Klaviyo:
    """Counts arrivals in its windows; ``fault`` may give a request's answer instead, and the seconds it takes."""

    time: Time
    windows: Windows
    answer: float = 0.3
    fault: Callable[[float, str], tuple[Answer, float] | None] | None = None
    requests: list[tuple[float, int, int]] = field(default_factory=list)
    stored: Counter[bytes] = field(default_factory=Counter)
    first: dict[bytes, float] = field(default_factory=dict)
    late: int = 0
    known_at: float = math.inf  # when the first failure had been answered, or given up

    def open(self) -> Answer | None:
        """Connect."""
        return None

    def post(self, body: bytes, key: str) -> Answer:
        """One request; its status, or 0, goes into the ledger."""
        at = self.time.now
        names = _NAME.findall(body)
        if self.fault and (failed := self.fault(at, key)):
            self.requests.append((at, failed[0].status or 0, len(names)))
            self.windows.arrivals.append(at)
            self.time.sleep(failed[1])
            self.known_at = min(self.known_at, self.time.now)
            return failed[0]
        wait = self.windows.take(at)
        status = 202 if wait is None else 429
        self.requests.append((at, status, len(names)))
        self.time.sleep(self.answer)
        if wait is None:
            self.late += body.count(b'"backfill":true')
            for name in names:
                self.stored[name] += 1
                self.first.setdefault(name, at)
        headers = {} if wait is None else {"Retry-After": str(math.ceil(wait))}
        return sort_answer(status, headers, b"", now=at)


class _SecretsManager:
    """Holds the key that there is at the time; each reading is billed."""

    def __init__(self, bill: Bill, key: Callable[[], str]) -> None:
        self._bill = bill
        self._key = key

    def get_secret_value(self, *, SecretId: str) -> dict[str, str]:  # noqa: N803, ARG002 (the client's signature)
        self._bill.secret_reads += 1
        return {"SecretString": json.dumps({"api_key": self._key()})}


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
        loops: bool | None = None,
    ) -> None:
        self.chance = random.Random(seed)  # noqa: S311 (a simulation)
        self.time = Time(math.inf)
        self.bill = Bill()
        self.table = MemoryTable(self.time, self.chance)
        self.queue = Queue(
            self.time,
            self.chance,
            self.bill,
            self._invoke,
            concurrency=concurrency,
            window=window,
            long_poll=long_poll,
            loops=loops_allowed() if loops is None else loops,
        )
        self.klaviyo = Klaviyo(self.time, Windows(self.chance.uniform(0, 60), self.chance.random()), answer)
        self.key = "pk_first"
        self.log = _Log(self.time, self.bill)
        self.faults: list[str] = []
        self.sent: dict[bytes, float] = {}
        self._containers = deque(self._container() for _ in range(concurrency))

    def _container(self) -> Container:
        """A function with this world in place of AWS's."""
        clock, sleep, chance = self.time.clock, self.time.sleep, self.chance.random
        secrets: Any = _SecretsManager(self.bill, lambda: self.key)
        secret = Secret(secrets, "klaviyo", clock, kept=PAUSES.kept, reread=PAUSES.key_reread)
        sqs: Any = Sender(self.queue)
        dispatcher = Dispatcher(
            pacer=Pacer(self.table, spacing=interval(150, 0.4), clock=clock, sleep=sleep, pauses=PAUSES),
            poster=self.klaviyo,
            key=Key(secret, clock, PAUSES),
            clock=clock,
            sleep=sleep,
            random=chance,
            record=report.posted,
            pauses=PAUSES,
        )
        function = Deliver(
            settings=for_deliver(ENVIRONMENT), sqs=sqs, dispatcher=dispatcher, pauses=PAUSES, clock=clock, random=chance
        )
        return Container(sqs, telemetry.metrics.log_metrics(function))

    def _invoke(self, batch: Batch) -> None:
        container = self._containers.pop()  # the one used last, as Lambda does
        self.time.spawn(lambda: self._run_function(container, batch))

    def _run_function(self, container: Container, batch: Batch) -> None:
        began, cpu = self.time.now, real_time.thread_time()
        records = self.queue.records(batch)
        container.sqs.invoked_with = self.queue.trace(batch)
        context = SimpleNamespace(
            get_remaining_time_in_millis=lambda: 1000 * (began + TIMEOUT - self.time.now), aws_request_id="r"
        )
        try:
            answer = container.handler({"Records": records}, context)
            failed = {one["itemIdentifier"] for one in answer["batchItemFailures"]}
        except Exception as error:  # noqa: BLE001 (as Lambda: the batch comes again)
            self.faults.append(f"{type(error).__name__}: {error}")
            failed = {one.id for one in batch.messages}
        took = self.time.now - began + (real_time.thread_time() - cpu) * FULL_PROCESSOR_MB / DELIVER_MB
        if took > TIMEOUT:
            self.faults.append(f"the function ran for {took:.0f} s")
        self.bill.invocations += 1
        self.bill.seconds += took
        self._containers.append(container)
        self.queue.done(batch, failed, began)

    # ---- the world's side

    def event(self, name: str, *, size: int = 0) -> Event:
        """One event that happens now, as small as can be or of ``size`` bytes."""
        self.sent[name.encode()] = self.time.now
        return Event(name, int(self.time.now), entry(name, size))

    def send(self, events: list[Event], *, source: str = "shop", backfill: bool = False) -> None:
        """Queue ``events`` as the door does, in messages of at most 100."""
        like = Message(source, (), self.time.now, backfill=backfill)
        for message in messages.pack(events, like):
            self.queue.put(messages.encode(message), messages.group(message))

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
            self.time.stop()

        with self._quiet():
            self.time.run([keep])

    def drained(self) -> bool:
        """Whether everything sent has arrived, and nothing waits."""
        return len(self.queue) == 0 and len(self.klaviyo.stored) + len(self.queue.dead) >= len(self.sent)

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

    # ---- what came of it

    def times(self, *statuses: int) -> list[float]:
        """When requests were answered so; all without an argument."""
        return [at for at, status, _ in self.klaviyo.requests if not statuses or status in statuses]

    def worst(self, length: float, times: list[float] | None = None) -> int:
        """Most requests in any ``length`` seconds."""
        return worst(sorted(self.klaviyo.windows.arrivals if times is None else times), length)

    def lost(self) -> int:
        """Events that are neither stored nor in a queue any more."""
        held = {name for body in self.queue.bodies() for name in _NAME.findall(body.encode())}
        return len(self.sent.keys() - self.klaviyo.stored.keys() - held)


def loops_allowed(template: Path = aws.ROOT / "template.yaml") -> bool:
    """Whether the template lets ``deliver`` send to its own queue as often as it must."""
    properties = yaml_parse(template.read_text("utf-8"))["Resources"]["DeliverFunction"]["Properties"]
    return bool(properties.get("RecursiveLoop") == "Allow")


def entry(name: str, size: int = 0) -> str:
    """An ``event-bulk-create`` entry of about ``size`` bytes."""
    short = (
        '{"type":"event-bulk-create","attributes":{"profile":{"data":{"type":"profile","attributes":'
        f'{{"email":"{name}@mail.example"}}}}}},"events":{{"data":[{{"type":"event","attributes":{{'
        '"metric":{"data":{"type":"metric","attributes":{"name":"Placed Order"}}},"properties":'
        f'{{"Note":"%"}},"unique_id":"{name}"}}}}]}}}}}}'
    )
    return short.replace("%", "x" * max(0, size - len(short)))
