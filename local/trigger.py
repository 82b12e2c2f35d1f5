"""An SQS event source as AWS documents it, for MiniStack's SQS and Lambda.

MiniStack's own hands over ten messages at most. This one has the mapping's batch
size and window, the 6 MB cut, maximum concurrency and partial batch responses
(Lambda developer guide, "Using Lambda with Amazon SQS" and "Handling errors for
an SQS event source"). What it shows of AWS's is what that guide says, no more.

Two rules of AWS's that its guide has elsewhere, or not at all, are here as well:
recursive loops (``lineage``), and a window that may last 20 s: under low traffic
a lone message waits until the long poll that follows it returns, whatever the
window (observed on AWS). That is off unless ``long_poll`` says so.

Fair queues (SQS developer guide, "Amazon SQS fair queues") are emulated here:
messages are received ahead, and each batch takes next from the message group
that has the fewest in flight. A message's visibility timeout therefore begins
when it is handed over, as if it had been received only then. Its receive count
is right, unless this process is ended while it holds the message.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tools import loopback, terminal

from . import lineage

PAYLOAD_BYTES = 6 * 1024 * 1024
RECEIVE = 10
RECEIVERS = 2
RETURNERS, ATTEMPTS = 8, 3  # threads that give messages back at the end, and their attempts
POLLERS = 5  # AWS begins with five and adds more only under backlog
AHEAD_MESSAGES = 20_000
AHEAD_BYTES = 512 * 1024 * 1024
AHEAD_SECONDS = 43_200  # the longest visibility timeout that SQS accepts
_BEGIN, _END = '{"Records":[', "]}"
_UNREACHABLE = (ClientError, BotoCoreError)
LONG_POLL = "LongPoll"  # a property of this trigger; AWS does not have it


@dataclass(frozen=True, slots=True)
class EventSource:
    """One event source mapping, with the properties that the template gives it.

    ``window`` and ``long_poll`` are in seconds; ``loops`` says that the function
    has ``RecursiveLoop: Allow``.
    """

    queue_url: str
    queue_arn: str
    function: str
    batch_size: int = 10
    window: float = 0
    concurrency: int = 5
    partial: bool = False
    loops: bool = False
    long_poll: float = 0


def from_template(
    properties: Mapping[str, Any], function_properties: Mapping[str, Any], queue_url: str, queue_arn: str, function: str
) -> EventSource:
    """Return the mapping and its function as a translated template describes them, references resolved."""
    scaling = properties.get("ScalingConfig", {}).get("MaximumConcurrency", 5)
    return EventSource(
        queue_url=queue_url,
        queue_arn=queue_arn,
        function=function,
        batch_size=int(properties.get("BatchSize", 10)),
        window=float(properties.get("MaximumBatchingWindowInSeconds", 0)),
        concurrency=int(scaling),
        partial="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", []),
        loops=function_properties.get("RecursiveLoop") == "Allow",
        long_poll=float(properties.get(LONG_POLL, 0)),
    )


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    content = {"stringValue": value["StringValue"]} if "StringValue" in value else {}
    if "BinaryValue" in value:
        content = {"binaryValue": base64.b64encode(value["BinaryValue"]).decode()}
    return content | {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}


def record(message: Mapping[str, Any], queue_arn: str) -> dict[str, Any]:
    """Return an SQS message in the shape in which Lambda hands it over."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes", {})),
        "messageAttributes": {name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()},
        "md5OfBody": message.get("MD5OfBody", ""),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }


def failed(answer: bytes, function_error: str | None, batch: Sequence[str], *, partial: bool) -> set[str]:
    """Return the message ids of ``batch`` that go back to the queue, as AWS reads a function's answer.

    An error of the function, an answer that is not JSON, and an entry whose
    ``itemIdentifier`` is missing, null, empty or not of the batch return all of
    them; an empty or null answer or list returns none.
    """
    everything = set(batch)
    if function_error:
        return everything
    if not partial:
        return set()
    try:
        document = json.loads(answer or b"null")
    except ValueError:
        return everything
    if document is None:
        return set()
    if not isinstance(document, dict):
        return everything
    listed = document.get("batchItemFailures")
    if listed is None:
        return set()
    if not isinstance(listed, list):
        return everything
    named = [entry.get("itemIdentifier") if isinstance(entry, dict) else None for entry in listed]
    if any(not isinstance(name, str) or name not in everything for name in named):
        return everything
    return {name for name in named if name}


@dataclass(frozen=True, slots=True)
class Held:
    """A message that was received: ``text`` is its record in JSON, ``weight`` that text's bytes."""

    id: str
    handle: str
    group: str
    text: str
    weight: int
    trace: str = ""


def held(message: Mapping[str, Any], queue_arn: str) -> Held:
    """Return ``message`` as the pollers keep it; without a group it is a group of its own, as on AWS."""
    text = json.dumps(record(message, queue_arn), ensure_ascii=False, separators=(",", ":"))
    attributes = message.get("Attributes", {})
    group = attributes.get("MessageGroupId") or message["MessageId"]
    trace = attributes.get(lineage.ATTRIBUTE, "")
    return Held(message["MessageId"], message["ReceiptHandle"], group, text, len(text.encode()), trace)


class Fair:
    """Messages received and not handed over yet; the group with the fewest in flight comes next.

    Among groups with equally few, the one that has waited longest. Not safe
    between threads by itself.
    """

    def __init__(self) -> None:
        self._groups: dict[str, deque[Held]] = {}
        self._flying: Counter[str] = Counter()
        self.count = 0
        self.weight = 0

    def put(self, message: Held) -> None:
        """Add a message at its group's end."""
        self._groups.setdefault(message.group, deque()).append(message)
        self.count += 1
        self.weight += message.weight

    def take(self, room: int) -> Held | None:
        """Take the next message, in flight from now on.

        Return ``None`` if there is none, or it weighs more than ``room``.
        """
        group = min(self._groups, key=self._flying.__getitem__, default=None)
        if group is None or self._groups[group][0].weight > room:
            return None
        message = self._groups[group].popleft()
        rest = self._groups.pop(group)
        if rest:  # to the end of the line
            self._groups[group] = rest
        self._flying[group] += 1
        self.count -= 1
        self.weight -= message.weight
        return message

    def landed(self, batch: Sequence[Held]) -> None:
        """Count these messages as no longer in flight."""
        for message in batch:
            self._flying[message.group] -= 1
            if not self._flying[message.group]:
                del self._flying[message.group]

    def empty(self) -> list[Held]:
        """Take everything out."""
        rest = [message for group in self._groups.values() for message in group]
        self._groups.clear()
        self.count = self.weight = 0
        return rest


class Batch:
    """The records of one invocation, until it is full, weighs 6 MB, or its window has passed.

    With a ``long_poll`` the window is looked at only when a long poll returns: at
    once when it brings messages, otherwise after that many seconds.
    """

    def __init__(self, size: int, window: float, long_poll: float = 0) -> None:
        self.size = size
        self.window = window
        self.messages: list[Held] = []
        self._long_poll = long_poll
        self._weight = len(_BEGIN) + len(_END)
        self._opened = 0.0
        self._polling_since = 0.0

    def fill(self, pool: Fair, now: float) -> bool:
        """Take what fits from ``pool``; return whether the batch is to go now."""
        before = len(self.messages)
        while len(self.messages) < self.size:
            # One message always fits: SQS accepts none that Lambda could not.
            room = PAYLOAD_BYTES - self._weight - 1 if self.messages else PAYLOAD_BYTES
            message = pool.take(room)
            if message is None:
                break
            if not self.messages:
                self._opened = now
            self.messages.append(message)
            self._weight += message.weight + 1
        if not self.messages:
            return False
        if len(self.messages) == self.size or pool.count > 0:
            return True
        returned = len(self.messages) > before or now >= self._polling_since + self._long_poll
        if len(self.messages) > before:
            self._polling_since = now
        return returned and now >= self._opened + self.window

    def patience(self, now: float) -> float | None:
        """Return the seconds until the batch goes if no message joins it; ``None`` while it is empty."""
        if not self.messages:
            return None
        return max(0.0, self._opened + self.window - now, self._polling_since + self._long_poll - now)

    def payload(self) -> bytes:
        """Return the event to invoke with."""
        return (_BEGIN + ",".join(message.text for message in self.messages) + _END).encode()


class Trigger:
    """Receivers that fill a pool, and pollers that each gather a batch from it and invoke with it."""

    def __init__(self, source: EventSource, client: Callable[[str], Any]) -> None:
        self.source = source
        self._sqs = client("sqs")
        self._functions = client("lambda")
        self._metrics = client("cloudwatch")
        self._pool = Fair()
        self._changed = threading.Condition()
        self._invoking = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Work until ``end`` is called; what is held then goes back to the queue."""
        asked = self._sqs.get_queue_attributes(QueueUrl=self.source.queue_url, AttributeNames=["VisibilityTimeout"])
        self._visibility = int(asked["Attributes"]["VisibilityTimeout"])
        receivers = [threading.Thread(target=self._receive, daemon=True) for _ in range(RECEIVERS)]
        pollers = [threading.Thread(target=self._poll, args=(n,), daemon=True) for n in range(self.source.concurrency)]
        for work in receivers + pollers:
            work.start()
        # First the receivers: what they hold is to be back in the queue even if this process isn't left the time
        # for invocations to finish.
        for group in (receivers, pollers):
            for work in group:
                work.join()
            with self._changed:
                waiting = self._pool.empty()
            self._give_back(waiting)

    def end(self) -> None:
        """Let running invocations finish, and stop."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()

    def _receive(self) -> None:
        while not self._ended.is_set():
            if self._pool.count >= AHEAD_MESSAGES or self._pool.weight >= AHEAD_BYTES:
                self._ended.wait(0.1)
                continue
            try:
                answer = self._sqs.receive_message(
                    QueueUrl=self.source.queue_url,
                    MaxNumberOfMessages=RECEIVE,
                    WaitTimeSeconds=1,
                    VisibilityTimeout=AHEAD_SECONDS,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["All"],
                )
            except _UNREACHABLE as error:
                self._complain(error)
                continue
            received = [held(message, self.source.queue_arn) for message in answer.get("Messages", [])]
            with self._changed:
                for message in received:
                    self._pool.put(message)
                    self._changed.notify()

    def _poll(self, number: int) -> None:
        while not self._ended.is_set():
            batch = self._gather(number)
            if batch is None:
                continue
            try:
                self._invoke(batch)
            except _UNREACHABLE as error:
                self._complain(error)
            finally:
                with self._changed:
                    self._invoking -= 1
                    self._pool.landed(batch.messages)
                    self._changed.notify_all()

    def _gather(self, number: int) -> Batch | None:
        """Return a batch that is due, or ``None`` at the end.

        Pollers past the fifth wait until the others are busy.
        """
        batch = Batch(self.source.batch_size, self.source.window, self.source.long_poll)
        with self._changed:
            while not self._ended.is_set():
                idle = number >= POLLERS and self._invoking < number
                if not idle and batch.fill(self._pool, time.monotonic()):
                    self._invoking += 1
                    return batch
                self._changed.wait(batch.patience(time.monotonic()))
            for message in batch.messages:
                self._pool.put(message)
        return None

    def _invoke(self, batch: Batch) -> None:
        self._hide(batch.messages, self._visibility)
        trace = lineage.following([message.trace for message in batch.messages], self.source.function)
        if lineage.refused(trace, self.source.function) and not self.source.loops:
            # As on AWS: no log line of the function's, only a metric; the messages come again, and are refused again.
            self._count("RecursiveInvocationsDropped")
            return
        answer = self._functions.invoke(FunctionName=self.source.function, Payload=batch.payload(), TraceHeader=trace)
        ids = [message.id for message in batch.messages]
        back = failed(answer["Payload"].read(), answer.get("FunctionError"), ids, partial=self.source.partial)
        for some in _tens([message for message in batch.messages if message.id not in back]):
            entries = [{"Id": str(n), "ReceiptHandle": message.handle} for n, message in enumerate(some)]
            self._sqs.delete_message_batch(QueueUrl=self.source.queue_url, Entries=entries)

    def _count(self, metric: str) -> None:
        function = [{"Name": "FunctionName", "Value": self.source.function}]
        data = {"MetricName": metric, "Dimensions": function, "Value": 1, "Unit": "Count"}
        self._metrics.put_metric_data(Namespace="AWS/Lambda", MetricData=[data])

    def _hide(self, messages: Sequence[Held], seconds: int) -> None:
        for some in _tens(messages):
            entries = [
                {"Id": str(n), "ReceiptHandle": message.handle, "VisibilityTimeout": seconds}
                for n, message in enumerate(some)
            ]
            self._sqs.change_message_visibility_batch(QueueUrl=self.source.queue_url, Entries=entries)

    def _give_back(self, messages: Sequence[Held]) -> None:
        """Show ``messages`` again. Whatever is left out stays hidden for ``AHEAD_SECONDS``, so no error ends it."""

        def show(some: Sequence[Held]) -> None:
            for _ in range(ATTEMPTS):
                try:
                    self._hide(some, 0)
                except _UNREACHABLE as error:
                    self._complain(error)
                else:
                    return

        with ThreadPoolExecutor(RETURNERS) as threads:
            list(threads.map(show, _tens(messages)))

    def _complain(self, error: Exception) -> None:
        terminal.error(f"trigger: {type(error).__name__}")
        self._ended.wait(1)


def _tens(messages: Sequence[Held]) -> Iterator[Sequence[Held]]:
    for start in range(0, len(messages), RECEIVE):
        yield messages[start : start + RECEIVE]


class _Lambda:
    """Lambda's Invoke with a trace header, for which boto3 has no parameter."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._trace = threading.local()
        client.meta.events.register("before-call.lambda.Invoke", self._add)

    def _add(self, params: dict[str, Any], **_: Any) -> None:
        params["headers"][lineage.HEADER] = self._trace.header

    def invoke(self, *, TraceHeader: str, **rest: Any) -> Any:  # noqa: N803 (as boto3 names its parameters)
        self._trace.header = TraceHeader
        return self._client.invoke(**rest)


def settings_of(source: EventSource) -> str:
    """Return ``source`` as the one argument of this module's command line."""
    return json.dumps(asdict(source))


def _local_client(service: str) -> Any:
    waiting = Config(read_timeout=960, connect_timeout=5, retries={"total_max_attempts": 1}, max_pool_connections=100)
    client = loopback.client(service, os.environ["AWS_ENDPOINT_URL"], config=waiting)
    return _Lambda(client) if service == "lambda" else client


def main() -> None:
    """Serve the mapping that the argument describes until SIGTERM."""
    trigger = Trigger(EventSource(**json.loads(sys.argv[1])), _local_client)
    signal.signal(signal.SIGTERM, lambda *_: trigger.end())
    # The main thread must stay free to take the signal.
    work = threading.Thread(target=trigger.run)
    work.start()
    while work.is_alive():
        work.join(0.2)


if __name__ == "__main__":
    main()
