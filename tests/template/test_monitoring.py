"""``Monitoring=essential``: what it leaves out, and that nothing is lost or delayed for hours without an alarm."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.template.test_emitted import Metric, deliveries, webhooks
from tests.template.test_emitted import metrics as emitted
from tests.unit import support_door
from tests.unit.support_door import Door
from tools import template as reading
from tools.template import metrics_of, of_type

Stack = dict[str, Any]
ALARM = "AWS::CloudWatch::Alarm"
DAY = 86_400
# Each alarm that essential leaves out, and the one that stays and fires for the same within an hour (or, for what is in
# the dead-letter queue for 14 days, a week before SQS deletes it).
COVERED = {
    # DeadLettersAlarm fires at once, this one once more after seven days.
    "DeadLettersAge3Alarm": "DeadLettersStayAlarm",
    "DeadLettersAge10Alarm": "DeadLettersStayAlarm",
    # Answers 429 delay events only if they keep the relay closed, or if events come late.
    "ThrottledAlarm": "HeldBackAlarm",
    # The API answers a 5xx where Lambda throttles receive or receive fails (AWS re:Post, "troubleshoot 5xx errors").
    "ReceiveThrottlesAlarm": "DoorFailsAlarm",
    "ReceiveErrorsAlarm": "DoorFailsAlarm",
}
# Metrics that stay in essential, for the reason in its comment: no other alarm fires for it.
NEEDED = {
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "DeadLetterQueue"),  # parked
    ("AWS/SQS", "ApproximateAgeOfOldestMessage", "EventsQueue"),  # nothing takes events: a disabled trigger
    # What fails or is throttled is received again, and SQS leaves what was received three times out of the age (SQS
    # guide, "Available CloudWatch metrics"): from the 36th minute the alarm on the queue's age no longer covers it.
    ("AWS/Lambda", "Errors", "DeliverFunction"),
    ("AWS/Lambda", "Throttles", "DeliverFunction"),
    ("AWS/Lambda", "RecursiveInvocationsDropped", "DeliverFunction"),  # nothing is invoked, nothing fails
    ("AWS/ApiGateway", "5xx", "WebhookApi"),  # receive crashes, is throttled, or runs out of time
    ("AWS/ApiGateway", "Count", "WebhookApi"),  # a flood costs, whatever it is answered
    ("KlaviyoRelay", "AgeAtDelivery", ""),  # deferred messages are sent again, so that the queue's age stays low
    ("KlaviyoRelay", "Closed", "configuration"),
    ("KlaviyoRelay", "Closed", "no_key"),
    ("KlaviyoRelay", "Closed", "no_table"),
    ("KlaviyoRelay", "Closed", "outage"),
    ("KlaviyoRelay", "Closed", "throttled"),
    ("KlaviyoRelay", "NotVerified", ""),  # lost once the sender stops retrying
    ("KlaviyoRelay", "Unavailable", ""),  # the same; AWS does not say that its 5xx counts receive's own 503s
    ("KlaviyoRelay", "ThrottledAtDoor", ""),  # the same
    ("KlaviyoRelay", "TooLarge", ""),  # the same
    ("KlaviyoRelay", "Authentic", "stripe"),  # watched
    ("KlaviyoRelay", "Authentic", "shopify"),
}


def watched(metric: Mapping[str, Any]) -> tuple[str, str, str]:
    """Namespace and name of a metric, and the resource or the value that it is about."""
    about = [
        dimension["Value"] for dimension in metric["Dimensions"] if dimension["Value"] != {"Ref": "AWS::StackName"}
    ]
    (value,) = about or [""]
    if isinstance(value, dict):
        value = value["Ref"] if "Ref" in value else value["Fn::GetAtt"][0]
    return metric["Namespace"], metric["MetricName"], value


def under_alarm(stack: Stack) -> Iterator[Mapping[str, Any]]:
    """Each metric that an alarm of ``stack`` looks at."""
    for alarm in of_type(stack, ALARM).values():
        yield from metrics_of(alarm)


def test_each_alarm_left_out_has_one_that_stays_and_fires_for_the_same(
    full_stack: Stack, essential_stack: Stack
) -> None:
    every, kept = of_type(full_stack, ALARM), of_type(essential_stack, ALARM)
    assert every.keys() - kept.keys() == COVERED.keys()
    assert kept.keys() <= every.keys()
    for name in COVERED.values():
        alarm = kept[name]
        within = alarm["Period"] * alarm["EvaluationPeriods"]
        assert within <= (7 * DAY if watched(alarm)[2] == "DeadLetterQueue" else 3600)


def test_nothing_is_lost_or_delayed_without_an_alarm(essential_stack: Stack) -> None:
    assert set(map(watched, under_alarm(essential_stack))) >= NEEDED


def test_essential_differs_in_alarms_dashboard_and_metrics_only(full_stack: Stack, essential_stack: Stack) -> None:
    assert full_stack.keys() - essential_stack.keys() == COVERED.keys() | {"Dashboard"}
    changed = {name for name, resource in essential_stack.items() if resource != full_stack[name]}
    assert changed == {"ReceiveFunction"}  # its environment, for the metrics by source


def test_the_dashboards_address_is_given_where_there_is_one() -> None:
    written = reading.source()
    (dashboard,) = (
        resource for resource in written["Resources"].values() if resource["Type"] == "AWS::CloudWatch::Dashboard"
    )
    assert dashboard["Condition"] == written["Outputs"]["DashboardUrl"]["Condition"]


def counted_by_source(output: str) -> Iterator[str]:
    """The source of each set of metrics that names one."""
    for line in output.splitlines():
        document = json.loads(line)
        if any(
            "source" in names
            for directive in document["_aws"]["CloudWatchMetrics"]
            for names in directive["Dimensions"]
        ):
            yield document["source"]


def as_deployed(stack: Stack) -> Door:
    """Receive with the settings of ``stack``."""
    variables = stack["ReceiveFunction"]["Properties"]["Environment"]["Variables"]
    return Door(environment=support_door.ENVIRONMENT | {"METRICS_BY_SOURCE": variables["METRICS_BY_SOURCE"]})


def by_dimensions(stack: Stack) -> set[Metric]:
    """What the alarms on the relay's own metrics watch, by name and set of dimensions."""
    metrics = (metric for metric in under_alarm(stack) if metric["Namespace"] == "KlaviyoRelay")
    return {
        (metric["MetricName"], frozenset(dimension["Name"] for dimension in metric["Dimensions"])) for metric in metrics
    }


def test_essential_counts_watched_sources_alone_by_name(
    essential_stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    webhooks(as_deployed(essential_stack))
    output = capsys.readouterr().out
    assert set(counted_by_source(output)) == {"stripe"}
    assert ("Authentic", frozenset({"service"})) in emitted(output)


def test_full_counts_every_source_by_name(full_stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    webhooks(as_deployed(full_stack))
    assert set(counted_by_source(capsys.readouterr().out)) == {"stripe", "custom", "unknown"}


def test_without_a_watched_source_essential_counts_none_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    webhooks(as_deployed(reading.resources(Monitoring="essential")))
    assert not set(counted_by_source(capsys.readouterr().out))


def test_the_alarms_that_stay_watch_what_is_still_emitted(
    essential_stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    webhooks(as_deployed(essential_stack))
    deliveries()
    in_the_access_log = {("ThrottledAtDoor", frozenset({"service"}))}
    assert by_dimensions(essential_stack) - in_the_access_log - emitted(capsys.readouterr().out) == set()
