"""The slot, on virtual time: who may post when, and that giving up costs nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.closing import THROTTLE, Closing
from handler.delivery.pacing import TOLERANCE, Pacer, Slot, interval
from handler.errors import Closed, TooLate
from handler.pauses import PAUSES
from sim.table import Table
from sim.time import Time

SPACING = interval(150, 0.4)


class World(Time):
    """Virtual time, and senders that share a table."""

    def __init__(self) -> None:
        super().__init__(1_000_000.0)
        self.table = Table()

    def sender(self) -> Pacer:
        return Pacer(self.table, spacing=SPACING, clock=self, sleep=self.sleep, pauses=PAUSES)


def worst(times: Sequence[float], length: float) -> int:
    return max(sum(start <= at < start + length for at in times) for start in times)


@given(st.integers(0, 2**32), st.floats(0, 0.5))
def test_no_window_ever_holds_more_than_the_limit(seed: int, pause: float) -> None:
    world, chance = World(), random.Random(seed)  # noqa: S311 (a schedule, no secret)
    senders = [world.sender() for _ in range(chance.randint(1, 50))]
    arrivals = []
    for _ in range(350):
        arrivals.append(chance.choice(senders).reserve(world.now + 600).at + chance.uniform(0, 0.4))
        world.sleep(chance.uniform(0, pause))
    assert worst(arrivals, 60) <= 150
    assert worst(arrivals, 1) <= 10


SPREADS = [0.0, 0.1, 0.4, 1.0, 3.0, 5.0, 10.0]


def aimed(spacing: float, spread: float, length: float) -> int:
    """Requests that an adversary, who may delay each by up to ``spread``, gets into one window of ``length`` s."""
    slots = [number * spacing for number in range(math.ceil((length + spread) / spacing) + 2)]
    # The window opens when the first one has been delayed the longest; whatever comes before it waits for it.
    return sum(at - slots[0] < length + spread - 1e-9 for at in slots)


@pytest.mark.parametrize("spread", SPREADS)
def test_no_delays_within_the_spread_exceed_a_limit_and_no_quicker_pace_is_safe(spread: float) -> None:
    pace, late = interval(150, spread), spread + TOLERANCE
    assert aimed(pace, late, 60) <= 150
    assert aimed(pace, late, 1) <= 10
    quicker = 0.999 * pace
    assert aimed(quicker, late, 60) > 150 or aimed(quicker, late, 1) > 10


@pytest.mark.parametrize(("spread", "share"), [(0.4, 0.99), (1.0, 0.98), (3.0, 0.95), (5.0, 0.66)])
def test_the_share_that_a_spread_leaves(spread: float, share: float) -> None:
    assert share <= 0.4 / interval(150, spread) < share + 0.01


@given(st.sampled_from(SPREADS), st.integers(0, 2**32))
def test_no_jitter_within_the_spread_exceeds_a_limit(spread: float, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (a schedule, no secret)
    pace, late = math.ceil(1000 * interval(150, spread)), round(1000 * (spread + TOLERANCE))
    arrivals = [number * pace + chance.choice((0, chance.randint(0, late), late)) for number in range(200)]
    assert worst(arrivals, 60_000) <= 150
    assert worst(arrivals, 1_000) <= 10


def test_a_backlog_uses_99_percent_of_the_allowance() -> None:
    world = World()
    senders = [world.sender() for _ in range(5)]
    slots = [senders[number % 5].reserve(world.now + 900).at for number in range(1_500)]
    assert (len(slots) - 1) / (slots[-1] - slots[0]) * 60 >= 0.99 * 150


def test_giving_up_moves_nothing() -> None:
    world = World()
    world.sender().reserve(world.now + 10)
    before = dict(world.table.item)
    for _ in range(1_000):
        with pytest.raises(TooLate):
            world.sender().reserve(world.now + 0.2)
    assert world.table.item == before


def test_a_closed_relay_lets_one_probe_through_and_opens_on_its_answer() -> None:
    world = World()
    first = world.sender()
    first.failed(first.reserve(world.now + 10), THROTTLE, pause=120.0)
    with pytest.raises(Closed):
        world.sender().reserve(world.now + 10)
    world.sleep(121)
    probe = world.sender()
    slot = probe.reserve(world.now + 10)
    assert slot.lease is not None
    with pytest.raises(Closed):
        world.sender().reserve(world.now + 10)
    probe.opened(slot, accepted=True)
    assert world.sender().reserve(world.now + 10).lease is None


@pytest.mark.parametrize("accepted", [True, False])
def test_probe_that_klaviyo_only_judged_opens_the_relay_and_proves_nothing(accepted: bool) -> None:
    world = World()
    world.sender().failed(Slot(world.now), THROTTLE, pause=120.0)
    world.sleep(121)
    probe = world.sender()
    probe.opened(probe.reserve(world.now + 10), accepted=accepted)
    assert world.sender().reserve(world.now + 10).lease is None
    assert ("accepted_at" in world.table.item) is accepted


def test_an_outage_is_probed_at_most_twice_a_minute() -> None:
    world = World()
    sender = world.sender()
    end, probes = world.now + 3_600, 0
    sender.failed(sender.reserve(world.now + 10), Closing("outage", "away"))
    while world.now < end:
        try:
            slot: Slot = sender.reserve(world.now + 10)
        except Closed as error:
            world.until(max(error.retry_at, world.now + 0.01))
            continue
        probes += 1
        sender.failed(slot, Closing("outage", "away"))
    assert 3_600 / PAUSES.long - 5 <= probes <= 3_600 / PAUSES.long + 1


def test_a_damaged_slot_is_reset_rather_than_waited_for() -> None:
    world = World()
    world.table.item = {"next": round((world.now + 86_400) * 1000)}
    slot = world.sender().reserve(world.now + 300)
    assert slot.at <= world.now + 61


def test_reset_of_a_damaged_item_leaves_no_reason() -> None:
    """Otherwise the table would name a reason, although nothing is closed."""
    world = World()
    world.table.item = {"next": 0, "closed_until": "tomorrow", "closed_reason": "key_refused: by nobody"}
    world.sender().reserve(world.now + 300)
    assert set(world.table.item) == {"next"}
