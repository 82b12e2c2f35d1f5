"""The job loop against a Klaviyo in memory: who is delivered, who is parked, who waits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from handler.closing import BRAKE, Closing
from handler.delivery import blame, jobs
from handler.delivery.dispatch import Dispatcher, Post, Result
from handler.delivery.klaviyo import Answer
from handler.errors import Closed, NoSlot, TableUnavailable, TooLate
from handler.messages import Message
from handler.pauses import PAUSES
from handler.secret import Key, Secret
from sim.hooks import Hook, nothing
from sim.klaviyo import POINTER, Klaviyo, Request
from sim.secrets import Secrets
from sim.table import Table
from sim.time import Time
from tests.unit.support_delivery import event, no_table, pacer


class Relay:
    """A dispatcher and everything around it."""

    def __init__(self, beside: Relay | None = None) -> None:
        self.clock: Time = beside.clock if beside else Time()
        self.table: Table = beside.table if beside else Table()
        self.secrets = Secrets({"klaviyo": {"api_key": "pk_one"}}, before=self._check)
        self.unreadable = False
        self.klaviyo: Klaviyo = beside.klaviyo if beside else Klaviyo(self.clock)
        self.posts: list[Post] = []
        secret = Secret(cast("Any", self.secrets), "klaviyo", self.clock, kept=PAUSES.kept, reread=PAUSES.key_reread)
        self.dispatcher = Dispatcher(
            pacer=pacer(self.table, self.clock),
            poster=self.klaviyo,
            key=Key(secret, self.clock, PAUSES),
            clock=self.clock,
            sleep=self.clock.sleep,
            random=lambda: 0.5,
            record=lambda post, _messages, _now: self.posts.append(post),
            pauses=PAUSES,
        )

    def _check(self, operation: str) -> None:
        if self.unreadable:
            raise ClientError({"Error": {"Code": "InternalServiceError"}}, operation)

    def replace_key(self, document: Any) -> None:
        """The secret holds another key, which nobody has read yet."""
        self.secrets.documents["klaviyo"] = document

    def run(self, *messages: Message, seconds: float = 1_000) -> Result:
        numbered = dict(enumerate(messages))
        work = jobs.pack(list(numbered.items()), now=self.clock())
        return self.dispatcher.run(work, numbered, self.clock() + seconds)


def message(*names: str, **flags: Any) -> Message:
    return Message("shop", tuple(event(name) for name in names), 1_789_999_000.0, **flags)


def thousand() -> list[Message]:
    return [message(*(f"e{tens}-{row}" for row in range(100))) for tens in range(10)]


SEVEN = {f"e{number}-{number * 7}" for number in range(1, 8)}


def consistent(relay: Relay) -> Relay:
    """Let Klaviyo refuse one row alone until its refusals are known to be consistent; from now on it names no row."""
    relay.klaviyo.bad, relay.klaviyo.pointers = {"first"}, False
    assert parked(relay.run(message("first", *(f"other{number}" for number in range(40))))) == {"first"}
    relay.klaviyo.bad = {"bad"}
    relay.klaviyo.requests.clear()
    relay.klaviyo.stored.clear()
    return relay


def parked(result: Result) -> set[str]:
    return {row.event.unique_id for part in result.parked for row in part.rows}


def left(result: Result) -> set[str]:
    return {row.event.unique_id for job in result.left for row in job.rows}


def test_seven_bad_rows_with_pointers_take_three_requests() -> None:
    """The job, the others, and the seven once more: only now they are refused next to proof."""
    relay = Relay()
    relay.klaviyo.bad = set(SEVEN)
    result = relay.run(*thousand())
    assert len(relay.klaviyo.stored) == 993
    assert parked(result) == SEVEN
    assert [len(request.names) for request in relay.klaviyo.requests] == [1_000, 993, 7]
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
    assert len(relay.klaviyo.requests) <= 2 * (7 * math.log2(1_000) + blame.TRUST)


def test_hundred_bad_rows_of_one_webhook_hold_up_nobody_and_are_found_in_one_invocation() -> None:
    """Taking them apart lasts longer than a request that was accepted is proof, so others are sent in between.

    Each is refused in company, and alone for three times.
    """
    relay = Relay()
    relay.klaviyo.bad, relay.klaviyo.pointers = {f"e3-{row}" for row in range(100)}, False
    result = relay.run(*thousand())
    assert parked(result) == relay.klaviyo.bad
    assert len(relay.klaviyo.stored) == 900
    assert result.cause is None
    assert len(relay.klaviyo.requests) <= 4.6 * 100


def test_two_rows_that_are_refused_alone_from_two_messages_close_the_relay_at_once() -> None:
    relay = Relay()
    relay.klaviyo.told = lambda _: relay.klaviyo.answer(400, [{"title": "Malformed body"}])
    first, second = message("a", suspect=True), message("b")
    assert isinstance(relay.run(first, second).cause, Closed)
    assert [request.names for request in relay.klaviyo.requests] == [["b"], ["a"]]


def test_function_that_has_only_refused_rows_stops_alone_while_another_delivers() -> None:
    relay = Relay()
    other = Relay(beside=relay)
    relay.klaviyo.bad, relay.klaviyo.pointers = set("abcdef"), False
    other.run(message("good"))
    assert isinstance(relay.run(message("a"), message("b"), message(*"ef")).cause, Closed)
    assert other.run(message("live")).cause is None
    relay.clock.sleep(PAUSES.long - 5)  # a quiet night: no other event for half a minute
    assert isinstance(relay.run(message("c"), message("d")).cause, Closed)
    assert other.run(message("late")).cause is None
    relay.clock.sleep(PAUSES.long + 1)
    assert isinstance(relay.run(message("c"), message("d")).cause, Closed)
    assert isinstance(other.run(message("later")).cause, Closed)
    assert relay.klaviyo.stored == ["good", "live", "late"]


def test_slow_answers_do_not_hide_what_another_function_delivers() -> None:
    relay = Relay()

    def slowly(_: Request) -> Answer:
        relay.clock.sleep(20.0)
        relay.table.item["delivered_at"] = round((relay.clock.now - 15) * 1000)
        return relay.klaviyo.answer(400, [{"title": "Malformed body"}])

    relay.table.item["delivered_at"] = round((relay.clock.now - 15) * 1000)
    relay.klaviyo.told = slowly
    assert isinstance(relay.run(message("a"), message("b")).cause, Closed)
    assert "closed_until" not in relay.table.item


def closed_before(relay: Relay) -> None:
    """The relay was closed for an outage until now, and another function delivered just before."""
    now = round(relay.clock.now * 1000)
    relay.table.item.update(closed_until=now - 1, closed_reason="outage: no answer", delivered_at=now)


def test_probe_that_is_refused_like_all_else_closes_the_relay_although_another_delivered() -> None:
    relay = Relay()
    closed_before(relay)
    relay.klaviyo.told = lambda _: relay.klaviyo.answer(400, [{"title": "Malformed body"}])
    again = message("a", suspect=True, refused_at=int(relay.clock.now) - 60, refusals=blame.BRAKE_TRIES - 1)
    assert isinstance(relay.run(again).cause, Closed)
    assert len(relay.klaviyo.requests) == 1
    assert int(relay.table.item["closed_until"]) > relay.clock.now * 1000
    assert "probe_until" not in relay.table.item


def test_probe_that_was_judged_and_not_accepted_is_no_proof_against_a_row() -> None:
    relay = Relay()
    closed_before(relay)
    relay.klaviyo.told = lambda _: relay.klaviyo.answer(400, [{"title": "Malformed body"}])
    assert relay.run(message("a"), message("b")).cause is not None
    assert "accepted_at" not in relay.table.item


def test_what_another_function_delivers_proves_nothing_against_a_row() -> None:
    relay = Relay()
    other = Relay(beside=relay)
    relay.klaviyo.told = lambda request: None if request.names == ["good"] else naming_each(relay, request)
    for _ in range(5):
        other.run(message("good"))
        again = message("a", suspect=True, refused_at=int(relay.clock.now) - 60, refusals=2)
        assert not relay.run(again, message(*"bcde")).parked
        relay.clock.sleep(1)


def naming_each(relay: Relay, request: Request) -> Answer:
    """A refusal that names every row of the request."""
    source = [{"pointer": POINTER.format(row)} for row in range(len(request.names))]
    return relay.klaviyo.answer(400, [{"title": "No.", "source": place} for place in source])


def test_time_of_an_accepted_request_that_is_still_to_come_is_corrected() -> None:
    relay = Relay()
    relay.table.item["delivered_at"] = round((relay.clock.now + 3_600) * 1000)
    relay.run(message("a"))
    assert int(relay.table.item["delivered_at"]) <= round(relay.clock.now * 1000)


@pytest.mark.parametrize("ahead", [86_400, -86_400])
def test_time_of_a_clock_that_is_a_day_off_keeps_no_relay_open(ahead: int) -> None:
    relay = Relay()
    relay.table.item["delivered_at"] = round((relay.clock.now + ahead) * 1000)
    relay.klaviyo.told = lambda _: relay.klaviyo.answer(400, [{"title": "Malformed body"}])
    assert isinstance(relay.run(message("a"), message("b")).cause, Closed)
    assert "closed_until" in relay.table.item


def test_functions_tell_each_other_of_accepted_requests_every_few_seconds() -> None:
    relay = Relay()
    told = set()
    for number in range(60):
        relay.run(message(f"e{number}"))
        told.add(relay.table.item["delivered_at"])
        relay.clock.sleep(0.5)
    moments = sorted(int(moment) / 1000 for moment in told)
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert blame.PROOF_SECONDS / 2 < min(gaps) <= max(gaps) < blame.PROOF_SECONDS


def test_accepted_request_counts_although_the_table_does_not_take_its_time() -> None:
    relay = Relay()

    def away(operation: str) -> None:
        if operation == "swap" and relay.klaviyo.stored:
            raise no_table(relay.clock)

    relay.table.before = away
    result = relay.run(message("a"))
    assert relay.klaviyo.stored == ["a"]
    assert result.cause is None
    assert not left(result)


def test_row_that_was_refused_during_a_fault_is_delivered_and_not_parked_once_others_are_accepted() -> None:
    relay = Relay()
    faults = [relay.klaviyo.answer(400, [{"title": "Malformed body"}])]
    relay.klaviyo.told = lambda _: faults.pop() if faults else None
    result = relay.run(message("a", suspect=True), message("b", suspect=True))
    assert relay.klaviyo.stored == ["a", "b"]  # together, then each alone
    assert not result.parked


def test_halving_goes_on_where_the_time_ended() -> None:
    relay = Relay()
    relay.klaviyo.bad, relay.klaviyo.pointers = set(SEVEN), False
    waiting, refused, rounds = thousand(), set(), 0
    while waiting:
        rounds += 1
        assert rounds < 60
        result = relay.run(*waiting, seconds=4)
        refused |= parked(result)
        waiting = [
            Message("shop", tuple(row.event for row in job.rows), 1.0, suspect=job.suspect, refusals=job.refusals)
            for job in result.left
        ]
    assert refused == SEVEN
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
    relay.klaviyo.told = lambda _: relay.klaviyo.answer(400, [{"title": "Malformed body"}])
    result = relay.run(*thousand())
    assert isinstance(result.cause, Closed)
    assert result.cause.closing == BRAKE
    assert not result.parked
    assert len(left(result)) == 1_000
    assert sum(len(job.rows) for job in result.left if job.suspect) == 2  # the two that were refused alone
    assert len(relay.klaviyo.requests) <= 15  # ten times halved
    # While it lasts, one row at a time asks whether it is over; then everything flows.
    relay.clock.sleep(31)
    assert isinstance(relay.run(*thousand()).cause, Closed)
    assert len(relay.klaviyo.requests[-1].names) == 1
    relay.klaviyo.told = lambda _: None
    relay.clock.sleep(31)
    result = relay.run(*thousand())
    assert len(relay.klaviyo.stored) == 1_000
    assert result.cause is None


def test_brake_forgets_which_jobs_were_refused_except_those_that_came_back_suspect() -> None:
    """The rows were not at fault, so they need not come back in small jobs; those taken apart before go on."""
    relay = Relay()
    relay.klaviyo.told = lambda _: relay.klaviyo.answer(400, [{"title": "Malformed body"}])
    before = math.floor(relay.clock()) - 600
    new = message(*(f"n{number}" for number in range(8)))
    result = relay.run(new, message("s0", "s1", suspect=True, refused_at=before))
    assert isinstance(result.cause, Closed)
    assert [request.names[0] for request in relay.klaviyo.requests[-2:]] == ["n0", "s1"]
    refused_at = {row.event.unique_id: job.refused_at for job in result.left for row in job.rows}
    assert {name for name, at in refused_at.items() if at is not None} == {"n0", "s0", "s1"}  # the first was alone
    assert refused_at["s0"] == before


def test_a_lone_row_is_not_blamed_until_others_got_through() -> None:
    relay = consistent(Relay())
    relay.clock.sleep(11)
    result = relay.run(message("bad"))
    assert not result.parked
    assert [(job.suspect, job.refusals) for job in result.left] == [(True, 1)]
    result = relay.run(message("bad", suspect=True, refusals=1), message("good1"))
    assert [(job.suspect, job.refusals) for job in result.left] == [(True, 2)]
    result = relay.run(message("bad", suspect=True, refusals=2), message("good2"))
    assert parked(result) == {"bad"}
    assert relay.klaviyo.stored == ["good1", "good2"]


def test_row_that_waits_goes_back_with_its_refusals_and_the_time_of_the_last() -> None:
    """Only what Klaviyo accepts after that is proof: a fault may have begun in between."""
    relay = Relay()
    relay.klaviyo.bad, relay.klaviyo.pointers = {"bad"}, False
    result = relay.run(message("bad", "good"))
    assert [request.names for request in relay.klaviyo.requests] == [["bad", "good"], ["bad"], ["good"], ["bad"]]
    ((job,), last) = result.left, relay.klaviyo.requests[-1].at
    assert job.refusals == 2
    assert job.refused_at is not None
    assert last <= job.refused_at <= relay.clock()


def test_pointer_to_a_row_that_does_not_exist_is_no_word_about_a_lone_row() -> None:
    relay = Relay()
    naming(relay, NAMINGS["a row that does not exist"], {"bad"})
    result = relay.run(message("bad", "good"))
    assert not result.parked
    assert left(result) == {"bad"}
    result = relay.run(message("bad", "good"), message(*(f"more{number}" for number in range(40))))
    assert [part.suspect for part in result.parked] == [True]  # also when it is redriven


def test_a_lone_row_closes_the_relay_in_the_end_and_is_parked_once_another_was_taken() -> None:
    relay = Relay()
    relay.klaviyo.bad, relay.klaviyo.pointers = {"bad"}, False
    result = relay.run(message("bad", suspect=True, refusals=blame.BRAKE_TRIES - 1))
    assert isinstance(result.cause, Closed)
    assert not result.parked
    relay.clock.sleep(31)
    relay.run(message("good"))
    another = Relay(relay)  # another function: what it knows comes from the table
    relay.clock.sleep(blame.MEMORY_SECONDS - 60)
    assert parked(another.run(message("bad", suspect=True, refusals=blame.PROOF_TRIES - 1))) == {"bad"}


def test_row_that_was_accepted_after_it_was_refused_alone_saves_the_others_for_a_while() -> None:
    """Klaviyo refuses one thing and then another: what is refused waits in the queue, and is not tried on and on."""
    relay = consistent(Relay())
    relay.klaviyo.bad.clear()
    relay.run(message("innocent", suspect=True, refusals=1))
    relay.klaviyo.bad.add("bad")
    result = relay.run(message("bad", "a", "b", "c"), message("d", "e", "f"))
    assert not result.parked
    assert left(result) == {"bad"}
    assert [request.names for request in relay.klaviyo.requests].count(["bad"]) == 2
    assert sorted(relay.klaviyo.stored) == ["a", "b", "c", "d", "e", "f", "innocent"]


def test_small_suspects_are_sent_together_and_what_was_refused_alone_apart_from_what_was_only_cut() -> None:
    relay = Relay()
    alone = [message(f"alone{number}", suspect=True, refusals=number + 1) for number in range(40)]
    cut = [message(f"cut{number}", f"more{number}", suspect=True) for number in range(5)]
    large = [f"large{number}" for number in range(jobs.SUSPECT_EVENTS + 1)]
    relay.run(*alone, *cut, message(*large, suspect=True), message("new"))
    requests = [set(request.names) for request in relay.klaviyo.requests]
    assert requests == [
        {"new"},
        {f"{name}{number}" for number in range(5) for name in ("cut", "more")},
        {f"alone{number}" for number in range(32)},
        {f"alone{number}" for number in range(32, 40)},
        set(large),
    ]


def test_small_suspects_come_down_to_single_events_in_an_invocation_of_seven_requests() -> None:
    """So that what is sent together again and again is taken apart all the same."""
    relay = Relay()
    relay.klaviyo.bad, relay.klaviyo.pointers = {f"bad{number}" for number in range(60)}, False
    result = relay.run(*(message(f"bad{number}", suspect=True) for number in range(60)), seconds=3.0)
    assert len(relay.klaviyo.requests) <= 7
    assert max(job.refusals for job in result.left) == 1


def test_what_was_taken_long_ago_proves_nothing() -> None:
    relay = Relay()
    relay.run(message("good"))
    relay.clock.sleep(blame.MEMORY_SECONDS + 1)
    relay.klaviyo.bad, relay.klaviyo.pointers = {"bad"}, False
    assert not relay.run(message("bad", suspect=True, refusals=blame.PROOF_TRIES)).parked


def test_a_row_that_was_not_refused_alone_before_is_not_parked_for_what_was_taken_minutes_ago() -> None:
    relay = Relay()
    relay.run(message("good"))
    relay.clock.sleep(60)
    relay.klaviyo.told = lambda _: relay.klaviyo.answer(400, [{"title": "Malformed body"}])
    result = relay.run(message("a", "b", suspect=True))
    assert not result.parked
    assert left(result) == {"a", "b"}
    assert not relay.run(message("c")).parked


@pytest.mark.parametrize(
    "words",
    [
        "The unique_id 'repeat-order-17' is not valid for this event.",
        "An event with this unique_id already exists",
        "Duplicate unique_id",
    ],
)
def test_row_with_words_about_a_repeat_is_parked_and_not_counted_as_delivered(words: str) -> None:
    relay = Relay()
    refusal = {"title": "Invalid input.", "detail": words, "source": {"pointer": pointer(0)}}
    relay.klaviyo.told = lambda job: relay.klaviyo.answer(400, [refusal]) if "repeat-order-17" in job.names else None
    result = relay.run(message("repeat-order-17", "good"))
    assert parked(result) == {"repeat-order-17"}
    assert relay.klaviyo.stored == ["good"]
    assert result.delivered == 1


def pointer(index: int) -> str:
    return f"/data/attributes/events-bulk-create/data/{index}/attributes/events/data/0/attributes/unique_id"


# The rows at fault, and the number of rows in the job, to the rows that Klaviyo names.
Naming = Callable[[list[int], int], list[int]]
NAMINGS: dict[str, Naming] = {
    "no row": lambda at, rows: [],
    "a row that does not exist": lambda at, rows: [99_999],
    "the first row": lambda at, rows: [0],
    "the last row": lambda at, rows: [rows - 1],
    "every row": lambda at, rows: list(range(rows)),
    "rows counted from 1": lambda at, rows: [index + 1 for index in at],
    "one row at a time": lambda at, rows: at[:1],
}


def naming(relay: Relay, name: Naming, bad: set[str] | None = None, status: int = 400) -> None:
    """Klaviyo refuses jobs with one of ``bad``, or with ``None`` every job, and names rows by ``name``."""

    def told(job: Request) -> Answer | None:
        at = [index for index, row in enumerate(job.names) if bad is None or row in bad]
        named = [{"title": "Invalid input.", "source": {"pointer": pointer(i)}} for i in name(at, len(job.names))]
        return relay.klaviyo.answer(status, named or [{"title": "Invalid input."}]) if at else None

    relay.klaviyo.told = told


@pytest.mark.parametrize("status", [400, 413])
@pytest.mark.parametrize("name", NAMINGS)
def test_klaviyo_that_refuses_everything_blames_nobody_whatever_it_names(name: str, status: int) -> None:
    """An hour of it, in batches of 60 events that come back, and then all are delivered."""
    relay = Relay()
    naming(relay, NAMINGS[name], status=status)
    waiting = [message(*(f"m{many}-{row}" for row in range(6))) for many in range(10)]
    for number in range(120):
        result = relay.run(*waiting)
        assert not result.parked
        assert isinstance(result.cause, Closed)
        assert result.cause.closing == BRAKE
        assert len(relay.klaviyo.requests) <= 15 + number  # halved once; after that one probe each time
        waiting = again(result, waiting)
        relay.clock.sleep(30.5)
    relay.klaviyo.told = lambda _: None
    result = relay.run(*waiting)
    assert result.cause is None
    assert not result.parked
    assert sorted(relay.klaviyo.stored) == sorted(f"m{many}-{row}" for many in range(10) for row in range(6))


def again(result: Result, before: list[Message]) -> list[Message]:
    """The messages in which the rest of ``result`` comes back, as ``returns.defer`` packs it."""
    return [
        before[job.rows[0].owner]._replace(
            events=tuple(row.event for row in job.rows),
            suspect=job.suspect,
            refused_at=math.ceil(job.refused_at or 0),
            deferred=before[job.rows[0].owner].deferred + 1,
        )
        for job in result.left
    ]


@pytest.mark.parametrize("bad", [{"e3-21"}, {"e3-21", "e3-22"}, SEVEN], ids=["one", "two in a row", "seven"])
@pytest.mark.parametrize("name", NAMINGS)
def test_bad_rows_are_found_among_a_thousand_whatever_klaviyo_names(name: str, bad: set[str]) -> None:
    """A wrong pointer parks nobody else, and takes at most twice the requests of none."""
    relay = Relay()
    naming(relay, NAMINGS[name], bad)
    result = relay.run(*thousand())
    assert parked(result) | left(result) == bad  # the last may still wait for another request to be accepted
    assert len(left(result)) <= 1
    assert len(relay.klaviyo.stored) == 1_000 - len(bad)
    assert len(relay.klaviyo.requests) <= 2 * (2 * len(bad) * math.log2(1_000) + blame.TRUST)
    assert all(part.detail.startswith("Invalid input.") for part in result.parked)


def test_bad_row_that_is_named_while_others_are_accepted_is_parked_with_klaviyos_words() -> None:
    relay = Relay()
    relay.klaviyo.bad = {"bad"}
    result = relay.run(message("bad", "good"))
    ((rows, reason, detail, suspect),) = [(part.rows, part.reason, part.detail, part.suspect) for part in result.parked]
    assert [row.event.unique_id for row in rows] == ["bad"]
    assert (reason, suspect) == ("refused_by_klaviyo", False)
    assert detail.startswith("Invalid input.")
    assert relay.klaviyo.stored == ["good"]


def test_lone_bad_event_that_is_named_is_parked_without_proof() -> None:
    """On a quiet day nothing else comes that could prove anything."""
    relay = Relay()
    relay.klaviyo.bad = {"bad"}
    result = relay.run(message("bad"))
    assert parked(result) == {"bad"}
    assert result.cause is None


def test_klaviyo_that_refuses_and_names_each_lone_event_is_believed_for_three_and_then_closes() -> None:
    relay = Relay()
    naming(relay, NAMINGS["the first row"])
    results = []
    for number in range(30):
        results.append(relay.run(message(f"m{number}")))
        relay.clock.sleep(60)
    assert [len(parked(result)) for result in results] == [1] * blame.ROWS + [0] * 27
    relay.klaviyo.told = lambda _: None
    assert relay.run(message("later")).cause is None


@pytest.mark.parametrize("status", [200, 201, 204])
def test_only_a_202_is_a_delivery(status: int) -> None:
    relay = Relay()
    relay.klaviyo.told = lambda _: relay.klaviyo.answer(status)
    result = relay.run(message("a", "b"))
    assert (result.delivered, left(result)) == (0, {"a", "b"})
    assert isinstance(result.cause, Closed)
    assert result.cause.closing.code == f"status_{status}"


def test_what_is_too_large_is_halved_down_to_one_row() -> None:
    relay = Relay()
    relay.klaviyo.told = lambda job: relay.klaviyo.answer(413) if "big" in job.names or len(job.names) > 3 else None
    others = [f"small{number}" for number in range(20)]
    result = relay.run(message("a", "b", "big", "c", "d", *others))
    ((part,), detail) = result.parked, "the request is over Klaviyo's size limit"
    assert (part.reason, part.rows[0].event.unique_id, part.detail) == ("too_large", "big", detail)
    assert sorted(relay.klaviyo.stored) == sorted(["a", "b", "c", "d", *others])


def test_one_fault_costs_seconds_and_no_deferral() -> None:
    relay = Relay()
    faults = [relay.klaviyo.answer(503)]
    relay.klaviyo.told = lambda _: faults.pop() if faults else None
    result = relay.run(message("a"))
    assert relay.klaviyo.stored == ["a"]
    assert result.cause is None
    assert relay.klaviyo.requests[1].at - relay.klaviyo.requests[0].at < 4


def test_an_outage_defers_everything_after_two_tries() -> None:
    relay = Relay()
    relay.klaviyo.told = lambda _: relay.klaviyo.answer(503)
    result = relay.run(*thousand())
    assert isinstance(result.cause, Closed)
    assert len(left(result)) == 1_000
    assert len(relay.klaviyo.requests) == 2


def test_after_a_429_the_rest_is_left_until_it_may_go() -> None:
    relay = Relay()
    relay.klaviyo.told = lambda _: relay.klaviyo.answer(429, Retry_After="120")
    began = relay.clock()
    result = relay.run(*thousand())
    assert isinstance(result.cause, Closed)
    assert 120 <= result.cause.retry_at - began <= 122
    assert len(relay.klaviyo.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410, 415])
def test_what_a_person_must_mend_keeps_everything(status: int) -> None:
    relay = Relay()
    relay.klaviyo.told = lambda _: relay.klaviyo.answer(status)
    result = relay.run(*thousand())
    assert isinstance(result.cause, Closed)
    assert len(left(result)) == 1_000
    assert len(relay.klaviyo.requests) == 1
    assert not result.parked


def test_a_replaced_key_is_used_at_once_by_those_that_still_have_the_old() -> None:
    relay = Relay()
    relay.run(message("before"))
    relay.clock.sleep(PAUSES.key_reread)
    relay.klaviyo.told = lambda job: relay.klaviyo.answer(401) if job.key == "pk_one" else None
    relay.replace_key({"api_key": "pk_two\n"})
    result = relay.run(message("a"))
    assert [request.key for request in relay.klaviyo.requests] == ["pk_one", "pk_one", "pk_two"]
    assert result.cause is None
    assert relay.klaviyo.stored == ["before", "a"]


def test_the_probe_after_a_refused_key_tries_the_new_one() -> None:
    relay = Relay()
    relay.klaviyo.told = lambda job: relay.klaviyo.answer(401) if job.key == "pk_one" else None
    relay.run(message("a"))
    relay.replace_key({"api_key": "pk_two"})
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
    assert len(relay.klaviyo.requests[-2].names) == 1  # the probe


def test_live_events_of_the_job_that_a_probe_is_taken_from_still_come_before_redriven_ones() -> None:
    relay = Relay()
    relay.table.item = {"next": 0, "closed_until": 1, "closed_reason": str(BRAKE)}
    relay.run(message("redriven", redriven=True), message("a", "b", "c"))
    assert [request.names for request in relay.klaviyo.requests] == [["b"], ["a", "c"], ["redriven"]]


def test_job_that_a_row_is_taken_from_to_prove_another_keeps_its_place() -> None:
    relay = consistent(Relay())
    relay.clock.sleep(11)
    redriven = message("r0", "r1", "r2", redriven=True)
    result = relay.run(message("bad", "good"), redriven, message("suspect", suspect=True))
    assert parked(result) == {"bad"}
    tried = [request.names for request in relay.klaviyo.requests]
    assert tried == [["bad", "good"], ["bad"], ["r1"], ["bad"], ["good"], ["bad"], ["r0", "r2"], ["suspect"]]


@pytest.mark.parametrize(
    "content", [{}, {"api_key": ""}, {"api_key": 7}, {"api_key": "pk_\u00e9"}, {"api_key": "a\nb"}]
)
def test_without_a_key_nothing_is_posted_and_no_slot_taken(content: dict[str, Any]) -> None:
    relay = Relay()
    relay.replace_key(content)
    result = relay.run(message("a"))
    assert isinstance(result.cause, NoSlot)
    assert result.cause.closing.code == "no_key"
    assert left(result) == {"a"}
    assert not relay.table.item
    relay.clock.sleep(PAUSES.kept)
    relay.unreadable = True
    assert left(relay.run(message("a"))) == {"a"}


def away(relay: Relay) -> Hook:
    """A table that does not answer."""

    def raises(_: str) -> None:
        raise no_table(relay.clock)

    return raises


def test_without_the_table_nothing_is_posted() -> None:
    relay = Relay()
    relay.table.before = away(relay)
    result = relay.run(message("a"))
    assert isinstance(result.cause, TableUnavailable)
    assert left(result) == {"a"}
    assert not relay.klaviyo.requests


def test_a_table_that_dies_during_the_post_does_not_undo_the_delivery() -> None:
    relay = Relay()

    def dies(request: Request) -> Answer | None:
        relay.table.before = away(relay)
        return relay.klaviyo.answer(503) if "second" in request.names else None

    relay.klaviyo.told = dies
    result = relay.run(message("first"))
    assert (relay.klaviyo.stored, left(result)) == (["first"], set())
    relay.table.before = nothing
    result = relay.run(message("second"))
    assert left(result) == {"second"}


def test_no_time_left_posts_nothing_and_reserves_nothing() -> None:
    relay = Relay()
    result = relay.run(message("a"), seconds=-5)
    assert isinstance(result.cause, TooLate)
    assert left(result) == {"a"}
    assert not relay.table.item
