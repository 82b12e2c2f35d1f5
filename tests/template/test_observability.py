"""Alarms, dashboard and saved queries speak of metrics and fields that exist, and of headings in the runbook."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from handler import errors
from handler.pauses import PAUSES
from tools.paths import ROOT
from tools.template import metrics_of, of_type

Stack = dict[str, Any]
DAY = 86_400
# What AWS publishes under these names (SQS, Lambda and API Gateway guides, "metrics").
PUBLISHED = {
    "AWS/SQS": {
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesVisible",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    },
    "AWS/Lambda": {"Errors", "Throttles", "ConcurrentExecutions", "RecursiveInvocationsDropped"},
    "AWS/ApiGateway": {"5xx", "Count"},
}
LATER = (
    "delivery/crashes.py",
    "delivery/returns.py",
    "delivery/records.py",
    "delivery/klaviyo.py",
    "events/parking.py",
)
OF_THE_LOGGER = {"timestamp", "level", "message", "service", "location"}


def words_of(*names: str) -> set[str]:
    """Every string in these modules as a word of the code."""
    trees = [ast.parse((ROOT / "src/handler" / name).read_text("utf-8")) for name in names]
    return {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def emitted(stack: Stack) -> set[str]:
    """Names of the relay's own metrics: the code's, and those that are counted in the access log."""
    refusals = {kind.__name__ for kind in errors.Refused.__subclasses__()}
    filtered = {
        transformation["MetricName"]
        for metric_filter in of_type(stack, "AWS::Logs::MetricFilter").values()
        for transformation in metric_filter["MetricTransformations"]
    }
    return words_of("door/function.py", "delivery/report.py") | refusals | filtered


def dashboard(stack: Stack) -> dict[str, Any]:
    (properties,) = of_type(stack, "AWS::CloudWatch::Dashboard").values()
    written = properties["DashboardBody"]["Fn::Sub"].replace("${RequestsPerMinute}", "150")
    document: dict[str, Any] = json.loads(written)
    return document


def shown(stack: Stack) -> Iterator[list[Any]]:
    for widget in dashboard(stack)["widgets"]:
        yield from widget["properties"]["metrics"]


def test_alarms_watch_metrics_that_exist(full_stack: Stack) -> None:
    alarms = of_type(full_stack, "AWS::CloudWatch::Alarm")
    for name, metric in ((name, metric) for name, alarm in alarms.items() for metric in metrics_of(alarm)):
        names = PUBLISHED.get(metric["Namespace"]) or emitted(full_stack)
        assert metric["MetricName"] in names, name
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
        if metric["Namespace"] == "KlaviyoRelay":
            assert dimensions["service"] == {"Ref": "AWS::StackName"}
            assert dimensions.get("reason", "outage") in words_of("closing.py")


def test_the_dashboard_shows_metrics_that_exist(stack: Stack) -> None:
    for metric in shown(stack):
        if isinstance(metric[0], dict):
            (name,) = re.findall(r'MetricName="(\w+)"', metric[0]["expression"])
            assert name in emitted(stack)
        else:
            assert metric[1] in (PUBLISHED.get(metric[0]) or emitted(stack)), metric


def test_the_dashboard_is_read_from_left_to_right(stack: Stack) -> None:
    widgets = dashboard(stack)["widgets"]
    places = {(widget["x"], widget["y"]) for widget in widgets}
    assert len(places) == len(widgets)
    top = sorted((widget["x"], widget["properties"]["title"]) for widget in widgets if widget["y"] == 0)
    assert [title.split()[0] for _, title in top] == ["Webhooks", "Events", "Jobs", "Parked"]


def test_whatever_can_stop_silently_has_an_alarm(full_stack: Stack) -> None:
    alarms = of_type(full_stack, "AWS::CloudWatch::Alarm").values()
    watched = {(metric["Namespace"], metric["MetricName"]) for alarm in alarms for metric in metrics_of(alarm)}
    assert watched >= {
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible"),
        ("AWS/SQS", "ApproximateAgeOfOldestMessage"),
        ("AWS/Lambda", "Throttles"),
        ("AWS/Lambda", "Errors"),
        ("AWS/Lambda", "RecursiveInvocationsDropped"),
        ("AWS/ApiGateway", "5xx"),
        ("AWS/ApiGateway", "Count"),
        ("KlaviyoRelay", "NotVerified"),
        ("KlaviyoRelay", "Unavailable"),
        ("KlaviyoRelay", "TooLarge"),
        ("KlaviyoRelay", "AgeAtDelivery"),
        ("KlaviyoRelay", "Authentic"),
    }
    of_closings = [alarm for alarm in alarms if alarm.get("MetricName") == "Closed"]
    closed = {dimension["Value"] for alarm in of_closings for dimension in alarm["Dimensions"][1:]}
    assert closed == {"configuration", "no_key", "no_table", "outage", "throttled"}  # all that the relay can be


def dead_letters(stack: Stack) -> list[dict[str, Any]]:
    """The alarms on how many messages are in the dead-letter queue."""
    alarms = of_type(stack, "AWS::CloudWatch::Alarm").values()
    return [
        alarm
        for alarm in alarms
        if alarm.get("MetricName") == "ApproximateNumberOfMessagesVisible"
        and alarm["Dimensions"][0]["Value"]["Fn::GetAtt"][0] == "DeadLetterQueue"
    ]


def test_what_was_parked_and_looked_at_is_not_forgotten(stack: Stack) -> None:
    # SQS takes what was received three times out of the age, so that listing it silences the alarms on age
    # (SQS guide, "Available CloudWatch metrics"): one goes by the number alone, for as long as alarms can look back.
    at_once, in_the_end = sorted(dead_letters(stack), key=lambda alarm: alarm["EvaluationPeriods"])
    assert at_once["Period"] * at_once["EvaluationPeriods"] <= 300
    assert in_the_end["Period"] * in_the_end["EvaluationPeriods"] == 7 * DAY
    # No news of an idle queue is no sign that it was emptied.
    assert {alarm["TreatMissingData"] for alarm in dead_letters(stack)} == {"ignore"}


# The dimension under which AWS publishes the metrics of a namespace.
DIMENSION = {"AWS/SQS": "QueueName", "AWS/Lambda": "FunctionName", "AWS/ApiGateway": "ApiId"}


def named(value: Any) -> str:
    """The resource that a dimension's value is taken from."""
    return str(value["Ref"] if "Ref" in value else value["Fn::GetAtt"][0])


def test_alarms_watch_the_resources_that_they_speak_of(full_stack: Stack) -> None:
    watched: set[tuple[str, str]] = set()
    for name, alarm in of_type(full_stack, "AWS::CloudWatch::Alarm").items():
        for metric in metrics_of(alarm):
            if metric["Namespace"] != "KlaviyoRelay":
                (dimension,) = metric["Dimensions"]
                assert dimension["Name"] == DIMENSION[metric["Namespace"]], name
                watched.add((metric["MetricName"], named(dimension["Value"])))
    assert watched == {
        ("ApproximateNumberOfMessagesVisible", "DeadLetterQueue"),
        ("ApproximateAgeOfOldestMessage", "DeadLetterQueue"),
        ("ApproximateAgeOfOldestMessage", "EventsQueue"),
        ("Errors", "ReceiveFunction"),
        ("Errors", "DeliverFunction"),
        ("Throttles", "ReceiveFunction"),
        ("Throttles", "DeliverFunction"),
        ("5xx", "WebhookApi"),
        ("Count", "WebhookApi"),
        ("RecursiveInvocationsDropped", "DeliverFunction"),
        ("ApproximateNumberOfMessagesVisible", "EventsQueue"),
        ("ApproximateNumberOfMessagesDelayed", "EventsQueue"),
        ("ApproximateNumberOfMessagesNotVisible", "EventsQueue"),
    }


def test_the_dashboard_draws_the_resources_of_this_stack(stack: Stack) -> None:
    for metric in shown(stack):
        if not isinstance(metric[0], dict) and metric[0] in DIMENSION:
            assert metric[2] == DIMENSION[metric[0]], metric
            assert re.sub(r"[${}]", "", metric[3]).partition(".")[0] in stack, metric


def test_what_is_counted_in_the_access_log_is_written_there(stack: Stack) -> None:
    for metric_filter in of_type(stack, "AWS::Logs::MetricFilter").values():
        fields = held(stack, metric_filter["LogGroupName"]["Ref"])
        used = re.findall(r"\$\.(\w+)", metric_filter["FilterPattern"] + str(metric_filter["MetricTransformations"]))
        assert used
        assert set(used) <= fields


def test_the_relay_held_back_by_long_pauses_raises_an_alarm(stack: Stack) -> None:
    # The longest pause that is believed leaves too few answers 429 in a period to tell it by their number.
    (alarm,) = (
        alarm
        for alarm in of_type(stack, "AWS::CloudWatch::Alarm").values()
        if alarm.get("MetricName") == "Closed" and alarm["Dimensions"][1]["Value"] == "throttled"
    )
    assert alarm["Period"] >= PAUSES.longest
    assert alarm["Period"] * alarm["EvaluationPeriods"] <= 3600


def test_missing_data_means_what_it_means(full_stack: Stack) -> None:
    for name, alarm in of_type(full_stack, "AWS::CloudWatch::Alarm").items():
        absence = alarm["ComparisonOperator"].startswith("Less")
        assert (alarm["TreatMissingData"] == "breaching") == absence, name
        assert alarm["TreatMissingData"] in ("breaching", "notBreaching", "ignore"), name


def test_parked_messages_are_called_to_mind_before_they_are_deleted(stack: Stack) -> None:
    thresholds = {
        alarm["Threshold"]
        for alarm in of_type(stack, "AWS::CloudWatch::Alarm").values()
        if alarm.get("MetricName") == "ApproximateAgeOfOldestMessage"
        and alarm["Dimensions"][0]["Value"]["Fn::GetAtt"][0] == "DeadLetterQueue"
    }
    assert thresholds == {3 * DAY, 10 * DAY}


def test_a_watched_source_that_sends_nothing_raises_an_alarm(stack: Stack, full_stack: Stack) -> None:
    def silent(deployed: Stack) -> dict[str, dict[str, Any]]:
        alarms = of_type(deployed, "AWS::CloudWatch::Alarm")
        return {name: alarm for name, alarm in alarms.items() if alarm.get("MetricName") == "Authentic"}

    assert silent(stack) == {}
    sources = {dimension["Value"] for alarm in silent(full_stack).values() for dimension in alarm["Dimensions"][1:]}
    assert sources == {"stripe", "shopify"}
    for alarm in silent(full_stack).values():
        assert alarm["TreatMissingData"] == "breaching"
        assert alarm["Period"] * alarm["EvaluationPeriods"] <= 7 * DAY


def test_alarms_go_to_the_address_given(stack: Stack, full_stack: Stack) -> None:
    assert not of_type(stack, "AWS::SNS::Topic")
    for alarm in of_type(stack, "AWS::CloudWatch::Alarm").values():
        assert not {"AlarmActions", "OKActions"}.intersection(alarm)
    for alarm in of_type(full_stack, "AWS::CloudWatch::Alarm").values():
        assert (
            alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "AlarmTopic"}]
        )  # when it is on, and when it is over


def headings() -> set[str]:
    """The runbook's entries as GitHub's anchors."""
    lines = (ROOT / "docs/runbook.md").read_text("utf-8").splitlines()
    return {re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-") for line in lines if line.startswith("## ")}


def test_every_alarm_has_its_entry_in_the_runbook(full_stack: Stack) -> None:
    named = set()
    for name, alarm in of_type(full_stack, "AWS::CloudWatch::Alarm").items():
        link = re.search(r"See docs/runbook\.md#([a-z0-9-]+)$", alarm["AlarmDescription"])
        assert link, name
        named.add(link[1])
    assert named <= headings()


def table(heading: str) -> set[str]:
    """The reasons that the tables under a heading of the runbook say what to do about."""
    (text,) = re.findall(rf"^## {heading}\n(.*?)^## ", (ROOT / "docs/runbook.md").read_text("utf-8"), re.M | re.S)
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}


def raised(*kinds: str) -> set[str]:
    """Reasons with which the code raises these errors."""
    dimensions: set[str] = set()
    for path in sorted((ROOT / "src/handler").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds and node.args:
                inner = [constant.value for constant in ast.walk(node.args[0]) if isinstance(constant, ast.Constant)]
                dimensions |= {constant for constant in inner if isinstance(constant, str)}
    return dimensions


def test_the_runbook_says_what_to_do_about_each_reason() -> None:
    of_a_signature = {
        word for word in words_of("door/signatures.py") if re.fullmatch(r"(signature|timestamp|token)_[a-z]+", word)
    }
    parameters = {"timestamp_header", "timestamp_body", "timestamp_format"}
    assert table("Signatures refused") == raised("NotVerified") | of_a_signature - parameters
    assert table("Door unavailable") == raised("Unavailable") | {"unavailable", "receive_crashed"}
    later = {
        "crashed",
        "waited_too_long",
        "refused_by_klaviyo",
        "newer_format",
        "unreadable_message",
        "source_file",
        "mapping_crashed",
    }
    assert later <= words_of(*LATER)
    assert table("Dead letters") == raised("Unmapped") | later


# Which lines are in which log group; the API's own have the fields of their format.
_WRITERS = {"ReceiveLogs": "door/function.py", "DeliverLogs": "delivery/report.py"}


def held(stack: Stack, group: str) -> set[str]:
    """Fields of the lines in a log group."""
    if group in _WRITERS:
        return _fields(_WRITERS[group]) | OF_THE_LOGGER
    (stage,) = of_type(stack, "AWS::ApiGatewayV2::Stage").values()
    return set(json.loads(stage["AccessLogSettings"]["Format"]["Fn::Sub"]))


def asked(stack: Stack) -> Iterator[tuple[str, str]]:
    """Each saved query's name and each field that it asks for."""
    known = (
        "fields|filter|parse|stats|sort|limit|by|as|like|and|or|asc|desc|count|sum|max|min|avg|latest|coalesce|bin|1m"
    )
    for name, query in of_type(stack, "AWS::Logs::QueryDefinition").items():
        text = re.sub(r'"[^"]*"|/[^/]*/', "", query["QueryString"])
        text = re.sub(r"\bas \w+", "", text)
        columns = set(re.findall(r"(?:\bas |\(\?<)(\w+)", query["QueryString"]))
        for field in re.findall(r"(?<![\w.])@?[a-z][\w.]*", text):
            if field not in columns and not re.fullmatch(known, field):
                yield name, field


def test_queries_ask_for_fields_that_are_logged(stack: Stack) -> None:
    wanted = list(asked(stack))
    assert len(wanted) > 30
    for name, field in wanted:
        groups = [group["Ref"] for group in stack[name]["Properties"]["LogGroupNames"]]
        assert groups
        logged = {"@timestamp", "@message"}.union(*(held(stack, group) for group in groups))
        assert field.split(".")[0] in logged, f"{name} asks for {field}, which no line of {groups} holds"


def test_queries_sort_by_columns_that_they_name(stack: Stack) -> None:
    # The console refuses "sort bin(1m)", and a saved query is not parsed at deployment.
    for name, query in of_type(stack, "AWS::Logs::QueryDefinition").items():
        (column,) = re.findall(r"^\| sort (\S+) (?:asc|desc)$", query["QueryString"], re.M)
        columns = set(re.findall(r"\bas (\w+)", query["QueryString"]))
        assert column == "@timestamp" or column in columns, name


def test_queries_ask_for_lines_that_are_written(stack: Stack) -> None:
    written = words_of("door/function.py", "delivery/report.py", "delivery/klaviyo.py")
    for name, query in of_type(stack, "AWS::Logs::QueryDefinition").items():
        for field, value in re.findall(r'(message|outcome) !?= "([^"]+)"', query["QueryString"]):
            assert value in written, f"{name} looks for {field} {value}"


@pytest.mark.parametrize("field", ["webhook_id", "outcome", "klaviyo_request_id", "event_ids", "slot_wait_ms"])
def test_the_log_lines_schema_is_written_down(field: str) -> None:
    assert f"`{field}`" in (ROOT / "docs/logs.md").read_text("utf-8")


def test_every_field_logged_is_written_down() -> None:
    text = (ROOT / "docs/logs.md").read_text("utf-8")
    missing = {field for field in _fields("door/function.py", "delivery/report.py") if f"`{field}`" not in text}
    assert not missing


def _fields(*names: str) -> set[str]:
    """Keys of the documents that these modules log."""
    fields: set[str] = set()
    for name in names:
        tree = ast.parse((ROOT / "src/handler" / name).read_text("utf-8"))
        for node in ast.walk(tree):
            is_line = isinstance(node, ast.Assign | ast.AnnAssign) and _target(node) in ("line", "log", "more", "extra")
            is_extra = isinstance(node, ast.keyword) and node.arg == "extra"
            if is_line or is_extra:
                fields |= {
                    key.value
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Dict)
                    for key in inner.keys
                    if isinstance(key, ast.Constant) and isinstance(key.value, str)
                }
    return fields


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    return target.id if isinstance(target, ast.Name) else ""
