"""The table of ``blame``, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from handler.delivery.blame import Doubt, Verdict
from handler.delivery.jobs import Job, Row
from handler.messages import Message
from sim.time import START
from tests.unit.support_delivery import event


@dataclass
class Case:
    """When Klaviyo accepted a request and when it first refused the row: seconds ago, ``None`` is never."""

    verdict: Verdict
    accepted: float | None = None
    refused: float | None = None
    came_alone: bool = False  # in a message of its own, as a row that was refused alone before
    with_others: bool = False  # in a message of several rows that were refused before
    deferred: int = 0
    before: tuple[int, ...] = ()  # the messages of the rows that it refused alone just before
    repaired: bool = False  # a request was accepted after these
    named: bool = False  # Klaviyo named all rows of a new job
    believed: int = 0  # so many rows were parked for that since it last accepted a request


CASES = {
    "accepted since its first refusal": Case("park", accepted=2, refused=3),
    "accepted since its first refusal, 9.9 s ago": Case("park", accepted=9.9, refused=60),
    "accepted since its first refusal, 10.1 s ago": Case("hold", accepted=10.1, refused=60),
    "accepted at the very moment of its first refusal": Case("hold", accepted=3, refused=3),
    "accepted before its first refusal": Case("hold", accepted=4, refused=3, before=(1, 2, 3)),
    "accepted just before this refusal, its first": Case("hold", accepted=1, before=(1, 2, 3)),
    "accepted 10.1 s before this refusal, its first": Case("hold", accepted=10.1),
    "the same, and others were refused": Case("brake", accepted=10.1, before=(1,)),
    "accepted 19 minutes ago, and it was refused alone before": Case(
        "park", accepted=1_140, refused=1_200, came_alone=True
    ),
    "accepted 21 minutes ago, and it was refused alone before": Case(
        "hold", accepted=1_260, refused=1_320, came_alone=True
    ),
    "accepted 19 minutes ago, and it was refused with others before": Case(
        "hold", accepted=1_140, refused=1_200, with_others=True
    ),
    "accepted 19 minutes ago, and its message was never refused": Case("hold", accepted=1_140, refused=1_200),
    "accepted in an hour, by a clock that is wrong": Case("hold", accepted=-3_600, refused=3),
    "accepted in 5 s, by a clock that is a little ahead": Case("park", accepted=-5, refused=3),
    "never accepted, its first refusal": Case("hold"),
    "never accepted, and named in a new job": Case("park", named=True),
    "never accepted, and named in a new job after two others": Case("park", named=True, believed=2),
    "never accepted, and named in a new job after three others": Case("hold", named=True, believed=3),
    "named in a new job after three others, and a row of another message refused": Case(
        "brake", named=True, believed=3, before=(1,)
    ),
    "named in a new job after three others, and a request accepted since": Case(
        "park", named=True, believed=3, repaired=True
    ),
    "accepted since its first refusal, and named after three others": Case(
        "park", accepted=2, refused=3, named=True, believed=3
    ),
    "never accepted, another row of its message refused": Case("hold", before=(0,)),
    "never accepted, two other rows of its message refused": Case("brake", before=(0, 0)),
    "never accepted, a row of another message refused": Case("brake", before=(1,)),
    "a row of another message refused, and a request accepted since": Case("hold", before=(1,), repaired=True),
    "never accepted, five deferrals": Case("hold", came_alone=True, deferred=5, refused=600),
    "never accepted, six deferrals": Case("brake", came_alone=True, deferred=6, refused=600),
    "never accepted, six deferrals in an outage": Case("hold", deferred=6),
}


def message(names: int, case: Case) -> Message:
    """The message of the row, with ``names`` events."""
    events = tuple(event(f"e{number}") for number in range(names))
    return Message("shop", events, START, case.deferred, case.came_alone or case.with_others)


@pytest.mark.parametrize("name", CASES)
def test_verdict_on_a_row_that_was_refused_alone(name: str) -> None:
    case, now = CASES[name], START
    doubt = Doubt() if case.accepted is None else Doubt(now - case.accepted)
    earlier = now - (60 if case.repaired else 0)
    for owner, believe in [*((0, True) for _ in range(case.believed)), *((owner, False) for owner in case.before)]:
        other = Row(owner, event(f"other{owner}"), b"{}")
        doubt.judge(other, Job((other,)), message(1, Case("hold")), earlier, believe=believe)
    if case.repaired:
        doubt.accepted(now - 30)
    row = Row(0, event("row"), b"{}")
    first = None if case.refused is None else now - case.refused
    # Alone in its message only if it was refused alone, or in a webhook with one event.
    asked = message(3 if case.with_others else 1, case)
    assert doubt.judge(row, Job((row,), first), asked, now, believe=case.named) == case.verdict


def test_after_each_accepted_request_three_named_rows_are_parked_again() -> None:
    doubt, row = Doubt(), Row(0, event("row"), b"{}")
    for at in (START, START + 60):
        doubt.accepted(at)
        verdicts = [doubt.judge(row, Job((row,)), message(1, Case("hold")), at + 20, believe=True) for _ in range(4)]
        assert verdicts == ["park", "park", "park", "hold"]
