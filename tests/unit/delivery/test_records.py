"""Records in, messages out: reading, deferring, parking, and the calls of the queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from handler import messages
from handler.closing import Closing
from handler.delivery import jobs, returns
from handler.delivery.records import Parcel, Record, of_event, read
from handler.delivery.returns import Queues, RefusedRows
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


def record(body: str, texts: Mapping[str, str], receives: int = 1, sent_at: float = NOW) -> dict[str, Any]:
    """A record as Lambda hands it over; ``sent_at`` is epoch seconds."""
    return {
        "messageId": "1",
        "receiptHandle": "r1",
        "body": body,
        "attributes": {"ApproximateReceiveCount": str(receives), "SentTimestamp": str(round(sent_at * 1000))},
        "messageAttributes": {name: {"stringValue": text, "dataType": "String"} for name, text in texts.items()},
    }


def test_a_record_has_its_receives_its_time_and_the_texts_of_its_attributes() -> None:
    raw = record("body", {"reason": "crashed"}, 7, NOW - 1.5)
    raw["messageAttributes"]["bytes"] = {"binaryValue": "AA==", "dataType": "Binary"}
    (decoded,) = of_event([raw])
    assert decoded == Record("1", "r1", "body", {"reason": "crashed"}, 7, NOW - 1.5)


def test_garbage_is_parked_with_its_reason_and_a_newer_format_waits_for_newer_code() -> None:
    newer = '{"v":2,"kind":"events","source":"shop","received":1}'
    waits = [0.0, NOW, NOW - 3 * 86_400 + 1]
    records = [
        Record("garbage", "r", "garbage", {}),
        *(Record(f"waits{n}", "r", newer, {}, 400, since) for n, since in enumerate(waits)),
        Record("waited", "r", newer, {}, 2, NOW - 3 * 86_400 - 1),
    ]
    result = read(records, at=AT, now=NOW)
    assert [record.id for record in result.newer] == ["waits0", "waits1", "waits2"]
    assert [(owners, out.attributes["reason"], out.body) for out, owners in result.unreadable] == [
        ({0}, "unreadable_message", "garbage"),
        ({4}, "newer_format", newer),
    ]


def test_deferred_events_travel_together_and_remember() -> None:
    got = owners(*(message(f"a{n}", deferred=n % 2) for n in range(150)))
    work = packed(got)
    cause = Closed(NOW + 30, Closing("outage", "status_503"))
    parcels = returns.defer(work, got, cause=cause, now=NOW, random=lambda: 0.5, pauses=PAUSES)
    assert len(parcels) == 2
    assert {owner for parcel in parcels for owner in parcel.owners} == set(range(150))
    for parcel in parcels:
        body = messages.decode(parcel.outgoing.body)
        assert isinstance(body, Message)
        assert body.deferred in (1, 2)
        assert body.received == NOW - 60
        assert not body.suspect
        assert 30 <= parcel.outgoing.delay <= 60


def test_events_that_travel_together_are_as_old_as_the_first_of_them() -> None:
    """Age and lateness count from then, in the log and in the alarm."""
    received = (NOW - 60, NOW - 500, NOW - 300)
    got = owners(*(message(f"a{n}")._replace(received=at) for n, at in enumerate(received)))
    cause = TooLate(NOW, Closing("no_slot", "busy"))
    (body,) = decoded(returns.defer(packed(got), got, cause=cause, now=NOW, random=lambda: 0.5, pauses=PAUSES))
    assert len(body.events) == 3
    assert body.received == NOW - 500


def test_suspects_stay_apart_and_count_from_their_refusal() -> None:
    got = owners(message("a", "b", "c", deferred=7))
    (job,) = packed(got)
    cause = TooLate(NOW, Closing("no_slot", "busy"))
    halves = replace(job, refused_at=NOW - 1.5).halves()
    bodies = decoded(returns.defer(halves, got, cause=cause, now=NOW, random=lambda: 0.5, pauses=PAUSES))
    assert [(body.suspect, body.deferred, body.refused_at, len(body.events)) for body in bodies] == [
        (True, 0, NOW - 1, 1),
        (True, 0, NOW - 1, 2),
    ]


def test_events_that_were_refused_alone_stay_in_messages_of_their_own_with_their_refusals() -> None:
    """Left over from one job, so that the next can again hold all such events, and not those of one message."""
    counts = (4, 4, 2)
    got = owners(*(message(f"a{n}", suspect=True, refused_at=9, refusals=count) for n, count in enumerate(counts)))
    (job,) = packed(got)
    (held,) = jobs.pack([(7, message("b"))], now=NOW)
    got[7] = message("b")
    left = [job, replace(held, refused_at=NOW, refusals=3)]
    bodies = decoded(returns.defer(left, got, cause=None, now=NOW, random=lambda: 0.5, pauses=PAUSES))
    assert [(body.events[0].unique_id, len(body.events), body.refusals) for body in bodies] == [
        ("a0", 1, 4),
        ("a1", 1, 4),
        ("a2", 1, 2),
        ("b", 1, 3),
    ]


def test_rows_of_a_refused_job_share_a_message_and_are_apart_from_those_of_another() -> None:
    """Also if an older version left out when they were refused."""
    got = owners(*(message(f"a{n}", suspect=True) for n in range(5)))
    (job,) = packed(got)
    assert job.refused_at == 0
    bodies = decoded(returns.defer(job.halves(), got, cause=None, now=NOW, random=lambda: 0.5, pauses=PAUSES))
    assert [len(body.events) for body in bodies] == [2, 3]


def test_late_events_are_deferred_as_they_came() -> None:
    got = owners(message("a"))
    work = jobs.pack(list(got.items()), now=NOW + 90_000, late_after=86_400)
    assert '"backfill":true' in work[0].body().decode()
    (parcel,) = returns.defer(work, got, cause=None, now=NOW, random=lambda: 0.5, pauses=PAUSES)
    assert messages.decode(parcel.outgoing.body).events == got[0].events  # type: ignore[union-attr]  # it is no raw one


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
    got = owners(*(message(f"a{n}", deferred=9, suspect=True) for n in range(3)))
    work = [row for job in packed(got) for row in job.rows]
    parcels = returns.park([RefusedRows((row,), "refused_by_klaviyo", "Invalid.") for row in work], got, at=AT)
    (parcel,) = parcels
    body = messages.decode(parcel.outgoing.body)
    assert isinstance(body, Message)
    assert (body.deferred, body.suspect, len(body.events)) == (0, False, 3)
    assert parcel.owners == frozenset({0, 1, 2})
    assert parcel.outgoing.attributes["reason"] == "refused_by_klaviyo"


@pytest.mark.parametrize("suspect", [False, True])
def test_redrive_brings_back_no_refusals_of_before(suspect: bool) -> None:
    """They say nothing once the cause is corrected: sixteen of them would park an event the next time it is refused."""
    got = owners(*(message(f"a{n}", suspect=True, refused_at=7, refusals=20) for n in range(3)))
    rows = tuple(row for job in packed(got) for row in job.rows)
    (body,) = decoded(returns.park([RefusedRows(rows, "waited_too_long", "Waited.", suspect)], got, at=AT))
    assert (body.suspect, body.refusals, body.refused_at) == (suspect, 0, 7 if suspect else 0)


def queues(sqs: Sqs, clock: Time, until: float = NOW + 60) -> Queues:
    client: Any = sqs
    return Queues(client, lambda: clock() > until)


def test_only_what_the_queue_did_not_take_stays() -> None:
    parcels = [Parcel(Outgoing(body, "g"), {n}) for n, body in enumerate(["aa", "bb", "bb"])]
    clock = Time()
    sqs = Sqs({"queue": Queue("queue", clock)}, refuse=lambda entry: "b" in entry["MessageBody"])
    assert queues(sqs, clock).send("queue", parcels) == {1, 2}

    def down(operation: str, _: object) -> None:
        raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, operation)

    sqs.before = down
    assert queues(sqs, clock).send("queue", parcels) == {0, 1, 2}
    assert queues(sqs, clock).send("queue", []) == frozenset()


def test_a_batch_that_sqs_refuses_for_its_form_does_not_keep_the_next_ones() -> None:
    clock, fine = Time(), "fine"
    texts = ["\x01", *[fine] * 9, *[fine] * 12]
    parcels = [Parcel(Outgoing(text, "g"), {n}) for n, text in enumerate(texts)]
    sqs = Sqs({"queue": (queue := Queue("queue", clock))})

    def form(operation: str, asked: Any) -> None:
        if any(entry["MessageBody"] == "\x01" for entry in asked["Entries"]):
            raise ClientError({"Error": {"Code": "InvalidMessageContents"}}, operation)

    sqs.before = form
    assert queues(sqs, clock).send("queue", parcels) == set(range(10))
    assert len(queue) == 12


def test_after_the_connection_was_lost_nothing_more_is_tried() -> None:
    clock, calls = Time(), 0

    def lost(_: str, __: object) -> None:
        nonlocal calls
        calls += 1
        raise EndpointConnectionError(endpoint_url="queue")

    sqs = Sqs({"queue": Queue("queue", clock)}, before=lost)
    parcels = [Parcel(Outgoing("a", "g"), {n}) for n in range(100)]
    assert queues(sqs, clock).send("queue", parcels) == set(range(100))
    assert calls == 1


def held(clock: Time, count: int) -> tuple[Queue, list[Record]]:
    """A queue whose ``count`` messages are in flight, and their records."""
    queue = Queue("queue", clock, visibility=725)
    for number in range(count):
        queue.put(f"m{number}")
    return queue, of_event([message.record() for message in queue.receive(count)])


def test_on_a_slow_queue_sends_deletes_and_shows_stop_at_the_deadline() -> None:
    clock = Time()
    queue, records = held(clock, 100)
    sqs = Sqs({"queue": queue}, before=lambda *_: clock.sleep(1.0))
    assert not queues(sqs, clock, clock() + 3.5).delete("queue", records)
    assert len(queue) == 60  # four calls of ten
    began = clock()
    assert not queues(sqs, clock, began + 3.5).show("queue", records[40:], after=lambda: 10.0)
    assert clock() - began == 4.0
    parcels = [Parcel(Outgoing("a", "g"), {n}) for n in range(100)]
    assert queues(sqs, clock, clock() + 3.5).send("queue", parcels) == set(range(40, 100))


def test_on_a_slow_queue_a_part_that_it_refuses_is_not_tried_again_after_the_deadline() -> None:
    clock = Time()
    sqs = Sqs({"queue": Queue("queue", clock)}, before=lambda *_: clock.sleep(5.0), refuse=lambda _: True)
    began = clock()
    assert queues(sqs, clock, began + 3.5).send("queue", [Parcel(Outgoing("a", "g"), {0})]) == {0}
    assert clock() - began == 5.0


def test_all_is_deleted_or_shown_in_time_or_the_caller_knows() -> None:
    clock = Time()
    queue, records = held(clock, 25)
    sqs = Sqs({"queue": queue})
    assert queues(sqs, clock).show("queue", records[:12], after=lambda: 30.0)
    assert sorted(message.visible_at - clock() for message in queue.messages.values()) == [30.0] * 12 + [725.0] * 13
    assert queues(sqs, clock).delete("queue", records[12:])
    assert len(queue) == 12
    sqs.refuse = lambda _: True
    assert not queues(sqs, clock).delete("queue", records[:12])
    assert not queues(sqs, clock).show("queue", records[:12], after=lambda: 30.0)


def deferrals(cause: NoSlot, *times: int, deferred: int = 3) -> list[tuple[Message, Outgoing]]:
    """What messages with one event each, of these times, are sent again as."""
    events = (event(f"t{n}", time=time) for n, time in enumerate(times))
    got = owners(*(Message("shop", (single,), NOW, deferred=deferred) for single in events))
    parcels = returns.defer(
        packed(got), got, cause=cause, now=NOW, random=lambda: 1.0, pauses=PAUSES, late_after=86_400
    )
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
    again = deferrals(TooLate(NOW, Closing("no_slot", "busy")), int(NOW) - 86_401, int(NOW) - 86_399)
    assert {(body.events[0].unique_id, outgoing.group) for body, outgoing in again} == {
        ("t0", "shop#backfill"),
        ("t1", "shop"),
    }


LONG = returns.LONGEST_WAIT


def waited(*seconds: float) -> dict[int, Message]:
    """Messages that were first sent again so long ago; 0: never."""
    since = [int(NOW - age) if age else 0 for age in seconds]
    return owners(*(message(f"w{n}", waiting_since=began) for n, began in enumerate(since)))


def owners(*messages: Message) -> dict[int, Message]:
    return dict(enumerate(messages))


def packed(got: dict[int, Message]) -> list[jobs.Job]:
    return jobs.pack(list(got.items()), now=NOW)


def test_what_waited_for_thirteen_days_is_parked_with_the_reason_and_its_neighbours_wait_on() -> None:
    got = waited(0, 60, LONG - 60, LONG + 60)
    cause = Closed(NOW + 30, Closing("outage", "status_503"))
    left, parked = returns.overdue(packed(got), got, cause=cause, now=NOW)
    assert {row.event.unique_id for job in left for row in job.rows} == {"w0", "w1", "w2"}
    (refused,) = parked
    assert ([row.event.unique_id for row in refused.rows], refused.reason) == (["w3"], "waited_too_long")
    assert "13 days" in refused.detail
    assert "outage" in refused.detail


def test_a_message_waits_from_its_first_deferral_on_and_a_redrive_begins_again() -> None:
    got = waited(0, 3 * returns.DAY + 60, 3 * returns.DAY + 90)
    parcels = returns.defer(
        packed(got), got, cause=TooLate(NOW, Closing("no_slot", "busy")), now=NOW, random=lambda: 0.5, pauses=PAUSES
    )
    since = {event.unique_id: body.waiting_since for body in decoded(parcels) for event in body.events}
    assert since == {"w0": int(NOW), "w1": int(NOW) - 3 * returns.DAY - 60, "w2": int(NOW) - 3 * returns.DAY - 60}
    waiting = {owner: got[owner] for owner in (1, 2)}
    rows = tuple(row for job in packed(waiting) for row in job.rows)
    parked = returns.park([RefusedRows(rows, "waited_too_long", "waited")], waiting, at=AT)
    assert {body.waiting_since for body in decoded(parked)} == {0}


def test_what_was_parked_as_it_is_waits_from_its_redrive_on() -> None:
    body = messages.encode(message("a", waiting_since=int(NOW - LONG) - 60))
    crashed = messages.parked_text(body, "shop", reason="crashed", detail="died", at=AT)
    back = read(of_event([record(crashed.body, crashed.attributes)]), at=AT, now=NOW).messages
    assert [(message.backfill, message.redriven) for message in back.values()] == [(True, True)]
    assert returns.overdue(packed(back), back, cause=TooLate(NOW, Closing("no_slot", "busy")), now=NOW)[1] == []


def decoded(parcels: list[Parcel]) -> list[Message]:
    bodies = [messages.decode(parcel.outgoing.body) for parcel in parcels]
    return [body for body in bodies if isinstance(body, Message)]


@given(st.lists(st.integers(0, 20 * 86_400), min_size=1, max_size=40))
def test_no_event_inherits_the_waiting_of_one_that_began_on_another_day(ages: list[int]) -> None:
    got = waited(*ages)
    since = {f"w{n}": int(NOW - age) if age else int(NOW) for n, age in enumerate(ages)}
    parcels = returns.defer(
        packed(got), got, cause=TooLate(NOW, Closing("no_slot", "busy")), now=NOW, random=lambda: 0.5, pauses=PAUSES
    )
    for body in decoded(parcels):
        for sent in body.events:
            assert 0 <= body.waiting_since - since[sent.unique_id] < returns.DAY
