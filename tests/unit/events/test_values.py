"""Single values: what senders write, and what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.events import values

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=80),
    st.lists(st.text(max_size=3), max_size=2),
)


@pytest.mark.parametrize(
    ("written", "clean"),
    [
        (" Kim.Lee+shop@Mail.Example ", "kim.lee+shop@mail.example"),
        ("mailto:kim@mail.example", "kim@mail.example"),
        ("kim@mail.example.", None),
        ("kim@mail", None),
        ("kim..lee@mail.example", None),
        ("kim @mail.example", None),
        ("Kim <kim@mail.example>", None),
        ("k" * 65 + "@mail.example", None),
        ("k@" + "m" * 90 + ".example", None),
        ("", None),
        (5, None),
    ],
)
def test_an_email_is_clean_or_none(written: Any, clean: str | None) -> None:
    assert values.email(written) == clean


@pytest.mark.parametrize("domain", ["example.com", "test.com", "shop.example.org"])
def test_domains_that_klaviyo_drops_are_recognised(domain: str) -> None:
    assert values.is_dropped(f"kim@{domain}")
    assert not values.is_dropped("kim@mail.example")
    assert not values.is_dropped("kim@myexample.com")


@pytest.mark.parametrize(
    ("written", "regions", "e164"),
    [
        ("+44 7911 123456", [], "+447911123456"),
        ("0044 7911 123456", [], "+447911123456"),
        ("06 12345678", ["NL"], "+31612345678"),
        ("(202) 555-0143", ["nl", "US"], "+12025550143"),
        ("(202) 555-0143", [], None),
        ("555-555-SHIP", ["US"], None),
        ("06 12345678", ["Netherlands", None], None),
        ("+1 2", [], None),
        (31612345678, ["NL"], "+31612345678"),
    ],
)
def test_a_phone_number_is_e164_by_its_region(written: Any, regions: list[Any], e164: str | None) -> None:
    assert values.phone(written, regions) == e164


MOMENT = datetime(2026, 10, 12, 9, 15, 27, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "written",
    [
        1_791_796_527,
        "1791796527",
        1_791_796_527_000,
        1_791_796_527_000_000,
        "2026-10-12T09:15:27Z",
        "2026-10-12T05:15:27-04:00",
        "2026-10-12 09:15:27 UTC",
        "2026-10-12T09:15:27.000000000Z",
        "2026-10-12T14:45:27+0530",
        "Mon, 12 Oct 2026 09:15:27 GMT",
        "Mon, 12 Oct 2026 11:15:27 +0200",
        "Mon, 12 Oct 2026 11:15:27 +0200 (CEST)",
        "Mon, 12 Oct 2026 11:15:27 +02:00",
        "Mon Oct 12 2026 11:15:27 GMT+0200 (Central European Summer Time)",
        "Mon Oct 12 09:15:27 UTC 2026",
        "Mon Oct 12 04:15:27 EST 2026",
        "Mon, 12 Oct 2026 09:15:27 -0000",
    ],
)
def test_a_time_is_read_in_every_senders_form(written: Any) -> None:
    assert values.time(written) == MOMENT
    assert values.time(written, ZoneInfo("Asia/Tokyo")) == MOMENT


def test_a_time_without_a_zone_is_read_in_the_senders() -> None:
    for written in ("2026-10-12T11:15:27", "Mon, 12 Oct 2026 11:15:27", "Mon Oct 12 11:15:27 2026"):
        assert values.time(written, ZoneInfo("Europe/Paris")) == MOMENT


@pytest.mark.parametrize(
    "written",
    [
        "Mon, 12 Oct 2026 11:15:27 CEST",
        "Mon, 12 Oct 2026 11:15:27 Europe/Paris",
        "Mon, 12 Oct 2026 11:15:27 (CEST)",
        "Mon Oct 12 11:15:27 CEST 2026",
        "12 Oct 2026 11:15 PM",
        "2026-10-12T11:15:27[Europe/Paris]",
        "2026-10-12 11:15:27 CEST",
    ],
)
def test_a_time_in_a_zone_that_we_do_not_know_is_not_read_in_another(written: str) -> None:
    assert values.time(written) is None
    assert values.time(written, ZoneInfo("Europe/Paris")) is None


@pytest.mark.parametrize("written", ["", "yesterday", "2026-13-01", "12/10/2026", True, None, [], 1e400, "0000-00-00"])
def test_what_is_not_a_time_has_no_value(written: Any) -> None:
    assert values.time(written) is None


def test_klaviyos_bounds_of_a_time() -> None:
    assert not values.plausible(0, MOMENT)
    assert not values.plausible(MOMENT + values.YEAR, MOMENT)
    assert values.plausible(MOMENT + 30 * 86_400, MOMENT)


@pytest.mark.parametrize(
    ("amount", "currency", "decimal"),
    [
        (1999, "usd", "19.99"),
        ("1999", "EUR", "19.99"),
        (500, "jpy", "500"),
        (12_345, "KWD", "12.345"),
        (-250, "GBP", "-2.50"),
    ],
)
def test_minor_units_by_currency(amount: Any, currency: str, decimal: str) -> None:
    assert values.minor(amount, currency) == Decimal(decimal)


@pytest.mark.parametrize(
    ("written", "decimal"),
    [("19.99", "19.99"), (19.99, "19.99"), ("1,299.90", "1299.90"), (" 7 ", "7"), ("-10.00", "-10.00"), (0, "0")],
)
def test_money_keeps_every_digit(written: Any, decimal: str) -> None:
    assert values.money(written) == Decimal(decimal)


@pytest.mark.parametrize("written", ["12,5", "€5", "1e5", "NaN", "", ".", True, None, float("inf"), "9" * 50])
def test_what_is_not_an_amount_has_no_value(written: Any) -> None:
    assert values.money(written) is None


@given(st.decimals(min_value=-(10**11), max_value=10**11, places=2))
def test_no_cent_is_lost_on_the_way_to_json(amount: Decimal) -> None:
    read = values.money(str(amount))
    assert read == amount
    assert Decimal(repr(values.number(amount))) == amount


@pytest.mark.parametrize(
    ("full", "names"),
    [
        ("Ada King Lovelace", ("Ada", "King Lovelace")),
        ("Lovelace, Ada", ("Ada", "Lovelace")),
        ("Cher", ("Cher", None)),
        ("kim@mail.example", (None, None)),
        ("  ", (None, None)),
    ],
)
def test_a_name_in_one_field_is_split(full: str, names: tuple[str | None, str | None]) -> None:
    assert values.names(full) == names


def test_markup_is_taken_off() -> None:
    assert values.plain("<p>Salt &amp; <b>pepper</b></p>") == "Salt & pepper"


@given(ANYTHING, ANYTHING)
def test_whatever_comes_nothing_raises(value: Any, other: Any) -> None:
    address = values.email(value)
    assert address is None or len(address) <= values.EMAIL_LENGTH
    number = values.phone(value, [other])
    assert number is None or number.startswith("+")
    for read in (values.text, values.time, values.money, values.currency, values.names, values.country, values.plain):
        read(value)
    values.minor(value, other)
    assert values.digest(value, other) == values.digest(value, other)
