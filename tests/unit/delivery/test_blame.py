"""The table of ``blame``, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from handler.delivery.blame import DISTRUST, PROOF_SECONDS, TRUST, Doubt, Verdict
from handler.delivery.jobs import Job, Row
from sim.time import START
from tests.unit.support_delivery import event


@dataclass
class Case:
    """When Klaviyo accepted a request and when it first refused the row: seconds ago, ``None`` is never."""

    verdict: Verdict
    accepted: float | None = None
    refused: float = 0
    tries: int = 1  # refusals of the row alone, with this one
    trust: int = TRUST
    with_others: bool = False  # it was refused in a job that named no row
    named: bool = False  # Klaviyo named the row
    whole: bool = False  # Klaviyo named all rows of a new job
    before: tuple[int, ...] = ()  # the messages of the rows that it refused alone just before
    believed: int = 0  # so many rows were parked since it last accepted a request
    repaired: bool = False  # a request was accepted after these


CASES = {
    "refused again after another was accepted": Case("park", accepted=2, refused=3, tries=3),
    "refused again, the other accepted 19 minutes ago": Case("park", accepted=1_140, refused=1_200, tries=3),
    "refused again, the other accepted 21 minutes ago": Case("hold", accepted=1_260, refused=1_320, tries=3),
    "refused again, the other accepted before its first refusal": Case("hold", accepted=4, refused=3, tries=3),
    "refused again, the other accepted at that very moment": Case("hold", accepted=3, refused=3, tries=3),
    "refused again, never another accepted": Case("hold", refused=60, tries=3),
    "refused again, the other accepted in 5 s by another clock": Case("park", accepted=-5, refused=3, tries=3),
    "refused again, the other accepted in an hour by a wrong clock": Case("hold", accepted=-3_600, refused=3, tries=3),
    "refused alone for the second time": Case("hold", accepted=2, refused=3, tries=2),
    "refused again, after three other rows": Case("park", accepted=2, refused=3, tries=3, believed=3),
    "refused again for the fifth time": Case("hold", accepted=2, refused=3, tries=3, trust=TRUST - 2),
    "refused again for the sixth time": Case("park", accepted=2, refused=3, tries=3, trust=TRUST - 1),
    "refused again, by contradictory refusals": Case("later", accepted=2, refused=3, tries=3, trust=DISTRUST),
    "the same, minutes later": Case("later", accepted=600, refused=900, tries=3, trust=DISTRUST),
    "the same, after others": Case("later", accepted=600, refused=900, tries=3, trust=DISTRUST, before=(1, 2, 3)),
    "refused for the eighth time after another was accepted": Case("park", accepted=2, refused=3, tries=8, trust=0),
    "refused for the seventh time after another was accepted": Case("hold", accepted=2, refused=3, tries=7, trust=0),
    "refused for the eighth time by contradictory refusals": Case(
        "later", accepted=2, refused=3, tries=8, trust=DISTRUST
    ),
    "the same for the fifteenth time": Case("later", accepted=2, refused=3, tries=15, trust=DISTRUST),
    "the same for the sixteenth time": Case("park", accepted=2, refused=3, tries=16, trust=DISTRUST),
    "refused for the sixteenth time, never another accepted": Case("hold", tries=16),
    "refused alone at first, another accepted meanwhile": Case("hold", accepted=2, refused=3, with_others=True),
    "named, others accepted": Case("park", accepted=2, refused=3, named=True, trust=0),
    "named after three others, others accepted": Case("park", accepted=2, refused=3, named=True, believed=3),
    "named, others accepted 9.9 s ago": Case("park", accepted=9.9, refused=60, named=True),
    "named, others accepted 10.1 s ago": Case("hold", accepted=10.1, refused=60, named=True),
    "named, and refused alone before, others accepted 19 minutes ago": Case(
        "park", accepted=1_140, refused=1_200, tries=3, named=True, trust=0, believed=3
    ),
    "named, by contradictory refusals": Case("later", accepted=2, refused=3, named=True, trust=DISTRUST),
    "never accepted, and named in a new job": Case("park", whole=True, trust=0),
    "never accepted, and named in a new job after two others": Case("park", whole=True, believed=2),
    "never accepted, and named in a new job after three others": Case("hold", whole=True, believed=3),
    "the same, and a row of another message refused": Case("brake", whole=True, believed=3, before=(1,)),
    "named in a new job after three others, and a request accepted since": Case(
        "park", whole=True, believed=3, repaired=True
    ),
    "named in a new job, by contradictory refusals": Case("hold", whole=True, trust=DISTRUST),
    "accepted just before this refusal, its first": Case("hold", accepted=1, before=(1, 2, 3)),
    "accepted just before, and named in a new job": Case("park", accepted=1, whole=True),
    "accepted 10.1 s before this refusal, its first": Case("hold", accepted=10.1),
    "the same, and others were refused": Case("brake", accepted=10.1, before=(1,)),
    "never accepted, its first refusal": Case("hold"),
    "never accepted, another row of its message refused": Case("hold", before=(0,)),
    "never accepted, two other rows of its message refused": Case("brake", before=(0, 0)),
    "never accepted, a row of another message refused": Case("brake", before=(1,)),
    "a row of another message refused, and a request accepted since": Case("hold", before=(1,), repaired=True),
    "never accepted, six refusals": Case("hold", tries=6, refused=600),
    "never accepted, seven refusals": Case("brake", tries=7, refused=600),
    "never accepted, eight refusals": Case("hold", tries=8, refused=600),
    "never accepted, 14 refusals": Case("brake", tries=14, refused=600),
    "accepted an hour ago, seven refusals": Case("brake", tries=7, refused=7_200, accepted=3_600),
    "accepted since, seven refusals": Case("hold", tries=7, refused=600, accepted=300, trust=0),
}


@pytest.mark.parametrize("name", CASES)
def test_verdict_on_a_row_that_was_refused_alone(name: str) -> None:
    case, now = CASES[name], START
    doubt = Doubt(float("-inf") if case.accepted is None else now - case.accepted, trust=case.trust)
    first = now - case.refused
    earlier = now - (60 if case.repaired else 0)
    for owner, believe in [*((0, True) for _ in range(case.believed)), *((owner, False) for owner in case.before)]:
        other = Row(owner, event(f"other{owner}"), b"{}")
        doubt.trust = max(doubt.trust, 0)
        doubt.judge(other, Job((other,), earlier), 1, earlier, named=believe, believe=believe)
        doubt.trust = case.trust
    if case.repaired:
        doubt = doubt.after(Job((other,)), now - 30)
    row = Row(0, event("row"), b"{}")
    job = Job((row,), first, refusals=case.tries - 1)
    assert doubt.judge(row, job, case.tries, now, named=case.named or case.whole, believe=case.whole) == case.verdict


def test_after_each_accepted_request_three_named_rows_are_parked_again() -> None:
    row = Row(0, event("row"), b"{}")
    doubt = Doubt()
    for at in (START, START + 60):
        doubt = doubt.after(Job((row,)), at)
        verdicts = [doubt.judge(row, Job((row,), at + 20), 1, at + 20, named=True, believe=True) for _ in range(4)]
        assert verdicts == ["park", "park", "park", "hold"]


def refused_again(doubt: Doubt, at: float) -> tuple[Doubt, Verdict]:
    """Accept a request and then refuse a row for the third time."""
    row = Row(0, event("row"), b"{}")
    doubt = doubt.after(Job((row,)), at)
    return doubt, doubt.judge(row, Job((row,), at - 1, refusals=2), 3, at + 1)


def test_refusals_are_consistent_once_a_row_was_refused_again_after_six_accepted_requests() -> None:
    doubt, verdicts = Doubt(), []
    for turn in range(7):
        doubt, verdict = refused_again(doubt, START + 60 * turn)
        verdicts.append(verdict)
    assert verdicts == ["hold"] * 5 + ["park"] * 2


def test_rows_refused_again_after_one_accepted_request_are_one_sign_of_consistency() -> None:
    row = Row(0, event("row"), b"{}")
    doubt = Doubt().after(Job((row,)), START)
    verdicts = [doubt.judge(row, Job((row,), START - 1, refusals=2), 3, START + 1) for _ in range(20)]
    assert set(verdicts) == {"hold"}


def test_rows_that_klaviyo_names_in_new_jobs_are_no_sign_of_consistency() -> None:
    row = Row(0, event("row"), b"{}")
    doubt = Doubt()
    for turn in range(TRUST):
        doubt = doubt.after(Job((row,)), START + 60 * turn)
        doubt.judge(row, Job((row,), START + 60 * turn + 20), 1, START + 60 * turn + 20, named=True, believe=True)
    assert refused_again(doubt, START + 60 * TRUST)[1] == "hold"


@pytest.mark.parametrize(
    ("trust", "accepted", "wanted"),
    [
        (TRUST - 1, 1, True),
        (TRUST, PROOF_SECONDS / 2 - 0.1, False),
        (TRUST, PROOF_SECONDS / 2 + 0.1, True),
        (TRUST, -60, True),  # by a clock that is wrong
    ],
)
def test_proof_is_wanted_until_refusals_are_consistent_and_again_before_the_last_is_too_old(
    trust: int, accepted: float, wanted: bool
) -> None:
    assert Doubt(START - accepted, trust=trust).wants_proof(START) is wanted


def test_row_that_is_accepted_after_it_was_refused_alone_ends_all_trust() -> None:
    row = Row(0, event("row"), b"{}")
    doubt = Doubt(trust=100).after(Job((row,), START - 1, refusals=1), START)
    verdicts = []
    for turn in range(17):
        doubt, verdict = refused_again(doubt, START + 60 * (turn + 1))
        verdicts.append(verdict)
    assert verdicts == ["later"] * 9 + ["hold"] * 6 + ["park"] * 2


def test_row_that_was_refused_only_with_others_contradicts_nothing_when_it_is_accepted() -> None:
    row = Row(0, event("row"), b"{}")
    assert Doubt(trust=TRUST).after(Job((row,), START - 1), START).trust == TRUST
