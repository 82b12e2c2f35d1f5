"""Senders side by side on virtual time: every interleaving of their table calls, sleeps and posts."""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.errors import NoSlot, TableUnavailable
from handler.pacing import Item, Pacer, Value, interval
from tests.unit.fakes_delivery import Table


class World:
    """Threads of which one runs at a time: whoever waits longest for its moment is next."""

    def __init__(self, seed: int) -> None:
        self.now = 1_000_000.0
        self.chance = random.Random(seed)  # noqa: S311 (a schedule, no secret)
        self.table = Table()
        self.answer: Callable[[float], tuple[int, float | None]] = lambda at: (202, None)
        self.arrivals: list[tuple[float, int]] = []
        self.faults: list[BaseException] = []
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._count = 0
        self._idle = threading.Event()

    def sleep(self, seconds: float) -> None:
        mine = threading.Event()
        self._count += 1
        heapq.heappush(self._waiting, (self.now + max(0.0, seconds), self._count, mine))
        self._idle.set()
        mine.wait()

    def run(self, senders: list[Callable[[], None]], until: float) -> None:
        """Run each sender in a thread of its own until all have ended, or nothing happens before ``until``."""
        self.until = self.now + until
        threads = [threading.Thread(target=self._guarded, args=(sender,), daemon=True) for sender in senders]
        for thread in threads:
            self._idle.clear()
            thread.start()
            self._idle.wait()
        while self._waiting:
            moment, _, turn = heapq.heappop(self._waiting)
            self.now = max(self.now, moment)
            self._idle.clear()
            turn.set()
            self._idle.wait()
        for thread in threads:
            thread.join(5)
        if self.faults:
            raise self.faults[0]

    def _guarded(self, sender: Callable[[], None]) -> None:
        try:
            self.sleep(self.chance.uniform(0, 1))
            sender()
        except AssertionError as error:
            self.faults.append(error)
        finally:
            self._idle.set()

    def post(self, jitter: float) -> tuple[int, float | None]:
        """A request that arrives ``jitter`` later at most, and its answer."""
        arrives = self.now + self.chance.uniform(0, jitter)
        status, wait = self.answer(arrives)
        self.arrivals.append((arrives, status))
        self.sleep(arrives - self.now + self.chance.uniform(0.05, 0.4))
        return status, wait


class Slow:
    """The table behind a network: every call takes its time, before and after it takes effect."""

    def __init__(self, world: World, latency: float, unreachable: float = 0.0) -> None:
        self._world = world
        self._latency = latency
        self._unreachable = unreachable

    def _pass(self) -> None:
        self._world.sleep(self._world.chance.uniform(0, self._latency))

    def _may_fail(self) -> None:
        if self._world.chance.random() < self._unreachable:
            raise TableUnavailable(self._world.now + 1, "the pacing table does not answer")

    def read(self) -> Item:
        self._pass()
        item = self._world.table.read()
        self._pass()
        return item

    def advance(self, *, first: int, last: int, step: int, learned_at: int | None) -> tuple[bool, Item]:
        self._pass()
        self._may_fail()
        done = self._world.table.advance(first=first, last=last, step=step, learned_at=learned_at)
        self._pass()
        self._may_fail()  # made, and the answer lost
        return done

    def swap(self, expected: Mapping[str, Value], changed: Mapping[str, Value]) -> tuple[bool, Item]:
        self._pass()
        done = self._world.table.swap(expected, changed)
        self._pass()
        return done


def backlog(
    world: World, *, jitter: float = 0.4, latency: float = 0.01, crash: float = 0.0, unreachable: float = 0.0
) -> Callable[[], None]:
    """A sender with more work than time, which crashes, gives up and starts again."""

    def sender() -> None:
        pacer = Pacer(
            Slow(world, latency, unreachable), spacing=interval(150, 0.4), clock=lambda: world.now, sleep=world.sleep
        )
        while world.now < world.until:
            try:
                slot, _ = pacer.turn(world.now + world.chance.uniform(0.1, 90), lambda: None)
                if world.chance.random() < crash:
                    world.sleep(world.chance.uniform(0, 5))
                    continue
                status, wait = world.post(jitter)
                if status == 202:
                    pacer.answered(slot)
                elif status == 429:
                    pacer.throttled(slot, wait)
                else:
                    pacer.failed(slot, "outage: away")
            except NoSlot as cause:
                world.sleep(max(0.1, cause.retry_at - world.now) + world.chance.uniform(0, 1))

    return sender


def worst(times: list[float], length: float) -> int:
    times = sorted(times)
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= length:
            first += 1
        most = max(most, last - first + 1)
    return most


def within_limits(world: World) -> None:
    times = [at for at, _ in world.arrivals]
    assert worst(times, 60) <= 150
    assert worst(times, 1) <= 10


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    senders=st.sampled_from([1, 2, 5, 20, 50]),
    latency=st.sampled_from([0.0, 0.01, 0.1, 0.6]),
    crash=st.sampled_from([0.0, 0.1]),
    unreachable=st.sampled_from([0.0, 0.05]),
)
def test_no_interleaving_exceeds_the_limit(
    seed: int, senders: int, latency: float, crash: float, unreachable: float
) -> None:
    world = World(seed)
    world.run([backlog(world, latency=latency, crash=crash, unreachable=unreachable) for _ in range(senders)], 150)
    within_limits(world)
    assert world.arrivals


@pytest.mark.parametrize("senders", [3, 5, 50])
def test_a_backlog_uses_the_allowance(senders: int) -> None:
    world = World(senders)
    start = world.now
    world.run([backlog(world) for _ in range(senders)], 600)
    within_limits(world)
    steady = [at for at, _ in world.arrivals if start + 5 <= at < start + 595]
    assert len(steady) >= 0.99 * 150 * 590 / 60 - 1


@pytest.mark.parametrize("header", [120.0, 0.0, None, 1e9])
def test_a_closed_window_of_two_minutes(header: float | None) -> None:
    """Klaviyo answers 429 for two minutes, saying so or something absurd."""
    world = World(7)
    closes, opens = world.now + 30, world.now + 150
    world.answer = lambda at: (429, header if header != 120.0 else opens - at) if closes <= at < opens else (202, None)
    world.run([backlog(world) for _ in range(5)], 400)
    within_limits(world)
    refused = sorted(at for at, status in world.arrivals if status == 429)
    probes = [at for at in refused if at > closes + 2]  # those under way at the first refusal have come by then
    assert worst(probes, 60) <= (0 if header == 120.0 else 2)
    full = [at for at, status in world.arrivals if status == 202 and opens + 60 <= at < opens + 180]
    assert len(full) >= 0.97 * 300


def test_an_outage_of_hours_is_probed_gently_and_ends_within_a_minute() -> None:
    world = World(3)
    away, back = world.now + 20, world.now + 20 + 2 * 3_600
    world.answer = lambda at: (503, None) if away <= at < back else (202, None)
    world.run([backlog(world) for _ in range(5)], 2 * 3_600 + 120)
    within_limits(world)
    probes = sorted(at for at, status in world.arrivals if status == 503 and at > away + 35)
    assert worst(probes, 60) <= 2
    first = min(at for at, status in world.arrivals if status == 202 and at >= back)
    assert first - back <= 60


def test_a_request_after_which_everybody_dies_does_not_close_for_ever() -> None:
    world = World(5)
    world.table.item = {"next": 0, "closed_until": 1, "closed_reason": "outage: away", "probe_until": 1_000_020_000}
    world.run([backlog(world)], 60)
    assert next(at for at, status in world.arrivals if status == 202) >= 1_000_019


def test_another_user_of_the_allowance_is_given_way_and_then_no_more() -> None:
    """Half of the account's minute goes to somebody else for ten minutes; the headers and 429s tell."""
    world = World(11)
    start = world.now
    window: dict[int, int] = {}

    def foreign(at: float) -> float:
        return 75 * ((at - start) % 60) / 60 if at < start + 600 else 0.0

    def answer(at: float) -> tuple[int, float | None]:
        minute = int((at - start) // 60)
        if window.get(minute, 0) + foreign(at) >= 150:
            return 429, 60 - (at - start) % 60
        window[minute] = window.get(minute, 0) + 1
        return 202, None

    world.answer = answer

    def sender() -> None:
        pacer = Pacer(Slow(world, 0.01), spacing=interval(150, 0.4), clock=lambda: world.now, sleep=world.sleep)
        while world.now < world.until:
            try:
                slot, _ = pacer.turn(world.now + 60, lambda: None)
                status, wait = world.post(0.1)
                if status == 429:
                    pacer.throttled(slot, wait)
                else:
                    used = window.get(int((world.now - start) // 60), 0) + foreign(world.now)
                    pacer.answered(slot, remaining=max(0, int(150 - used)), reset=60 - int((world.now - start) % 60))
            except NoSlot as cause:
                world.sleep(max(0.1, cause.retry_at - world.now))

    world.run([sender] * 5, 1_000)
    refused = [at for at, status in world.arrivals if status == 429]
    shared = [at for at, status in world.arrivals if status == 202 and start + 60 <= at < start + 600]
    alone = [at for at, status in world.arrivals if status == 202 and start + 780 <= at < start + 960]
    assert len(refused) <= 10
    assert len(shared) >= 0.8 * 75 * 9
    assert len(alone) >= 0.98 * 149 * 3
