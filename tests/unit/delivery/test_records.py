"""Records in, messages out: the crash rule, deferring, parking."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from handler import messages
from handler.closing import Closing
from handler.delivery import crashes, jobs, returns
from handler.delivery.records import Received, Record, of_event, read
from handler.delivery.returns import RefusedRows
from handler.errors import Closed, NoSlot, TooLate
from handler.messages import Message, Outgoing
from handler.pauses import PAUSES
from sim.queue import Queue, Sqs
from sim.time import Time
from tests.unit.support_delivery import event

NOW = 1_790_000_000.0
AT = "2026-09-21T14:13:20+00:00"


def message(*names: str, **flags: Any) -> Message:
    return Message(flags.pop("source", "shop"), tuple(event(name) for name in names), NOW - 60, **flags)


def record(body: str, receives: int = 1, crashes: str = "") -> dict[str, Any]:
    return {
        "messageId": "1",
        "receiptHandle": "r1",
        "body": body,
        "attributes": {"ApproximateReceiveCount": str(receives)},
        "messageAttributes": {"crashes": {"stringValue": crashes, "dataType": "String"}} if crashes else {},
    }


def records(*accounts: tuple[int, bool]) -> list[Record]:
    """Records with their crashes by now, and whether this copy came back."""
    return [
        Record(str(n), f"r{n}", messages.encode(message(f"e{n}")), "shop", {}, crashes, returned)
        for n, (crashes, returned) in enumerate(accounts)
    ]


NEW, ONCE, TWICE = (0, False), (1, False), (2, False)
BACK = (1, True)


@pytest.mark.parametrize(
    ("receives", "told", "crashes"), [(1, "", 0), (2, "", 1), (400, "", 1), (1, "2", 2), (9, "2", 3), (1, "-7", 0)]
)
def test_a_return_counts_once_however_often_sqs_counted_it(receives: int, told: str, crashes: int) -> None:
    (found,) = of_event([record(messages.encode(message("a")), receives, told)])
    assert (found.crashes, found.returned) == (crashes, receives > 1)
    assert (found.group, found.attributes) == ("shop", {})


def test_garbage_is_parked_with_its_reason_and_a_newer_format_waits_for_newer_code() -> None:
    newer = '{"v":2,"kind":"events","source":"shop","received":1}'
    given = [Record("1", "r", "garbage", "g", {}), *(Record(str(n + 1), "r", newer, "g", {}, n) for n in (1, 2))]
    found = read(given, at=AT)
    assert found.newer == ["2"]
    assert [(name, out.attributes["reason"], out.body) for name, out in found.unreadable] == [
        ("1", "unreadable_message", "garbage"),
        ("3", "newer_format", newer),
    ]


def test_ordinary_records_are_all_handled() -> None:
    triage = crashes.triage(records(NEW, NEW, ONCE), stagger=PAUSES.stagger)
    assert len(triage.handle) == 3
    assert not triage.resend
    assert not triage.park


def test_what_came_back_twice_is_handled_alone_and_the_rest_sent_anew_first() -> None:
    triage = crashes.triage(records(NEW, TWICE, TWICE, ONCE, (3, True)), stagger=PAUSES.stagger)
    assert [one.id for one in triage.handle] == ["1"]
    assert [one.id for one in triage.park] == ["4"]
    resent = {one.id: crashes.again(one, delay) for one, delay in triage.resend}
    assert {name: out.attributes.get("crashes") for name, out in resent.items()} == {"0": None, "2": "2", "3": "1"}
    assert resent["0"].delay == 0
    assert resent["2"].delay >= PAUSES.stagger


def test_what_comes_back_is_written_down_before_it_is_handled_again() -> None:
    triage = crashes.triage(records(NEW, BACK, (2, True)), stagger=PAUSES.stagger)
    assert [one.id for one in triage.handle] == ["0"]
    resent = {one.id: crashes.again(one, delay).attributes for one, delay in triage.resend}
    assert resent == {"1": {"crashes": "1"}, "2": {"crashes": "2"}}


def test_a_redriven_message_keeps_its_reason_while_it_is_sent_anew() -> None:
    body = messages.encode(message("a"))
    given = record(body, receives=2)
    given["messageAttributes"] = {"reason": {"stringValue": "crashed", "dataType": "String"}}
    ((one, delay),) = crashes.triage(of_event([given]), stagger=PAUSES.stagger).resend
    assert crashes.again(one, delay).attributes == {"reason": "crashed", "crashes": "1"}
    assert crashes.again(one, delay).body == body


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200))
def test_nobody_is_forgotten_or_handled_twice(accounts: list[tuple[int, bool]]) -> None:
    triage = crashes.triage(records(*accounts), stagger=PAUSES.stagger)
    names = [one.id for one in [*triage.handle, *triage.park, *(one for one, _ in triage.resend)]]
    assert sorted(names) == sorted(str(number) for number in range(len(accounts)))
    assert all(0 <= delay <= 900 for _, delay in triage.resend)
    assert sum(one.crashes == 1 for one in triage.handle) <= crashes.SHAKY


def crash_story(count: int, poison: str) -> tuple[set[str], set[str], int]:
    """Deliver ``count`` messages one of which kills the process; who is delivered, who parked, invocations."""
    queue: list[tuple[dict[str, Any], int]] = [(record(messages.encode(message(f"m{n}"))), 0) for n in range(count)]
    delivered: set[str] = set()
    parked: set[str] = set()
    now = invocations = 0
    while queue:
        invocations += 1
        assert invocations < 5_000
        now = max(now, min(due for _, due in queue))
        taken = [one for one, due in queue if due <= now + 5]
        queue = [(one, due) for one, due in queue if due > now + 5]
        triage = crashes.triage(of_event(taken), stagger=PAUSES.stagger)
        parked |= {name(one) for one in triage.park}
        for one, delay in triage.resend:
            out = crashes.again(one, delay)
            queue.append((record(out.body, 1, out.attributes.get("crashes", "")), now + delay))
        if any(name(one) == poison for one in triage.handle):
            # The process dies: what was in hand comes back after the visibility timeout.
            queue += [
                (record(one.body, 2, str(one.crashes) if one.crashes else ""), now + 725) for one in triage.handle
            ]
        else:
            delivered |= {name(one) for one in triage.handle}
        now += 6
    return delivered, parked, invocations


def name(one: Record) -> str:
    body = messages.decode(one.body)
    assert isinstance(body, Message)
    return body.events[0].unique_id


@pytest.mark.parametrize("count", [1, 4, 1_000])
def test_a_message_that_kills_the_process_is_parked_and_its_neighbours_are_delivered(count: int) -> None:
    delivered, parked, invocations = crash_story(count, "m1" if count > 1 else "m0")
    assert parked == {"m1" if count > 1 else "m0"}
    assert len(delivered) == count - 1
    assert invocations < 200


def test_deferred_events_travel_together_and_remember() -> None:
    got = [Received(str(n), message(f"a{n}", deferred=n % 2)) for n in range(150)]
    work = jobs.pack([(n, one.message) for n, one in enumerate(got) if isinstance(one.message, Message)], now=NOW)
    cause = Closed(NOW + 30, Closing("outage", "status_503"))
    parcels = returns.defer(work, got, cause=cause, now=NOW, random=lambda: 0.5, pauses=PAUSES)
    assert len(parcels) == 2
    assert frozenset().union(*(parcel.owners for parcel in parcels)) == frozenset(range(150))
    for parcel in parcels:
        body = messages.decode(parcel.outgoing.body)
        assert isinstance(body, Message)
        assert body.deferred in (1, 2)
        assert body.received == NOW - 60
        assert not body.suspect
        assert 30 <= parcel.outgoing.delay <= 60


def test_suspects_stay_apart_and_count_from_their_refusal() -> None:
    got = [Received("0", message("a", "b", "c", deferred=7))]
    (job,) = jobs.pack([(0, got[0].message)] if isinstance(got[0].message, Message) else [], now=NOW)
    parcels = returns.defer(
        job.halves(), got, cause=TooLate(NOW, Closing("no_slot", "busy")), now=NOW, random=lambda: 0.5, pauses=PAUSES
    )
    bodies = [messages.decode(parcel.outgoing.body) for parcel in parcels]
    assert [(body.suspect, body.deferred, len(body.events)) for body in bodies if isinstance(body, Message)] == [
        (True, 0, 1),
        (True, 0, 2),
    ]


def test_late_events_are_deferred_as_they_came() -> None:
    got = [Received("0", message("a"))]
    assert isinstance(got[0].message, Message)
    work = jobs.pack([(0, got[0].message)], now=NOW + 90_000, late_after=86_400)
    assert '"backfill":true' in work[0].body().decode()
    (parcel,) = returns.defer(work, got, cause=None, now=NOW, random=lambda: 0.5, pauses=PAUSES)
    assert messages.decode(parcel.outgoing.body).events == got[0].message.events  # type: ignore[union-attr]  # it is no raw one


@given(
    st.none() | st.builds(NoSlot, st.floats(NOW - 1e6, NOW + 1e6), st.just(Closing("outage"))),
    st.integers(0, 10_000),
    st.floats(0, 1),
)
def test_delays_are_what_sqs_takes(cause: NoSlot | None, deferred: int, chance: float) -> None:
    assert 1 <= returns.delay(cause, deferred, now=NOW, random=lambda: chance, pauses=PAUSES) <= 900


def test_waiting_out_a_day_costs_a_message_few_sends() -> None:
    now, sends = NOW, 0
    while now < NOW + 86_400:
        now += returns.delay(Closed(now + 15, Closing("outage")), sends, now=now, random=lambda: 0.5, pauses=PAUSES)
        sends += 1
    assert sends < 170


def test_parked_rows_share_a_message_and_come_back_as_new() -> None:
    got = [Received(str(n), message(f"a{n}", deferred=9, suspect=True), 1) for n in range(3)]
    given = [(n, one.message) for n, one in enumerate(got) if isinstance(one.message, Message)]
    work = [row for job in jobs.pack(given, now=NOW) for row in job.rows]
    parcels = returns.park([RefusedRows((row,), "refused_by_klaviyo", "Invalid.") for row in work], got, at=AT)
    (parcel,) = parcels
    body = messages.decode(parcel.outgoing.body)
    assert isinstance(body, Message)
    assert (body.deferred, body.suspect, len(body.events)) == (0, False, 3)
    assert "crashes" not in parcel.outgoing.attributes
    assert parcel.owners == frozenset({0, 1, 2})
    assert parcel.outgoing.attributes["reason"] == "refused_by_klaviyo"


def test_a_crasher_comes_back_from_a_redrive_to_be_handled_alone() -> None:
    parked = crashes.crashed(records((3, True))[0], at=AT)
    assert parked.attributes["source"] == "shop"
    (again,) = of_event([record(parked.body, 1, parked.attributes["crashes"])])
    assert crashes.triage([*records(NEW), again], stagger=PAUSES.stagger).handle == [again]


def test_only_what_the_queue_did_not_take_stays() -> None:
    parcels = [returns.Parcel(Outgoing(body, "g"), frozenset({n})) for n, body in enumerate(["aa", "bb", "bb"])]
    sqs = Sqs({"queue": Queue("queue", Time())}, refuse=lambda entry: "b" in entry["MessageBody"])
    client: Any = sqs
    assert returns.send(client, "queue", parcels) == {1, 2}

    def down(operation: str, _: object) -> None:
        raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, operation)

    sqs.before = down
    assert returns.send(client, "queue", parcels) == {0, 1, 2}
    assert returns.send(client, "queue", []) == frozenset()


def test_the_parked_form_is_the_queues_own() -> None:
    assert json.loads(crashes.crashed(records((3, True))[0], at=AT).body.split("\n")[0])["kind"] == "events"


def deferrals(cause: NoSlot, *times: int, deferred: int = 3) -> list[tuple[Message, Outgoing]]:
    """What messages with one event each, of these times, are sent again as."""
    got = [
        Received(str(n), Message("shop", (event(f"t{n}", time=time),), NOW, deferred=deferred))
        for n, time in enumerate(times)
    ]
    work = jobs.pack([(n, one.message) for n, one in enumerate(got) if isinstance(one.message, Message)], now=NOW)
    parcels = returns.defer(work, got, cause=cause, now=NOW, random=lambda: 1.0, pauses=PAUSES, late_after=86_400)
    decoded = [(messages.decode(parcel.outgoing.body), parcel.outgoing) for parcel in parcels]
    return [(body, outgoing) for body, outgoing in decoded if isinstance(body, Message)]


@pytest.mark.parametrize(
    ("cause", "most", "counted"),
    [
        (Closed(NOW + 120, Closing("throttled", "Klaviyo asked to wait")), 130, 3),
        (TooLate(NOW + 120, Closing("no_slot", "busy")), 130, 3),
        (Closed(NOW + 120, Closing("outage", "status_503")), 200, 4),
    ],
)
def test_what_ends_when_it_says_is_neither_counted_nor_waited_for_longer(
    cause: NoSlot, most: int, counted: int
) -> None:
    ((body, outgoing),) = deferrals(cause, int(NOW))
    assert 120 <= outgoing.delay <= most
    assert body.deferred == counted


def test_late_events_go_on_in_the_group_of_the_backfills() -> None:
    found = deferrals(TooLate(NOW, Closing("no_slot", "busy")), int(NOW) - 86_401, int(NOW) - 86_399)
    assert {(body.events[0].unique_id, outgoing.group) for body, outgoing in found} == {
        ("t0", "shop#backfill"),
        ("t1", "shop"),
    }


LONG = returns.LONGEST_WAIT


def waited(*seconds: float) -> list[Received]:
    """Messages that were first sent again so long ago; 0: never."""
    since = [int(NOW - one) if one else 0 for one in seconds]
    return [Received(str(n), message(f"w{n}", waiting_since=one)) for n, one in enumerate(since)]


def packed(got: list[Received]) -> list[jobs.Job]:
    return jobs.pack([(n, one.message) for n, one in enumerate(got) if isinstance(one.message, Message)], now=NOW)


def test_what_waited_for_thirteen_days_is_parked_with_the_reason_and_its_neighbours_wait_on() -> None:
    got = waited(0, 60, LONG - 60, LONG + 60)
    cause = Closed(NOW + 30, Closing("outage", "status_503"))
    left, parked = returns.overdue(packed(got), got, cause=cause, now=NOW)
    assert {row.event.unique_id for job in left for row in job.rows} == {"w0", "w1", "w2"}
    (one,) = parked
    assert ([row.event.unique_id for row in one.rows], one.reason) == (["w3"], "waited_too_long")
    assert "13 days" in one.detail
    assert "outage" in one.detail


def test_a_message_waits_from_its_first_deferral_on_and_a_redrive_begins_again() -> None:
    got = waited(0, 3 * returns.DAY + 60, 3 * returns.DAY + 90)
    parcels = returns.defer(
        packed(got), got, cause=TooLate(NOW, Closing("no_slot", "busy")), now=NOW, random=lambda: 0.5, pauses=PAUSES
    )
    since = {event.unique_id: body.waiting_since for body in decoded(parcels) for event in body.events}
    assert since == {"w0": int(NOW), "w1": int(NOW) - 3 * returns.DAY - 60, "w2": int(NOW) - 3 * returns.DAY - 60}
    waiting = got[1:]
    rows = tuple(row for job in packed(waiting) for row in job.rows)
    parked = returns.park([RefusedRows(rows, "waited_too_long", "waited")], waiting, at=AT)
    assert {body.waiting_since for body in decoded(parked)} == {0}


def test_what_was_parked_as_it_is_waits_from_its_redrive_on() -> None:
    body = messages.encode(message("a", waiting_since=int(NOW - LONG) - 60))
    crashed = crashes.crashed(Record("1", "r1", body, "shop", {}, 3, returned=True), at=AT)
    typed = {name: {"stringValue": text, "dataType": "String"} for name, text in crashed.attributes.items()}
    back = read(of_event([record(crashed.body) | {"messageAttributes": typed}]), at=AT).received
    assert returns.overdue(packed(back), back, cause=TooLate(NOW, Closing("no_slot", "busy")), now=NOW)[1] == []


def decoded(parcels: list[returns.Parcel]) -> list[Message]:
    bodies = [messages.decode(parcel.outgoing.body) for parcel in parcels]
    return [body for body in bodies if isinstance(body, Message)]


@given(st.lists(st.integers(0, 20 * 86_400), min_size=1, max_size=40))
def test_no_event_inherits_the_waiting_of_one_that_began_on_another_day(ages: list[int]) -> None:
    got = waited(*ages)
    given = {f"w{n}": int(NOW - age) if age else int(NOW) for n, age in enumerate(ages)}
    parcels = returns.defer(
        packed(got), got, cause=TooLate(NOW, Closing("no_slot", "busy")), now=NOW, random=lambda: 0.5, pauses=PAUSES
    )
    for body in decoded(parcels):
        for one in body.events:
            assert 0 <= body.waiting_since - given[one.unique_id] < returns.DAY


def test_what_is_parked_comes_back_behind_what_is_new() -> None:
    assert crashes.crashed(records((3, True))[0], at=AT).group == "shop#redrive"
