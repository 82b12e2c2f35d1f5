"""Virtual time: who waits is woken in order, and nobody waits for real."""

from __future__ import annotations

import pytest

from sim.time import START, Over, Time


def test_alone_it_is_a_clock_that_sleep_moves() -> None:
    clock = Time()
    clock.sleep(2.5)
    clock.until(START + 10)
    clock.until(START + 1)
    assert clock() == clock.now == START + 10


def test_a_negative_sleep_is_refused_as_by_the_real_one() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        Time().sleep(-1)


def test_calls_happen_at_their_moment_while_somebody_sleeps() -> None:
    clock, seen = Time(), []
    for after in (3, 1, 2, 9):
        clock.call(START + after, lambda: seen.append(clock() - START))
    clock.sleep(5)
    assert seen == [1, 2, 3]
    assert clock() == START + 5


def test_a_call_at_the_same_moment_comes_in_its_order() -> None:
    clock, seen = Time(), []
    clock.call(START + 1, lambda: seen.append("called"))
    clock.sleep(1)
    seen.append("slept")
    assert seen == ["called", "slept"]


def test_threads_take_turns_by_the_time_at_which_they_wake() -> None:
    clock, seen = Time(), []

    def work(name: str, pause: float) -> None:
        for _ in range(3):
            clock.sleep(pause)
            seen.append((round(clock() - START), name))

    clock.run([lambda: work("slow", 3), lambda: work("quick", 2)])
    assert seen == [(2, "quick"), (3, "slow"), (4, "quick"), (6, "slow"), (6, "quick"), (9, "slow")]


def test_a_run_ends_with_its_works_and_what_was_spawned_goes_on_with_the_next() -> None:
    clock, seen = Time(), []

    def later() -> None:
        clock.sleep(5)
        seen.append("spawned")

    clock.run([lambda: clock.spawn(later)])
    assert seen == []
    clock.run([lambda: clock.sleep(10)])
    assert seen == ["spawned"]


def test_what_a_thread_raises_is_raised_by_the_run() -> None:
    def wrong() -> None:
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        Time().run([wrong, lambda: None])


def test_time_ends_where_it_was_told_to() -> None:
    clock = Time(end=START + 3)
    works: list[float] = []

    def work() -> None:
        while True:
            clock.sleep(1)
            works.append(clock())

    clock.run([work])
    assert works == [START + 1, START + 2, START + 3]
    with pytest.raises(Over):
        clock.sleep(1)
