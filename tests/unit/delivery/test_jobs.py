"""What travels: messages survive the queue, and jobs keep to Klaviyo's limits."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import messages
from handler.delivery import jobs
from handler.errors import MessageError, NewerMessage
from handler.messages import Event, Message, Raw
from tests.unit import support_delivery
from tests.unit.support_calls import calls

TEXT = st.text(max_size=40)
EVENTS = st.lists(
    st.builds(
        Event,
        unique_id=st.text(min_size=1, max_size=30),
        time=st.integers(0, 2**40),
        entry=TEXT.map(lambda text: json.dumps({"type": "event-bulk-create", "note": text})),
    ),
    max_size=30,
)


@given(EVENTS, st.floats(0, 2e9), st.integers(0, 9), st.booleans(), st.booleans())
def test_a_message_comes_out_of_the_queue_as_it_went_in(
    events: list[Event], received: float, count: int, suspect: bool, backfill: bool
) -> None:
    message = Message("stripe", tuple(events), received, count, suspect, backfill, suspect)
    assert messages.decode(messages.encode(message)) == message


@given(st.binary(max_size=500), st.dictionaries(TEXT, TEXT, max_size=3), st.none() | st.tuples(st.integers(0, 99)))
def test_a_raw_webhook_keeps_every_byte(body: bytes, headers: dict[str, str], only: tuple[int, ...] | None) -> None:
    raw = Raw("stripe", body, headers, 1.0, only)
    assert messages.decode(messages.encode(raw)) == raw


@given(st.text(max_size=200))
def test_what_is_no_message_says_so(body: str) -> None:
    with pytest.raises(MessageError):
        messages.decode(body)


def test_a_later_version_is_told_from_garbage() -> None:
    with pytest.raises(NewerMessage):
        messages.decode('{"v":2,"kind":"events"}')


@given(EVENTS, st.integers(1, 7), st.integers(200, 900))
def test_packing_keeps_order_and_limits(events: list[Event], most: int, size: int) -> None:
    packed = list(messages.pack(events, Message("s", (), 1.0), bytes_limit=size, events_limit=most))
    assert [event for message in packed for event in message.events] == events
    for message in packed:
        assert len(message.events) <= most
        assert messages.size(messages.encode(message)) <= size or len(message.events) == 1


def event(name: str, time: int = 0, size: int = 0) -> Event:
    entry = {"type": "event-bulk-create", "attributes": {"id": name, "filling": "x" * size}}
    return Event(name, time, json.dumps(entry))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["p", "q", "r", "s"])), max_size=30))
def test_each_profiles_event_under_an_id_is_sent_once_and_no_job_holds_an_id_twice(sent: list[tuple[str, str]]) -> None:
    """Klaviyo compares the profile and the id: another profile's event under the same id is another event."""
    batch = [
        (owner, Message("s", (Event(name, 1, support_delivery.entry(who)),), 1.0))
        for owner, (name, who) in enumerate(sent)
    ]
    packed = jobs.pack(batch, now=1.0)
    rows = [(row.event.unique_id, row.event.entry) for job in packed for row in job.rows]
    assert sorted(rows) == sorted({(name, support_delivery.entry(who)) for name, who in sent})
    for job in packed:
        assert len({row.event.unique_id for row in job.rows}) == len(job.rows)


@given(st.lists(st.integers(1, 100), max_size=60), st.integers(0, 40_000))
def test_jobs_hold_each_event_once_within_both_limits_and_are_full(sizes: list[int], weight: int) -> None:
    batch = [
        (owner, Message("s", tuple(event(f"{owner}-{n}", -n, weight) for n in range(count)), 1.0))
        for owner, count in enumerate(sizes)
    ]
    packed = jobs.pack(batch, now=0.0)
    rows = [(row.owner, row.event.unique_id) for job in packed for row in job.rows]
    assert sorted(rows) == sorted((owner, event.unique_id) for owner, message in batch for event in message.events)
    for job, later in pairwise(packed):
        assert max(row.owner for row in job.rows) <= min(row.owner for row in later.rows)
        full = len(job.body()) + 1 + max(len(row.entry) for row in later.rows) > jobs.JOB_BYTES
        assert full or len(job.rows) == messages.JOB_EVENTS
    for job in packed:
        assert len(job.rows) <= messages.JOB_EVENTS
        assert len(job.body()) <= jobs.JOB_BYTES
        times = [row.event.time for row in job.rows]
        assert times == sorted(times)
        json.loads(job.body())


def test_a_job_holds_a_unique_id_once_and_suspects_stay_alone() -> None:
    twice = Message("s", (event("a"), event("a"), event("b")), 1.0)
    suspect = twice._replace(events=(event("c"),), suspect=True)
    packed = jobs.pack([(0, twice), (1, twice), (2, suspect)], now=0.0)
    assert [[row.event.unique_id for row in job.rows] for job in packed] == [["a", "b"], ["c"]]
    assert [job.suspect for job in packed] == [False, True]


def test_late_events_go_as_backfill_with_identifiers_only() -> None:
    attributes = {
        "profile": {"data": {"type": "profile", "attributes": {"email": "ada@mail.example", "first_name": "Ada"}}},
        "events": {"data": [{"type": "event", "attributes": {"properties": {"OrderId": "1"}}}]},
    }
    entry = json.dumps({"type": "event-bulk-create", "attributes": attributes})
    message = Message("s", (Event("old", 1_000, entry), Event("new", 90_000, entry)), 1.0)
    (job,) = jobs.pack([(0, message)], now=90_000.0, late_after=86_400.0)
    old, new = (json.loads(row.entry)["attributes"] for row in job.rows)
    assert old["backfill"] is True
    assert old["profile"]["data"]["attributes"] == {"email": "ada@mail.example"}
    assert old["events"] == attributes["events"]
    assert new == attributes


def test_backfills_fill_up_the_jobs_of_what_is_live_and_redriven_events_stay_apart() -> None:
    def single(name: str, **flags: Any) -> Message:
        return Message("shop", (Event(name, 1, json.dumps({"n": name})),), 1.0, **flags)

    several = [
        single("old", backfill=True),
        single("back", backfill=True, redriven=True),
        single("new"),
        single("odd", suspect=True),
    ]
    packed = jobs.pack(list(enumerate(several)), now=1.0)
    assert [{row.event.unique_id for row in job.rows} for job in packed] == [{"old", "new"}, {"back"}, {"odd"}]
    assert [row.owner for row in packed[0].rows] == [2, 0]


def test_suspects_of_a_redrive_come_last_and_are_not_refused_together_with_others() -> None:
    def suspect(name: str, **flags: Any) -> Message:
        return Message("shop", (event(name),), 1.0, suspect=True, **flags)

    several = [suspect("back", redriven=True), suspect("a"), suspect("again", redriven=True), suspect("b")]
    packed = jobs.pack(list(enumerate(several)), now=1.0)
    assert [{row.event.unique_id for row in job.rows} for job in packed] == [{"a", "b"}, {"back", "again"}]


def test_events_that_were_refused_alone_travel_with_the_time_of_the_last_refusal() -> None:
    """What Klaviyo accepted before that is no proof against all of them."""
    several = [
        Message("shop", (event(f"e{at}"),), 1.0, suspect=True, refused_at=at, refusals=refusals)
        for at, refusals in ((20, 1), (30, 5), (10, 2))
    ]
    (job,) = jobs.pack(list(enumerate(several)), now=40.0)
    assert (len(job.rows), job.refused_at, job.refusals) == (3, 30, 1)


def test_one_id_for_all_events_makes_a_job_for_each_and_no_work_that_grows_with_their_square() -> None:
    """Each profile's event is one of its own to Klaviyo; the function that compares each with each runs out of time."""
    people = 400
    events = [Event("same", 1, support_delivery.entry(f"p{number}")) for number in range(people)]
    twice = [Message("s", tuple(events[start : start + 20]), 1.0) for start in range(0, people, 20)] * 2
    with calls(jobs.identity) as looked:
        packed = jobs.pack(list(enumerate(twice)), now=1.0)
    assert sorted(row.event.entry for job in packed for row in job.rows) == sorted(event.entry for event in events)
    assert sorted(len(job.rows) for job in packed) == [1] * people
    assert people <= len(looked) < 10 * people
