"""A damaged pacing item, a contended one, and what other functions close or open while one waits for its slot."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from handler.closing import NO_SLOT, THROTTLE, Closing
from handler.delivery.pacing import Pacer, Slot, interval, shared
from handler.errors import Closed, TableUnavailable, TooLate
from handler.pauses import PAUSES
from sim.table import Table
from sim.time import Time

SPACING = interval(150, 0.4)
OUTAGE = Closing("outage", "away")
NUMBERS = ("next", "closed_until", "probe_until", "accepted_at", "delivered_at", "died_at", "alive_at")


class World(Time):
    """Virtual time, and a sender with its table; the table's item has times in ms."""

    def __init__(self, **item: float | str) -> None:
        super().__init__(1_000_000.0)
        self.table = Table({name: value if isinstance(value, str) else self.ms(value) for name, value in item.items()})
        self.pacer = self.sender()

    def sender(self) -> Pacer:
        return Pacer(self.table, spacing=SPACING, clock=self, sleep=self.sleep, pauses=PAUSES)

    def ms(self, seconds: float) -> int:
        """Epoch milliseconds of a moment so many seconds from now."""
        return round((self.now + seconds) * 1000)

    def put(self, **item: float) -> None:
        """Change the item, as another function does."""
        self.table.item |= {name: self.ms(seconds) for name, seconds in item.items()}

    def probe(self) -> Slot:
        """The slot of the first probe after a closing that has just ended."""
        self.put(closed_until=-1)
        self.table.item["closed_reason"] = str(OUTAGE)
        slot = self.pacer.reserve(self.now + 60)
        assert slot.lease is not None
        return slot


@pytest.mark.parametrize("damaged", NUMBERS)
def test_item_with_a_text_for_a_number_is_reset_and_a_minute_stays_without_requests(damaged: str) -> None:
    """It hides which slots others hold, and the relay would otherwise stand still until somebody repairs it."""
    world = World(**dict.fromkeys(NUMBERS, 5.0) | {"closed_reason": "outage: away", damaged: "soon"})
    slot = world.pacer.reserve(world.now + 300)
    assert slot == Slot(world.now + 60)
    assert world.table.item == {"next": world.ms(60 + SPACING)}


def test_waiting_for_a_reset_item_ends_at_the_deadline() -> None:
    world = World(next="soon")
    with pytest.raises(TooLate) as refused:
        world.pacer.reserve(world.now + 30)
    assert refused.value.retry_at == world.now + 60
    assert refused.value.closing.code == "no_slot"


def moved(world: World) -> Callable[[str], None]:
    """Another function that takes a slot before each call of this one takes effect."""

    def hook(_: str) -> None:
        world.table.item["next"] = int(world.table.item.get("next", world.ms(-10))) + 1

    return hook


def closed_again(world: World) -> Callable[[str], None]:
    """Another function that closes the relay for a little longer before each call of this one."""

    def hook(_: str) -> None:
        world.table.item["closed_until"] = int(world.table.item.get("closed_until", world.ms(-10))) + 1

    return hook


def test_deadline_that_has_passed_leaves_no_time_for_a_slot() -> None:
    world = World()
    with pytest.raises(TooLate) as refused:
        world.pacer.reserve(world.now - 1)
    assert (refused.value.closing.code, refused.value.retry_at) == (NO_SLOT, world.now)
    assert "no time left" in refused.value.closing.detail


def test_slots_are_never_closer_than_the_spacing() -> None:
    """The item has whole milliseconds, so that the rest of one is waited for, too."""
    world = World()
    pacer = Pacer(world.table, spacing=0.4032, clock=world, sleep=world.sleep, pauses=PAUSES)
    first, second = pacer.reserve(world.now + 60), pacer.reserve(world.now + 60)
    assert second.at - first.at >= 0.4032


def test_contended_table_gives_no_slot_and_is_tried_again_after_a_brief_pause() -> None:
    world = World()
    world.table.before = moved(world)
    with pytest.raises(TableUnavailable) as refused:
        stack(world, 150).reserve(world.now + 60)
    assert refused.value.retry_at == world.now + PAUSES.brief
    assert refused.value.closing == Closing("no_table", "the pacing table is contended")
    assert world.table.writes == 16  # eight attempts


def test_closing_that_does_not_reach_a_contended_table_is_an_error() -> None:
    world = World()
    slot = world.pacer.reserve(world.now + 60)
    world.table.before = closed_again(world)
    with pytest.raises(TableUnavailable) as refused:
        world.pacer.failed(slot, OUTAGE)
    assert refused.value.retry_at == world.now + PAUSES.brief
    assert refused.value.closing.code == "no_table"


def test_longer_closing_of_another_is_not_shortened() -> None:
    world = World()
    slot = world.pacer.reserve(world.now + 60)
    world.sender().failed(slot, THROTTLE, pause=120.0)
    before = dict(world.table.item)
    assert world.pacer.failed(slot, OUTAGE) == PAUSES.brief
    assert world.table.item == before


@pytest.mark.parametrize(("asked", "closed"), [(600.0, 600.0), (600.001, 30.0)])
def test_pause_that_klaviyo_asks_for_is_kept_up_to_ten_minutes(asked: float, closed: float) -> None:
    world = World()
    slot = world.pacer.reserve(world.now + 60)
    assert world.pacer.failed(slot, THROTTLE, pause=asked) == closed
    assert world.table.item["closed_until"] == world.ms(closed)


@pytest.mark.parametrize("until", [PAUSES.longest + PAUSES.brief + 1, 86_400.0])
def test_closing_further_ahead_than_any_pause_is_damage_and_replaced(until: float) -> None:
    world = World()
    slot = world.pacer.reserve(world.now + 60)
    world.put(closed_until=until)
    world.pacer.failed(slot, OUTAGE)
    assert world.table.item["closed_until"] == world.ms(PAUSES.brief)


def test_failed_probe_gives_its_lease_back_where_another_closed_for_longer() -> None:
    world = World()
    slot = world.probe()
    world.put(closed_until=120)
    world.pacer.failed(slot, OUTAGE)
    assert world.table.item["closed_until"] == world.ms(120)
    assert "probe_until" not in world.table.item


def test_failed_probe_leaves_the_lease_of_a_later_one() -> None:
    world = World()
    slot = world.probe()
    world.put(probe_until=90)
    world.pacer.failed(slot, OUTAGE)
    assert world.table.item["probe_until"] == world.ms(90)
    assert world.table.item["closed_reason"] == str(OUTAGE)


@pytest.mark.parametrize("accepted", [True, False])
def test_answered_probe_opens_the_relay_and_is_proof_if_it_was_accepted(accepted: bool) -> None:
    world = World()
    slot = world.probe()
    world.pacer.opened(slot, accepted=accepted)
    proof = {"accepted_at": world.ms(0)} if accepted else {}
    assert world.table.item == {"next": world.ms(0.05 + SPACING)} | proof


def test_answered_probe_gives_its_lease_back_where_another_closed_the_relay_meanwhile() -> None:
    world = World()
    slot = world.probe()
    world.put(closed_until=120)
    world.pacer.opened(slot, accepted=True)
    assert world.table.item["closed_until"] == world.ms(120)
    assert world.table.item["closed_reason"] == str(OUTAGE)
    assert world.table.item.keys().isdisjoint({"probe_until", "accepted_at"})


def turn(world: World) -> Slot:
    slot, _ = world.pacer.turn(world.now + 60, lambda: None)
    return slot


def test_relay_that_closes_before_a_slot_is_closed_for_it_too() -> None:
    world = World(next=10, closed_reason=str(OUTAGE))
    closes = world.now + 5
    world.call(closes, lambda: world.put(closed_until=30))
    with pytest.raises(Closed) as refused:
        turn(world)
    assert refused.value.retry_at == closes + 30
    assert refused.value.closing == OUTAGE
    assert world.now == pytest.approx(1_000_009.5)  # half a second before the slot


def test_relay_that_closes_while_the_first_slot_after_a_rest_is_taken_gives_none() -> None:
    world = World()

    def closes(operation: str) -> None:
        if operation == "swap":
            world.put(closed_until=30)

    world.table.before = closes
    with pytest.raises(Closed):
        world.pacer.reserve(world.now + 60)
    assert "next" not in world.table.item


def test_probe_gives_its_lease_back_if_the_relay_closes_for_longer_before_its_slot() -> None:
    world = World(next=10, closed_until=-1)
    world.call(world.now + 5, lambda: world.put(closed_until=30))
    with pytest.raises(Closed):
        turn(world)
    assert "probe_until" not in world.table.item


def test_probe_whose_lease_another_has_taken_is_not_sent() -> None:
    world = World(next=10, closed_until=-1)
    world.call(world.now + 5, lambda: world.put(probe_until=40))
    with pytest.raises(Closed):
        turn(world)
    assert world.table.item["probe_until"] == 1_000_045_000


def test_probe_with_its_lease_is_sent() -> None:
    world = World(next=10, closed_until=-1)
    assert turn(world) == Slot(1_000_010.0, 1_000_040_000, 999_999_000, Closing("configuration"))
    assert world.now == 1_000_010


def test_probe_that_has_no_slot_before_the_deadline_is_left_to_another() -> None:
    world = World(next=20, closed_until=-1)
    before = dict(world.table.item)
    with pytest.raises(TooLate) as refused:
        world.pacer.reserve(world.now + 10)
    assert (refused.value.closing.code, refused.value.retry_at) == (NO_SLOT, world.now + 20)
    assert world.table.item == before


def test_probe_does_not_wait_for_a_next_slot_that_no_function_can_hold() -> None:
    world = World(next=5_000, closed_until=-1)
    slot = world.pacer.reserve(world.now + 60)
    assert slot.lease is not None
    assert slot.at <= world.now + 0.1


def test_connection_that_cannot_be_opened_is_reported_before_the_slot() -> None:
    world = World(next=10)
    assert world.pacer.turn(world.now + 60, lambda: "no route") == (Slot(1_000_010.0), "no route")
    assert world.now == 1_000_009.5


def test_slot_that_is_near_costs_no_read_of_the_item() -> None:
    """Each is a consistent read, which AWS bills, and time in which nothing is sent."""
    world = World()
    turn(world)
    assert world.table.reads == 0


@pytest.mark.parametrize("item", [{}, {"closed_until": -1.0}], ids=["open", "probe"])
def test_table_that_answers_late_costs_one_slot_and_the_next_is_further_ahead(item: dict[str, float]) -> None:
    """The probe keeps its lease meanwhile."""
    world = World(**item)
    world.table.after = lambda _: world.sleep(0.2)
    slot = turn(world)
    assert slot.at == pytest.approx(1_000_000.9)  # two calls of 0.2 s, and half a second ahead
    assert world.now == slot.at
    assert (slot.lease is None) is (item == {})


def test_slots_that_go_by_unused_end_the_turn_with_the_table_as_the_reason() -> None:
    """A table that answers after three seconds each time costs three slots and no request."""
    world = World()
    world.table.after = lambda _: world.sleep(3.0)
    with pytest.raises(TableUnavailable) as refused:
        turn(world)
    assert refused.value.retry_at == world.now + PAUSES.long
    assert refused.value.closing == Closing("no_table", "slots went by before the pacing table answered")


def test_next_slot_that_no_function_can_hold_is_damage_and_a_minute_stays_without_requests() -> None:
    world = World(next=86_400)
    assert world.pacer.reserve(world.now + 300).at == world.now + 60


@pytest.mark.parametrize(("closed", "counts"), [(1_199.0, True), (1_201.0, False)])
def test_closing_counts_up_to_twice_the_longest_pause(closed: float, counts: bool) -> None:
    world = World(closed_until=closed)
    if counts:
        with pytest.raises(Closed):
            world.pacer.reserve(world.now + 60)
    else:
        assert world.pacer.reserve(world.now + 60).lease is not None


@pytest.mark.parametrize(("leased", "counts"), [(989.0, True), (991.0, False)])
def test_lease_counts_as_long_as_a_function_can_hold_one(leased: float, counts: bool) -> None:
    world = World(closed_until=-1, probe_until=leased)
    if counts:
        with pytest.raises(Closed) as refused:
            world.pacer.reserve(world.now + 60)
        assert refused.value.retry_at == world.now + PAUSES.probe_wait
    else:
        assert world.pacer.reserve(world.now + 60).lease is not None


def test_relay_is_looked_at_again_when_a_lease_ends_within_a_second() -> None:
    world = World(closed_until=-1, probe_until=0.4)
    with pytest.raises(Closed) as refused:
        world.pacer.reserve(world.now + 60)
    assert refused.value.retry_at == world.now + 0.4


def test_probe_that_lost_its_lease_to_another_waits_for_the_answer() -> None:
    world = World(closed_until=-1, probe_until=20)
    with pytest.raises(Closed):
        world.pacer.reserve(world.now + 60, lease=world.ms(10))
    assert world.pacer.reserve(world.now + 60, lease=world.ms(20)).lease is not None


# --- A stack's share ---


def stack(world: World, rate: int, **others: int) -> Pacer:
    """The pacer of the stack ``staging``; ``others`` have just said their rates."""
    world.table.item |= {f"share/{name}": f"{said}@{world.ms(0)}" for name, said in others.items()}
    return shared(
        world.table,
        stack="staging",
        requests_per_minute=rate,
        arrival_spread=0.4,
        clock=world,
        sleep=world.sleep,
        pauses=PAUSES,
    )


def test_stack_says_its_share_again_after_five_minutes() -> None:
    """Each is a write of its own, which AWS bills."""
    world = World()
    pacer, shares = stack(world, 60), []
    for _ in range(20):
        pacer.turn(world.now + 60, lambda: None)
        shares.append(world.table.item["share/staging"])
        world.sleep(60)
    assert len(set(shares)) == 4  # in 20 minutes


def test_first_request_of_a_stack_waits_no_longer_than_one_of_the_whole_account() -> None:
    world = World()
    slot, _ = stack(world, 60).turn(world.now + 60, lambda: None)
    assert slot.at == 1_000_000.05


def test_stack_does_not_wait_for_a_turn_that_leaves_less_than_two_seconds() -> None:
    world = World()
    pacer = stack(world, 10)
    pacer.turn(world.now + 60, lambda: None)
    asked = world.now
    with pytest.raises(TooLate):
        pacer.turn(asked + interval(10, 0.4) + 1.5, lambda: None)
    assert world.now == asked
    pacer.turn(asked + interval(10, 0.4) + 2.5, lambda: None)


def test_stack_with_the_whole_rate_says_no_share() -> None:
    world = World()
    stack(world, 150).turn(world.now + 60, lambda: None)
    assert world.table.item.keys() == {"next"}
    assert world.table.others == {"share/staging": {}}  # and keeps no slots of its own


@pytest.mark.parametrize(
    ("rate", "others", "least"),
    [
        (100, {"production": 100}, 100),  # who is as large leaves all: the account's slots divide the rest
        (100, {"production": 120}, 100),
        (120, {"trial": 90}, 60),
        (150, {"trial": 100, "test": 60}, 1),  # one a minute, although nothing is left
    ],
)
def test_stack_keeps_to_what_smaller_ones_leave(rate: int, others: dict[str, int], least: int) -> None:
    world = World()
    pacer, times = stack(world, rate, **others), []
    for _ in range(3):
        pacer.turn(world.now + 120, lambda: None)
        times.append(world.now)
    # With the first it reads what the others said, with the second it begins to keep to it.
    assert times[2] - times[1] == pytest.approx(interval(least, 0.4), abs=0.4)


def test_stack_whose_own_item_is_contended_waits_for_it() -> None:
    world = World()
    own = world.table.at("share/staging").item

    def hook(_: str) -> None:
        own["next"] = int(own.get("next", world.ms(-10))) + 1

    world.table.before = hook
    pacer = stack(world, 60)
    with pytest.raises(TableUnavailable) as refused:
        pacer.turn(world.now + 60, lambda: None)
    assert refused.value.retry_at == world.now + PAUSES.brief
