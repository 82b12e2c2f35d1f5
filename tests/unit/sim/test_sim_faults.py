"""Fates: at which point of its work an invocation dies or raises."""

from __future__ import annotations

from random import Random

import pytest

from sim.faults import Fate, Killed, Point, anywhere


def test_a_fate_comes_at_its_point_and_time_and_then_always() -> None:
    fate = Fate("call", times=3)
    points: tuple[Point, ...] = ("start", "call", "posted", "call", "end")
    for point in points:
        fate.at(point)
    for _ in range(2):
        with pytest.raises(Killed):
            fate.at("call")


def test_a_death_is_not_caught_as_an_exception() -> None:
    assert not issubclass(Killed, Exception)


def test_deaths_anywhere_meet_every_point() -> None:
    chance = Random(1)  # noqa: S311 (chances, no secret)
    assert {anywhere(chance).point for _ in range(200)} == {"start", "call", "posted", "copied", "end"}
