"""The delivery whole on virtual time, hours in seconds: outages, closed windows, backfills, a trickle.

The same stories at full size, with what they cost: ``python -m bench.outage``.
"""

from __future__ import annotations

import pytest

from bench import outage, simulation
from bench.simulation import Simulation
from handler import jobs
from handler.klaviyo import Answer, sort_answer


@pytest.fixture
def small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of 20 events and batches of 20 jobs, so that a backlog of minutes is small, too."""
    monkeypatch.setattr(jobs, "JOB_EVENTS", 20)
    monkeypatch.setattr(simulation, "BATCH_SIZE", 4)


@pytest.mark.parametrize("kind", [outage.away, outage.revoked])
def test_hours_without_klaviyo_lose_nothing_and_end_within_a_minute(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More events come in than may be in flight."""
    monkeypatch.setattr(simulation, "IN_FLIGHT", 200)
    found = outage.story("", kind, seconds=3_600, events=900)
    assert found.wrong() == []
    assert found.most_waiting > 600
    assert found.most_in_flight < 200
    assert found.slowest_new < 60
    assert found.drained < 960


@pytest.mark.usefixtures("small_jobs")
@pytest.mark.parametrize("header", ["true", "0", "missing", "86400"])
def test_a_closed_window_is_not_posted_into_and_the_full_rate_is_back_within_a_minute(header: str) -> None:
    found = outage.closed_window(header, events=10_000)
    assert found.wrong() == []


@pytest.mark.usefixtures("small_jobs")
def test_window_after_window_is_used_to_its_end() -> None:
    """However often events were deferred for a 429: Klaviyo says when it ends."""
    found = outage.closed_window("true", events=13_500, closings=6, open_for=30, settled=15)
    assert found.wrong() == []


@pytest.mark.usefixtures("small_jobs")
@pytest.mark.parametrize("source", ["shop", "other"])
def test_a_backfill_delays_a_live_order_by_seconds(source: str) -> None:
    took = outage.backfill(20_000, source=source)
    assert len(took) > 0
    assert took[-1] < 60


def test_a_trickle_arrives_within_the_batching_window_and_a_second() -> None:
    took = outage.trickle(600)
    assert len(took) > 50
    assert took[-1] <= 6


@pytest.mark.parametrize(("answer", "concurrency"), [(0.2, 5), (5.0, 14)])
def test_under_backlog_jobs_are_full_and_a_slow_klaviyo_lowers_no_rate(
    answer: float, concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "BATCH_SIZE", 20)
    sim = Simulation(concurrency=concurrency, answer=answer)
    sim.send([sim.event(f"b{number}") for number in range(60_000)])
    sim.run(sim.time.now + 600, sim.drained)
    accepted = [(at, events) for at, status, events in sim.klaviyo.requests if status == 202]
    assert sum(events for _, events in accepted) == 60_000
    assert sum(events <= 900 for _, events in accepted) <= sim.bill.invocations
    between = [at for at, _ in accepted if at <= accepted[0][0] + 20]
    assert len(between) >= 0.98 * 50


def test_events_that_waited_a_day_go_as_backfills_behind_what_is_new() -> None:
    sim = Simulation()
    began = sim.time.now
    back = began + 25 * 3_600
    groups: list[str] = []
    put = sim.queue.put

    def noted(body: str, group: str, delay: float = 0) -> None:
        if sim.time.now > began + 24 * 3_600 + 1_000:
            groups.append(group)
        put(body, group, delay)

    def down(at: float, _key: str) -> tuple[Answer, float] | None:
        return (sort_answer(503, {}, b"", now=at), 0.2) if at < back else None

    sim.queue.put = noted  # type: ignore[method-assign]
    sim.klaviyo.fault = down
    sim.send([sim.event(f"old{number}") for number in range(10)])
    sim.run(began + 4 * 3_600)
    sim.send([sim.event(f"young{number}") for number in range(10)])
    sim.run(back + 1_800, sim.drained)
    assert sim.drained()
    assert sim.klaviyo.late == 10
    assert {"shop", "shop#backfill"} == set(groups)
