"""``sim.cloudwatch`` compared with boto3's client on MiniStack.

MiniStack keeps no actions of alarms: a history with one is compared with the service's model only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sim.cloudwatch import Alarm, CloudWatch
from tests.conformance.support import has_the_shape

pytestmark = pytest.mark.xdist_group("conformance")
Client = Callable[[str], Any]


@pytest.fixture
def sides(ministack: Client, name: str) -> list[Any]:
    """Both have two alarms under ``name``, of which the second is on, and one of another name."""
    alarms = [
        Alarm(f"{name}-b", "ALARM", "what to do"),
        Alarm(f"{name}-a", description="nothing to do"),
        Alarm(f"other-{name}", "ALARM", "not ours"),
    ]
    real = ministack("cloudwatch")
    metric = {"Namespace": name, "MetricName": "Errors", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1}
    for alarm in alarms:
        real.put_metric_alarm(
            AlarmName=alarm.name,
            AlarmDescription=alarm.description,
            Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
            **metric,
        )
        real.set_alarm_state(AlarmName=alarm.name, StateValue=alarm.state, StateReason="a test")
    return [CloudWatch(*alarms, per_page=1), real]


def described(client: Any, **asked: Any) -> list[tuple[str, str, str]]:
    pages = client.get_paginator("describe_alarms").paginate(**asked)
    return [
        (alarm["AlarmName"], alarm["AlarmDescription"], alarm["StateValue"])
        for page in pages
        for alarm in page["MetricAlarms"]
    ]


@pytest.mark.parametrize(("which", "found"), [({}, "ab"), ({"StateValue": "ALARM"}, "b"), ({"StateValue": "OK"}, "a")])
def test_pages_have_the_alarms_of_a_prefix_and_a_state(
    which: dict[str, str], found: str, sides: list[Any], name: str
) -> None:
    simulated, real = (described(side, AlarmNamePrefix=f"{name}-", **which) for side in sides)
    assert simulated == real
    assert [alarm for alarm, *_ in simulated] == [f"{name}-{letter}" for letter in found]


def test_an_alarm_that_never_acted_has_no_history_of_it(sides: list[Any], name: str) -> None:
    asked = {"AlarmName": f"{name}-a", "HistoryItemType": "Action", "MaxRecords": 1}
    assert [side.describe_alarm_history(**asked)["AlarmHistoryItems"] for side in sides] == [[], []]


def test_a_last_action_has_the_shape_of_the_model(sides: list[Any]) -> None:
    acted = CloudWatch(Alarm("a", last={"actionState": "Succeeded"}))
    answer = acted.describe_alarm_history(AlarmName="a", HistoryItemType="Action", MaxRecords=1)
    assert len(answer["AlarmHistoryItems"]) == 1
    assert has_the_shape(answer, sides[1], "describe_alarm_history")


def test_what_was_put_is_counted_under_its_name(sides: list[Any], name: str) -> None:
    for side in sides:
        side.put_metric_data(Namespace=name, MetricData=[{"MetricName": "Dropped", "Value": 1, "Unit": "Count"}])
    simulated, real = sides
    listed = [(one["Namespace"], one["MetricName"]) for one in real.list_metrics(Namespace=name)["Metrics"]]
    assert simulated.counted == listed == [(name, "Dropped")]
