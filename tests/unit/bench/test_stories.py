"""Small versions of the stories in ``bench.stories``: storms, poison, suspects, refusals, two stacks, wrong clocks.

At full size: ``python -m bench.stories``.
"""

from __future__ import annotations

from functools import partial

import pytest

from bench import stories
from bench.stories import SETTINGS, Found
from sim.faults import Fate, Killed

DEFAULT, LARGEST = SETTINGS["default"], SETTINGS["largest"]


def wrong(result: Found) -> list[str]:
    """Return the figures that are out of bounds; SQS is never asked for what it refuses."""
    return result.wrong() + [f"breaches {result['breaches']}"] * bool(result["breaches"])


@pytest.mark.parametrize("parameters", [DEFAULT, LARGEST])
@pytest.mark.parametrize(
    "fate",
    [partial(Fate, "start"), partial(Fate, "work"), partial(Fate, "work", error=RuntimeError), None],
    ids=["starts", "dies", "raises", "decodes"],
)
def test_a_broken_release_parks_nothing_and_the_backlog_drains(
    fate: partial[Fate] | None, parameters: dict[str, str]
) -> None:
    assert wrong(stories.broken(parameters, hours=2, fate=fate, backlog=100, every=300)) == []


def test_a_storm_parks_the_poison_only() -> None:
    assert wrong(stories.storm(DEFAULT, hours=3, events=300)) == []


def test_an_outage_with_deaths_parks_nothing() -> None:
    assert wrong(stories.outage(DEFAULT, hours=8, deaths=0.05, events=60)) == []


def test_an_outage_with_a_queue_that_refuses_entries_parks_nothing() -> None:
    assert wrong(stories.outage(DEFAULT, hours=8, refuses=0.5, events=60)) == []


@pytest.mark.parametrize(("crashes", "receives"), [(2, 0), (0, 3), (0, 8)])
def test_suspects_delay_live_events_of_other_sources_by_seconds(crashes: int, receives: int) -> None:
    assert wrong(stories.suspects(DEFAULT, count=300, crashes=crashes, receives=receives)) == []


def test_what_really_came_back_delays_live_events_by_seconds() -> None:
    assert wrong(stories.returned(DEFAULT, count=300)) == []


@pytest.mark.parametrize("at", ["decode", "post"])
@pytest.mark.parametrize("error", [Killed, RuntimeError])
def test_poison_is_found_alone_while_live_events_take_seconds(error: type[BaseException], at: str) -> None:
    assert wrong(stories.poison(DEFAULT, error=error, at=at, seconds=6.0, each=1)) == []


def test_many_suspects_and_a_slow_queue_park_nothing() -> None:
    assert wrong(stories.slow_queue(DEFAULT, count=600, seconds=4.0, hours=1)) == []


@pytest.mark.parametrize(("named", "seconds"), [(True, 0.5), (False, 5.0)])
def test_a_source_whose_events_are_all_refused_delays_live_events_by_seconds(named: bool, seconds: float) -> None:
    assert wrong(stories.flood(DEFAULT, named=named, seconds=seconds, minutes=6)) == []


def test_pointers_to_rows_that_do_not_exist_park_nothing() -> None:
    assert wrong(stories.pointers(DEFAULT, row=lambda _: 99_999, hours=1, events=15)) == []
    assert wrong(stories.pointers(DEFAULT, row=lambda request: len(request.names), hours=1, events=15)) == []


def test_a_413_to_everything_parks_nothing() -> None:
    assert wrong(stories.too_large(DEFAULT, events=150)) == []


@pytest.mark.parametrize(("rates", "expected"), [((100, 40), (100, 40)), ((150, 10), (140, 10))])
def test_two_stacks_get_their_shares_of_one_account(rates: tuple[int, int], expected: tuple[float, float]) -> None:
    assert wrong(stories.stacks(DEFAULT, rates=rates, expected=expected, minutes=12, size=10)) == []


@pytest.mark.parametrize("name", ["clocks-0.2s", "clocks-1s", "clocks-day"])
def test_clocks_that_differ_cost_neither_the_limit_nor_the_rate(name: str) -> None:
    story = stories.STORIES[name]
    assert isinstance(story, partial)
    assert wrong(story(DEFAULT, minutes=6, size=10)) == []


def test_a_table_that_fails_at_times_costs_some_of_the_rate() -> None:
    assert wrong(stories.table(DEFAULT, minutes=6, size=10)) == []
