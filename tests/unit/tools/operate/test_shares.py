"""``make check`` reports shares on one pacing table that do not fit Klaviyo's limit."""

from __future__ import annotations

import pytest

from sim.stacks import Stack, Stacks
from tools.operate import shares
from tools.operate.target import Deployed


def described(name: str, rate: str = "", table: str = "table-1", account: str = "default") -> Stack:
    """A stack; without a ``table`` it is not a relay."""
    parameters = {"PacingAccount": account} | ({"RequestsPerMinute": rate} if rate else {})
    return Stack(name, parameters, {"PacingTableName": table} if table else {})


def said(*stacks: Stack, rate: str = "150") -> list[str]:
    """What is said of the stack ``shop`` beside these, one on each page."""
    services = {"cloudformation": Stacks(*stacks, Stack("bare"), per_page=1)}
    parameters = {"RequestsPerMinute": rate, "PacingAccount": "default"}
    return list(shares.warnings(Deployed(services.__getitem__, {"PacingTableName": "table-1"}, parameters, "shop")))


def test_a_smaller_stack_gets_its_own_and_the_other_the_rest() -> None:
    (text,) = said(described("shop", "150"), described("staging", "10"))
    assert "160 requests a minute (shop 150, staging 10), and Klaviyo accepts 150" in text
    assert "shop gets 139, staging gets 10." in text
    assert "set RequestsPerMinute in each so that the sum is 150 or less" in text


@pytest.mark.parametrize(
    ("rate", "other", "outcome"),
    [
        ("100", "75", "other gets 75, shop gets 74."),
        ("150", "150", "none is sure of its share: together they make 150"),
        ("40", "150", "other gets 109, shop gets 40."),
        ("150", "", "none is sure of its share"),
    ],
)
def test_what_each_stack_gets_is_said(rate: str, other: str, outcome: str) -> None:
    (text,) = said(described("other", other), rate=rate)
    assert outcome in text


@pytest.mark.parametrize(
    "others",
    [
        [],
        [described("shop", "150")],
        [described("other", "150", table="table-2")],
        [described("other", "150", account="second")],
        [described("website", "150", table="")],
    ],
    ids=["alone", "itself", "another table", "another account", "no relay"],
)
def test_a_stack_that_shares_with_nobody_is_not_warned_of(others: list[Stack]) -> None:
    assert said(*others) == []


def test_shares_that_fit_are_not_warned_of() -> None:
    assert said(described("other", "40"), described("third", "10"), rate="100") == []
    assert len(said(described("other", "40"), described("third", "11"), rate="100")) == 1
