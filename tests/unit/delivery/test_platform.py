"""AWS fails: functions killed at every step, messages twice and out of order, partial failures, a table away."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from handler import messages
from handler.delivery.klaviyo import Answer
from handler.messages import Event, Message, Raw
from sim import lines
from sim.faults import decoding
from sim.klaviyo import Request
from tests.unit.support_delivery import event
from tests.unit.support_queue import Delivery, Killed, delivery

# A killed function leaves no metrics; within one process its decorator notices.
pytestmark = pytest.mark.filterwarnings("ignore:No application metrics:UserWarning")
AT = 1_789_999_990.0
HEADERS = {"content-type": "application/json"}


def message(*names: str, **flags: bool | int) -> Message:
    return Message("shop", tuple(event(name) for name in names), AT, **flags)  # type: ignore[arg-type]


def raw(name: str, **profile: str) -> Raw:
    body = {"profile": profile, "metric": "Visited", "unique_id": name}
    return Raw("custom", json.dumps(body).encode(), HEADERS, AT, webhook_id=name)


def events_of(message: Message | Raw) -> tuple[Event, ...]:
    return (Event(json.loads(message.body)["unique_id"], 0, ""),) if isinstance(message, Raw) else message.events


def parked_names(world: Delivery) -> dict[str, set[str]]:
    """Names of events by the reason beside them; a raw webhook's is its body's ``unique_id``."""
    names: dict[str, set[str]] = {}
    for reason, message in world.parked():
        names.setdefault(reason, set()).update(event.unique_id for event in events_of(message))
    return names


def fill(world: Delivery) -> None:
    world.put(message("a", "b"))
    world.put(message("c", "bad"))
    world.put(raw("mapped", email="m@mail.example"))
    world.put(raw("unmapped"))
    world.klaviyo.bad = {"bad"}


def away_at_first(world: Delivery) -> None:
    """Klaviyo throttles the first request, so everything is sent again once."""
    fill(world)
    answers = iter([world.klaviyo.answer(429, Retry_After="30")])
    world.klaviyo.told = lambda _: next(answers, None)


def settled(world: Delivery) -> None:
    """Everything that ``fill`` put in is where it belongs, nothing without a reason, nothing half."""
    assert set(world.klaviyo.stored) == {"a", "b", "c", "mapped"}
    parked = parked_names(world)
    assert parked["refused_by_klaviyo"] == {"bad"}
    assert parked["no_identifier"] == {"unmapped"}
    assert set(parked) == {"refused_by_klaviyo", "no_identifier"}
    assert not world.events.moved


@pytest.mark.parametrize("begin", [fill, away_at_first], ids=["delivering", "deferring"])
def test_killed_once_at_every_step_it_loses_nothing(begin: Callable[[Delivery], None]) -> None:
    for point in itertools.count(1):
        with delivery({point}) as world:
            begin(world)
            world.run()
            settled(world)
            if not world.killed:
                break
    assert point > 12


def test_killed_twice_it_loses_nothing_and_parks_no_innocent() -> None:
    with delivery() as undisturbed:
        fill(undisturbed)
        undisturbed.run()
    twice = 0
    for first, gap in itertools.product(range(1, undisturbed.points.passed + 1), (1, 2, 5, 11)):
        with delivery({first, first + gap}) as world:
            fill(world)
            world.run()
            settled(world)
            twice += world.killed == 2
    assert twice > 30  # at the last steps of a run there is no second one to die at


class Deadly(io.StringIO):
    """Where the process dies that writes of the poison how it was mapped."""

    def write(self, text: str) -> int:
        if "webhook mapped again" in text and "poison" in text:
            raise Killed
        return len(text)


@pytest.mark.parametrize("neighbours", [3, 999])
@pytest.mark.parametrize("where", ["decoded", "mapped", "posted"])
def test_a_message_that_kills_the_process_is_parked_alone(neighbours: int, where: str) -> None:
    names = {f"n{number}" for number in range(neighbours)}
    with delivery() as world:

        def die(request: Request) -> None:
            if "poison" in request.names:
                raise Killed

        def die_of(body: str) -> None:
            if where == "decoded" and "poison" in body:
                raise Killed

        with decoding(die_of), lines.into(Deadly()):
            if where == "posted":
                world.klaviyo.told = die
            _beside(world, raw("poison", email="p@mail.example") if where == "mapped" else message("poison"), names)
        assert set(world.klaviyo.stored) == names
        assert parked_names(world) == {"crashed": {"poison"}}
        assert world.killed <= 20
        assert not world.events.moved


@pytest.mark.parametrize("refuses", [0.0, 0.5])
def test_events_that_travelled_with_a_killer_are_delivered(refuses: float) -> None:
    """Deferred events travel together, so that a message of several may hold the one that kills."""
    with delivery() as world:

        def die(request: Request) -> None:
            if "poison" in request.names:
                raise Killed

        world.klaviyo.told = die
        world.refuses = refuses
        world.put(message("a", "poison", "b"))
        for hour in range(48):  # without others nothing is known of how the relay works
            world.events.put(messages.encode(message(f"later{hour}")), group="shop", delay=3_600 * hour)
        world.run()
        assert set(world.klaviyo.stored) == {"a", "b", *(f"later{hour}" for hour in range(48))}
        assert parked_names(world) == {"crashed": {"poison"}}


def _beside(world: Delivery, poison: Message | Raw, names: set[str]) -> None:
    half = len(names) // 2
    for number, name in enumerate(sorted(names)):
        if number == half:
            world.put(poison)
        world.put(message(name))
    world.run()


@pytest.mark.parametrize("count", [3, 500])
def test_a_function_that_cannot_start_for_half_a_day_blames_no_message(count: int) -> None:
    """A broken deployment: everything is received again and again, and nothing of it is why."""
    names = {f"n{number}" for number in range(count)}
    with delivery() as world:
        for name in sorted(names):
            world.put(message(name))
        for _ in range(60):
            world.events.receive(10_000)
            world.clock.sleep(726)
        began = world.clock()
        world.run()
        assert set(world.klaviyo.stored) == names
        assert not world.dead
        assert world.clock() - began < 300
        assert len(world.klaviyo.requests) < 3 + count / 16


def test_queues_that_take_nothing_for_half_a_day_park_nobody() -> None:
    with delivery() as world:
        fill(world)
        world.klaviyo.told = lambda _: world.klaviyo.answer(503)
        world.refuses = 1.0
        end = world.clock() + 43_200
        while world.clock() < end:
            world.invoke()
            world.clock.sleep(60)
        assert not world.dead
        world.refuses = 0.0
        world.klaviyo.told = lambda _: None
        world.run()
        settled(world)


def test_rows_that_nobody_can_be_blamed_for_wait_and_a_morning_of_good_events_settles_it() -> None:
    """Two bad events on a quiet night: the relay is closed with an alarm until something is accepted."""
    with delivery() as world:
        world.klaviyo.bad, world.klaviyo.pointers = {"bad1", "bad2"}, False
        world.put(message("bad1"))
        world.put(message("bad2"))
        night = world.clock() + 8 * 3600
        while world.clock() < night:
            world.wait()
            world.invoke()
        assert not world.dead
        assert len(world.klaviyo.requests) < 200
        for number in range(8):  # each is another sign that Klaviyo's refusals are about these two
            world.events.put(messages.encode(message(f"good{number}")), group="shop", delay=1_200 * number)
        morning = world.clock()
        world.run()
        assert sorted(world.klaviyo.stored) == [f"good{number}" for number in range(8)]
        assert parked_names(world) == {"refused_by_klaviyo": {"bad1", "bad2"}}
        assert world.clock() - morning < 8 * 1_200 + 2_000


def test_lone_bad_event_of_a_quiet_day_is_parked_within_hours_and_closes_the_relay_twice_at_most() -> None:
    """Klaviyo names no event, and accepts another only once an hour."""
    with delivery() as world:
        world.klaviyo.bad, world.klaviyo.pointers = {"bad"}, False
        world.put(message("bad"))
        for hour in range(1, 7):
            world.events.put(messages.encode(message(f"good{hour}")), group="shop", delay=3_600 * hour)
        began = world.clock()
        world.run()
        assert parked_names(world) == {"refused_by_klaviyo": {"bad"}}
        tries = [request.at for request in world.klaviyo.requests if request.names == ["bad"]]
        assert tries[-1] - began < 3.5 * 3_600
        assert len(tries) <= 30  # 16, and a probe every 13 minutes while the relay is closed


def test_the_only_event_of_a_day_is_not_parked_because_klaviyo_refuses_everything() -> None:
    with delivery() as world:
        world.klaviyo.told = lambda _: world.klaviyo.answer(400, [{"title": "Malformed body"}])
        world.put(message("only"))
        evening = world.clock() + 86_400
        while world.clock() < evening:
            world.wait()
            world.invoke()
        assert not world.dead
        world.klaviyo.told = lambda _: None
        world.run()
        assert world.klaviyo.stored == ["only"]


@pytest.mark.parametrize("pause", [0.5, 4.0, 30.0, 240.0])
def test_when_klaviyo_begins_to_refuse_everything_what_it_took_before_proves_nothing(pause: float) -> None:
    """A revision is retired while events trickle in: each is alone in its job, and another was taken just before."""
    with delivery() as world:
        world.put(message("good"))
        world.run()
        world.klaviyo.told = lambda _: world.klaviyo.answer(400, [{"title": "Invalid input.", "detail": "No."}])
        names = {f"e{number}" for number in range(40)}
        for name in sorted(names):
            until = world.clock() + pause
            world.put(message(name))
            while (first := world.events.next_visible() or until) < until:
                world.clock.until(first)
                world.invoke()
            world.clock.until(until)
        assert not world.dead
        world.klaviyo.told = lambda _: None
        world.run()
        assert set(world.klaviyo.stored) == names | {"good"}


def test_bad_events_that_come_first_do_not_keep_the_relay_closed_for_the_good_ones_behind() -> None:
    with delivery(seed=3) as world:
        world.klaviyo.bad, world.klaviyo.pointers = {f"bad{number}" for number in range(20)}, False
        world.put(message(*sorted(world.klaviyo.bad)[:10]))
        world.put(message(*sorted(world.klaviyo.bad)[10:]))
        world.invoke()
        began = world.clock()
        good = {f"good{number}" for number in range(200)}
        for name in sorted(good):
            world.put(message(name))
        for hour in range(1, 25):  # of which the bad ones that were not settled beside those want one
            later = messages.encode(message(f"later{hour}"))
            world.events.put(later, group="shop", delay=hour * 3_600)
        world.run()
        assert good <= set(world.klaviyo.stored)
        assert parked_names(world) == {"refused_by_klaviyo": world.klaviyo.bad}
        assert max(request.at for request in world.klaviyo.requests if good & set(request.names)) - began < 4_000


def test_parked_poison_costs_no_neighbour_after_a_redrive() -> None:
    with delivery() as world:

        def die(request: Request) -> None:
            if "poison" in request.names:
                raise Killed

        world.klaviyo.told = die
        _beside(world, message("poison"), {"n1", "n2", "n3"})
        world.redrive()
        world.put(message("live"))
        world.klaviyo.requests.clear()
        world.run()
        assert world.klaviyo.requests[0].names == ["live"]
        assert [request.names for request in world.klaviyo.requests if "live" in request.names] == [["live"]]
        assert parked_names(world) == {"crashed": {"poison"}}


def test_a_table_away_defers_everything_and_posts_nothing() -> None:
    with delivery() as world:
        fill(world)
        world.table_away = 1.0
        for _ in range(5):
            world.wait()
            world.invoke()
        assert world.klaviyo.requests == []
        world.table_away = 0.0
        world.run()
        settled(world)


def test_a_message_of_a_later_format_waits_for_the_code_that_reads_it() -> None:
    with delivery() as world:
        later = messages.encode(message("later")).replace('"v":1', '"v":2', 1)
        world.events.put(later, group="shop")
        world.put(message("now"))
        world.invoke()
        assert list(world.klaviyo.stored) == ["now"]
        assert [queued.body for queued in world.events.messages.values()] == [later]  # unchanged, for the newer code
        # Nobody reads it for long: parked as it is, so that a redrive after the deployment brings it back.
        world.run()
        (kept,) = world.dead.messages.values()
        assert kept.body == later
        assert kept.texts["reason"] == "newer_format"


def test_a_message_with_fields_of_a_later_release_is_delivered() -> None:
    """Within one version, a release may add fields: those before ignore them, and lack none."""
    body = messages.encode(message("x")).replace('"kind"', '"added":{"by":"a later release"},"kind"', 1)
    with delivery() as world:
        world.events.put(body, group="shop")
        world.run()
        assert world.klaviyo.stored == ["x"]


# The format as the first release wrote it: a change that cannot read this must raise VERSION and keep reading it.
FIRST_RELEASE = (
    '{"v":1,"kind":"events","source":"shop","received":1789999990.0,"deferred":2,"crashes":1,"suspect":true,'
    '"backfill":true,"private_ids":true,"events":[["old",1789999990]]}\n'
)


def test_what_the_first_release_queued_is_read() -> None:
    kept = messages.decode(FIRST_RELEASE + event("old").entry)
    assert isinstance(kept, Message)
    assert (kept.deferred, kept.suspect, kept.backfill, kept.private_ids) == (2, True, True, True)


@dataclass(frozen=True)
class Weather:
    """What fails: where the function dies, chances for queues and table, and Klaviyo's first answers."""

    kills: frozenset[int]
    seed: int
    limit: int
    refuses: float
    away: float
    table: float
    twice: int
    statuses: tuple[int, ...]


WEATHER = st.builds(
    Weather,
    kills=st.frozensets(st.integers(1, 120), max_size=3),
    seed=st.integers(0, 1_000_000),
    limit=st.sampled_from([1, 3, 10_000]),
    refuses=st.sampled_from([0.0, 0.3, 0.6]),
    away=st.sampled_from([0.0, 0.2]),
    table=st.sampled_from([0.0, 0.2, 0.5]),
    twice=st.sampled_from([0, 4]),
    statuses=st.lists(st.sampled_from([202, 429, 503, 524, 413, 400, 401]), max_size=6).map(tuple),
)


def live(world: Delivery, name: str) -> None:
    """Send an event each hour: without them a refused one cannot be told from a Klaviyo that refuses everything."""
    for hour in range(8):
        world.events.put(messages.encode(message(f"{name}{hour}")), group="shop", delay=3_600 * (1 + hour))


@profile(max_examples=150)
@given(weather=WEATHER)
def test_whatever_fails_together_nothing_is_lost_and_a_redrive_brings_back_the_rest(weather: Weather) -> None:
    good = {"a", "b", "c", "mapped", *(f"s{number}" for number in range(12)), *(f"later{n}" for n in range(8))}
    with delivery(set(weather.kills), seed=weather.seed) as world:
        fill(world)
        for number in range(12):
            world.put(message(f"s{number}"))
        live(world, "later")
        world.refuses, world.away, world.table_away = weather.refuses, weather.away, weather.table
        world.twice = weather.twice
        answers = iter(weather.statuses)

        def told(_: Request) -> Answer | None:
            status = next(answers, 202)
            return world.klaviyo.answer(status, [] if status == 400 else None) if status != 202 else None

        world.klaviyo.told = told
        world.run(limit=weather.limit)
        parked = parked_names(world)
        assert set(world.klaviyo.stored).union(*parked.values()) == good | {"bad", "unmapped"}
        assert not world.events.moved
        assert parked.pop("waited_too_long", set()) <= {"bad"}
        assert set(parked) <= {"refused_by_klaviyo", "too_large", "no_identifier"}

        world.refuses = world.away = world.table_away = 0.0
        world.twice = 0
        world.points.kill.clear()
        world.klaviyo.told = lambda _: None
        live(world, "since")
        world.redrive()
        world.run()
        assert set(world.klaviyo.stored) == good | {f"since{n}" for n in range(8)}
        assert parked_names(world) == {"refused_by_klaviyo": {"bad"}, "no_identifier": {"unmapped"}}


def test_a_redrive_yields_to_live_events_and_ends_while_the_cause_persists() -> None:
    with delivery() as world:
        world.klaviyo.bad = {f"bad{number}" for number in range(40)}
        world.put(message("good", *sorted(world.klaviyo.bad)))
        world.put(raw("unmapped"))
        world.run()
        parked = parked_names(world)
        assert world.redrive() == 2
        world.klaviyo.requests.clear()
        world.put(message("live"))
        for hour in range(8):  # each proves that Klaviyo accepts events
            world.events.put(messages.encode(message(f"later{hour}")), group="shop", delay=3_600 * hour + 600)
        world.run()
        assert parked_names(world) == parked
        first, *others = [request.names for request in world.klaviyo.requests]
        assert first == ["live"]  # in a job that cannot be refused for the others' sake
        assert len(others) <= 8 * 2 * 40  # narrowed down once for each proof


def test_what_is_deferred_after_a_redrive_goes_on_yielding() -> None:
    with delivery() as world:
        world.klaviyo.bad = {"bad"}
        world.put(message("bad"))
        world.run()
        world.redrive()
        world.klaviyo.bad = set()
        answers = iter([world.klaviyo.answer(429, Retry_After="300")])
        world.klaviyo.told = lambda _: next(answers, None)
        world.invoke()
        (kept,) = world.events.messages.values()
        assert kept.group == "shop#backfill"
        world.run()
        assert world.klaviyo.stored == ["bad"]
        assert not world.dead


def test_what_was_sent_anew_before_the_queue_was_lost_does_not_come_twice() -> None:
    """Else each round of a queue that comes and goes would double what waits."""
    with delivery() as world:
        for number in range(25):
            world.put(message(f"s{number}", suspect=True))  # each is sent again by itself
        world.table_away = 1.0
        calls = iter([0.0, 1.0])
        before = world.sqs.before

        def once(operation: str, asked: Any) -> None:
            world.away = next(calls, 1.0)
            before(operation, asked)

        world.sqs.before = once
        world.invoke()
        names = [
            event.unique_id
            for kept in world.events.messages.values()
            for event in events_of(messages.decode(kept.body))
        ]
        assert sorted(names) == sorted(f"s{number}" for number in range(25))
