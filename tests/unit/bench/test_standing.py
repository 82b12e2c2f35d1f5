"""``make costs``: counted from the template, so that the docs and the prices can't drift from what is deployed."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from bench import standing
from tools import paths, template

DEFAULTS = template.resources()


def counts(**parameters: Any) -> dict[str, int]:
    return standing.counted(template.resources(**parameters))


def test_the_docs_show_what_the_command_prints() -> None:
    written = "\n".join(["$ make costs", *standing.bill({})])
    page = (paths.ROOT / "docs" / "settings.md").read_text("utf-8")
    assert written in page, f"run `make costs` and put its output into docs/settings.md:\n{written}"


def test_each_alarm_secret_dashboard_and_trigger_of_the_template_is_on_the_bill() -> None:
    alarms = template.of_type(DEFAULTS, "AWS::CloudWatch::Alarm")
    assert counts() == {
        "secrets": len(template.of_type(DEFAULTS, "AWS::SecretsManager::Secret")),
        "metrics under alarm": sum(len(template.metrics_of(alarm)) for alarm in alarms.values()),
        "dashboards": 1,
        "empty receives of the SQS trigger": 657_000,
    }


def test_options_are_on_the_bill() -> None:
    more = counts(WatchedSource1="stripe", WatchedSource3="shopify", AlarmEmail="ops@mail.example")
    assert more["metrics under alarm"] == counts()["metrics under alarm"] + 2


def test_essential_is_cheaper_by_the_dashboard_and_its_alarms() -> None:
    full, essential = counts(), counts(Monitoring="essential")
    assert essential["dashboards"] == 0
    assert essential["metrics under alarm"] < full["metrics under alarm"]
    assert {name for name in full if full[name] != essential[name]} == {"dashboards", "metrics under alarm"}


def test_an_alarm_on_an_expression_is_billed_for_each_metric_in_it() -> None:
    metric = {"MetricStat": {"Metric": {"MetricName": "Errors"}, "Period": 60, "Stat": "Sum"}}
    alarm = {"Metrics": [{"Id": "rate", "Expression": "a / b"}, metric | {"Id": "a"}, metric | {"Id": "b"}]}
    stack = {"One": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm}}
    assert standing.counted(stack)["metrics under alarm"] == 2


def test_a_kind_of_resource_without_a_price_is_refused() -> None:
    with pytest.raises(ValueError, match="AWS::NAT::Gateway"):
        standing.counted({**DEFAULTS, "Gateway": {"Type": "AWS::NAT::Gateway"}})


def test_the_sum_is_what_the_parts_cost() -> None:
    prices = tomllib.loads((paths.ROOT / "bench" / "prices.toml").read_text("utf-8"))["dollars"]
    first = next(standing.bill({}))
    full = 2 * prices["secret_month"] + prices["dashboard_month"] + 657_000 * prices["sqs_request"]
    full += counts()["metrics under alarm"] * prices["alarm_metric_month"]
    assert f"full {full:.2f} dollars" in first


def test_a_parameter_that_the_template_does_not_have_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert standing.main(["WatchedSources=stripe"]) == 2
    said = capsys.readouterr()
    assert "no parameter WatchedSources" in said.err
    assert said.out == ""
