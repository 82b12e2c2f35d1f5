"""The crash rule: who is handled with whom, what counts as evidence, and that nobody innocent is parked."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import messages
from handler.delivery import crashes
from handler.delivery.crashes import DEATHS, Deaths, Trial
from handler.delivery.klaviyo import Answer
from handler.delivery.pacing import Pacer, State
from handler.delivery.records import Record
from handler.errors import Crashed
from handler.messages import Message, decode
from handler.pauses import PAUSES
from sim.faults import decoding
from sim.klaviyo import Request
from sim.queue import Message as Kept
from sim.table import Table
from sim.time import Time
from tests.unit.support_delivery import event, no_table, pacer
from tests.unit.support_queue import Delivery, Killed, Points

pytestmark = pytest.mark.filterwarnings("ignore:No application metrics:UserWarning")  # a killed function leaves none
DAY, HOUR = 86_400, 3_600


def chance() -> Callable[[], float]:
    return random.Random(1).random  # noqa: S311 (chances, no secret)


def function(table: Table, clock: Time, paced: Pacer | None = None) -> Deaths:
    """What one function knows of deaths."""
    return Deaths(table, pacer=paced or pacer(table, clock), clock=clock, pauses=PAUSES)


def noted(clock: Time, **ago: float | None) -> Table:
    """A table in which ``died`` and ``alive`` were so many seconds ago."""
    return Table({f"{name}_at": round((clock() - since) * 1000) for name, since in ago.items() if since is not None})


def record(name: str, receives: int = 9) -> Record:
    return Record(name, f"{name}#{receives}", "", {}, receives)


# --- Evidence ---


@pytest.mark.parametrize(
    ("died", "alive", "calm"),
    [
        (None, None, False),
        (10, None, False),
        (10, 20, False),
        (10, 10, False),
        (20, 10, True),
        (None, 10, True),
        (20, -30, True),  # a clock that is a little ahead
        (20, -DAY, False),
        (-DAY, 10, False),
    ],
)
def test_it_is_calm_once_everything_was_settled_after_the_last_death(
    died: float | None, alive: float | None, calm: bool
) -> None:
    clock = Time()
    deaths = function(noted(clock, died=died, alive=alive), clock)
    deaths.read(came_back=False)
    assert deaths.calm() is calm


def test_what_the_pacer_has_read_meanwhile_is_evidence_too() -> None:
    clock = Time()
    paced = pacer(Table(), clock)
    paced.known = State(alive_at=round(clock() * 1000) - 10_000)
    deaths = function(Table(), clock, paced)
    assert deaths.calm()
    paced.known = State(died_at=round(clock() * 1000) - 5_000)
    assert not deaths.calm()


@pytest.mark.parametrize(
    ("deaths", "died", "alive", "convicted"),
    [
        (DEATHS, HOUR + 1, HOUR, True),
        (DEATHS + 9, DAY, 1, True),
        (DEATHS - 1, HOUR + 1, HOUR, False),
        (DEATHS, HOUR - 1, 1, False),
        (DEATHS, HOUR + 1, HOUR + 2, False),
        (DEATHS, HOUR + 1, -DAY, False),
        (DEATHS, -DAY, 1, False),
    ],
)
def test_it_takes_seven_lone_deaths_an_hour_without_others_and_work_that_gets_done(
    deaths: int, died: float, alive: float, convicted: bool
) -> None:
    clock = Time()
    known = function(noted(clock, died=died, alive=alive), clock)
    known.read(came_back=False)
    assert known.convicts(Trial(deaths)) is convicted


@pytest.mark.parametrize("fault", ["away", "damaged"])
def test_without_the_table_there_is_no_evidence(fault: str) -> None:
    clock = Time()
    table = noted(clock, died=2 * HOUR, alive=10)
    table.at("trial/x").swap({}, {"deaths": DEATHS})
    if fault == "away":
        table = Table(table.item, before=_raise(lambda: no_table(clock)))
    else:
        table.item["died_at"] = "yesterday"
    deaths = function(table, clock)
    deaths.read(came_back=False)
    assert not deaths.calm()
    assert not deaths.convicts(Trial(DEATHS))
    if fault == "away":
        assert deaths.trial(record("x")) is None
        deaths.begin([record("x")])
        deaths.begin([record("x")], Trial(1))
        deaths.end(record("x"), Trial(1), cause="")
        deaths.died()


def _raise(fault: Callable[[], Exception]) -> Callable[[str], None]:
    def hook(_: str) -> None:
        raise fault()

    return hook


def test_what_came_back_is_noted_once_a_minute_and_after_each_sign_of_life() -> None:
    clock = Time()
    table = Table()
    deaths = function(table, clock)
    for seconds in (0.0, 30.0, 29.0):
        clock.sleep(seconds)
        deaths.read(came_back=True)
    assert table.item["died_at"] == round((clock() - 59) * 1000)
    deaths.settled()
    clock.sleep(0.5)
    deaths.read(came_back=True)
    assert table.item["died_at"] == round(clock() * 1000)
    clock.sleep(61.0)
    deaths.read(came_back=True)
    assert table.item["died_at"] == round(clock() * 1000)
    clock.sleep(61.0)
    deaths.read(came_back=False)
    assert table.item["died_at"] == round((clock() - 61) * 1000)


def test_a_death_that_is_said_to_come_tomorrow_is_corrected_by_the_next() -> None:
    clock = Time()
    table = noted(clock, died=-DAY, alive=10)
    function(table, clock).read(came_back=True)
    assert table.item["died_at"] == round(clock() * 1000)


def test_one_sign_of_life_after_a_death_is_enough() -> None:
    clock = Time()
    table = noted(clock, died=10)
    deaths = function(table, clock)
    deaths.settled()
    assert table.writes == 0  # nobody died as far as it knows
    deaths.read(came_back=False)
    for _ in range(5):
        deaths.settled()
        clock.sleep(1.0)
    assert table.item["alive_at"] == round((clock() - 5) * 1000)
    assert table.writes == 1
    assert deaths.calm()


def test_what_could_not_be_settled_counts_like_a_death() -> None:
    clock = Time()
    table = noted(clock, died=2 * HOUR, alive=HOUR)
    deaths = function(table, clock)
    deaths.read(came_back=False)
    assert deaths.convicts(Trial(DEATHS))
    deaths.died()
    assert table.item["died_at"] == round(clock() * 1000)
    assert not deaths.calm()


# --- Trials ---


def test_a_trial_counts_from_the_moment_a_message_is_alone() -> None:
    clock = Time()
    table = Table()
    deaths, suspect = function(table, clock), record("one")
    assert deaths.trial(suspect) is None
    deaths.begin([suspect])
    assert deaths.trial(suspect) == Trial(0)
    for count in range(3):
        deaths.begin([suspect], Trial(count))
        assert deaths.trial(suspect) == Trial(count + 1)
    assert deaths.trial(record("two")) is None
    assert table.at("trial/one").item["expires_at"] == round(clock()) + 15 * DAY


@pytest.mark.parametrize("cause", ["", "ValueError at x.py:1"])
def test_a_trial_that_the_table_did_not_note_leaves_no_item_that_never_expires(cause: str) -> None:
    clock = Time()
    table = Table()
    function(Table(before=_raise(lambda: no_table(clock))), clock).begin([record("x")], Trial(0))
    function(table, clock).end(record("x"), Trial(0), cause=cause)
    assert not table.at("trial/x").read()


def test_two_functions_with_one_message_count_one_trial() -> None:
    clock = Time()
    table = Table()
    deaths, suspect = function(table, clock), record("one")
    deaths.begin([suspect])
    deaths.begin([suspect], Trial(0))
    deaths.begin([suspect], Trial(0))
    deaths.begin([suspect])
    assert deaths.trial(suspect) == Trial(1)


def test_who_raises_is_not_acquitted_and_the_cause_is_kept() -> None:
    clock = Time()
    table = Table()
    deaths, suspect = function(table, clock), record("one")
    deaths.begin([suspect])
    deaths.begin([suspect], Trial(0))
    deaths.end(suspect, Trial(0), cause="ValueError at folder/file.py:7")
    assert deaths.trial(suspect) == Trial(1, "ValueError at folder/file.py:7")
    assert "died_at" not in table.item


@pytest.mark.parametrize("before", [0, 1, DEATHS])
def test_who_survives_is_acquitted_and_whatever_killed_it_before_is_something_else(before: int) -> None:
    clock = Time()
    table = noted(clock, died=2 * HOUR, alive=HOUR)
    deaths, suspect = function(table, clock), record("one")
    deaths.read(came_back=False)
    trial = Trial(before)
    table.at("trial/one").swap({}, {"deaths": before})
    deaths.begin([suspect], trial)
    deaths.end(suspect, trial, cause="")
    assert deaths.trial(suspect) == Trial(0)
    assert deaths.calm() is (before == 0)
    assert table.item["died_at"] == round((clock() - (0 if before else 2 * HOUR)) * 1000)


# --- Groups ---


def names(group: list[Record]) -> list[str]:
    return [record.id for record in group]


def test_what_came_back_once_or_twice_is_handled_among_many_and_before_the_others() -> None:
    clock = Time()
    records = [record(f"r{number}", 2 + number % 3) for number in range(1_000)]
    late = [record for record in records if record.receives > 3]
    groups = list(crashes.groups(records, function(Table(), clock), random=chance()))
    assert [len(group) for group, _ in groups] == [512, 155, 1, 2, 4, 8, 16, 32, 64, 64, 64, 64, 14]
    assert {record.receives for group, _ in groups[:2] for record in group} == {2, 3}
    assert {name for group, _ in groups[2:] for name in names(group)} == set(names(late))


def test_in_calm_weather_they_are_few_and_known_to_the_table_before_their_turn() -> None:
    clock = Time()
    table = noted(clock, died=20, alive=10)
    deaths = function(table, clock)
    deaths.read(came_back=False)
    sizes = []
    for group, trial in crashes.groups([record(f"r{n}") for n in range(30)], deaths, random=chance()):
        assert trial is None
        assert [deaths.trial(record) for record in group] == [Trial(0)] * len(group)
        sizes.append(len(group))
    assert sizes == [1, 2, 4, 8, 8, 7]


def test_who_was_among_few_that_died_is_alone_from_then_on() -> None:
    clock = Time()
    table = noted(clock, died=20, alive=10)
    deaths = function(table, clock)
    deaths.read(came_back=False)
    deaths.courage = 64
    tried = {f"r{n}": n for n in range(0, 30, 3)}
    for name, count in tried.items():
        table.at(f"trial/{name}").swap({}, {"deaths": count})
    alone = {}
    for group, trial in crashes.groups([record(f"r{n}") for n in range(30)], deaths, random=chance()):
        if trial is not None:
            (suspect,) = group
            alone[suspect.id] = trial.deaths
    assert alone == tried


def test_in_a_storm_nobody_is_alone_and_no_trial_begins() -> None:
    clock = Time()
    table = noted(clock, died=10, alive=20)
    deaths = function(table, clock)
    deaths.courage = 64
    deaths.read(came_back=False)
    table.at("trial/r1").swap({}, {"deaths": 3})
    groups = list(crashes.groups([record(f"r{n}") for n in range(30)], deaths, random=chance()))
    assert [(len(group), trial) for group, trial in groups] == [(30, None)]
    assert table.at("trial/r1").item == {"deaths": 3}
    assert table.at("trial/r2").item == {}


def test_whoever_stands_first_changes_so_that_a_message_that_kills_keeps_nobody_for_ever() -> None:
    clock = Time()
    drawn = chance()
    records = [record(f"r{n}") for n in range(10)]
    first = set()
    for _ in range(100):
        group, _ = next(crashes.groups(records, function(Table(), clock), random=drawn))
        first |= set(names(group))
    assert first == set(names(records))


@given(
    receives=st.lists(st.integers(1, 12), max_size=150),
    calm=st.booleans(),
    trials=st.dictionaries(st.integers(0, 149), st.integers(0, 9)),
    courage=st.sampled_from([1, 8, 64]),
    away=st.booleans(),
)
def test_each_has_its_turn_exactly_once(
    receives: list[int], calm: bool, trials: dict[int, int], courage: int, away: bool
) -> None:
    clock = Time()
    table = noted(clock, died=20, alive=10 if calm else 30)
    for number, count in trials.items():
        table.at(f"trial/r{number}").swap({}, {"deaths": count})
    deaths = function(table, clock)
    deaths.read(came_back=False)
    deaths.courage = courage
    if away:
        table.before = _raise(lambda: no_table(clock))
    records = [record(f"r{n}", count) for n, count in enumerate(receives)]
    groups = list(crashes.groups(records, deaths, random=chance()))
    assert sorted(name for group, _ in groups for name in names(group)) == sorted(names(records))
    assert all(group for group, _ in groups)
    assert all(len(group) == 1 for group, trial in groups if trial is not None)


@pytest.mark.parametrize(
    ("receives", "reason", "back"), [(1, "", False), (2, "", True), (1, "crashed", True), (1, "no_identifier", False)]
)
def test_new_is_what_neither_came_back_nor_was_parked_for_it(receives: int, reason: str, back: bool) -> None:
    record = Record("x", "x", "", {"reason": reason} if reason else {}, receives)
    assert crashes.apart([record], now=0.0) == (([], [record], []) if back else ([record], [], []))


# --- The whole function: exceptions ---


def message(*of: str) -> Message:
    return Message("shop", tuple(event(name) for name in of), 1_789_999_990.0)


class World(Delivery):
    """Messages whose body holds a word in ``raises`` raise when they are decoded, those with one in ``kills`` kill.

    ``decoded`` has each call's events. ``takes`` is in seconds, for each message.
    """

    def __init__(self, **parts: Any) -> None:
        super().__init__(points=Points(), **parts)
        self.raises: set[str] = set()
        self.kills: set[str] = set()
        self.calls = 0
        self.takes = 0.0

    def hand_over(self, records: list[dict[str, Any]]) -> set[str]:
        with decoding(self._suffer):
            return super().hand_over(records)

    def _suffer(self, body: str) -> None:
        self.calls += 1
        self.clock.sleep(self.takes)
        if any(word in body for word in self.kills):
            raise Killed
        if any(word in body for word in self.raises):
            raise ValueError(body)

    def fill(self, *of: str, receives: int = 0) -> list[Kept]:
        kept = [self.events.put(messages.encode(message(name)), "shop") for name in of]
        for queued in kept:
            queued.receives = receives
        return kept

    def trickle(self, hours: int) -> set[str]:
        """A live event every ten minutes."""
        live = {f"live{number}" for number in range(6 * hours)}
        for number, name in enumerate(sorted(live)):
            self.events.put(messages.encode(message(name)), "shop", delay=600 * number)
        return live

    def through(self, seconds: float) -> None:
        """Invoke whenever something can be received, for so long; an invocation that raises leaves all in the queue."""
        end = self.clock() + seconds
        while (self.events.next_visible() or end) < end:
            self.wait()
            self.attempt()
        self.clock.until(end)

    def attempt(self) -> None:
        with suppress(Crashed):
            self.invoke()

    def waiting(self) -> list[str]:
        return self._names(self.events.messages.values())

    def reasons(self) -> dict[str, str]:
        """Why each event is in the dead-letter queue."""
        return {
            name: f"{kept.texts['reason']}: {kept.texts['detail']}"
            for kept in self.dead.messages.values()
            for name in self._names([kept])
        }

    def _names(self, kept: Any) -> list[str]:
        bodies = [decode(queued.body) for queued in kept]
        return [event.unique_id for body in bodies if isinstance(body, Message) for event in body.events]


@pytest.fixture
def world() -> World:
    return World()


def test_one_that_raises_among_a_thousand_holds_up_nobody_and_is_parked_with_its_exception(world: World) -> None:
    good = {f"n{number}" for number in range(999)}
    half = sorted(good)[:400]
    world.fill(*half)
    world.fill("odd")
    world.fill(*sorted(good - set(half)))
    world.raises = {"odd"}
    began = world.clock()
    world.invoke()
    assert set(world.klaviyo.stored) == good
    assert world.waiting() == ["odd"]
    live = world.trickle(8)
    while not world.dead:
        world.wait()
        world.attempt()
    assert HOUR < world.clock() - began < 4 * HOUR
    world.run()
    assert set(world.klaviyo.stored) == good | live
    ((name, reason),) = world.reasons().items()
    assert name == "odd"
    assert re.fullmatch(r"crashed: ValueError at delivery/test_crashes\.py:\d+", reason)


def test_a_release_that_raises_on_everything_leaves_everything_and_lambda_counts_an_error(world: World) -> None:
    world.fill(*(f"n{number}" for number in range(1_000)))
    world.raises = {"n"}
    with pytest.raises(Crashed, match=r"^ValueError at delivery/test_crashes\.py:\d+$"):
        world.invoke()
    assert len(world.waiting()) == 1_000
    assert world.calls < 40  # it does not try them one by one
    assert not world.dead


def test_a_message_that_waits_for_newer_code_hides_no_error_from_lambda(world: World) -> None:
    world.events.put('{"v":2,"kind":"events"}', "shop")
    world.fill(*[f"n{number}" for number in range(50)])
    world.raises = {'"n'}
    with pytest.raises(Crashed):
        world.invoke()
    assert world.calls < 30


def test_a_release_that_raises_on_everything_for_a_night_parks_nobody(world: World) -> None:
    sent = {f"n{number}" for number in range(20)}
    world.fill(*sorted(sent))
    world.raises = {"n"}
    world.through(8 * HOUR)
    assert not world.dead
    world.raises = set()
    world.run()
    assert set(world.klaviyo.stored) == sent
    assert not world.dead


@pytest.mark.parametrize("count", [1, 2])
def test_release_that_raises_on_the_few_messages_of_a_night_parks_none(world: World, count: int) -> None:
    """That all of them raised is no sign of life."""
    sent = [f"n{number}" for number in range(count)]
    world.fill(*sent)
    world.raises = {"n"}
    world.takes = 0.1
    world.through(10 * HOUR)
    assert not world.dead
    assert sorted(world.waiting()) == sent


def test_two_neighbours_that_raise_hold_up_nobody(world: World) -> None:
    good = [f"n{number}" for number in range(98)]
    world.fill("odd1", "odd2", *good)
    world.raises = {"odd"}
    world.invoke()
    assert sorted(world.klaviyo.stored) == sorted(good)
    assert sorted(world.waiting()) == ["odd1", "odd2"]


def test_two_that_raise_beside_what_was_settled_are_no_error_of_lambda(world: World) -> None:
    world.fill("good")
    world.fill("odd1", "odd2", receives=5)
    world.raises = {"odd"}
    world.invoke()
    assert world.klaviyo.stored == ["good"]
    assert sorted(world.waiting()) == ["odd1", "odd2"]


def test_it_ends_in_time_although_nothing_could_be_settled(world: World) -> None:
    world.fill(*(f"n{number}" for number in range(30)), receives=8)
    world.raises = {"n"}
    world.takes = 3.0
    began = world.clock()
    with pytest.raises(Crashed):
        world.invoke()
    assert world.clock() - began < 2 * PAUSES.returned


def test_new_messages_that_raise_one_by_one_take_no_longer_than_the_invocation(world: World) -> None:
    world.takes = 3.0
    odd = [f"odd{number}" for number in range(60)]
    world.fill("good", *odd)
    world.raises = {"odd"}
    began = world.clock()
    world.invoke()
    assert world.clock() - began < 120 - PAUSES.reserve + 2 * world.takes
    assert world.klaviyo.stored == ["good"]
    assert sorted(world.waiting()) == sorted(odd)


def test_what_cannot_be_read_is_parked_once_although_its_neighbour_raises(world: World) -> None:
    world.events.put("garbage", "shop")
    world.fill("a", "b", "c", "d", "odd")
    world.raises = {"odd"}
    world.invoke()
    assert [kept.body for kept in world.dead.messages.values()] == ["garbage"]


def test_what_was_parked_is_acknowledged_although_another_raises(world: World) -> None:
    world.fill("stuck", receives=900)[0].sent_at -= 8 * DAY
    world.fill("odd", receives=5)
    world.raises = {"odd"}
    world.invoke()
    assert world.waiting() == ["odd"]
    assert list(world.reasons()) == ["stuck"]


# --- The whole function: deaths ---


def test_what_was_settled_is_deleted_before_a_message_that_came_back_may_kill(world: World) -> None:
    world.fill("new1", "new2")
    world.fill("stuck1", "stuck2", receives=900)
    for kept in list(world.events.messages.values())[2:]:
        kept.sent_at -= 8 * DAY
    world.fill("poison", receives=1)
    world.kills = {"poison"}
    world.invoke()
    assert world.killed == 1
    assert sorted(world.klaviyo.stored) == ["new1", "new2"]
    assert sorted(world.reasons()) == ["stuck1", "stuck2"]
    assert world.waiting() == ["poison"]


def test_between_groups_too_what_was_settled_is_deleted(world: World) -> None:
    sent = [f"n{number}" for number in range(30)]
    world.fill(*sent, receives=8)
    seen: list[tuple[int, int]] = []
    deleted: list[str] = []

    def note(operation: str, asked: Any) -> None:
        if operation == "DeleteMessageBatch":
            deleted.extend(entry["ReceiptHandle"] for entry in asked["Entries"])

    world.sqs.before = note
    world.klaviyo.told = lambda request: seen.append((len(request.names), len(world.waiting())))
    world.invoke()
    assert len(deleted) == len(set(deleted)) == 15  # each once; the last group is acknowledged with the answer
    assert seen == [(1, 30), (2, 29), (4, 27), (8, 23), (15, 15)]


def test_courage_is_forgotten_with_the_process_that_dies(world: World) -> None:
    sizes: list[int] = []
    world.klaviyo.told = lambda request: sizes.append(len(request.names))
    world.fill(*(f"n{number}" for number in range(127)), receives=8)
    world.invoke()
    assert sizes == [1, 2, 4, 8, 16, 32, 64]
    sizes.clear()
    world.fill(*(f"m{number}" for number in range(20)), receives=8)
    world.invoke()
    assert sizes == [20]
    world.fill("poison")
    world.kills = {"poison"}
    world.invoke()
    sizes.clear()
    world.kills = set()
    world.fill(*(f"k{number}" for number in range(6)), receives=8)
    world.invoke()
    assert sizes == [1, 2, 3]


def test_while_what_is_settled_cannot_be_deleted_nothing_that_came_back_is_touched(world: World) -> None:
    world.fill("new")
    world.fill("back", receives=8)
    refuse = world.sqs.refuse
    world.sqs.refuse = lambda entry: entry.keys() == {"Id", "ReceiptHandle"}  # what is to be deleted
    world.invoke()
    assert world.klaviyo.stored == ["new"]
    world.sqs.refuse = refuse
    world.run()
    assert sorted(world.klaviyo.stored) == ["back", "new"]


def test_on_a_slow_queue_it_ends_in_time_and_what_had_no_turn_comes_again_soon(world: World) -> None:
    sent = [f"n{number}" for number in range(2_000)]
    world.fill(*sent, receives=2)
    before = world.sqs.before

    def slow(operation: str, asked: Any) -> None:
        world.clock.sleep(1.0)
        before(operation, asked)

    world.sqs.before = slow
    began = world.clock()
    world.invoke()
    assert world.clock() - began < PAUSES.returned + PAUSES.last + 10
    assert 0 < len(world.klaviyo.stored) < 2_000
    soon = [queued.visible_at - began for queued in world.events.messages.values() if queued.visible_at - began < 200]
    assert soon
    assert min(soon) > 0.2 * PAUSES.unreached
    world.sqs.before = before
    world.run()
    assert set(world.klaviyo.stored) == set(sent)
    assert not world.dead


def test_it_ends_in_time_although_what_is_new_takes_all_of_it(world: World) -> None:
    for number in range(400):
        world.put(Message(f"shop{number}", (event(f"n{number}"),), world.clock()))
    world.fill("back", receives=8)
    began = world.clock()

    def closes(_: Request) -> Answer:
        world.clock.until(began + 80)
        return world.klaviyo.answer(429)

    world.klaviyo.told = closes
    world.sqs.before = lambda *_: world.clock.sleep(1.9)
    world.invoke()
    assert world.clock() - began < 120


def test_what_came_back_has_its_turn_although_new_messages_would_take_every_invocation(world: World) -> None:
    world.klaviyo.told = lambda _: world.clock.sleep(3.0)
    for number in range(1_000):
        world.put(Message(f"shop{number}", (event(f"n{number}"),), world.clock(), suspect=True))
    sent = [f"back{number}" for number in range(6)]
    world.fill(*sent, receives=8)
    world.invoke()
    assert set(sent) <= set(world.klaviyo.stored)
    assert len(world.klaviyo.stored) < 1_006


def test_without_messages_that_came_back_new_ones_have_all_the_time(world: World) -> None:
    world.klaviyo.told = lambda _: world.clock.sleep(3.0)
    for number in range(1_000):
        world.put(Message(f"shop{number}", (event(f"n{number}"),), world.clock(), suspect=True))
    began = world.clock()
    world.invoke()
    assert world.klaviyo.requests[-1].at - began > 120 - PAUSES.reserve - PAUSES.returned


def test_function_that_stops_alone_sends_what_came_back_to_the_queue_again(world: World) -> None:
    def refuse(_: Request) -> Answer:
        world.table.item["delivered_at"] = round(world.clock() * 1000)
        return world.klaviyo.answer(400, [{"title": "Malformed body"}])

    world.klaviyo.told = refuse
    world.table.item["delivered_at"] = round(world.clock() * 1000)
    world.fill(*(f"new{number}" for number in range(4)))
    world.fill(*(f"back{number}" for number in range(40)), receives=8)
    world.invoke()
    assert len(world.klaviyo.requests) <= 6
    assert "closed_until" not in world.table.item
    assert len(world.waiting()) == 44
    assert {kept.receives for kept in world.events.messages.values()} == {0}  # it shows no death of theirs


def test_new_messages_have_half_of_a_short_invocation_if_others_came_back(world: World) -> None:
    world.seconds = PAUSES.reserve + 10
    world.takes = 4.0
    world.fill("new0")
    world.fill("back", receives=2)
    world.invoke()
    assert "new0" in world.klaviyo.stored


def test_what_had_no_turn_in_time_is_shown_again_within_a_minute(world: World) -> None:
    world.takes = 3.0
    world.fill("new")
    sent = [f"n{number}" for number in range(30)]
    world.fill(*sent, receives=8)
    world.invoke()
    ended = world.clock()
    kept = list(world.events.messages.values())
    assert len(kept) > 10
    after = [queued.visible_at - ended for queued in kept]
    assert 0.2 * PAUSES.unreached - 1 <= min(after) < max(after) <= 1.2 * PAUSES.unreached + 1
    assert max(after) - min(after) > 10
    world.takes = 0.0
    world.run()
    assert set(world.klaviyo.stored) == {"new", *sent}


def test_what_never_has_its_turn_is_parked_with_a_reason_before_sqs_moves_it(world: World) -> None:
    """SQS deletes nothing for longer than what came back may wait."""
    world.fill("back", receives=1)
    world.sqs.refuse = lambda entry: entry.keys() == {"Id", "ReceiptHandle"}
    began = world.clock()
    while not world.dead:
        world.wait()
        world.fill(f"n{len(world.klaviyo.stored)}")
        world.invoke()
    assert not world.events.moved
    assert 7 * DAY <= world.clock() - began < 7 * DAY + HOUR
    assert world.reasons()["back"].startswith("waited_too_long: ")


def test_one_that_kills_is_found_alone_after_seven_trials_and_nobody_else_is_parked(world: World) -> None:
    good = {f"n{number}" for number in range(50)}
    world.fill(*sorted(good), "poison")
    live = world.trickle(8)
    world.kills = {"poison"}
    began = world.clock()
    while not world.dead:
        world.wait()
        world.attempt()
    assert HOUR < world.clock() - began < 5 * HOUR
    assert DEATHS + 3 <= world.killed <= 20
    world.run()
    assert set(world.klaviyo.stored) == good | live
    assert world.reasons() == {"poison": f"crashed: {crashes.DIED}"}


@pytest.mark.parametrize("count", [5, 60])
def test_a_release_that_kills_everything_for_a_night_parks_nobody(world: World, count: int) -> None:
    sent = {f"n{number}" for number in range(count)}
    world.fill(*sorted(sent))
    world.kills = {"n"}
    world.through(10 * HOUR)
    assert not world.dead
    world.kills = set()
    began = world.clock()
    world.run()
    assert set(world.klaviyo.stored) == sent
    assert not world.dead
    assert world.clock() - began < 2 * HOUR


def test_in_a_storm_only_the_message_that_kills_is_parked_and_after_it(world: World) -> None:
    """Half of all requests kill the function for six hours."""
    chance = random.Random(7)  # noqa: S311 (chances, no secret)

    def storm(request: Request) -> None:
        if "poison" in request.names or (world.clock() < ends and chance.random() < 0.5):
            raise Killed

    world.klaviyo.told = storm
    ends = world.clock() + 6 * HOUR
    world.fill("poison")
    live = world.trickle(16)
    world.through(ends - world.clock())
    assert not world.dead
    world.run()
    assert list(world.reasons()) == ["poison"]
    assert set(world.klaviyo.stored) == live


def test_without_the_table_nobody_is_parked(world: World) -> None:
    live = world.trickle(1)
    world.fill("poison")
    world.kills = {"poison"}
    world.table_away = 1.0
    world.through(DAY / 2)
    assert not world.dead
    world.kills = set()
    world.table_away = 0.0
    world.run()
    assert set(world.klaviyo.stored) == live | {"poison"}


def test_who_died_in_a_storm_and_survives_alone_is_delivered_and_the_next_poison_waits_an_hour(world: World) -> None:
    innocent, poison = world.fill("innocent", "poison", receives=8)
    for kept in (innocent, poison):
        world.table.at(f"trial/{kept.id}").swap({}, {"deaths": DEATHS - 1 if kept is innocent else DEATHS})
    world.table.swap({}, {"died_at": round((world.clock() - 2 * HOUR) * 1000)})
    world.table.swap({}, {"alive_at": round((world.clock() - HOUR) * 1000)})
    world.events.hide(poison.id, 60)
    world.invoke()
    assert world.klaviyo.stored == ["innocent"]
    world.kills = {"poison"}
    world.wait()
    world.invoke()
    assert not world.dead


def test_a_parked_poison_kills_nobody_s_neighbours_after_a_redrive(world: World) -> None:
    body = messages.encode(message("poison"))
    parked = messages.parked_text(body, "shop", reason="crashed", detail="died", at="2026-09-21T14:13:20+00:00")
    typed = {name: {"DataType": "String", "StringValue": text} for name, text in parked.attributes.items()}
    world.events.put(body, "shop", attributes=typed)
    world.fill(*(f"n{number}" for number in range(20)))
    world.kills = {"poison"}
    world.invoke()
    assert world.killed == 1
    assert len(world.klaviyo.stored) == 20
    assert world.waiting() == ["poison"]


def test_queues_that_accept_nothing_write_it_down(world: World) -> None:
    world.klaviyo.told = lambda _: world.klaviyo.answer(503)
    world.fill("a")
    world.sqs.refuse = lambda _: True
    world.invoke()
    assert "died_at" in world.table.item
    assert "alive_at" not in world.table.item


def tried(world: World, deaths: int, *of: str) -> Kept:
    """A message of several events that died alone so often, in weather that convicts it."""
    kept = world.events.put(messages.encode(message(*of)), "shop")
    kept.receives = 9
    world.table.at(f"trial/{kept.id}").swap({}, {"deaths": deaths})
    now = round(world.clock() * 1000)
    world.table.swap({}, {"died_at": now - 7_200_000, "alive_at": now - 5_000})
    return kept


def test_message_that_raises_next_to_settled_ones_does_not_acquit_one_that_kills(world: World) -> None:
    """The function did not die of it, so the hour without deaths goes on."""
    tried(world, DEATHS, "poison")
    world.fill("good", "odd")
    world.raises = {"odd"}
    world.invoke()
    assert world.klaviyo.stored == ["good"]
    assert list(world.reasons()) == ["poison"]


def refusing(world: World) -> None:
    """Klaviyo refuses everything while another function delivers, and "poison" kills when it is posted."""

    def refuse(request: Request) -> Answer:
        if "poison" in request.names:
            raise Killed
        world.table.item["delivered_at"] = round(world.clock() * 1000)
        return world.klaviyo.answer(400, [{"title": "Malformed body"}])

    world.table.item["delivered_at"] = round(world.clock() * 1000)
    world.klaviyo.told = refuse


def test_function_that_stops_alone_acquits_nobody(world: World) -> None:
    kept = tried(world, DEATHS - 1, "poison")
    died_at = world.table.item["died_at"]
    refusing(world)
    world.fill("bad0", "bad1")
    world.invoke()
    assert world.killed == 0
    assert world.events.messages[kept.id].receives == 10
    assert world.table.at(f"trial/{kept.id}").read()["deaths"] == DEATHS - 1
    assert world.table.item["died_at"] == died_at


@pytest.mark.parametrize("refuses", [False, True])
def test_trial_without_a_request_shows_nothing(world: World, refuses: bool) -> None:
    """The relay is closed; the queue takes the message again, or does not."""
    kept = tried(world, DEATHS - 1, "poison")
    died_at = world.table.item["died_at"]
    world.table.item.update(closed_until=round((world.clock() + 60) * 1000), closed_reason="outage: no answer")
    world.sqs.refuse = lambda entry: refuses and "MessageBody" in entry
    world.invoke()
    assert not world.klaviyo.requests
    assert world.table.at(f"trial/{kept.id}").read()["deaths"] == DEATHS - 1
    assert (world.table.item["died_at"] == died_at) is not refuses
    assert len(world.waiting()) == 1


@pytest.mark.parametrize("deaths", [DEATHS, DEATHS + 1, DEATHS + 5])
def test_trials_beyond_the_seventh_cost_no_neighbour(world: World, deaths: int) -> None:
    """Trials go on while another message came back less than an hour ago, so that they may be more than seven."""
    tried(world, deaths, "poison", "good1", "good2")
    world.invoke()
    assert not world.dead
    assert len(world.events) == 3


@pytest.mark.parametrize("refused", ["all", "one"])
def test_parts_that_the_queue_refused_are_sent_at_the_next_turn(world: World, refused: str) -> None:
    kept = tried(world, DEATHS, "poison", "good1", "good2")
    world.sqs.refuse = lambda entry: refused == "all" or "good2" in entry["MessageBody"]
    world.invoke()
    assert kept.id in world.events.messages
    world.sqs.refuse = lambda _: False
    world.clock.until(kept.visible_at)
    (again,) = [queued for queued in world.events.receive(10) if queued.id == kept.id]
    assert world.hand_over([again.record()]) == set()
    assert not world.klaviyo.requests  # it is not handled again


@pytest.mark.parametrize("wrong", ["died_at", "alive_at"])
def test_a_time_that_the_table_no_longer_has_is_no_evidence(wrong: str) -> None:
    clock = Time()
    table = noted(clock, died=2 * HOUR, alive=10)
    deaths, right = function(table, clock), table.item[wrong]
    table.item[wrong] = round((clock() + DAY) * 1000)
    deaths.read(came_back=False)
    assert not deaths.calm()
    table.item[wrong] = right
    deaths.read(came_back=False)
    assert deaths.calm()


@pytest.mark.parametrize("why", ["stuck", "convicted"])
def test_what_the_dead_letter_queue_refuses_stays(world: World, why: str) -> None:
    if why == "stuck":
        world.fill("odd", receives=900)[0].sent_at -= 8 * DAY
    else:
        tried(world, DEATHS, "odd")
    world.sqs.refuse = lambda _: True
    world.invoke()
    assert world.waiting() == ["odd"]
    world.sqs.refuse = lambda _: False
    world.run()
    assert list(world.reasons()) == ["odd"]


def test_message_that_waits_for_newer_code_stays_while_what_came_back_is_handled(world: World) -> None:
    newer = world.events.put('{"v":2,"kind":"events"}', "shop")
    world.fill("back1", "back2", receives=8)
    world.invoke()
    assert sorted(world.klaviyo.stored) == ["back1", "back2"]
    assert list(world.events.messages) == [newer.id]
