"""The benchmark's own arithmetic: figures that are published must not be an artefact of it."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import cost, svg, virtual
from local import aws
from sim.klaviyo import PER_MINUTE, PER_SECOND, Windows

MEASURED = cost.Measured(2_000, 0.0008, 0.0001, 900, 0.002, 0.00001, 800, 40, 0.25, 0.25)


@pytest.mark.parametrize("senders", [2, 5])
@pytest.mark.parametrize("spread", [0.4, 1.0])
def test_a_simulated_backlog_uses_the_allowance_and_keeps_both_limits(senders: int, spread: float) -> None:
    result = virtual.simulate(senders=senders, answer=0.2, spread=spread, hours=0.2)
    assert result.refused == 0
    assert result.worst_second <= PER_SECOND
    assert result.worst_minute <= PER_MINUTE
    assert result.share > 0.9


def test_a_run_is_the_same_for_its_seed() -> None:
    first, second = (virtual.simulate(senders=3, answer=0.5, spread=0.4, hours=0.05, seed=7) for _ in range(2))
    assert first == second


def test_the_simulated_klaviyo_refuses_what_is_over_its_limits() -> None:
    windows = Windows(0, 0)
    answers = [windows.take(1_000.0) for _ in range(PER_SECOND + 1)]
    assert answers[:-1] == [None] * PER_SECOND
    assert answers[-1] is not None


def test_worst_finds_the_fullest_window_wherever_it_begins() -> None:
    assert virtual.worst([0.0, 0.9, 1.1, 1.2, 1.8, 5.0], 1.0) == 4


def test_webhooks_of_many_events_cost_less_for_each() -> None:
    bills = [
        sum(cost.dollars(cost.Traffic("", 10, size, 1), MEASURED, cost.Setup()).values()) for size in (1, 10, 1_000)
    ]
    assert bills == sorted(bills, reverse=True)


def test_the_cheapest_setting_keeps_its_second_and_costs_no_more_than_others_that_do() -> None:
    traffic = cost.TRAFFIC[1]
    best = cost.cheapest(traffic, MEASURED)
    assert best is not None
    assert max(cost.waits(MEASURED, best)) <= cost.SECOND
    for other in (replace(best, receive_mb=1_024), replace(best, deliver_mb=1_769), replace(best, window=1.0)):
        assert sum(cost.dollars(traffic, MEASURED, best).values()) < sum(
            cost.dollars(traffic, MEASURED, other).values()
        )
    smaller = replace(best, deliver_mb=best.deliver_mb // 2)
    assert max(cost.waits(MEASURED, smaller)) > cost.SECOND


def test_a_machine_too_slow_for_the_second_has_no_cheapest_setting() -> None:
    assert cost.cheapest(cost.TRAFFIC[1], replace(MEASURED, receive_start=2.0)) is None


def test_every_part_of_the_bill_is_there() -> None:
    assert tuple(cost.dollars(cost.TRAFFIC[0], MEASURED, cost.Setup())) == cost.PARTS


def test_pictures_are_well_formed_whatever_the_labels() -> None:
    drawn = svg.bars('a "title" & <more>', {"<row>": {"a&b": 1.0, "c": 2.0}}, unit="ms")
    shown = svg.panels("rate", [svg.Panel("x < y", [0.0, 1.0], [1.0, 2.0], 10)], unit="s")
    assert all(ElementTree.fromstring(picture).tag.endswith("svg") for picture in (drawn, shown))  # noqa: S314 (ours)


FIGURES = json.loads((aws.ROOT / "bench" / "results.json").read_text("utf-8"))
# Where a figure is told, how it is written there, and what of results.json it must be.
TOLD: list[tuple[str, str, Callable[[dict[str, Any]], float]]] = [
    ("docs/performance.md", r"\*\*([\d.]+) times\*\* from one-event", lambda f: f["job"]["sdk_over_relay"]),
    ("docs/performance.md", r"\*\*([\d.]+) times\*\* from packed", lambda f: f["job"]["sdk_over_relay_batched"]),
    ("docs/performance.md", r"\*\*([\d.]+)\*\* from one-event", lambda f: f["job"]["relay_over_floor"]),
    ("docs/performance.md", r"\*\*([\d.]+)\*\* from packed", lambda f: f["job"]["relay_batched_over_floor"]),
    ("docs/performance.md", r"\*\*([\d.]+)\*\* for a Shopify order", lambda f: f["webhook"]["shopify"]["over_floor"]),
    ("docs/performance.md", r"([\d.]+) for a WooCommerce one", lambda f: f["webhook"]["woocommerce"]["over_floor"]),
    ("docs/performance.md", r"Jotform ([\d.]+)", lambda f: f["webhook"]["jotform"]["to_the_call"]["p99_us"] / 1e3),
    ("docs/performance.md", r"SendGrid ([\d.]+)", lambda f: f["webhook"]["sendgrid"]["to_the_call"]["p99_us"] / 1e3),
    ("docs/performance.md", r"\*\*([\d.]+)\*\* `receive`", lambda f: f["coldstart"]["receive"]["over_one_client"]),
    ("docs/performance.md", r"\*\*([\d.]+)\*\* `deliver`", lambda f: f["coldstart"]["deliver"]["over_one_client"]),
    ("README.md", r"one a webhook / ten a webhook \| ([\d.]+) /", lambda f: _bill(f, "1 a webhook, 10 a second")),
    (
        "README.md",
        r"one a webhook / ten a webhook \| [\d.]+ / ([\d.]+)",
        lambda f: _bill(f, "10 a webhook, 10 a second"),
    ),
    ("README.md", r"([\d.]+) to [\d.]+ times less CPU", lambda f: f["job"]["sdk_over_relay"]),
    ("README.md", r"to ([\d.]+) times less CPU", lambda f: f["job"]["sdk_over_relay_batched"]),
    (
        "README.md",
        r"([\d.]+) s, of which 5 are the batching window",
        lambda f: _typical(f["latency"]["whole_s"]["idle"]),
    ),
    ("README.md", r"batching window / ([\d.]+) s", lambda f: _typical(f["latency"]["whole_s"]["under backlog"])),
    (
        "README.md",
        r"in the median of eight, ([\d.]+) at worst",
        lambda f: max(f["latency"]["whole_s"]["under backlog"]),
    ),
    ("README.md", r"; ([\d.]+) at one in ten seconds", lambda f: _bill(f, "1 a webhook, one in 10 s")),
]


def _bill(figures: dict[str, Any], traffic: str) -> float:
    dollars: float = figures["cost"]["by_traffic"][traffic]["all"]
    return dollars


def _typical(seconds: list[float]) -> float:
    return statistics.median(seconds)


@pytest.mark.parametrize(("page", "written", "measured"), TOLD, ids=[f"{page}: {text}" for page, text, _ in TOLD])
def test_the_pages_tell_what_was_measured(page: str, written: str, measured: Callable[[dict[str, Any]], float]) -> None:
    figures = re.findall(written, (aws.ROOT / page).read_text("utf-8"))
    assert len(figures) == 1, f"{page} should tell {written} once"
    places = len(figures[0].partition(".")[2])
    assert float(figures[0]) == pytest.approx(measured(FIGURES), abs=0.51 * 10**-places)
