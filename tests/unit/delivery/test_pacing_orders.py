"""Every order in which a few senders' calls of the table can take effect, one after the other.

What the table does is atomic, so the order of its calls is all that chance has
in hand. The orders are gone through depth first: a run follows a list of
choices, takes the first choice beyond it, and says how many there were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from handler.closing import THROTTLE, Closing
from handler.delivery.pacing import Pacer, Slot, interval
from handler.errors import Closed, NoSlot
from handler.pauses import PAUSES
from sim.table import Table
from sim.time import Time

SPACING = interval(150, 0.4)
Sender = Callable[[Pacer], object]


class Turns:
    """Threads of which one runs at a time, and waits for its turn in ``wait``."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._waiting: dict[int, threading.Event] = {}
        self.faults: list[BaseException] = []

    def wait(self, operation: str) -> None:
        mine = threading.Event()
        self._waiting[threading.get_ident()] = mine
        self._arrived.release()
        mine.wait()

    def run(self, works: list[Callable[[], None]], choices: list[int]) -> list[int]:
        """Go by ``choices``, then always by the first; how many ways were open at each step."""
        open_ways: list[int] = []
        names: list[int] = []
        for work in works:
            thread = threading.Thread(target=self._guarded, args=(work,), daemon=True)
            thread.start()
            self._arrived.acquire()
            names.append(thread.ident or 0)
        while ready := [name for name in names if name in self._waiting]:
            place = len(open_ways)
            open_ways.append(len(ready))
            chosen = ready[choices[place] if place < len(choices) else 0]
            self._waiting.pop(chosen).set()
            self._arrived.acquire()
        if self.faults:
            raise self.faults[0]
        return open_ways

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as fault:  # noqa: BLE001 (raised again by the test's own thread)
            self.faults.append(fault)
        finally:
            self._arrived.release()


def orders() -> Iterator[tuple[list[int], Callable[[list[int]], None]]]:
    """Lists of choices until all have been made; tell each run's ways to the function beside it."""
    choices: list[int] | None = []
    while choices is not None:
        runs: list[list[int]] = []
        yield choices, runs.append
        (ways,) = runs
        taken = choices + [0] * (len(ways) - len(choices))
        choices = None
        for place in reversed(range(len(ways))):
            if taken[place] + 1 < ways[place]:
                choices = [*taken[:place], taken[place] + 1]
                break


class World:
    """A table in some state, and senders that note their slots."""

    def __init__(self, item: dict[str, int | str]) -> None:
        self.clock = Time()
        self.turns = Turns()
        self.table = Table(item, before=self.turns.wait)
        self.slots: list[Slot] = []
        self.closed: list[Closed] = []
        self.written: int | None = None

    def reserve(self, pacer: Pacer) -> Slot | None:
        try:
            slot = pacer.reserve(self.clock() + 60)
        except Closed as closed:
            self.closed.append(closed)
            return None
        self.slots.append(slot)
        return slot

    def twice(self, pacer: Pacer) -> None:
        for _ in range(2):
            slot = self.reserve(pacer)
            if slot and slot.lease is not None:
                pacer.opened(slot, accepted=True)

    def refused(self, pacer: Pacer) -> None:
        """Its request meets a 429; from the moment that this is written, nobody gets a slot."""
        if slot := self.reserve(pacer):
            pacer.failed(slot, THROTTLE, pause=120.0)
            if self.written is None:
                self.written = len(self.slots)

    def away(self, pacer: Pacer) -> None:
        if slot := self.reserve(pacer):
            pacer.failed(slot, Closing("outage", "away"))


def explore(item: dict[str, int | str], *senders: Callable[[World], Sender]) -> Iterator[World]:
    """The world after each possible order of these senders' calls."""
    for choices, tell in orders():
        world = World(item)
        pacers = [
            Pacer(world.table, spacing=SPACING, clock=world.clock, sleep=world.clock.sleep, pauses=PAUSES)
            for _ in senders
        ]
        works = [_work(sender(world), pacer) for sender, pacer in zip(senders, pacers, strict=True)]
        tell(world.turns.run(works, choices))
        yield world


def _work(sender: Sender, pacer: Pacer) -> Callable[[], None]:
    def work() -> None:
        try:
            sender(pacer)
        except NoSlot as refused:
            raise AssertionError("no order of calls may exhaust the attempts") from refused

    return work


def spaced(world: World) -> bool:
    times = sorted(slot.at for slot in world.slots)
    return all(later - sooner >= SPACING - 1e-6 for sooner, later in pairwise(times))


ITEMS: list[dict[str, int | str]] = [{}, {"next": 1_790_000_000_500}, {"next": 1_789_999_000_000}]


@pytest.mark.parametrize("item", ITEMS, ids=["none", "busy", "idle"])
def test_no_order_of_calls_gives_two_senders_slots_too_close(item: dict[str, int | str]) -> None:
    worlds = list(explore(item, lambda w: w.twice, lambda w: w.reserve, lambda w: w.reserve))
    assert len(worlds) >= 12
    assert all(len(world.slots) == 4 and spaced(world) for world in worlds)


@pytest.mark.parametrize("item", ITEMS, ids=["none", "busy", "idle"])
def test_no_order_of_calls_gives_a_slot_after_a_429_is_written(item: dict[str, int | str]) -> None:
    worlds = list(explore(item, lambda w: w.refused, lambda w: w.twice))
    assert len(worlds) >= 6
    for world in worlds:
        assert spaced(world)
        assert world.written == len(world.slots)
        assert isinstance(world.table.item["closed_until"], int)
        assert world.table.item["closed_until"] >= 1_790_000_120_000


OVER: dict[str, int | str] = {
    "next": 1_789_999_000_000,
    "closed_until": 1_789_999_999_000,
    "closed_reason": "outage: away",
}


def test_no_order_of_calls_sends_two_probes_or_opens_without_an_answer() -> None:
    worlds = list(explore(OVER, lambda w: w.away, lambda w: w.away))
    assert len(worlds) > 30
    for world in worlds:
        assert len([slot for slot in world.slots if slot.lease is not None]) == 1
        assert len(world.slots) == 1
        assert world.table.item["closed_until"] == 1_790_000_030_050  # 30 s after its slot
        assert "probe_until" not in world.table.item


def test_no_order_of_calls_lets_the_others_go_before_the_probe_is_answered() -> None:
    worlds = list(explore(OVER, lambda w: w.twice, lambda w: w.twice))
    assert len(worlds) > 30
    for world in worlds:
        assert spaced(world)
        assert world.slots[0].lease is not None
        assert all(slot.lease is None for slot in world.slots[1:]) or "closed_until" in world.table.item
