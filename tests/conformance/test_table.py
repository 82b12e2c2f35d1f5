"""``sim.table`` compared with ``pacing.DynamoTable`` on two emulators: the same verdicts and items after each call.

Known differences: the item of DynamoDB has its key, which ``sim`` leaves out; numbers
with a fraction, which only damage can bring in, do not exist in ``sim``. moto fails where a
text is compared with a number; DynamoDB's condition is false then ("does not match",
API reference, ``ComparisonOperator``), as MiniStack's is.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.delivery.pacing import Item, Value
from handler.delivery.pacing_table import DynamoTable
from handler.pauses import PAUSES
from sim.table import Table

pytestmark = pytest.mark.xdist_group("conformance")
Client = Callable[[str], Any]
TABLE = "pacing"
Call = tuple[str, dict[str, Any]]
ACCOUNTS = count(1)
# Moments that meet each other, so that conditions hold about as often as they don't.
MOMENTS = st.integers(1, 6)
NUMBERS = ("closed_until", "probe_until", "accepted_at", "delivered_at", "died_at", "alive_at")
VALUES = {
    "next": st.none() | MOMENTS | st.just(10**13),
    **dict.fromkeys(NUMBERS, st.none() | MOMENTS | st.sampled_from(["3", "x", 10**13])),
    "share/shop-1": st.none() | st.just("10@5"),
    "closed_reason": st.none() | st.sampled_from(["", "throttled: wait", "größer ☃"]),
}
SOME = st.fixed_dictionaries({}, optional=VALUES)
CALLS = st.lists(
    st.one_of(
        st.tuples(
            st.just("advance"),
            st.fixed_dictionaries({"first": MOMENTS, "last": MOMENTS, "step": MOMENTS}),
        ),
        st.tuples(st.just("swap"), st.fixed_dictionaries({"expected": SOME, "changed": SOME.filter(bool)})),
        st.tuples(st.just("read"), st.just({})),
    ),
    max_size=8,
)


@pytest.fixture(scope="session")
def on_ministack(ministack: Client) -> Callable[[], DynamoTable]:
    """Makes pacing tables with no item in them yet."""
    return tables(ministack)


@pytest.fixture(scope="session", params=["ministack", "moto"])
def real(request: pytest.FixtureRequest) -> Callable[[], DynamoTable]:
    """The same, on each emulator."""
    if request.param == "moto":
        return tables(request.getfixturevalue("moto"))
    table: Callable[[], DynamoTable] = request.getfixturevalue("on_ministack")
    return table


def tables(clients: Client) -> Callable[[], DynamoTable]:
    client = clients("dynamodb")
    client.create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return lambda: DynamoTable(client, TABLE, f"account{next(ACCOUNTS)}", clock=lambda: 0.0, pauses=PAUSES)


def answers(table: Table | DynamoTable, calls: list[Call]) -> list[Any]:
    """What ``table`` answers to each call, and the item after it."""
    answers: list[Any] = []
    for operation, asked in calls:
        answer = getattr(table, operation)(**asked)
        answers += [plain(answer), plain(table.read())]
    return answers


def plain(answer: Any) -> Any:
    """An answer without the item's key."""
    if isinstance(answer, tuple):
        return answer[0], plain(answer[1])
    return {name: value for name, value in answer.items() if name != "id"}


def swap(expected: dict[str, Value], **changed: Value) -> Call:
    return "swap", {"expected": expected, "changed": changed}


def advance(first: int, last: int) -> Call:
    return "advance", {"first": first, "last": last, "step": 3}


NEXT: dict[str, Value] = {"next": 10}
CASES: dict[str, tuple[list[Call], tuple[bool, Item]]] = {
    "an item that does not exist cannot be advanced": ([advance(0, 99)], (False, {})),
    "an item that does not exist is made": ([swap({"next": None}, next=10)], (True, {})),
    "the item before a change is returned": ([swap({}, next=10), advance(10, 10)], (True, {"next": 10})),
    "the item of a refused condition is returned": ([swap({}, next=10), advance(11, 99)], (False, {"next": 10})),
    "a slot past the last is refused": ([swap({}, next=10), advance(0, 9)], (False, {"next": 10})),
    "a closed item is not advanced": (
        [swap({}, next=10, closed_until=1), advance(0, 99)],
        (False, {"next": 10, "closed_until": 1}),
    ),
    "an opened item is advanced": (
        [swap({}, next=10, closed_until=1), swap({}, closed_until=None), advance(0, 99)],
        (True, {"next": 10}),
    ),
    "a text does not equal its number": ([swap({}, next="10"), swap({"next": 10}, next=1)], (False, {"next": "10"})),
    "what is absent may be removed": ([swap({}, next=10), swap(NEXT, died_at=None)], (True, {"next": 10})),
    "set and removed in one": (
        [swap({}, next=10, died_at=7), swap(NEXT, died_at=None, next=11)],
        (True, {"next": 10, "died_at": 7}),
    ),
    "expected to be absent and is not": (
        [swap({}, next=10), swap({"next": None}, next=1)],
        (False, {"next": 10}),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_condition_has_its_verdict(case: str, real: Callable[[], DynamoTable]) -> None:
    calls, verdict = CASES[case]
    for table in (Table(), real()):
        assert answers(table, calls)[-2] == verdict


def test_text_is_no_number_to_compare(on_ministack: Callable[[], DynamoTable]) -> None:
    calls = [swap({}, next="10"), advance(0, 99)]
    for table in (Table(), on_ministack()):
        assert answers(table, calls)[-2] == (False, {"next": "10"})


def test_each_item_of_a_table_is_its_own(real: Callable[[], DynamoTable]) -> None:
    for table in (Table(), real()):
        share = table.at("share/one")
        calls = [swap({}, next=10), advance(0, 99)]
        assert answers(share, calls)[-1] == {"next": 13}
        assert plain(table.read()) == plain(table.at("share/two").read()) == {}
        assert answers(table, [swap({"next": None}, next=5)])[-1] == {"next": 5}
        assert plain(table.at("share/one").read()) == {"next": 13}


def test_share_has_a_key_under_the_accounts(on_ministack: Callable[[], DynamoTable]) -> None:
    """Other versions use the same key: ``{account}/event-bulk-create-jobs/share/{stack}``."""
    table = on_ministack()
    table.at("share/shop").swap({}, {"next": 1})
    table.swap({}, {"next": 1})
    assert table.at("share/shop").read()["id"] == f"{table.read()['id']}/share/shop"


@settings(max_examples=30)
@given(calls=CALLS)
def test_any_calls_are_answered_alike(real: Callable[[], DynamoTable], calls: list[Call]) -> None:
    assert answers(Table(), calls) == answers(real(), calls)
