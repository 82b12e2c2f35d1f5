"""Klaviyo's words name nobody, in whatever spelling they quote an event, and still say what is wrong."""

from __future__ import annotations

import html
import json
import re
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from handler.delivery.scrub import COMMON, HIDDEN, MOST, SCHEMA, scrub
from handler.events.entry import LOCATION_FIELDS, PROFILE_FIELDS

PERSON = {"email": "ada@mail.example", "first_name": "Al", "last_name": "Lovelace", "title": "An"}
PROPERTIES = {"Note": "call at noon", "n": 12345, "Son of Byron": {"type": "Zo\u00eb"}}
ENTRY = json.dumps(
    {
        "type": "event-bulk-create",
        "attributes": {
            "profile": {"data": {"type": "profile", "attributes": PERSON}},
            "events": {"data": [{"type": "event", "attributes": {"properties": PROPERTIES}}]},
        },
    }
)
EXPECTED = Path(__file__).parents[1] / "expected"
# The API reference's own words ("Invalid input."), JSON:API's, and what validators of JSON say.
SAYINGS = [
    "Invalid input.",
    "The payload provided in the request is invalid. (attributes/profile/data/attributes/email)",
    "'unique_id' is a required parameter for the resource 'event'.",
    "Phone number is not valid. (attributes/profile/data/attributes/phone_number)",
    "The value of 'time' must be an ISO 8601 datetime string, not more than one year in the future",
    "'value' must be a number (attributes/events/data/0/attributes/value)",
    "String exceeds the maximum length of 255 characters (attributes/profile/data/attributes/external_id)",
    "Object is nested too deep: at most 10 levels are allowed (attributes/events/data/0/attributes/properties)",
    "Missing required parameter: one of email, phone_number, id, external_id or anonymous_id must be given.",
]


def words_of(text: str) -> set[str]:
    """The words of a text in small letters, and what underscores join, except Klaviyo's own names."""
    words = set(re.findall(r"\w+", unicodedata.normalize("NFC", text).casefold())) - SCHEMA
    return {part for word in words for part in word.split("_")}


def test_klaviyos_words_lose_the_persons_and_keep_their_sense() -> None:
    words = (
        "Invalid profile: LOVELACE <ada@mail.example> wrote call at noon, 12345; phone +44 7911 123456, key pk_abc123; "
        "'An' or AL, son of Byron, is not a valid title: Zoë, 'email' must be a string; bob@other.example, "
        "4f5e2d1c0b9a8f7e6d5c4b3a2f1e0d9c, Al Lovelace"
    )
    assert scrub(words, ENTRY) == (
        "Invalid profile: […] <[…]> wrote […] at […], […]; phone […], key […] "
        "'[…]' or […], […] of […], is not a valid title: […], 'email' must be a string; […], […], […]"
    )


@pytest.mark.parametrize(
    "written",
    [
        "Lovelace",
        "LOVELACE",
        "\\u004cov\\u0065lace",
        "\\\\u004covelace",
        "\\x4covelace",
        "\\U0000004covelace",
        "\\nLovelace",
        '\\"Lovelace\\"',
        "&quot;Lovelace&quot;",
        "&#76;ovelace",
        "&amp;#x4c;ovelace",
        "%4Covelace",
        "%254Covelace",
        "last_name=Lovelace&x=1",
        "properties_lovelace",
    ],
)
def test_a_name_is_hidden_however_it_is_spelt(written: str) -> None:
    assert "ovelace" not in scrub(f"The value '{written}' is not valid", ENTRY).casefold()


SPELT: list[Callable[[str], str]] = [
    str,
    str.upper,
    json.dumps,
    lambda value: json.dumps(json.dumps(value)),
    lambda value: json.dumps(value, ensure_ascii=False),
    html.escape,
    lambda value: value.encode("ascii", "xmlcharrefreplace").decode(),
    quote,
    lambda value: quote(quote(value)),
    lambda value: f"{value.encode()!r}" if value.isascii() else repr(value),
]
PLACES: list[Callable[[str], Any]] = [
    lambda value: {"profile": {"data": {"attributes": {"first_name": value}}}},
    lambda value: {"properties": {"Items": [{"type": value}]}},
    lambda value: {"properties": {value: 1}},
]


@given(
    value=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30) | st.text("ab I'é李-_ .\\%&@4", max_size=12),
    spelt=st.sampled_from(SPELT),
    place=st.sampled_from(PLACES),
    ascii_only=st.booleans(),
)
def test_no_value_or_name_of_an_event_is_left_in_the_words(
    value: str, spelt: Callable[[str], str], place: Callable[[str], Any], ascii_only: bool
) -> None:
    assume(value.upper().casefold() == value.casefold())
    entry = json.dumps(place(value), ensure_ascii=ascii_only, separators=(",", ":"))
    clean = scrub(f"invalid: '{spelt(value)}'", entry)
    private = {word for word in words_of(value) - COMMON if len(word) > (2 if word.isdecimal() else word.isascii())}
    assert not private & words_of(clean)
    assert clean.startswith("invalid: ")


@given(st.text(max_size=60), st.text(min_size=1, max_size=12, alphabet="abcdefgh XYZ"))
def test_a_value_is_hidden_whatever_stands_around_it(around: str, value: str) -> None:
    value = f"q{value.strip()}q"
    entry = json.dumps({"attributes": {"profile": {"first_name": value}}})
    assert value not in scrub(f"{around} '{value}' {around}", entry)


@given(st.text(max_size=200), st.text(max_size=200) | st.binary(max_size=200))
def test_whatever_the_texts_the_result_is_one_printable_line(words: str, entry: str | bytes) -> None:
    assert scrub(words, entry).isprintable()


@pytest.mark.parametrize("saying", SAYINGS)
def test_klaviyos_own_words_stay(saying: str) -> None:
    entries = [
        json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
        for path in EXPECTED.glob("*/*.json")
        for entry in json.loads(path.read_text("utf-8"))["events"]
    ]
    cut = [clean for entry in entries if (clean := scrub(saying, entry)) != saying]
    assert len(entries) > 500
    assert len(cut) <= len(entries) // 50  # a country of AT hides one "at", say
    for word in SCHEMA.intersection(re.findall(r"\w+", saying)):
        assert all(word in clean for clean in cut)


def test_the_names_of_klaviyos_fields_are_known() -> None:
    assert PROFILE_FIELDS | LOCATION_FIELDS <= SCHEMA


def test_a_long_text_is_cut_and_no_part_of_a_word_is_left() -> None:
    clean = scrub("invalid " * (MOST // 8 - 1) + "Lovelace is not valid", ENTRY)
    assert clean.strip().startswith("invalid invalid")
    assert not set(re.findall(r"\w+", clean)) - {"invalid"}
    assert len(clean) <= MOST
    assert scrub("x" * 3 * MOST, ENTRY) == ""


def seconds(of: Callable[[], object]) -> float:
    """CPU of one call, the least of five measurements of 5 ms or more."""
    runs = []
    for _ in range(5):
        began, calls = time.process_time(), 0
        while (used := time.process_time() - began) < 0.005:
            of()
            calls += 1
        runs.append(used / calls)
    return min(runs)


def is_linear(of: Callable[[str], object], piece: str, length: int) -> bool:
    """Whether eight times the length takes nearer to 8 than to 64 times the CPU, tried thrice on a busy machine."""

    def ratio() -> float:
        short, long = (piece * (size // len(piece)) for size in (length // 8, length))
        return seconds(lambda: of(long)) / seconds(lambda: of(short))

    return any(ratio() < 24 for _ in range(3))


PIECES = [
    "a",
    "\u0301\u0323",
    "@",
    "a@",
    "1",
    "1(",
    "a-",
    "pk_ ",
    "\\",
    "\\u0041",
    "&amp;",
    "&#",
    "%41",
    '"',
    '" ',
    '"a',
    "ﷺ",
    "a ",
]


@pytest.mark.parametrize("piece", [*PIECES, HIDDEN])
def test_time_grows_with_the_texts(piece: str) -> None:
    assert is_linear(lambda words: scrub(words, ENTRY), piece, MOST)
    assert is_linear(lambda words: scrub(words, ENTRY), piece, 40 * MOST)
    assert is_linear(lambda entry: scrub("The email a@b.example of Kim is not valid", entry), piece, 400_000)
