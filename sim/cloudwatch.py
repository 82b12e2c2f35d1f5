"""CloudWatch in memory: alarms with their last actions, and what was counted.

Facts: CloudWatch API reference, DescribeAlarms (a prefix and a state, in pages) and DescribeAlarmHistory;
``HistoryData`` is JSON whose fields the reference does not name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .pages import Paged


@dataclass(frozen=True)
class Alarm:
    """An alarm, and what its history has of its ``last`` action, if there was one."""

    name: str
    state: str = "OK"
    description: str = ""
    last: Mapping[str, Any] | None = None


class CloudWatch(Paged):
    """The client's calls that the relay's tools make, for ``alarms``, ``per_page`` in each answer.

    ``counted`` are the names of the metrics that were put, by namespace and in order.
    """

    def __init__(self, *alarms: Alarm, per_page: int = 50) -> None:
        super().__init__(per_page)
        self._alarms = {alarm.name: alarm for alarm in sorted(alarms, key=lambda alarm: alarm.name)}
        self.counted: list[tuple[str, str]] = []

    def describe_alarms(
        self,
        *,
        AlarmNamePrefix: str = "",  # noqa: N803 (boto3's name)
        StateValue: str = "",  # noqa: N803
        NextToken: str = "0",  # noqa: N803
    ) -> dict[str, Any]:
        """Do DescribeAlarms."""
        alarms = [
            {"AlarmName": alarm.name, "AlarmDescription": alarm.description, "StateValue": alarm.state}
            for alarm in self._alarms.values()
            if alarm.name.startswith(AlarmNamePrefix) and StateValue in ("", alarm.state)
        ]
        return self._page("MetricAlarms", alarms, NextToken)

    def describe_alarm_history(self, *, AlarmName: str, HistoryItemType: str, MaxRecords: int) -> dict[str, Any]:  # noqa: N803
        """Do DescribeAlarmHistory, of which there is one item at most: the last action."""
        alarm = self._alarms.get(AlarmName)
        if alarm is None or alarm.last is None or HistoryItemType != "Action" or MaxRecords < 1:
            return {"AlarmHistoryItems": []}
        item = {"AlarmName": AlarmName, "HistoryItemType": "Action", "HistoryData": json.dumps(alarm.last)}
        return {"AlarmHistoryItems": [item]}

    def put_metric_data(self, *, Namespace: str, MetricData: Sequence[Mapping[str, Any]]) -> dict[str, Any]:  # noqa: N803
        """Do PutMetricData."""
        self.counted += [(Namespace, metric["MetricName"]) for metric in MetricData]
        return {}
