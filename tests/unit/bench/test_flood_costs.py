"""What a flood costs: the figures of SECURITY.md are what the command prints, on sizes that are measured."""

from __future__ import annotations

import pytest

from bench import flood
from bench.cost import PRICES
from tests.unit.door import test_receive
from tests.unit.door.test_receive import post
from tests.unit.support_door import Door
from tools.paths import ROOT

door = test_receive.door  # the fixture


def test_the_page_shows_what_the_command_prints() -> None:
    written = "\n".join(["$ make costs FLOOD=500", *flood.bill(500)])
    page = (ROOT / "SECURITY.md").read_text("utf-8")
    assert written in page, f"run `make costs FLOOD=500` and put its output into SECURITY.md:\n{written}"


def test_a_refusals_metrics_are_as_long_as_they_are_billed(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    assert post(door, "shopify", b"{}", secret="x")[0] == 401
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith('{"_aws"')]
    assert abs(len(line) - flood.METRICS) < 0.1 * flood.METRICS


def test_a_lower_throttle_costs_in_proportion() -> None:
    full, tenth = ({name: cost for name, (_, cost) in flood.dollars(rate).items()} for rate in (500, 50))
    assert all(full[name] == pytest.approx(10 * tenth[name]) for name in full)
    assert full["requests to the API"] == pytest.approx(1_800_000 * PRICES["http_api_request"])


@pytest.mark.parametrize("arguments", [["0"], ["-1"], ["many"], [], ["inf"]])
def test_a_rate_that_is_none_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert flood.main(arguments) == 2
    assert "FLOOD is not a number" in capsys.readouterr().err
