"""What the simulation does to the delivery, and what it notices of it."""

from __future__ import annotations

import pytest

from bench.simulation import TIMEOUT, VISIBILITY, Simulation, names
from sim.faults import Fate, Killed, Point


def one_event(**setup: object) -> Simulation:
    sim = Simulation(**setup)  # type: ignore[arg-type]
    sim.send([sim.event("one")])
    return sim


def once(sim: Simulation, fate: Fate) -> None:
    """Let the first invocation have this fate."""
    fates = [fate]
    sim.fates = lambda: fates.pop() if fates else None


@pytest.mark.parametrize("point", ["start", "call", "work", "posted", "copied", "end"])
def test_a_message_whose_invocation_died_comes_back_after_the_visibility_timeout(point: Point) -> None:
    sim = one_event()
    once(sim, Fate(point))
    if point == "copied":  # copies are sent while Klaviyo is away
        sim.klaviyo.told = lambda request: sim.klaviyo.answer(503) if sim.died == 0 else None
    sim.run(sim.time.now + 100)
    assert sim.died == 1
    (first,) = [message for message in sim.events.messages.values() if message.id == "events-1"]
    assert first.visible_at - first.sent_at == pytest.approx(VISIBILITY, abs=30)
    sim.run(sim.time.now + 2 * VISIBILITY, sim.drained)
    assert set(sim.klaviyo.first) == {"one"}
    assert sim.faults == []


def test_what_was_posted_before_a_death_is_posted_again() -> None:
    sim = one_event()
    once(sim, Fate("posted"))
    sim.run(sim.time.now + 2 * VISIBILITY, lambda: sim.died == 1 and sim.drained())
    assert sim.klaviyo.stored == ["one", "one"]


def test_a_dead_sandbox_is_replaced_by_one_that_has_forgotten_all() -> None:
    sim = one_event()
    once(sim, Fate("end"))
    sim.run(sim.time.now + 2 * VISIBILITY, lambda: sim.died == 1 and sim.drained())
    sim.send([sim.event("two")])
    sim.run(sim.time.now + 60)
    assert sim.secrets.reads == 2  # by the first, and by the one that served both others


def test_an_invocation_dies_of_its_time_out() -> None:
    sim = one_event()
    sim.klaviyo.told = lambda request: (sim.klaviyo.answer(202), TIMEOUT + 1) if sim.died == 0 else None
    sim.run(sim.time.now + TIMEOUT + 30)
    assert sim.died == 1
    assert sim.faults == ["the function timed out"]


@pytest.mark.parametrize("at", ["decode", "post"])
def test_poison_kills_only_invocations_that_have_its_message(at: str) -> None:
    sim = Simulation()
    sim.poison["poison"] = Killed
    sim.poison_at = at  # type: ignore[assignment]
    sim.send([sim.event("one")])
    sim.run(sim.time.now + 60)
    assert sim.died == 0
    sim.send([sim.event("poison")])
    sim.run(sim.time.now + 60)
    assert sim.died == 1
    assert set(sim.klaviyo.first) == {"one"}
    assert names(sim.events) == {"poison"}


def test_attributes_and_receives_travel_with_a_message() -> None:
    sim = Simulation()
    seen: list[dict[str, object]] = []
    sim.send([sim.event("one")], attributes={"kind": "test"}, receives=3)
    (message,) = sim.events.messages.values()
    sim.klaviyo.told = lambda request: seen.append(message.record()) or None  # type: ignore[func-returns-value]
    sim.run(sim.time.now + 60)
    assert seen[0]["messageAttributes"] == {"kind": {"stringValue": "test", "dataType": "String"}}
    assert seen[0]["attributes"]["ApproximateReceiveCount"] == "4"  # type: ignore[index]


def test_a_second_stack_shares_table_and_klaviyo_and_has_its_own_queue_and_poison() -> None:
    sim = Simulation(parameters={"RequestsPerMinute": "100"})
    other = Simulation(parameters={"RequestsPerMinute": "40"}, beside=sim)
    other.poison["one"] = Killed
    sim.send([sim.event("one")])
    other.send([other.event("two")])
    sim.run(sim.time.now + 60)
    assert set(sim.klaviyo.first) == {"one", "two"}
    assert (sim.environment["REQUESTS_PER_MINUTE"], other.environment["REQUESTS_PER_MINUTE"]) == ("100", "40")
    assert (len(sim.events), len(other.events), sim.died, other.died) == (0, 0, 0, 0)


def test_the_concurrency_is_the_templates_parameter() -> None:
    sim = Simulation(parameters={"MaximumConcurrency": "9"}, batch_size=1)
    sim.klaviyo.told = lambda request: (sim.klaviyo.answer(202), 60.0)
    for number in range(30):
        sim.send([sim.event(f"e{number}")])
    sim.run(sim.time.now + 30)
    assert len(sim.events.in_flight) == 9


def test_a_clock_that_is_wrong_is_wrong_for_its_sandbox_alone() -> None:
    sim = one_event(clocks=lambda number, _: 600.0 * number)
    once(sim, Fate("start"))
    sim.run(sim.time.now + 60)
    sim.run(sim.time.now + 2 * VISIBILITY, sim.drained)
    (slot,) = [sim.table.item["next"]]
    assert isinstance(slot, int)
    assert slot / 1000 - sim.klaviyo.first["one"] == pytest.approx(600, abs=1)


def test_a_clock_that_aws_does_not_accept_posts_nothing_and_changes_nothing() -> None:
    sim = one_event(clocks=lambda *_: 3_600.0)
    sim.run(sim.time.now + 60)
    assert (sim.klaviyo.requests, sim.table.item) == ([], {})
    assert len(sim.events) == 1


def test_a_table_that_fails_delays_and_loses_nothing() -> None:
    sim = one_event()
    sim.table_away = 1.0
    sim.run(sim.time.now + 60)
    assert set(sim.klaviyo.first) == set()
    sim.table_away = 0.0
    sim.run(sim.time.now + 900, sim.drained)
    assert set(sim.klaviyo.first) == {"one"}


def test_runs_with_the_same_seed_are_the_same() -> None:
    def arrivals(seed: int) -> list[float]:
        sim = Simulation(seed=seed, jitter=0.2)
        sim.every(3, sim.time.now + 60, lambda number: sim.send([sim.event(f"e{number}")]))
        sim.run(sim.time.now + 90)
        return sim.times()

    assert arrivals(1) == arrivals(1) != arrivals(2)
