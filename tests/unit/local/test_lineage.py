"""Rounds of a recursive loop, counted in the trace header as AWS writes it."""

from __future__ import annotations

import pytest

from local import lineage

ROOT = "Root=1-65a1b2c3-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0"


def test_a_chain_is_counted_and_refused_after_sixteen_invocations() -> None:
    header = ROOT
    for number in range(1, 18):
        header = lineage.following([header], "deliver")
        assert lineage.rounds(header, "deliver") == number
        assert lineage.refused(header, "deliver") == (number == 17)
    assert header.startswith(f"{ROOT};Lineage=1:")


def test_a_batch_takes_the_longest_chain_of_its_messages() -> None:
    long = lineage.following([lineage.following([ROOT], "deliver")], "deliver")
    assert lineage.rounds(lineage.following(["", long, ROOT], "deliver"), "deliver") == 3


@pytest.mark.parametrize(
    "header", ["", ROOT, f"{ROOT};Lineage=1:a5a0ab34:15", "Lineage=a87bd80c:1|68fd508a:5", "Lineage=", "rubbish"]
)
def test_what_names_another_function_or_nothing_counts_as_no_round(header: str) -> None:
    assert lineage.rounds(header, "deliver") == 0
    assert lineage.rounds(lineage.following([header], "deliver"), "deliver") == 1


def test_both_observed_forms_are_read() -> None:
    name = lineage.following([""], "deliver").rsplit(":", 2)[1]
    assert lineage.rounds(f"{ROOT};Lineage=1:{name}:15", "deliver") == 15
    assert lineage.rounds(f"{ROOT};Lineage=a87bd80c:1|{name}:5;Sampled=1", "deliver") == 5
