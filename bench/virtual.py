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

import heapq
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from handler.delivery.pacing import Item, Pacer, Slot, Value, interval
from handler.errors import NoSlot
from handler.pauses import PAUSES

from .measure import table

PER_MINUTE = 150
PER_SECOND = 10
JOB_EVENTS = 1_000
BUDGET = 90.0  # seconds of an invocation in which slots may lie
BETWEEN = 0.1  # seconds from one invocation to the next
START = 1_780_000_000.0


class Time:
    """Virtual time for threads that take turns, and for calls at a given moment between them."""

    def __init__(self, end: float) -> None:
        self.now = START
        self.end = START + end
        self._waiting: list[tuple[float, int, threading.Event | Callable[[], None]]] = []
        self._count = 0
        self._stopped = False

    def clock(self) -> float:
        """Epoch seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Give the turn to the thread that wakes first, and return when that is the caller."""
        if self.now >= self.end:
            raise Over
        wake = threading.Event()
        self._push(self.now + max(0.0, seconds), wake)
        self._next()
        wake.wait()

    def call(self, moment: float, work: Callable[[], None]) -> None:
        """Call ``work`` at ``moment``; it must not sleep."""
        self._push(moment, work)

    def spawn(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread that takes its turn now."""
        wake = threading.Event()
        self._push(self.now, wake)
        threading.Thread(target=self._one, args=(work, wake), daemon=True).start()

    def _push(self, moment: float, wake: threading.Event | Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (moment, self._count, wake))

    def stop(self) -> None:
        """Nobody has a turn any more until the next ``run``; for the one who has it."""
        self._stopped = True

    def _next(self) -> None:
        while self._waiting and not self._stopped:
            moment, _, wake = heapq.heappop(self._waiting)
            self.now = max(self.now, moment)
            if isinstance(wake, threading.Event):
                wake.set()
                return
            wake()

    def run(self, works: list[Any]) -> None:
        """Run ``works``, each in a thread, until they have ended, as they do when virtual time does."""
        self._stopped = False
        threads = []
        for number, work in enumerate(works):
            wake = threading.Event()
            self._push(self.now + number * 0.001, wake)
            threads.append(threading.Thread(target=self._one, args=(work, wake), daemon=True))
        for thread in threads:
            thread.start()
        self._next()
        for thread in threads:
            thread.join()

    def _one(self, work: Any, wake: threading.Event) -> None:
        wake.wait()
        try:
            work()
        except Over:
            pass
        finally:
            self._next()


class Over(Exception):
    """Virtual time has come to its end."""


class MemoryTable:
    """The pacing item in memory; conditional operations are atomic since one thread runs at a time."""

    def __init__(self, time: Time, chance: random.Random) -> None:
        self._time = time
        self._chance = chance
        self._item: dict[str, int | str] = {}
        self.reads = self.writes = 0

    def _wait(self, *, write: bool) -> None:
        self.writes += write
        self.reads += not write
        self._time.sleep(self._chance.uniform(0.001, 0.005))

    def read(self) -> Item:
        """See ``pacing.Table``."""
        self._wait(write=False)
        found = dict(self._item)
        self._time.sleep(self._chance.uniform(0.001, 0.005))
        return found

    def advance(self, *, first: int, last: int, step: int, learned_at: int | None) -> tuple[bool, Item]:
        """See ``pacing.Table``."""
        self._wait(write=True)
        before = dict(self._item)
        free = before.get("next")
        good = isinstance(free, int) and first <= free <= last and "closed_until" not in before
        good = good and before.get("learned_at") == learned_at
        if good and isinstance(free, int):
            self._item["next"] = free + step
        self._time.sleep(self._chance.uniform(0.001, 0.005))
        return good, before

    def swap(self, expected: Mapping[str, Value], changed: Mapping[str, Value]) -> tuple[bool, Item]:
        """See ``pacing.Table``."""
        self._wait(write=True)
        before = dict(self._item)
        good = all(before.get(name) == value for name, value in expected.items())
        if good:
            merged: dict[str, Value] = {**self._item, **changed}
            self._item = {name: value for name, value in merged.items() if value is not None}
        self._time.sleep(self._chance.uniform(0.001, 0.005))
        return good, before


@dataclass(slots=True)
class Windows:
    """Klaviyo's count of arrivals: two fixed windows, each with a phase of its own."""

    phase_minute: float
    phase_second: float
    arrivals: list[float] = field(default_factory=list)
    refused: int = 0
    _counts: dict[tuple[str, int], int] = field(default_factory=dict)

    def take(self, at: float) -> float | None:
        """Count a request; seconds to wait if it is over a limit."""
        minute = ("minute", int((at + self.phase_minute) // 60))
        second = ("second", int(at + self.phase_second))
        full = self._counts.get(minute, 0) >= PER_MINUTE or self._counts.get(second, 0) >= PER_SECOND
        for window in (minute, second):
            self._counts[window] = self._counts.get(window, 0) + 1
        self.arrivals.append(at)
        if full:
            self.refused += 1
            return 60 - (at + self.phase_minute) % 60
        return None


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
    """Hours of full backlog; see the module's text for the model."""
    chance = random.Random(seed)  # noqa: S311 (a simulation)
    time = Time(hours * 3600)
    windows = Windows(chance.uniform(0, 60), chance.random())
    kept = MemoryTable(time, chance)
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


def _sender(
    time: Time,
    kept: MemoryTable,
    windows: Windows,
    spacing: float,
    spread: float,
    answer: float,
    chance: random.Random,
) -> Any:
    offset = chance.uniform(0, spread / 2)
    pacer = Pacer(kept, spacing=spacing, clock=time.clock, sleep=time.sleep, pauses=PAUSES)

    def post(slot: Slot) -> None:
        time.sleep(offset + chance.uniform(0, spread / 2))
        wait = windows.take(time.now)
        time.sleep(answer)
        if wait is None:
            pacer.answered(slot)
        else:
            pacer.throttled(slot, wait)

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
    """Most arrivals in any ``length`` seconds, however they are cut."""
    most = start = 0
    for end, at in enumerate(arrivals):
        while at - arrivals[start] >= length:
            start += 1
        most = max(most, end - start + 1)
    return most


def run(hours: float = 2.0) -> tuple[dict[str, Any], Result]:
    """Every combination; prints the table and returns the figures and the run for the picture."""
    results = [
        simulate(senders=senders, answer=answer, spread=spread, hours=hours)
        for spread in (0.4, 1.0, 5.0)
        for senders in (1, 2, 5, 50)
        for answer in (0.1, 1.0, 5.0)
    ]
    head = ("spread s", "senders", "answer s", "events/min", "share", "at most", "worst s", "worst min", "429")
    rows = [_row(one) for one in results]
    print(table(f"The whole on virtual time: {hours:g} h of backlog each", head, rows))
    shown = next(one for one in results if (one.senders, one.answer, one.spread) == (5, 1.0, 0.4))
    return {"hours": hours, "runs": [_document(one) for one in results]}, shown


def _row(one: Result) -> tuple[object, ...]:
    return (
        one.spread,
        one.senders,
        one.answer,
        f"{one.events_a_minute:,.0f}",
        f"{one.share:.1%}",
        f"{one.bound:.0%}",
        one.worst_second,
        one.worst_minute,
        one.refused,
    )


def _document(one: Result) -> dict[str, Any]:
    return {
        "senders": one.senders,
        "answer_s": one.answer,
        "spread_s": one.spread,
        "events_a_minute": round(one.events_a_minute),
        "share": round(one.share, 4),
        "worst_second": one.worst_second,
        "worst_minute": one.worst_minute,
        "throttled": one.refused,
        "table_requests_a_job": round(one.requests_a_job, 2),
    }
