"""A backlog through the running stack at a scaled rate; at the real one: ``python -m bench.backlog``."""

from __future__ import annotations

import time

from bench import backlog
from local.stack import Stack

EVENTS = 30_000
A_MINUTE = 300  # below 413 the minute decides and not the second, whose limit stays Klaviyo's


def test_a_backlog_goes_out_in_full_jobs_at_the_full_rate_and_never_over_it() -> None:
    limits = {"per_second": 10, "per_minute": A_MINUTE}
    with Stack(deliver=False, limits=limits, environment={"REQUESTS_PER_MINUTE": str(A_MINUTE)}) as stack:
        sent = backlog.fill(stack, EVENTS, 300, time.time())
        waited = backlog.drain(stack, EVENTS, 60)
        report = backlog.report(stack, sent, EVENTS, waited, A_MINUTE)
    assert report.failures(limits) == []
    assert report.repeats == 0
    # Of a run of seconds each pause of a busy machine counts for much: so not the share, but the pace in between.
    assert report.median < 1.1 * 60 / A_MINUTE, report.text()
