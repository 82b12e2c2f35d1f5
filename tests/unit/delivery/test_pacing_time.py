"""Senders side by side on virtual time: every interleaving of their table calls, sleeps and posts."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.closing import THROTTLE, Closing
from handler.delivery.pacing import LOOK_AHEAD, TOLERANCE, Pacer, Slot, shared
from handler.errors import NoSlot, TableUnavailable, TooLate
from handler.pauses import PAUSES
from sim.klaviyo import Windows
from sim.table import Table
from sim.time import Time

SPREAD = 0.4  # of arrivals, unless a test says otherwise


class World(Time):
    """Senders, and a Klaviyo that answers as it is told."""

    def __init__(self, seed: int) -> None:
        super().__init__(1_000_000.0)
        self.chance = random.Random(seed)  # noqa: S311 (a schedule, no secret)
        self.table = Table()
        self.answer: Callable[[float], tuple[int, float | None]] = lambda at: (202, None)
        self.answers = (0.05, 0.4)  # seconds that an answer takes, at least and at most
        self.arrivals: list[tuple[float, int]] = []
        self.accepted: dict[str, list[float]] = defaultdict(list)  # of each stack

    def go(self, senders: list[Callable[[], None]], seconds: float) -> None:
        """Run ``senders``, who start within a second of each other, until they end for it is time."""
        self.over = self.now + seconds

        def started(sender: Callable[[], None]) -> Callable[[], None]:
            def work() -> None:
                self.sleep(self.chance.uniform(0, 1))
                sender()

            return work

        self.run([started(sender) for sender in senders])

    def post(self, jitter: float, stack: str) -> tuple[int, float | None]:
        """A request of ``stack`` that arrives ``jitter`` later at most, and its answer."""
        arrives = self.now + self.chance.uniform(0, jitter)
        status, wait = self.answer(arrives)
        self.arrivals.append((arrives, status))
        if status == 202:
            self.accepted[stack].append(arrives)
        self.sleep(arrives - self.now + self.chance.uniform(*self.answers))
        return status, wait

    def reached(self, latency: float, unreachable: float = 0.0, away: tuple[float, float] = (0.0, 0.0)) -> Table:
        """The table behind a network: every call takes its time, before and after it takes effect.

        ``away`` are the times between which it does not answer at all.
        """

        def across(operation: str) -> None:
            self.sleep(self.chance.uniform(0, latency))
            if away[0] <= self.now < away[1] or self.chance.random() < unreachable:
                raise TableUnavailable(self.now + PAUSES.long, Closing("no_table", "the pacing table does not answer"))

        return self.table.reached(before=across, after=across)  # after: made, and the answer lost


def backlog(
    world: World,
    *,
    spread: float = SPREAD,
    latency: float = 0.01,
    crash: float = 0.0,
    unreachable: float = 0.0,
    away: tuple[float, float] = (0.0, 0.0),
    give_up: float = 90.0,
    stack: str = "only",
    rate: int = 150,
    slow: float | None = None,
    jitter: float | None = None,
) -> Callable[[], None]:
    """A sender with more work than time, which crashes, gives up and starts again.

    Half of ``spread`` is its clock's error, half its requests' jitter, unless they are
    given: its clock is ``slow`` seconds behind, its requests take up to ``jitter``.
    """

    def sender() -> None:
        error = world.chance.uniform(0, spread / 2) if slow is None else slow
        pacer = shared(
            world.reached(latency, unreachable, away),
            stack=stack,
            requests_per_minute=rate,
            arrival_spread=spread,
            clock=lambda: world.now - error,
            sleep=world.sleep,
            pauses=PAUSES,
        )
        while world.now < world.over:
            try:
                slot, _ = pacer.turn(world.now - error + world.chance.uniform(0.1, give_up), lambda: None)
                if world.chance.random() < crash:
                    world.sleep(world.chance.uniform(0, 5))
                    continue
                settle(pacer, slot, *world.post(spread / 2 if jitter is None else jitter, stack))
            except NoSlot as cause:
                world.sleep(max(0.1, cause.retry_at - world.now + error) + world.chance.uniform(0, 1))

    return sender


def settle(pacer: Pacer, slot: Slot, status: int, wait: float | None) -> None:
    """Report an answer as ``dispatch`` does."""
    if status == 429:
        pacer.failed(slot, THROTTLE, pause=wait or 0.0)
    elif status != 202:
        pacer.failed(slot, Closing("outage", "away"))
    elif slot.lease is not None:
        pacer.opened(slot, accepted=True)


def worst(times: list[float], length: float) -> int:
    times = sorted(times)
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= length:
            first += 1
        most = max(most, last - first + 1)
    return most


def within_limits(world: World) -> bool:
    """Return whether no minute and no second, wherever it begins, holds more requests than Klaviyo accepts."""
    times = [at for at, _ in world.arrivals]
    return worst(times, 60) <= 150 and worst(times, 1) <= 10


LATENCIES = st.sampled_from([0.0, 0.01, 0.1, 0.6])
TROUBLES = st.sampled_from([0.0, 0.0, 0.05, 0.3])


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([0.0, 0.4, 1.0, 5.0]),
    kinds=st.lists(st.tuples(LATENCIES, TROUBLES, TROUBLES), min_size=1, max_size=3),
    senders=st.integers(1, 50),
)
def test_no_interleaving_exceeds_the_limit(
    seed: int, spread: float, kinds: list[tuple[float, float, float]], senders: int
) -> None:
    """A table slow or out of reach for some senders or all, crashes between reserving and posting, giving up."""
    world = World(seed)
    works = []
    for number in range(senders):
        latency, crash, unreachable = kinds[number % len(kinds)]
        works.append(backlog(world, spread=spread, latency=latency, crash=crash, unreachable=unreachable))
    world.go(works, 150)
    assert within_limits(world)


def share(world: World, start: float, end: float) -> float:
    """Accepted requests between two times, as a share of the allowance."""
    return len([at for at, status in world.arrivals if status == 202 and start <= at < end]) / (end - start) / 2.5


@pytest.mark.parametrize(
    ("senders", "spread", "least"),
    [
        (1, 0.4, 0.99),
        (3, 0.4, 0.99),
        (5, 0.0, 0.99),
        (5, 0.4, 0.99),
        (50, 0.4, 0.99),
        (50, 1.0, 0.98),
        (50, 3.0, 0.95),
        (50, 5.0, 0.66),
    ],
)
def test_a_backlog_uses_the_allowance(senders: int, spread: float, least: float) -> None:
    world = World(senders)
    start = world.now
    world.answers = (0.05, 0.1) if senders == 1 else (0.05, 0.4)
    world.go([backlog(world, spread=spread) for _ in range(senders)], 600)
    assert within_limits(world)
    assert share(world, start + 10, start + 590) >= least - 0.002  # 590 s hold no whole number of slots


@pytest.mark.parametrize(("answer", "senders"), [(0.2, 2), (1.0, 4), (2.0, 6), (5.0, 14)])
def test_a_slow_klaviyo_does_not_lower_the_rate_at_the_documented_concurrency(answer: float, senders: int) -> None:
    """2.5 senders for each second of the answer, and one more."""
    assert senders == math.ceil(2.5 * answer + 1)
    world = World(senders)
    start = world.now
    world.answers = (answer, answer)
    world.go([backlog(world, spread=0.1) for _ in range(senders)], 600)
    assert within_limits(world)
    assert share(world, start + 20, start + 590) >= 0.99


def test_a_slow_table_lowers_the_rate_little() -> None:
    """0.3 s a call on average: a sender that looks again before its slot looks earlier, and does not miss it."""
    world = World(5)
    start = world.now
    world.go([backlog(world, latency=0.3) for _ in range(5)], 600)
    assert within_limits(world)
    assert share(world, start + 20, start + 590) >= 0.9


def test_crashes_and_giving_up_cost_their_own_slots_only() -> None:
    """One in twenty dies with its slot; those that give up after a second hold none."""
    world = World(17)
    start = world.now
    world.go([backlog(world, crash=0.05, give_up=1.0) for _ in range(20)], 600)
    assert within_limits(world)
    assert share(world, start + 10, start + 590) >= 0.99 * 0.93


def test_without_the_table_nobody_posts_and_afterwards_all_do() -> None:
    world = World(19)
    away, back = world.now + 60, world.now + 240
    world.go([backlog(world, away=(away, back)) for _ in range(5)], 480)
    assert within_limits(world)
    # A function that looked for the last time just before still uses its slot.
    assert not [at for at, _ in world.arrivals if away + LOOK_AHEAD + TOLERANCE + 0.4 <= at < back]
    assert share(world, back + 60, back + 230) >= 0.98


def test_a_table_that_is_away_for_some_leaves_the_rate_to_the_others() -> None:
    world = World(23)
    start = world.now
    world.go([backlog(world, away=(0.0, 9e9)) for _ in range(3)] + [backlog(world) for _ in range(4)], 300)
    assert within_limits(world)
    assert share(world, start + 10, start + 290) >= 0.98


@pytest.mark.parametrize("header", [120.0, 0.0, None, 1e9])
def test_a_closed_window_of_two_minutes(header: float | None) -> None:
    """Klaviyo answers 429 for two minutes, saying so or something absurd."""
    world = World(7)
    closes, opens = world.now + 30, world.now + 150
    world.answer = lambda at: (429, header if header != 120.0 else opens - at) if closes <= at < opens else (202, None)
    world.go([backlog(world) for _ in range(5)], 400)
    assert within_limits(world)
    refused = sorted(at for at, status in world.arrivals if status == 429)
    probes = [at for at in refused if at > closes + 2]  # those under way at the first refusal have come by then
    assert worst(probes, 60 - SPREAD) <= (0 if header == 120.0 else 2)
    full = [at for at, status in world.arrivals if status == 202 and opens + 60 <= at < opens + 180]
    assert len(full) >= 0.97 * 300


def test_an_outage_of_hours_is_probed_gently_and_ends_within_a_minute() -> None:
    world = World(3)
    away, back = world.now + 20, world.now + 20 + 2 * 3_600
    world.answer = lambda at: (503, None) if away <= at < back else (202, None)
    world.go([backlog(world) for _ in range(5)], 2 * 3_600 + 120)
    assert within_limits(world)
    probes = sorted(at for at, status in world.arrivals if status == 503 and at > away + 35)
    assert worst(probes, 60 - SPREAD) <= 2
    first = min(at for at, status in world.arrivals if status == 202 and at >= back)
    assert first - back <= 60


def test_a_request_after_which_everybody_dies_does_not_close_for_ever() -> None:
    world = World(5)
    world.table.item = {"next": 0, "closed_until": 1, "closed_reason": "outage: away", "probe_until": 1_000_020_000}
    world.go([backlog(world)], 60)
    assert next(at for at, status in world.arrivals if status == 202) >= 1_000_019


def a_minute(world: World, stack: str) -> float:
    """Requests a minute of ``stack`` that Klaviyo accepted, except the first and the last seconds."""
    start, end = world.over - 870, world.over - 10
    return len([at for at in world.accepted[stack] if start <= at < end]) / (end - start) * 60


@pytest.mark.parametrize(
    ("stacks", "least"),
    [
        ({"production": 100, "staging": 40}, {"production": 98.0, "staging": 39.0}),
        ({"production": 150, "staging": 10}, {"production": 137.0, "staging": 9.8}),
        ({"production": 100, "staging": 40, "trial": 10}, {"production": 98.0, "staging": 39.0, "trial": 9.8}),
        ({"production": 120, "staging": 60}, {"production": 88.0, "staging": 59.0}),
        ({"production": 150, "staging": 100, "trial": 60}, {"production": 0.5, "staging": 87.0, "trial": 58.0}),
        ({"production": 75}, {"production": 74.0}),
    ],
    ids=str,
)
def test_each_stack_on_one_table_gets_its_own_and_the_largest_gets_the_rest(
    stacks: dict[str, int], least: dict[str, float]
) -> None:
    world = World(29)
    world.go([backlog(world, stack=stack, rate=rate) for stack, rate in stacks.items() for _ in range(5)], 900)
    assert within_limits(world)
    assert {stack: a_minute(world, stack) >= rate for stack, rate in least.items()} == dict.fromkeys(stacks, True)
    for stack, rate in stacks.items():
        # A request waits for the account's slot, too, so that next to others its minute may have one more.
        assert worst(world.accepted[stack], 60) <= rate + (len(stacks) > 1)


def sender(world: World, stack: str, rate: int) -> Pacer:
    """The pacer of a function that has just started."""
    return shared(
        world.reached(0.01),
        stack=stack,
        requests_per_minute=rate,
        arrival_spread=SPREAD,
        clock=world,
        sleep=world.sleep,
        pauses=PAUSES,
    )


def test_functions_that_have_just_started_keep_to_what_smaller_stacks_leave() -> None:
    """Each makes one request and ends: none would ever have heard of the other stack from an update of its own."""
    world = World(47)
    world.table.item.update({"share/staging": f"60@{round(world.now * 1000)}"})

    def once() -> None:
        sender(world, "production", 150).turn(world.now + 600, lambda: None)
        world.post(0.0, "production")

    start = world.now
    world.go([once for _ in range(200)], 300)
    assert len([at for at in world.accepted["production"] if at < start + 60]) <= 90


def test_share_of_a_stack_that_has_stopped_is_free_after_ten_minutes() -> None:
    world = World(41)
    start = world.now

    def stops() -> None:
        sender(world, "staging", 60).turn(world.now + 60, lambda: None)

    world.go([stops, *(backlog(world, stack="production", rate=120) for _ in range(5))], 1_200)
    minute = {
        at: len([moment for moment in world.accepted["production"] if at <= moment - start < at + 60])
        for at in (300, 900)
    }
    assert 88 <= minute[300] <= 91
    assert 118 <= minute[900] <= 120


@pytest.mark.parametrize(("before_the_end", "taken"), [(1.9, False), (2.1, True)])
def test_turn_of_a_stack_is_taken_only_if_there_is_time_for_a_slot_after_it(before_the_end: float, taken: bool) -> None:
    """A turn in the last two seconds might find no slot of the account, and would be lost to the stack."""
    world = World(47)
    deadline = world.now + 20
    turn = world.table.at("share/staging").item
    turn["next"] = first = round((deadline - before_the_end) * 1000)
    pacer = shared(
        world.table,
        stack="staging",
        requests_per_minute=10,
        arrival_spread=SPREAD,
        clock=world,
        sleep=world.sleep,
        pauses=PAUSES,
    )
    if taken:
        slot, _ = pacer.turn(deadline, lambda: None)
        assert first / 1000 <= slot.at <= deadline
    else:
        with pytest.raises(TooLate) as late:
            pacer.turn(deadline, lambda: None)
        assert late.value.retry_at == first / 1000
        assert world.now == deadline - 20  # it is said at once, not after the wait
    assert (turn["next"] != first) is taken


@pytest.mark.parametrize(("said", "ahead"), [(100, 0.0), (40, 86_400.0), (40, -86_400.0)])
def test_a_share_that_changed_or_was_said_by_a_wrong_clock_is_corrected_at_once(said: int, ahead: float) -> None:
    world = World(43)
    says = {"share/staging": f"{said}@{round((world.now + 60 + ahead) * 1000)}"}
    world.call(world.now + 60, lambda: world.table.item.update(says))
    rates = {"staging": 40, "production": 120}
    world.go([backlog(world, stack=stack, rate=rate) for stack, rate in rates.items() for _ in range(5)], 200)
    at = world.over - 120
    minute = {stack: len([moment for moment in world.accepted[stack] if at <= moment < at + 60]) for stack in rates}
    assert 106 <= minute["production"] <= 110
    assert 38 <= minute["staging"] <= 41
    rate, _, at_ms = str(world.table.item["share/staging"]).partition("@")
    assert rate == "40"
    assert world.over - 300 <= int(at_ms) / 1000 <= world.now


def test_a_stack_that_is_closed_out_by_another_goes_on_when_it_opens() -> None:
    """Klaviyo answers 429 to both for two minutes: the account is closed, not one stack."""
    world = World(31)
    closes, opens = world.now + 300, world.now + 420
    world.answer = lambda at: (429, opens - at) if closes <= at < opens else (202, None)
    world.go([backlog(world, stack=stack, rate=rate) for stack, rate in (("a", 100), ("b", 40)) for _ in range(5)], 900)
    assert within_limits(world)
    assert len([at for at, status in world.arrivals if status == 429]) <= 5  # those under way, one of them a probe
    for stack, rate in (("a", 100), ("b", 40)):
        after = [at for at in world.accepted[stack] if opens + 60 <= at < opens + 420]
        assert len(after) >= 0.97 * 6 * rate


def of_clocks(*slow: float, spread: float = SPREAD) -> tuple[World, Windows]:
    """Twenty minutes of senders whose clocks are so many seconds behind, in front of Klaviyo's windows."""
    world = World(37)
    windows = Windows.anywhere(world.chance)

    def answer(at: float) -> tuple[int, float | None]:
        wait = windows.take(at)
        return (202, None) if wait is None else (429, wait)

    world.answer = answer
    world.go([backlog(world, spread=spread, slow=seconds, jitter=0.2) for seconds in slow], 1_200)
    return world, windows


ONE_SECOND_EITHER_WAY = (-1.0, -0.5, 0.0, 0.5, 1.0)


def test_clocks_a_second_off_either_way_need_a_spread_of_2_4_seconds() -> None:
    """2 s between the clocks, and 0.4 s for the network. It costs four requests a minute."""
    world, windows = of_clocks(*ONE_SECOND_EITHER_WAY, spread=2.4)
    assert within_limits(world)
    assert windows.refused == 0
    assert 143 <= a_minute(world, "only") <= 145


def test_clocks_a_second_off_exceed_the_limit_by_three_at_most_with_the_default_spread() -> None:
    """What docs/settings.md says about clocks that the setting does not cover."""
    world, windows = of_clocks(*ONE_SECOND_EITHER_WAY)
    times = [at for at, _ in world.arrivals]
    assert worst(times, 60) <= 153
    assert worst(times, 1) <= 10
    assert windows.refused <= 3


def test_a_clock_a_day_ahead_costs_a_tenth_of_the_rate_and_no_limit() -> None:
    world, windows = of_clocks(-86_400.0, 0.0, 0.0, 0.0, 0.0)
    assert within_limits(world)
    assert windows.refused == 0
    assert a_minute(world, "only") >= 0.9 * 150


def test_a_clock_a_day_behind_costs_one_429_a_minute_and_no_rate() -> None:
    """It takes the next slot for damage and resets it, so that a few that are reserved already come too close."""
    world, windows = of_clocks(86_400.0, 0.0, 0.0, 0.0, 0.0)
    assert worst([at for at, _ in world.arrivals], 60) <= 155
    assert windows.refused <= 20
    assert a_minute(world, "only") >= 0.98 * 150
