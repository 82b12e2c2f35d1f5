"""What `make logs` answers: what became of a webhook, why senders were refused, whether the relay keeps up."""

from __future__ import annotations

from typing import Any

import pytest

from tools import paths
from tools.operate import questions
from tools.operate.questions import Waiting
from tools.terminal import table

IDLE, BUSY = Waiting(0, 0, 0, 0), Waiting(3_200, 7, 12, 2)
EVENT = "stripe:placed-order:evt_1"
WEBHOOK: dict[str, Any] = {
    "timestamp": "2026-11-24T18:00:01.123+00:00",
    "message": "webhook",
    "webhook_id": "w-1",
    "source": "stripe",
    "outcome": "accepted",
    "status": 200,
    "event_ids": [EVENT],
}
JOB: dict[str, Any] = {
    "timestamp": "2026-11-24T18:00:07.000+00:00",
    "message": "job",
    "outcome": "delivered",
    "status": 202,
    "reason": "",
    "detail": "",
    "klaviyo_request_id": "k-9",
    "events": 400,
    "age_seconds": 6.2,
    "slot_wait_ms": 84,
    "event_ids": [EVENT, "stripe:placed-order:evt_2"],
}
PARKED = {
    "timestamp": "2026-11-24T18:00:08.000+00:00",
    "message": "parked",
    "reason": "refused_by_klaviyo",
    "detail": "Invalid input.",
    "event_ids": [EVENT],
}
DEFERRED = {
    "timestamp": "2026-11-24T18:03:00.000+00:00",
    "message": "deferred",
    "reason": "outage: no answer",
    "cause": "Closed",
}
UNTAKEN = JOB | {"outcome": "throttled", "status": 429, "reason": "throttled", "detail": "Klaviyo asked to wait"}


def outcome(*lines: dict[str, Any], words: str = "evt_1", waiting: Waiting = IDLE, deferred: Any = None) -> str:
    (sentence,) = questions.outcomes(lines, words, waiting, deferred)
    return sentence


def test_a_delivered_event_has_its_time_and_klaviyos_request() -> None:
    assert outcome(WEBHOOK, JOB) == f"{EVENT}: delivered at 18:00:07, request k-9"
    # A sender's retry is accepted once more after the delivery; that changes nothing.
    assert "delivered at 18:00:07" in outcome(JOB, WEBHOOK | {"timestamp": "2026-11-24T19:00:00.000+00:00"})


def test_what_continues_on_another_line_counts_too() -> None:
    continued = {name: JOB[name] for name in ("timestamp", "outcome", "event_ids")} | {"message": "job continued"}
    assert "delivered at 18:00:07" in outcome(WEBHOOK, continued)


def test_under_a_backlog_it_says_what_it_waits_for() -> None:
    text = outcome(WEBHOOK, waiting=BUSY, deferred=DEFERRED)
    assert "accepted and not delivered yet" in text
    assert "3,200 ready, 7 in flight, 12 delayed" in text
    assert "last deferral, at 18:03:00: outage: no answer" in text


def test_a_try_that_klaviyo_did_not_accept_is_named() -> None:
    assert "Klaviyo answered 429 at 18:00:07" in outcome(WEBHOOK, UNTAKEN, waiting=BUSY)
    assert "Klaviyo answered nothing" in outcome(WEBHOOK, UNTAKEN | {"status": None}, waiting=BUSY)
    assert "delivered" in outcome(WEBHOOK, UNTAKEN, JOB, waiting=BUSY)


def test_an_event_that_waits_nowhere_and_has_no_line_is_reported_so() -> None:
    assert "the events queue is empty" in outcome(WEBHOOK)


def test_a_parked_event_has_its_reason() -> None:
    assert outcome(WEBHOOK, PARKED) == f"{EVENT}: parked at 18:00:08 (refused_by_klaviyo: Invalid input.)"
    assert "delivered" in outcome(WEBHOOK, PARKED, JOB)  # corrected and sent back


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            {"outcome": "refused", "status": 401, "reason": "signature_wrong", "detail": "not made with it"},
            "refused with 401 (signature_wrong: not made with it)",
        ),
        (
            {"outcome": "parked", "parked": {"no_identifier": 2}, "reason": "no_identifier", "detail": "nobody named"},
            "2 of its events parked in the dead-letter queue (no_identifier: nobody named)",
        ),
        ({"outcome": "ignored", "status": 200}, "ignored: nothing is sent to Klaviyo"),
    ],
)
def test_a_webhook_without_events_has_its_outcome(line: dict[str, Any], words: str) -> None:
    assert words in outcome({**WEBHOOK, "event_ids": [], **line}, words="w-1")


def test_a_webhook_of_which_a_part_was_parked_says_both() -> None:
    mixed = WEBHOOK | {"parked": {"no_identifier": 1}, "reason": "no_identifier", "detail": "nobody named"}
    first, second = questions.outcomes([mixed, JOB], "w-1", IDLE, None)
    assert "1 of its events parked" in first
    assert "delivered" in second


def test_the_id_of_a_webhook_names_all_its_events() -> None:
    both = WEBHOOK | {"event_ids": [EVENT, "stripe:placed-order:evt_2"]}
    assert questions.event_ids([both], "w-1") == both["event_ids"]
    # Of a job that was found by one event's id, the others are not asked for.
    assert questions.event_ids([both, JOB], "evt_1") == [EVENT]


def test_of_very_many_events_the_first_are_listed() -> None:
    many = WEBHOOK | {"event_ids": [f"a:{number}" for number in range(50)]}
    sentences = list(questions.outcomes([many], "w-1", IDLE, None))
    assert len(sentences) == questions.MOST_EVENTS + 1
    assert "30 more events" in sentences[-1]


def test_refusals_are_counted_by_source_and_reason() -> None:
    refused = WEBHOOK | {"outcome": "refused", "reason": "no_secret", "detail": "none is configured"}
    other = refused | {"source": "shopify", "timestamp": "2026-11-24T18:09:00.000+00:00"}
    rows = questions.refusals([refused, other, other, WEBHOOK, JOB])
    assert rows[1:] == [
        ("shopify", "no_secret", "2", "18:09:00", "none is configured"),
        ("stripe", "no_secret", "1", "18:00:01", "none is configured"),
    ]
    assert questions.refusals([WEBHOOK]) == []


def test_the_rate_is_shown_minute_by_minute_with_the_limit() -> None:
    later = JOB | {"timestamp": "2026-11-24T18:02:59.000+00:00", "age_seconds": 130.0, "events": 1_000}
    rows = questions.rate([JOB, UNTAKEN, later, later, WEBHOOK], limit=150, most=30)
    assert rows[0][1] == "JOBS OF 150"
    assert rows[1:] == [("18:00", "2", "1", "400", "6.2", "84"), ("18:02", "2", "0", "2,000", "130.0", "84")]
    assert questions.rate([JOB, later], limit=150, most=1)[1:] == [("18:02", "1", "0", "1,000", "130.0", "84")]


def test_the_same_minute_of_two_days_is_two_rows() -> None:
    tomorrow = JOB | {"timestamp": "2026-11-25T18:00:30.000+00:00"}
    rows = questions.rate([JOB, tomorrow, tomorrow], limit=150, most=30)
    assert [row[:2] for row in rows[1:]] == [("11-24 18:00", "1"), ("11-25 18:00", "2")]
    assert questions.rate([JOB, tomorrow], limit=150, most=1)[1][0] == "18:00"


@pytest.mark.parametrize(
    ("lines", "deferred", "words"),
    [
        ([JOB], None, ["keeping up: the last delivery was 6 s", "3,200 ready", "dead-letter queue: 2"]),
        ([JOB | {"age_seconds": 4_000.0}], None, ["behind: the last delivery was 4000 s"]),
        ([JOB], DEFERRED, ["behind: the last", "a deferral: outage: no answer"]),
        ([], DEFERRED, ["behind", "a deferral: outage: no answer"]),
        ([JOB, UNTAKEN], None, ["was not accepted: throttled"]),
    ],
)
def test_it_is_said_whether_the_relay_keeps_up(lines: list[dict[str, Any]], deferred: Any, words: list[str]) -> None:
    text = "\n".join(questions.keeping_up(lines, BUSY, deferred))
    assert [word for word in words if word not in text] == []


def test_a_deferral_before_the_last_job_is_history() -> None:
    earlier = DEFERRED | {"timestamp": "2026-11-24T17:00:00.000+00:00"}
    assert "deferral" not in "\n".join(questions.keeping_up([JOB], BUSY, earlier))


def runbook(before: str) -> str:
    """What docs/runbook.md shows after the line ``before``, to the end of the example."""
    return (paths.ROOT / "docs/runbook.md").read_text("utf-8").partition(f"{before}\n")[2].partition("\n```")[0]


def test_runbook_shows_the_rate_as_it_is_printed() -> None:
    first = JOB | {"timestamp": "2026-11-24T19:53:07.000+00:00", "events": 41, "age_seconds": 6.1, "slot_wait_ms": 0}
    jobs = [first, *[first | {"events": 0}] * 2]
    second = first | {
        "timestamp": "2026-11-24T19:54:07.000+00:00",
        "events": 212,
        "age_seconds": 74.9,
        "slot_wait_ms": 9120,
    }
    jobs += [second, *[second | {"events": 1_000}] * 147]
    printed = [
        *table(questions.rate(jobs, limit=150, most=30)),
        *questions.keeping_up(jobs, Waiting(3_211, 4, 21, 0), None),
    ]
    assert runbook("$ make logs STACK=klaviyo-relay RATE=1").splitlines() == printed


def test_runbook_shows_an_event_that_waits_as_it_is_printed() -> None:
    name = "chargebee:trial-ending:ev_relay000008"
    detail = "no free slot before this invocation's deadline"
    assert detail in (paths.ROOT / "src/handler/delivery/pacing.py").read_text("utf-8")
    deferral = {"timestamp": "2026-11-24T19:55:42.000+00:00", "reason": f"no_slot: {detail}"}
    sentence = outcome(WEBHOOK | {"event_ids": [name]}, words=name, waiting=Waiting(3_200, 8, 12, 0), deferred=deferral)
    assert runbook("`make logs` ends like this:\n\n```") == sentence
