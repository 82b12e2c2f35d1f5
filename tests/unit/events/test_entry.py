"""Klaviyo's limits: whatever goes in, what comes out is within them, and says what was left out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handler.errors import Unmapped
from handler.events.entry import (
    EVENT_PROPERTIES,
    LOCATION_FIELDS,
    MARK,
    PROFILE_FIELDS,
    SILENT,
    Draft,
    build,
    identifiers_only,
)
from local.klaviyo_checks import problems

TIME = 1_791_796_527


def draft(profile: dict[str, Any] | None = None, **more: Any) -> Draft:
    whole: dict[str, Any] = {"metric": "Placed Order", "unique_id": "acme:1", "time": TIME}
    return Draft(profile={"email": "kim@mail.example"} if profile is None else profile, **(whole | more))


def built(draft: Draft, region: str = "") -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Profile attributes, event attributes and the notes' codes of the finished event."""
    event, notes = build(draft, phone_region=region)
    entry = json.loads(event.entry)
    job = {"data": {"type": "event-bulk-create-job", "attributes": {"events-bulk-create": {"data": [entry]}}}}
    assert list(problems(job, datetime(2026, 11, 24, tzinfo=UTC))) == []
    attributes = entry["attributes"]
    return (
        attributes["profile"]["data"]["attributes"],
        attributes["events"]["data"][0]["attributes"],
        [note.code for note in notes],
    )


def test_an_invalid_phone_with_a_valid_email_is_left_out_and_noted() -> None:
    profile, event, notes = built(draft({"email": "kim@mail.example", "phone_number": "12"}))
    assert "phone_number" not in profile
    assert event["properties"][MARK] == ["phone_number: invalid_phone"]
    assert notes == ["invalid_phone"]


def test_the_first_valid_candidate_counts() -> None:
    profile, _, notes = built(draft({"email": [None, "nobody", "kim@mail.example", "lee@mail.example"]}))
    assert profile["email"] == "kim@mail.example"
    assert notes == []


def test_a_phone_is_read_by_the_address_before_the_stacks_region() -> None:
    loose = {"phone_number": "06 12345678", "location": {"country": "nl"}}
    assert built(draft(loose), "US")[0]["phone_number"] == "+31612345678"


def test_without_an_identifier_there_is_no_event_and_no_value_in_the_reason() -> None:
    with pytest.raises(Unmapped) as caught:
        build(draft({"email": "kim@nowhere", "first_name": "Kim"}))
    assert caught.value.reason == "no_identifier"
    assert "kim" not in str(caught.value).lower()


def test_the_senders_own_id_is_used_only_where_nothing_else_is() -> None:
    assert built(draft({}, fallback_id="acme:7"))[0] == {"external_id": "acme:7"}
    assert "external_id" not in built(draft(fallback_id="acme:7"))[0]


def test_domains_that_klaviyo_drops_are_said_in_the_log_only() -> None:
    _, event, notes = built(draft({"email": "kim@example.com"}))
    assert notes == [SILENT]
    assert MARK not in event["properties"]


def test_an_amount_is_a_number_with_its_currency() -> None:
    _, event, _ = built(draft(value=Decimal("19.99"), currency="EUR"))
    assert (event["value"], event["value_currency"]) == (19.99, "EUR")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (float("nan"), "number_not_finite"),
        (float("inf"), "number_not_finite"),
        (2**63, "number_out_of_range"),
        ("x" * 100_001, "string_cut"),
        ([1] * 4_001, "array_cut"),
        (object(), "wrong_type"),
    ],
)
def test_what_klaviyo_cannot_take_is_left_out_or_cut_and_marked(wrong: Any, code: str) -> None:
    _, event, notes = built(draft(properties={"Wrong": wrong, "Right": 1}))
    assert notes == [code]
    assert event["properties"]["Right"] == 1
    assert event["properties"][MARK] == [f"Wrong: {code}"]


def test_properties_beyond_the_limit_are_left_out() -> None:
    _, event, notes = built(draft(properties={f"p{n}": n for n in range(1, 1_000)}))
    assert len(event["properties"]) == EVENT_PROPERTIES
    assert notes == ["too_many_properties"]


def test_the_largest_property_goes_where_the_event_fits_no_message() -> None:
    _, event, notes = built(draft(properties={f"p{n}": "ü" * 50_000 for n in range(12)} | {"Small": 1}))
    assert event["properties"]["Small"] == 1
    assert "too_large" in notes


def test_lone_surrogates_and_nul_are_replaced() -> None:
    _, event, _ = built(draft(properties={"Name\ud800": "a\x00b\udfff"}))
    assert event["properties"] == {"Name\ufffd": "a\ufffdb\ufffd"}


@pytest.mark.parametrize("name", sorted(LOCATION_FIELDS - {"latitude", "longitude"}))
def test_a_place_that_is_not_unicode_is_cleaned(name: str) -> None:
    profile, _, _ = built(draft(profile={"email": "kim@mail.example", "location": {name: "\ud800\x00"}}))
    assert profile["location"][name] == "\ufffd\ufffd"


def test_a_late_event_carries_identifiers_only() -> None:
    event, _ = build(draft({"email": "kim@mail.example", "first_name": "Kim", "location": {"city": "Oslo"}}))
    late = json.loads(identifiers_only(event.entry))["attributes"]
    assert late["backfill"] is True
    assert late["profile"]["data"]["attributes"] == {"email": "kim@mail.example"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["x" * 100_001, "\ud800", 2**64]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = sorted(PROFILE_FIELDS | {"nonsense"})


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    loose=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=8),
    properties=JSON,
    metric=st.text(max_size=200),
    unique_id=st.text(max_size=300),
    value=st.none() | st.decimals(allow_nan=False, allow_infinity=False),
)
def test_anything_becomes_a_valid_event_or_is_unmapped(
    loose: dict[str, Any], properties: Any, metric: str, unique_id: str, value: Decimal | None
) -> None:
    draft = Draft(loose, metric, unique_id, TIME, properties=properties, value=value, currency="EUR", fallback_id="a:1")
    try:
        _, event, _ = built(draft)
    except Unmapped:
        return
    assert len(event["unique_id"]) <= 255
