"""The delivery whole on virtual time, hours in seconds: outages, closed windows, backfills, a trickle.

The same stories at full size, with what they cost: ``python -m bench.outage``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import outage, simulation
from bench.simulation import Simulation
from handler.delivery import returns
from handler.delivery.klaviyo import Answer, sort_answer
from local import aws
from sim.klaviyo import Request

# So that a backlog of minutes is small, too: jobs of 20 events, and batches of 4 messages, which are 20 such jobs.
SMALL: dict[str, int] = {"job_events": 20, "batch_size": 4}


@pytest.mark.parametrize("kind", [outage.away, outage.revoked])
def test_hours_without_klaviyo_lose_nothing_and_end_within_a_minute(
    kind: type,
) -> None:
    """More events come in than may be in flight."""
    result = outage.story("", kind, seconds=3_600, events=900, most_in_flight=200)
    assert result.wrong() == []
    assert result.most_waiting > 600
    assert result.most_in_flight < 200
    assert result.slowest_new < 60
    assert result.drained < 960


# Rounds of each message: some twenty in three hours without knowing when it ends, one a minute for 429s.
LONG_WAITS = [(outage.away, 3.0), (outage.revoked, 3.0), (outage.throttled, 0.5)]


@pytest.mark.parametrize(("kind", "hours"), LONG_WAITS)
def test_what_waited_for_more_than_sixteen_rounds_is_all_delivered_at_the_full_rate(
    kind: Callable[..., Any], hours: float
) -> None:
    # So many that they cannot all come back spread over a quarter of an hour without filling it.
    result = outage.comes_back(kind, hours=hours, events=14_000 if hours > 1 else 4_500, job_events=5, batch_size=40)
    assert result.wrong() == []


@pytest.mark.parametrize(("kind", "hours"), LONG_WAITS)
def test_without_the_templates_property_the_same_waits_end_in_refused_invocations(
    kind: Callable[..., Any], hours: float, tmp_path: Path
) -> None:
    written = (aws.ROOT / "template.yaml").read_text("utf-8")
    without = tmp_path / "template.yaml"
    without.write_text(written.replace("RecursiveLoop: Allow", "RecursiveLoop: Terminate"))
    result = outage.comes_back(kind, hours=hours, events=600, loops=simulation.loops_allowed(without))
    assert result.refused > 0
    assert result.drained is None


def test_what_waits_for_thirteen_days_is_parked_and_what_came_later_waits_on() -> None:
    sim = Simulation()
    began = sim.time.now
    sim.klaviyo.told = lambda request: (sort_answer(503, {}, b""), 0.2)
    for day in (0, 4, 12):
        sim.time.call(began + day * returns.DAY, lambda day=day: sim.send([sim.event(f"day{day}")]))  # type: ignore[misc]
    sim.run(began + 12.9 * returns.DAY)
    assert not sim.dead
    sim.run(began + 14 * returns.DAY)
    (parked,) = sim.dead.messages.values()
    assert parked.texts["reason"] == "waited_too_long"
    assert "outage" in parked.texts["detail"]
    assert "day0" in parked.body
    assert sim.lost() == 0
    assert len(sim.events) == 2


@pytest.mark.parametrize("header", ["true", "0", "missing", "86400"])
def test_a_closed_window_is_not_posted_into_and_the_full_rate_is_back_within_a_minute(header: str) -> None:
    result = outage.closed_window(header, events=10_000, **SMALL)
    assert result.wrong() == []


def test_window_after_window_is_used_to_its_end() -> None:
    """However often events were deferred for a 429: Klaviyo says when it ends."""
    result = outage.closed_window("true", events=13_500, closings=6, open_for=30, settled=15, **SMALL)
    assert result.wrong() == []


@pytest.mark.parametrize("source", ["shop", "other"])
def test_a_backfill_delays_a_live_order_by_seconds(source: str) -> None:
    took = outage.backfill(20_000, source=source, **SMALL)
    assert len(took) > 0
    assert took[-1] < 60


def test_a_trickle_arrives_within_the_batching_window_and_a_second() -> None:
    took = outage.trickle(600)
    assert len(took) > 50
    assert took[-1] <= 6


def test_under_low_traffic_a_lone_event_waits_for_a_long_poll_whatever_the_window() -> None:
    took = outage.trickle(600, every=61, long_poll=20)
    assert len(took) == 10
    assert took[0] >= 20
    assert took[-1] <= 21.5


@pytest.mark.parametrize(("answer", "concurrency"), [(0.2, 5), (5.0, 14)])
def test_under_backlog_jobs_are_full_and_a_slow_klaviyo_lowers_no_rate(answer: float, concurrency: int) -> None:
    sim = Simulation(concurrency=concurrency, answer=answer, batch_size=20)
    sim.send([sim.event(f"b{number}") for number in range(60_000)])
    sim.run(sim.time.now + 600, sim.drained)
    accepted = [(request.at, len(request.names)) for request in sim.klaviyo.requests if request.status == 202]
    assert sum(events for _, events in accepted) == 60_000
    assert sum(events <= 900 for _, events in accepted) <= sim.bill.invocations
    between = [at for at, _ in accepted if at <= accepted[0][0] + 20]
    assert len(between) >= 0.98 * 50


def test_events_that_waited_a_day_go_as_backfills_behind_what_is_new() -> None:
    sim = Simulation()
    began = sim.time.now
    back = began + 25 * 3_600
    groups: list[str] = []

    def noted(_: str, asked: Mapping[str, Any]) -> None:
        if sim.time.now > began + 24 * 3_600 + 1_000:
            groups.extend(entry["MessageGroupId"] for entry in asked["Entries"])

    def down(request: Request) -> tuple[Answer, float] | None:
        return (sort_answer(503, {}, b""), 0.2) if request.at < back else None

    sim.heard = noted
    sim.klaviyo.told = down
    sim.send([sim.event(f"old{number}") for number in range(10)])
    sim.run(began + 4 * 3_600)
    sim.send([sim.event(f"young{number}") for number in range(10)])
    sim.run(back + 1_800, sim.drained)
    assert sim.drained()
    assert sum(request.late for request in sim.klaviyo.requests if request.status == 202) == 10
    assert {"shop", "shop#backfill"} == set(groups)
