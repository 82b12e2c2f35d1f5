"""What alarms and dashboard watch, both functions emit, by name and set of dimensions: else nothing would match."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from handler.messages import Message
from tests.template.test_observability import shown
from tests.unit.door import test_receive as at_the_door
from tests.unit.support_delivery import event
from tests.unit.support_door import Door
from tests.unit.support_queue import delivery
from tools.template import metrics_of, of_type

Stack = dict[str, Any]
Metric = tuple[str, frozenset[str]]
door = at_the_door.door  # the fixture


def metrics(output: str) -> set[Metric]:
    """Names and dimensions of all metrics in embedded metric format."""
    emitted: set[Metric] = set()
    for line in output.splitlines():
        for directive in json.loads(line)["_aws"]["CloudWatchMetrics"]:
            for dimensions in directive["Dimensions"]:
                emitted |= {(metric["Name"], frozenset(dimensions)) for metric in directive["Metrics"]}
    return emitted


def webhooks(door: Door) -> None:
    """One webhook of every kind."""
    good, parked = at_the_door.custom(at_the_door.event()), at_the_door.custom(at_the_door.event(profile={}))
    dense = random.Random(1).randbytes(1_200_000).hex()  # noqa: S311 (incompressible text, no secret)
    for body in (good, parked, b"{", at_the_door.custom(at_the_door.event(properties={"dense": dense}))):
        at_the_door.post(door, "custom", body)
    at_the_door.post(door, "stripe", b'{"id":"evt_1","type":"setup_intent.created","data":{"object":{"id":"seti_1"}}}')
    at_the_door.post(door, "custom", good, pathParameters={"source": "nobody"})
    at_the_door.post(door, "custom", good, now=1.0)
    door.handler({"requestContext": {"http": {"method": "POST"}}, "body": "*", "isBase64Encoded": True}, None)
    door.down = {"sqs"}
    at_the_door.post(door, "custom", good)


def deliveries() -> None:
    """One event delivered, parked, throttled, and kept for want of a table."""
    with delivery() as world:
        world.klaviyo.bad = {"bad"}
        for name in ("good", "bad"):
            world.put(Message("shop", (event(name),), world.clock()))
        world.run()
        world.klaviyo.told = lambda _: world.klaviyo.answer(429, Retry_After="300")
        world.put(Message("shop", (event("later"),), world.clock()))
        world.invoke()
        world.table_away = 1.0
        world.clock.sleep(1_000)
        world.invoke()


@pytest.fixture
def emitted(door: Door, capsys: pytest.CaptureFixture[str]) -> set[Metric]:
    webhooks(door)
    deliveries()
    return metrics(capsys.readouterr().out)


def test_alarms_and_dashboard_watch_what_is_emitted(full_stack: Stack, emitted: set[Metric]) -> None:
    counted_in_logs = {
        (transformation["MetricName"], frozenset(dimension["Key"] for dimension in transformation["Dimensions"]))
        for metric_filter in of_type(full_stack, "AWS::Logs::MetricFilter").values()
        for transformation in metric_filter["MetricTransformations"]
    }
    alarms = {
        (metric["MetricName"], frozenset(dimension["Name"] for dimension in metric["Dimensions"]))
        for alarm in of_type(full_stack, "AWS::CloudWatch::Alarm").values()
        for metric in metrics_of(alarm)
        if metric["Namespace"] == "KlaviyoRelay"
    }
    assert len(alarms) > 6
    assert alarms - counted_in_logs - emitted == set()
    drawn = {
        (row[1], frozenset(name for name in row[2::2] if isinstance(name, str)))
        for row in shown(full_stack)
        if row[0] == "KlaviyoRelay"
    }
    assert len(drawn) > 10
    assert drawn - counted_in_logs - emitted == set()
