"""An SQS event source as AWS documents it, for MiniStack's SQS and Lambda.

MiniStack's own hands over ten messages at most. This one has the mapping's batch
size and window, the 6 MB cut, maximum concurrency and partial batch responses
(Lambda developer guide, "Using Lambda with Amazon SQS"; "Handling errors for an
SQS event source"). What it shows of AWS's is what that guide says, no more.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

PAYLOAD_BYTES = 6_000_000
RECEIVE = 10
IDLE_SECONDS = 0.1
_WRAPPING = 20


@dataclass(frozen=True, slots=True)
class EventSource:
    """One event source mapping, with the properties that the template gives it."""

    queue_url: str
    queue_arn: str
    function: str
    batch_size: int = 10
    window: float = 0
    concurrency: int = 5
    partial: bool = False


def from_template(properties: Mapping[str, Any], queue_url: str, queue_arn: str, function: str) -> EventSource:
    """The mapping that a translated template describes, its references resolved."""
    scaling = properties.get("ScalingConfig", {}).get("MaximumConcurrency", 5)
    return EventSource(
        queue_url=queue_url,
        queue_arn=queue_arn,
        function=function,
        batch_size=int(properties.get("BatchSize", 10)),
        window=float(properties.get("MaximumBatchingWindowInSeconds", 0)),
        concurrency=int(scaling),
        partial="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", []),
    )


def record(message: Mapping[str, Any], queue_arn: str) -> dict[str, Any]:
    """An SQS message in the shape in which Lambda hands it over."""
    attributes = {
        name: {
            "stringValue": value.get("StringValue"),
            "stringListValues": [],
            "binaryListValues": [],
            "dataType": value["DataType"],
        }
        for name, value in message.get("MessageAttributes", {}).items()
    }
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes", {})),
        "messageAttributes": attributes,
        "md5OfBody": message.get("MD5OfBody", ""),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }


def failed(answer: bytes, function_error: str | None, batch: Sequence[str], *, partial: bool) -> set[str]:
    """The message ids of ``batch`` that go back to the queue, as AWS reads a function's answer.

    An error of the function, an answer that is not JSON, and an entry whose
    ``itemIdentifier`` is missing, null, empty or not of the batch return all of them.
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


def gather(
    receive: Callable[[], Sequence[dict[str, Any]]],
    carried: list[dict[str, Any]],
    source: EventSource,
    clock: Callable[[], float],
    pause: Callable[[float], None],
) -> list[dict[str, Any]]:
    """One batch: until it is full, weighs 6 MB or its window has passed since the first record.

    ``carried`` holds records that no longer fitted; what does not fit now is left there.
    """
    batch: list[dict[str, Any]] = []
    weight = _WRAPPING
    opened = clock()
    while True:
        while carried:
            heavier = weight + len(json.dumps(carried[0]).encode()) + 1
            if batch and (len(batch) == source.batch_size or heavier > PAYLOAD_BYTES):
                return batch
            batch.append(carried.pop(0))
            weight = heavier
        if len(batch) == source.batch_size or (batch and clock() - opened >= source.window):
            return batch
        found = receive()
        if not batch:
            if not found:
                return batch
            opened = clock()
        carried += found
        if not found:
            pause(IDLE_SECONDS)


class Trigger:
    """Workers of one mapping, each of which gathers a batch and invokes with it."""

    def __init__(self, source: EventSource, client: Callable[[str], Any]) -> None:
        self.source = source
        self._client = client
        self._ended = threading.Event()

    def run(self) -> None:
        """Work until ``end`` is called."""
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self.source.concurrency)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def end(self) -> None:
        """Let the workers finish what they hold and stop."""
        self._ended.set()

    def _work(self) -> None:
        sqs, functions = self._client("sqs"), self._client("lambda")
        carried: list[dict[str, Any]] = []
        while not self._ended.is_set():
            try:
                batch = gather(lambda: self._receive(sqs), carried, self.source, time.monotonic, time.sleep)
                if batch:
                    self._invoke(sqs, functions, batch)
                else:
                    self._ended.wait(IDLE_SECONDS)
            except (ClientError, BotoCoreError) as error:
                print(f"trigger: {type(error).__name__}", file=sys.stderr, flush=True)
                self._ended.wait(1)

    def _receive(self, sqs: Any) -> list[dict[str, Any]]:
        answer = sqs.receive_message(
            QueueUrl=self.source.queue_url,
            MaxNumberOfMessages=RECEIVE,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        return [record(message, self.source.queue_arn) for message in answer.get("Messages", [])]

    def _invoke(self, sqs: Any, functions: Any, batch: list[dict[str, Any]]) -> None:
        answer = functions.invoke(FunctionName=self.source.function, Payload=json.dumps({"Records": batch}).encode())
        ids = [one["messageId"] for one in batch]
        back = failed(answer["Payload"].read(), answer.get("FunctionError"), ids, partial=self.source.partial)
        done = [one for one in batch if one["messageId"] not in back]
        for entries in _tens(done):
            sqs.delete_message_batch(
                QueueUrl=self.source.queue_url,
                Entries=[{"Id": str(n), "ReceiptHandle": one["receiptHandle"]} for n, one in enumerate(entries)],
            )


def _tens(records: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(0, len(records), RECEIVE):
        yield records[start : start + RECEIVE]


def settings_of(source: EventSource) -> str:
    """``source`` as the one argument of this module's command line."""
    return json.dumps(asdict(source))


def _local_client(service: str) -> Any:
    url = os.environ["AWS_ENDPOINT_URL"]
    if not url.startswith("http://127.0.0.1:"):
        raise SystemExit("the trigger serves 127.0.0.1 only")
    waiting = Config(read_timeout=960, connect_timeout=5, retries={"total_max_attempts": 1})
    return boto3.client(service, endpoint_url=url, config=waiting)  # type: ignore[call-overload]


if __name__ == "__main__":
    Trigger(EventSource(**json.loads(sys.argv[1])), _local_client).run()
