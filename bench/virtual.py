"""The whole on virtual time: the real ``Pacer``, hours of full backlog, Klaviyo's windows.

Each sender is a thread, and only one runs at a time: the one with the earliest
time to wake. Hours pass in seconds, and every run is the same for its seed.
The model: senders never lack full jobs (1,000 events); the table answers in
2-10 ms; a request arrives up to ``spread`` seconds after it was meant to (half
of that fixed for a sender, like a wrong clock, half drawn again each time); Klaviyo
counts arrivals in fixed windows of a random phase and answers after ``answer``
seconds; an invocation ends after its time budget and the next one follows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from handler.closing import THROTTLE
from handler.delivery.pacing import Pacer, Slot, interval
from handler.errors import NoSlot
from handler.pauses import PAUSES
from sim.klaviyo import PER_MINUTE, Windows
from sim.table import Table
from sim.time import Time

from .measure import table

JOB_EVENTS = 1_000
BUDGET = 90.0  # seconds of an invocation in which slots may lie
BETWEEN = 0.1  # seconds from one invocation to the next
START = 1_780_000_000.0
TABLE_SECONDS = (0.001, 0.005)  # before and after a call of the table takes effect


@dataclass(frozen=True, slots=True)
class Result:
    """One run. ``share`` is of the 150,000 events a minute that Klaviyo allows."""

    senders: int
    answer: float
    spread: float
    hours: float
    events_a_minute: float
    worst_second: int
    worst_minute: int
    refused: int
    requests_a_job: float
    arrivals: tuple[float, ...]

    @property
    def share(self) -> float:
        """Share of the allowance that was used."""
        return self.events_a_minute / (PER_MINUTE * JOB_EVENTS)

    @property
    def bound(self) -> float:
        """The share that so few senders could reach at most."""
        return min(1.0, self.senders / self.answer * 60 / PER_MINUTE)


def simulate(*, senders: int, answer: float, spread: float, hours: float, seed: int = 1) -> Result:
    """Simulate hours of full backlog; see the module's text for the model."""
    chance = random.Random(seed)  # noqa: S311 (a simulation)
    time = Time(START, START + hours * 3600)
    windows = Windows.anywhere(chance)
    kept = distant_table(time, chance)
    spacing = interval(PER_MINUTE, spread)
    time.run([_sender(time, kept, windows, spacing, spread, answer, chance) for _ in range(senders)])
    arrivals = sorted(windows.arrivals)
    return Result(
        senders,
        answer,
        spread,
        hours,
        (len(arrivals) - windows.refused) * JOB_EVENTS / (hours * 60),
        worst(arrivals, 1.0),
        worst(arrivals, 60.0),
        windows.refused,
        (kept.reads + kept.writes) / max(1, len(arrivals)),
        tuple(arrivals),
    )


def distant_table(time: Time, chance: random.Random) -> Table:
    """Return a table that takes 1 to 5 ms before and after it does what it is asked."""

    def travel(_: str) -> None:
        time.sleep(chance.uniform(*TABLE_SECONDS))

    return Table(before=travel, after=travel)


def _sender(
    time: Time,
    kept: Table,
    windows: Windows,
    spacing: float,
    spread: float,
    answer: float,
    chance: random.Random,
) -> Any:
    offset = chance.uniform(0, spread / 2)
    pacer = Pacer(kept, spacing=spacing, clock=time, sleep=time.sleep, pauses=PAUSES)

    def post(slot: Slot) -> None:
        time.sleep(offset + chance.uniform(0, spread / 2))
        wait = windows.take(time.now)
        time.sleep(answer)
        if wait is not None:
            pacer.failed(slot, THROTTLE, pause=wait)
        elif slot.lease is not None:
            pacer.opened(slot, accepted=True)

    def work() -> None:
        while True:
            deadline = time.now + BUDGET
            try:
                while True:
                    slot, _ = pacer.turn(deadline, lambda: None)
                    post(slot)
            except NoSlot:
                time.sleep(BETWEEN)

    return work


def worst(arrivals: list[float], length: float) -> int:
    """Return the most arrivals in any ``length`` seconds, however they are cut."""
    most = start = 0
    for end, at in enumerate(arrivals):
        while at - arrivals[start] >= length:
            start += 1
        most = max(most, end - start + 1)
    return most


def run(hours: float = 2.0) -> tuple[dict[str, Any], Result]:
    """Run every combination; print the table and return the figures and the run for the picture."""
    results = [
        simulate(senders=senders, answer=answer, spread=spread, hours=hours)
        for spread in (0.4, 1.0, 5.0)
        for senders in (1, 2, 5, 50)
        for answer in (0.1, 1.0, 5.0)
    ]
    head = ("spread s", "senders", "answer s", "events/min", "share", "at most", "worst s", "worst min", "429")
    rows = [_row(result) for result in results]
    print(table(f"The whole on virtual time: {hours:g} h of backlog each", head, rows))
    shown = next(result for result in results if (result.senders, result.answer, result.spread) == (5, 1.0, 0.4))
    return {"hours": hours, "runs": [_document(result) for result in results]}, shown


def _row(result: Result) -> tuple[object, ...]:
    return (
        result.spread,
        result.senders,
        result.answer,
        f"{result.events_a_minute:,.0f}",
        f"{result.share:.1%}",
        f"{result.bound:.0%}",
        result.worst_second,
        result.worst_minute,
        result.refused,
    )


def _document(result: Result) -> dict[str, Any]:
    return {
        "senders": result.senders,
        "answer_s": result.answer,
        "spread_s": result.spread,
        "events_a_minute": round(result.events_a_minute),
        "share": round(result.share, 4),
        "worst_second": result.worst_second,
        "worst_minute": result.worst_minute,
        "throttled": result.refused,
        "table_requests_a_job": round(result.requests_a_job, 2),
    }
