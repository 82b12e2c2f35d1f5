"""The local event source against what AWS documents of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from local import lineage, trigger
from local.trigger import PAYLOAD_BYTES, Batch, EventSource, Fair, Held, Trigger
from sim.cloudwatch import CloudWatch
from sim.functions import Function, Functions
from sim.queue import Queue, Sqs
from sim.time import Time

ARN = "arn:aws:sqs:us-east-1:000000000000:events"


def message(name: str, *, group: str = "stripe", weight: int = 100) -> Held:
    text = json.dumps("x" * (weight - 2))
    return Held(name, f"handle-{name}", group, text, len(text))


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.002)


# ------------------------------------------------------ the answer, as AWS reads it


@pytest.mark.parametrize(
    ("answer", "back"),
    [
        (b'{"batchItemFailures": []}', set()),
        (b'{"batchItemFailures": null}', set()),
        (b"{}", set()),
        (b"null", set()),
        (b"", set()),
        (b'{"batchItemFailures": [{"itemIdentifier": "b"}]}', {"b"}),
        (b'{"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "b"}]}', {"a", "b"}),
        (b'{"batchItemFailures": [{"itemIdentifier": ""}]}', {"a", "b", "c"}),
        (b'{"batchItemFailures": [{"itemIdentifier": null}]}', {"a", "b", "c"}),
        (b'{"batchItemFailures": [{"wrongKey": "a"}]}', {"a", "b", "c"}),
        (b'{"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "unknown"}]}', {"a", "b", "c"}),
        (b'{"batchItemFailures": ["a"]}', {"a", "b", "c"}),
        (b'{"batchItemFailures": "a"}', {"a", "b", "c"}),
        (b'{"batchItemFailures": ', {"a", "b", "c"}),
        (b'"done"', {"a", "b", "c"}),
        (b"\xff", {"a", "b", "c"}),
    ],
)
def test_which_messages_go_back(answer: bytes, back: set[str]) -> None:
    assert trigger.failed(answer, None, ["a", "b", "c"], partial=True) == back


def test_an_error_of_the_function_returns_the_whole_batch() -> None:
    assert trigger.failed(b'{"batchItemFailures": []}', "Unhandled", ["a", "b"], partial=True) == {"a", "b"}
    assert trigger.failed(b"{}", "Unhandled", ["a", "b"], partial=False) == {"a", "b"}


def test_without_partial_responses_any_answer_is_a_success() -> None:
    assert trigger.failed(b'{"batchItemFailures": [{"itemIdentifier": "a"}]}', None, ["a"], partial=False) == set()


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.text(), lambda x: st.lists(x), max_leaves=5).map(
        lambda x: json.dumps({"batchItemFailures": x}).encode()
    )
)
def test_no_answer_loses_a_message(answer: bytes) -> None:
    assert trigger.failed(answer, None, ["a", "b"], partial=True) in (set(), {"a", "b"})


# ---------------------------------------------------------------- records


def test_a_record_has_lambdas_shape() -> None:
    attributes = {"ApproximateReceiveCount": "2", "SentTimestamp": "1", "MessageGroupId": "stripe"}
    got = trigger.record(
        {
            "MessageId": "m",
            "ReceiptHandle": "h",
            "Body": "text",
            "MD5OfBody": "md5",
            "Attributes": attributes,
            "MessageAttributes": {
                "reason": {"DataType": "String", "StringValue": "unmapped"},
                "raw": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
            },
        },
        ARN,
    )
    assert got["messageId"] == "m"
    assert got["attributes"] == attributes
    assert got["messageAttributes"] == {
        "reason": {"stringValue": "unmapped", "stringListValues": [], "binaryListValues": [], "dataType": "String"},
        "raw": {"binaryValue": "AAE=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
    }
    assert (got["eventSource"], got["eventSourceARN"], got["awsRegion"]) == ("aws:sqs", ARN, "us-east-1")


def test_settings_come_from_the_mappings_properties() -> None:
    properties = {
        "BatchSize": 10_000,
        "MaximumBatchingWindowInSeconds": 5,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": "7"},
    }
    source = trigger.from_template(properties, {"RecursiveLoop": "Allow"}, "url", ARN, "deliver")
    assert (source.batch_size, source.window, source.concurrency, source.partial) == (10_000, 5, 7, True)
    assert source.loops
    assert not trigger.from_template(properties, {}, "url", ARN, "deliver").loops


# -------------------------------------------------------------- fair queues


def test_a_quiet_group_does_not_wait_behind_a_noisy_one() -> None:
    pool = Fair()
    for number in range(1_000):
        pool.put(message(f"noisy{number}", group="noisy"))
    pool.put(message("quiet", group="quiet"))
    taken = [pool.take(PAYLOAD_BYTES) for _ in range(2)]
    assert "quiet" in [queued.id for queued in taken if queued]


def test_groups_with_messages_in_flight_come_later() -> None:
    pool = Fair()
    for number in range(4):
        pool.put(message(f"noisy{number}", group="noisy"))
    flying = [pool.take(PAYLOAD_BYTES), pool.take(PAYLOAD_BYTES)]
    for number in range(2):
        pool.put(message(f"quiet{number}", group="quiet"))
    assert [queued.id for _ in range(2) if (queued := pool.take(PAYLOAD_BYTES))] == ["quiet0", "quiet1"]
    pool.landed([queued for queued in flying if queued])
    assert [queued.id for _ in range(2) if (queued := pool.take(PAYLOAD_BYTES))] == ["noisy2", "noisy3"]


@given(st.lists(st.sampled_from("abc"), max_size=60))
def test_every_message_is_taken_once_and_in_its_groups_order(groups: list[str]) -> None:
    pool = Fair()
    for number, group in enumerate(groups):
        pool.put(message(str(number), group=group))
    taken = []
    while queued := pool.take(PAYLOAD_BYTES):
        taken.append(queued)
    assert sorted(int(queued.id) for queued in taken) == list(range(len(groups)))
    for group in "abc":
        numbers = [int(queued.id) for queued in taken if queued.group == group]
        assert numbers == sorted(numbers)
    assert (pool.count, pool.weight) == (0, 0)


# ------------------------------------------------------------------ batches


def test_a_batch_goes_when_it_is_full() -> None:
    pool = Fair()
    for number in range(25):
        pool.put(message(str(number)))
    batch = Batch(10, window=300)
    assert batch.fill(pool, 0.0)
    assert len(batch.messages) == 10
    assert pool.count == 15


def test_a_batch_waits_for_its_window_from_its_first_message_on() -> None:
    pool = Fair()
    batch = Batch(10, window=5)
    assert not batch.fill(pool, 100.0)
    assert batch.patience(100.0) is None
    pool.put(message("one"))
    assert not batch.fill(pool, 103.0)
    assert batch.patience(104.0) == 4.0
    pool.put(message("two"))
    assert not batch.fill(pool, 107.9)
    assert batch.fill(pool, 108.0)
    assert [queued.id for queued in batch.messages] == ["one", "two"]


def test_under_low_traffic_the_window_lasts_until_a_long_poll_returns() -> None:
    pool = Fair()
    batch = Batch(10, window=5, long_poll=20)
    pool.put(message("lone"))
    assert not batch.fill(pool, 100.0)
    assert batch.patience(100.0) == 20.0
    assert not batch.fill(pool, 119.9)
    assert batch.fill(pool, 120.0)


def test_a_message_that_follows_ends_the_long_poll_and_a_window_that_has_passed() -> None:
    pool = Fair()
    batch = Batch(10, window=5, long_poll=20)
    for name, at, due in (("first", 100.0, False), ("second", 103.0, False), ("third", 108.0, True)):
        pool.put(message(name))
        assert batch.fill(pool, at) is due


@given(st.lists(st.integers(1_000, 1_300_000), min_size=1, max_size=20))
def test_a_payload_is_cut_off_at_6_mb(weights: list[int]) -> None:
    pool = Fair()
    for number, weight in enumerate(weights):
        pool.put(message(str(number), weight=weight))
    sent = []
    while pool.count:
        batch = Batch(10_000, window=0)
        assert batch.fill(pool, 0.0)
        payload = batch.payload()
        assert len(payload) <= PAYLOAD_BYTES
        sent += batch.messages
        if pool.count:  # the next one would not have fitted
            assert len(payload) + 1 + weights[len(sent)] > PAYLOAD_BYTES
    assert [queued.id for queued in sent] == [str(number) for number in range(len(weights))]


def test_the_payload_is_the_event_that_lambda_sends() -> None:
    pool = Fair()
    for number in range(2):
        pool.put(trigger.held({"MessageId": str(number), "ReceiptHandle": "h", "Body": 'a "é"\n'}, ARN))
    batch = Batch(10, window=0)
    batch.fill(pool, 0.0)
    event = json.loads(batch.payload())
    assert [record["messageId"] for record in event["Records"]] == ["0", "1"]
    assert event["Records"][0]["body"] == 'a "é"\n'


# ---------------------------------------------------------- the whole trigger


class OneAtATime:
    """``sqs`` for threads: one call at a time, and a receive that finds nothing waits a little."""

    def __init__(self, sqs: Sqs) -> None:
        self._sqs = sqs
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**asked: Any) -> Any:
            with self._lock:
                answer = getattr(self._sqs, name)(**asked)
            if not answer:
                time.sleep(0.005)  # a short long poll
            return answer

        return call


class Traced(Functions):
    """Takes the trace header of an invocation, as the local trigger's client does, and keeps it."""

    def __init__(self, *functions: Function) -> None:
        super().__init__(*functions)
        self.traces: list[str] = []

    def invoke(self, *, TraceHeader: str = "", **asked: Any) -> dict[str, Any]:  # noqa: N803
        self.traces.append(TraceHeader)
        return super().invoke(**asked)


class Cloud:
    """A queue in a time that stands still, Lambda with one function, and CloudWatch's counter.

    ``answer`` is the function: it gets the messages' ids.
    """

    def __init__(self, answer: Callable[[list[str]], Any]) -> None:
        self.clock = Time()
        self.queue = Queue("m", self.clock, visibility=60)
        self.sqs = OneAtATime(Sqs({"url": self.queue}))
        self.lock = threading.Lock()
        self.batches: list[list[str]] = []
        self.running = self.most = 0
        self.answer = answer
        self.functions = Traced(Function("deliver", self.work))
        self.watch = CloudWatch()

    def client(self, service: str) -> Any:
        return {"sqs": self.sqs, "lambda": self.functions, "cloudwatch": self.watch}[service]

    def put(self, count: int, trace: str = "") -> None:
        """Put ``count`` messages into the queue: m-1, m-2 and so on."""
        for _ in range(count):
            self.queue.put("{}", trace=trace)

    def work(self, payload: bytes) -> bytes:
        """The function, and how many of it run."""
        names = [record["messageId"] for record in json.loads(payload)["Records"]]
        with self.lock:
            self.batches.append(names)
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            return json.dumps(self.answer(names)).encode()
        finally:
            with self.lock:
                self.running -= 1


@contextmanager
def running(cloud: Cloud, **properties: Any) -> Iterator[None]:
    source = EventSource("url", ARN, "deliver", **({"partial": True} | properties))
    work = Trigger(source, cloud.client)
    thread = threading.Thread(target=work.run)
    thread.start()
    try:
        yield
    finally:
        work.end()
        thread.join(60)
        assert not thread.is_alive()


def test_successes_are_deleted_and_failures_left_to_the_visibility_timeout() -> None:
    bad = {"m-1", "m-2"}
    cloud = Cloud(lambda names: {"batchItemFailures": [{"itemIdentifier": n} for n in names if n in bad]})
    cloud.put(25)
    with running(cloud, batch_size=100, window=0.05):
        until(lambda: len(cloud.queue) == 2)
    assert cloud.queue.in_flight == set(cloud.queue.messages) == bad
    assert {message.visible_at for message in cloud.queue.messages.values()} == {cloud.clock.now + 60}


def test_a_function_that_fails_keeps_its_whole_batch() -> None:
    def fail(names: list[str]) -> None:
        raise ValueError(len(names))

    cloud = Cloud(fail)
    cloud.put(3)
    with running(cloud, batch_size=10):
        until(lambda: sum(map(len, cloud.batches)) == 3)
    assert len(cloud.queue) == 3


def test_no_more_invocations_at_a_time_than_the_maximum_concurrency() -> None:
    hold = threading.Event()
    cloud = Cloud(lambda _: {"held": hold.wait(60)})
    cloud.put(200)
    with running(cloud, batch_size=10, concurrency=7):
        until(lambda: cloud.running == 7)
        hold.set()
        until(lambda: not len(cloud.queue))
    assert cloud.most == 7


def test_what_is_held_at_the_end_goes_back_to_the_queue() -> None:
    cloud = Cloud(lambda _: {})
    cloud.put(2)
    with running(cloud, batch_size=100, window=300):
        until(lambda: len(cloud.queue.in_flight) == 2)
    assert [message.id for message in cloud.queue.receive()] == ["m-1", "m-2"]
    assert not cloud.batches


def test_all_that_is_held_goes_back_although_the_queue_fails_a_few_times() -> None:
    cloud = Cloud(lambda _: {})
    failing = iter(range(2))

    def fail(operation: str, _: Any) -> None:
        if operation == "ChangeMessageVisibilityBatch" and next(failing, None) is not None:
            raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, operation)

    cloud.sqs = OneAtATime(Sqs({"url": cloud.queue}, before=fail))
    cloud.put(95)
    with running(cloud, batch_size=100, window=300):
        until(lambda: len(cloud.queue.in_flight) == 95)
    assert not cloud.queue.in_flight


def chain(rounds: int) -> str:
    """The trace header of a message that has been through the function ``rounds`` times."""
    header = ""
    for _ in range(rounds):
        header = lineage.following([header], "deliver")
    return header


@pytest.mark.parametrize(
    ("rounds", "loops", "invoked"), [(15, False, 1), (16, False, 0), (16, True, 1), (400, True, 1)]
)
def test_the_seventeenth_round_is_refused_unless_the_function_may_loop(rounds: int, loops: bool, invoked: int) -> None:
    cloud = Cloud(lambda _: {})
    cloud.put(1, trace=chain(rounds))
    with running(cloud, loops=loops):
        until(lambda: not len(cloud.queue) or cloud.watch.counted)
    assert len(cloud.batches) == 1 - len(cloud.queue) == invoked
    assert cloud.watch.counted == [("AWS/Lambda", "RecursiveInvocationsDropped")] * (1 - invoked)
    assert [lineage.rounds(trace, "deliver") for trace in cloud.functions.traces] == [rounds + 1] * invoked
