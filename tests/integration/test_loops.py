"""Recursive loops on the running stack: botocore's own header, through MiniStack's functions and queue, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.lineage import ROUNDS
from local.stack import Stack
from tests.integration.support import until

QUICK = {"BatchSize": 10, "MaximumBatchingWindowInSeconds": 0, "ScalingConfig": {"MaximumConcurrency": 2}}


def counted(stack: Stack, metric: str) -> int:
    """What Lambda counted of ``deliver``."""
    now = datetime.now(UTC)
    statistics = stack.aws.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/Lambda",
        MetricName=metric,
        Dimensions=[{"Name": "FunctionName", "Value": stack.deliver}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=1),
        Period=3600,
        Statistics=["Sum"],
    )
    return int(sum(point["Sum"] for point in statistics["Datapoints"]))


@pytest.mark.parametrize("allowed", [False, True])
def test_a_loop_ends_after_sixteen_rounds_unless_the_template_allows_it(allowed: bool) -> None:
    def change(template: dict[str, Any]) -> None:
        properties = template["Resources"]["DeliverFunction"]["Properties"]
        properties["Handler"] = "tests.integration.looping.handler"
        if not allowed:
            del properties["RecursiveLoop"]

    with Stack(properties=QUICK, change=change) as stack:
        stack.aws.client("sqs").send_message(QueueUrl=stack.outputs["EventsQueueUrl"], MessageBody="m")
        if allowed:
            until(lambda: counted(stack, "Invocations") > 2 * ROUNDS, "more rounds than Lambda allows by default")
            assert counted(stack, "RecursiveInvocationsDropped") == 0
        else:
            until(lambda: counted(stack, "RecursiveInvocationsDropped"), "the refusal of the seventeenth")
            assert counted(stack, "Invocations") == ROUNDS
