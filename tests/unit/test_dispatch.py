"""The job loop against a Klaviyo in memory: who is delivered, who is parked, who waits."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.closing import BRAKE, Closing
from handler.delivery import blame, jobs
from handler.delivery.dispatch import Dispatcher, Post, Result
from handler.delivery.klaviyo import Answer
from handler.errors import Closed, NoSlot, TableUnavailable, TooLate, Unavailable
from handler.messages import Message
from handler.pauses import PAUSES
from handler.secret import Key
from tests.unit.fakes_delivery import Clock, Klaviyo, Table, event, pacer


class Secret:
    """The Klaviyo secret."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {"api_key": "pk_one"}
        self.cached = dict(self.content)
        self.unreadable = False

    def document(self) -> dict[str, Any]:
        if self.unreadable:
            raise Unavailable("secret_unreadable", "Secrets Manager did not return the secret")
        return self.cached

    def doubted(self) -> dict[str, Any] | None:
        self.cached = dict(self.content)
        return self.document()


class Relay:
    """A dispatcher and everything around it."""

    def __init__(self, beside: Relay | None = None) -> None:
        self.clock: Clock = beside.clock if beside else Clock()
        self.table: Table = beside.table if beside else Table()
        self.secret = Secret()
        self.klaviyo: Klaviyo = beside.klaviyo if beside else Klaviyo(self.clock)
        self.posts: list[Post] = []
        self.dispatcher = Dispatcher(
            pacer=pacer(self.table, self.clock),
            poster=self.klaviyo,
            key=Key(self.secret, self.clock, PAUSES),  # type: ignore[arg-type]  # the two methods that Key calls
            clock=self.clock,
            sleep=self.clock.sleep,
            random=lambda: 0.5,
            record=lambda post, _messages, _now: self.posts.append(post),
            pauses=PAUSES,
        )

    def run(self, *messages: Message, seconds: float = 1_000) -> Result:
        numbered = dict(enumerate(messages))
        work = jobs.pack(list(numbered.items()), now=self.clock())
        return self.dispatcher.run(work, numbered, self.clock() + seconds)


def message(*names: str, **flags: Any) -> Message:
    return Message("shop", tuple(event(name) for name in names), 1_789_999_000.0, **flags)


def thousand() -> list[Message]:
    return [message(*(f"e{tens}-{one}" for one in range(100))) for tens in range(10)]


SEVEN = {f"e{number}-{number * 7}" for number in range(1, 8)}


def parked(result: Result) -> set[str]:
    return {row.event.unique_id for part in result.parked for row in part.rows}


def left(result: Result) -> set[str]:
    return {row.event.unique_id for job in result.left for row in job.rows}


def test_seven_bad_rows_with_pointers_take_two_requests() -> None:
    relay = Relay()
    relay.klaviyo.bad = set(SEVEN)
    result = relay.run(*thousand())
    assert len(relay.klaviyo.stored) == 993
    assert parked(result) == SEVEN
    assert len(relay.klaviyo.requests) == 2
    assert not result.left
    for part in result.parked:
        assert part.detail.startswith("Invalid input.")
        assert "mail.example" not in part.detail


def test_seven_bad_rows_without_pointers_are_found_by_halving() -> None:
    relay = Relay()
    relay.klaviyo.bad, relay.klaviyo.pointers = set(SEVEN), False
    result = relay.run(*thousand())
    assert sorted(relay.klaviyo.stored) == sorted(set(relay.klaviyo.stored))
    assert len(relay.klaviyo.stored) == 993
    assert parked(result) == SEVEN
    assert len(relay.klaviyo.requests) <= 2 * 7 * math.log2(1_000)


def test_halving_goes_on_where_the_time_ended() -> None:
    relay = Relay()
    relay.klaviyo.bad, relay.klaviyo.pointers = set(SEVEN), False
    waiting, found, rounds = thousand(), set(), 0
    while waiting:
        rounds += 1
        assert rounds < 60
        result = relay.run(*waiting, seconds=4)
        found |= parked(result)
        waiting = [
            Message("shop", tuple(row.event for row in job.rows), 1.0, suspect=job.suspect) for job in result.left
        ]
    assert found == SEVEN
    assert len(relay.klaviyo.stored) == 993
    assert rounds > 5


@given(st.sets(st.integers(0, 59), max_size=25), st.booleans(), st.integers(1, 6))
def test_every_row_is_delivered_or_parked_or_left_once(bad: set[int], pointers: bool, parts: int) -> None:
    relay = Relay()
    names = [f"n{number}" for number in range(60)]
    relay.klaviyo.bad, relay.klaviyo.pointers = {names[number] for number in bad}, pointers
    result = relay.run(*(message(*names[start::parts]) for start in range(parts)))
    ends = [*relay.klaviyo.stored, *parked(result), *left(result)]
    assert sorted(ends) == sorted(names)
    assert not parked(result) - relay.klaviyo.bad


def test_a_refusal_of_everything_parks_nobody_and_closes() -> None:
    relay = Relay()
    relay.klaviyo.told = lambda names: relay.klaviyo.answer(400, [{"title": "Malformed body"}])
    result = relay.run(*thousand())
    assert isinstance(result.cause, Closed)
    assert result.cause.closing == BRAKE
    assert not result.parked
    assert len(left(result)) == 1_000
    assert sum(len(job.rows) for job in result.left if job.suspect) == 2  # the two that were refused alone
    assert len(relay.klaviyo.requests) == 5
    # While it lasts, one row at a time asks whether it is over; then everything flows.
    relay.clock.sleep(31)
    assert isinstance(relay.run(*thousand()).cause, Closed)
    assert len(relay.klaviyo.requests[-1][1]) == 1
    relay.klaviyo.told = lambda names: None
    relay.clock.sleep(31)
    result = relay.run(*thousand())
    assert len(relay.klaviyo.stored) == 1_000
    assert result.cause is None


def test_a_lone_row_is_not_blamed_until_others_got_through() -> None:
    relay = Relay()
    relay.klaviyo.bad, relay.klaviyo.pointers = {"bad"}, False
    result = relay.run(message("bad"))
    assert not result.parked
    assert [job.suspect for job in result.left] == [True]
    result = relay.run(message("bad", suspect=True), message("good"))
    assert parked(result) == {"bad"}
    assert relay.klaviyo.stored == ["good"]


def test_a_lone_row_closes_the_relay_in_the_end_and_is_parked_once_another_was_taken() -> None:
    relay = Relay()
    relay.klaviyo.bad, relay.klaviyo.pointers = {"bad"}, False
    result = relay.run(message("bad", suspect=True, deferred=blame.LONE_TRIES))
    assert isinstance(result.cause, Closed)
    assert not result.parked
    relay.clock.sleep(31)
    relay.run(message("good"))
    another = Relay(relay)  # another function: what it knows comes from the table
    relay.clock.sleep(blame.MEMORY_SECONDS - 60)
    assert parked(another.run(message("bad", suspect=True))) == {"bad"}


def test_what_was_taken_long_ago_proves_nothing() -> None:
    relay = Relay()
    relay.run(message("good"))
    relay.clock.sleep(blame.MEMORY_SECONDS + 1)
    relay.klaviyo.bad, relay.klaviyo.pointers = {"bad"}, False
    assert not relay.run(message("bad", suspect=True)).parked


def test_a_row_that_was_not_refused_alone_before_is_not_parked_for_what_was_taken_minutes_ago() -> None:
    relay = Relay()
    relay.run(message("good"))
    relay.clock.sleep(60)
    relay.klaviyo.told = lambda names: relay.klaviyo.answer(400, [{"title": "Malformed body"}])
    result = relay.run(message("a", "b", suspect=True))
    assert not result.parked
    assert left(result) == {"a", "b"}
    assert not relay.run(message("c")).parked


def test_repeats_count_as_delivered_but_not_for_ever() -> None:
    relay = Relay()

    def repeats(names: list[str]) -> Answer | None:
        told = {"detail": "unique_id already exists", "source": {"pointer": jobs_pointer(0)}}
        return relay.klaviyo.answer(400, [told]) if len(names) > 1 else None

    relay.klaviyo.told = repeats
    result = relay.run(message(*(f"r{number}" for number in range(12))))
    assert not result.parked
    assert not result.left
    assert result.delivered == 12
    assert len(relay.klaviyo.stored) >= 2  # after three rounds single rows decide


def test_a_word_in_an_events_own_id_does_not_make_it_a_repeat() -> None:
    relay = Relay()
    words = "The unique_id 'repeat-order-17' is not valid for this event."
    told = {"title": "Invalid input.", "detail": words, "source": {"pointer": jobs_pointer(0)}}
    relay.klaviyo.told = lambda names: relay.klaviyo.answer(400, [told]) if "repeat-order-17" in names else None
    result = relay.run(message("repeat-order-17", "good"))
    assert parked(result) == {"repeat-order-17"}
    assert relay.klaviyo.stored == ["good"]


def jobs_pointer(index: int) -> str:
    return f"/data/attributes/events-bulk-create/data/{index}/attributes/events/data/0/attributes/unique_id"


def test_what_is_too_large_is_halved_down_to_one_row() -> None:
    relay = Relay()
    relay.klaviyo.told = lambda names: relay.klaviyo.answer(413) if "big" in names or len(names) > 3 else None
    result = relay.run(message("a", "b", "big", "c", "d"))
    assert [(part.reason, part.rows[0].event.unique_id) for part in result.parked] == [("too_large", "big")]
    assert sorted(relay.klaviyo.stored) == ["a", "b", "c", "d"]


def test_one_fault_costs_seconds_and_no_deferral() -> None:
    relay = Relay()
    faults = [relay.klaviyo.answer(503)]
    relay.klaviyo.told = lambda names: faults.pop() if faults else None
    result = relay.run(message("a"))
    assert relay.klaviyo.stored == ["a"]
    assert result.cause is None
    assert relay.klaviyo.requests[1][0] - relay.klaviyo.requests[0][0] < 4


def test_an_outage_defers_everything_after_two_tries() -> None:
    relay = Relay()
    relay.klaviyo.told = lambda names: relay.klaviyo.answer(503)
    result = relay.run(*thousand())
    assert isinstance(result.cause, Closed)
    assert len(left(result)) == 1_000
    assert len(relay.klaviyo.requests) == 2


def test_after_a_429_the_rest_is_left_until_it_may_go() -> None:
    relay = Relay()
    relay.klaviyo.told = lambda names: relay.klaviyo.answer(429, Retry_After="120")
    began = relay.clock()
    result = relay.run(*thousand())
    assert isinstance(result.cause, Closed)
    assert 120 <= result.cause.retry_at - began <= 122
    assert len(relay.klaviyo.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410, 415])
def test_what_a_person_must_mend_keeps_everything(status: int) -> None:
    relay = Relay()
    relay.klaviyo.told = lambda names: relay.klaviyo.answer(status)
    result = relay.run(*thousand())
    assert isinstance(result.cause, Closed)
    assert len(left(result)) == 1_000
    assert len(relay.klaviyo.requests) == 1
    assert not result.parked


def test_a_replaced_key_is_used_at_once_by_those_that_still_have_the_old() -> None:
    relay = Relay()
    relay.klaviyo.told = lambda names: relay.klaviyo.answer(401) if relay.klaviyo.requests[-1][2] == "pk_one" else None
    relay.secret.content = {"api_key": "pk_two\n"}
    result = relay.run(message("a"))
    assert [key for *_, key in relay.klaviyo.requests] == ["pk_one", "pk_two"]
    assert result.cause is None
    assert relay.klaviyo.stored == ["a"]


def test_the_probe_after_a_refused_key_tries_the_new_one() -> None:
    relay = Relay()
    relay.klaviyo.told = lambda names: relay.klaviyo.answer(401) if relay.klaviyo.requests[-1][2] == "pk_one" else None
    relay.run(message("a"))
    relay.secret.content = {"api_key": "pk_two"}
    relay.clock.sleep(31)
    assert relay.run(message("a")).cause is None
    assert relay.klaviyo.stored == ["a"]


def test_detail_of_a_closing_decides_nothing() -> None:
    relay = Relay()
    relay.table.item = {"next": 0, "closed_until": 1, "closed_reason": "key_refused_by_nobody"}
    assert relay.run(message("a")).cause is None
    assert relay.posts[-1].slot.closing == Closing("configuration", "key_refused_by_nobody")
    relay.table.item = {"next": 0, "closed_until": 1, "closed_reason": "refused_alike: in words of another version"}
    relay.run(*thousand())
    assert len(relay.klaviyo.requests[-2][1]) == 1  # the probe


@pytest.mark.parametrize(
    "content", [{}, {"api_key": ""}, {"api_key": 7}, {"api_key": "pk_\u00e9"}, {"api_key": "a\nb"}]
)
def test_without_a_key_nothing_is_posted_and_no_slot_taken(content: dict[str, Any]) -> None:
    relay = Relay()
    relay.secret.cached = content
    result = relay.run(message("a"))
    assert isinstance(result.cause, NoSlot)
    assert result.cause.closing.code == "no_key"
    assert left(result) == {"a"}
    assert not relay.table.item
    relay.secret.unreadable = True
    assert left(relay.run(message("a"))) == {"a"}


def test_without_the_table_nothing_is_posted() -> None:
    relay = Relay()
    relay.table.fails = TableUnavailable(relay.clock() + 30, Closing("no_table", "the pacing table does not answer"))
    result = relay.run(message("a"))
    assert isinstance(result.cause, TableUnavailable)
    assert left(result) == {"a"}
    assert not relay.klaviyo.requests


def test_a_table_that_dies_during_the_post_does_not_undo_the_delivery() -> None:
    relay = Relay()

    def dies(names: list[str]) -> Answer | None:
        relay.table.fails = TableUnavailable(
            relay.clock() + 30, Closing("no_table", "the pacing table does not answer")
        )
        return relay.klaviyo.answer(503) if "second" in names else None

    relay.klaviyo.told = dies
    result = relay.run(message("first"))
    assert (relay.klaviyo.stored, left(result)) == (["first"], set())
    relay.table.fails = None
    result = relay.run(message("second"))
    assert left(result) == {"second"}


def test_no_time_left_posts_nothing_and_reserves_nothing() -> None:
    relay = Relay()
    result = relay.run(message("a"), seconds=-5)
    assert isinstance(result.cause, TooLate)
    assert left(result) == {"a"}
    assert not relay.table.item
