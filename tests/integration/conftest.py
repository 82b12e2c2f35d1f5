"""One stack for each test process, emptied between tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.stack import Stack


@pytest.fixture(scope="session")
def running() -> Iterator[Stack]:
    """A relay with a window of a second, so that tests need not wait for batches."""
    with Stack(properties={"MaximumBatchingWindowInSeconds": 1, "ScalingConfig": {"MaximumConcurrency": 2}}) as stack:
        yield stack


@pytest.fixture
def stack(running: Stack) -> Stack:
    """The relay with empty queues, an open pacing table and a stand-in that has received nothing."""
    sqs = running.aws.client("sqs")
    for output in ("EventsQueueUrl", "DeadLetterQueueUrl"):
        sqs.purge_queue(QueueUrl=running.outputs[output])
    table = running.aws.client("dynamodb")
    for item in table.scan(TableName=running.outputs["PacingTableName"])["Items"]:
        table.delete_item(TableName=running.outputs["PacingTableName"], Key={"id": item["id"]})
    running.standin("faults", [])
    running.standin("reset", {})
    return running
