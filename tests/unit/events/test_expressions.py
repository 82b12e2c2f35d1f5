"""The functions that the senders' files call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.events.expressions import Expression


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ({"plan": "duo", "Password": "x", "api-key": "y", "apiKey": "z"}, {"plan": "duo"}),
        (
            {"cart": {"sku": "7", "session_token": "x"}, "lines": [{"secret": 1, "n": 2}, 3]},
            {"cart": {"sku": "7"}, "lines": [{"n": 2}, 3]},
        ),
        ([{"card_number": "4242"}], [{}]),
        ("token", "token"),
        (None, None),
    ],
)
def test_secrets_are_left_out_at_any_depth(value: Any, left: Any) -> None:
    assert Expression("public(x)").of({"x": value}) == left


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("Kim Lee <kim@mail.example>", "kim@mail.example"),
        ('"Lee, Kim" <kim@mail.example> ', "kim@mail.example"),
        (" kim@mail.example ", "kim@mail.example"),
        ("<kim@mail.example> (office)", "<kim@mail.example> (office)"),
        ("<" * 5_000, "<" * 5_000),
        ("", None),
        (["kim@mail.example"], None),
        (None, None),
    ],
)
def test_the_address_is_taken_out_of_a_mail_header(written: Any, address: str | None) -> None:
    assert Expression("address(x)").of({"x": written}) == address


def test_an_object_becomes_pairs_and_back() -> None:
    answers = {"Email": {"value": "lea@letters.example"}, "Size": {"value": ["5", "6"]}}
    assert Expression("pairs(@)[0]").of(answers) == ["Email", {"value": "lea@letters.example"}]
    assert Expression("object(pairs(@)[*].[@[0], @[1].value])").of(answers) == {
        "Email": "lea@letters.example",
        "Size": ["5", "6"],
    }


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: name == " ".join(name.split())[:255]), st.integers()))
def test_object_undoes_pairs(fields: dict[str, int]) -> None:
    assert Expression("object(pairs(@))").of(fields) == fields


@pytest.mark.parametrize("wrong", [None, 3, "text", ["a"], True])
def test_what_is_no_object_has_no_pairs(wrong: Any) -> None:
    assert Expression("pairs(@)").of(wrong) is None


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"order": 7, "ip": "203.0.113.1", "note": "", "tags": []}, {"order": 7}),
        ({"order": 0, "paid": False}, {"order": 0, "paid": False}),
        ({}, {}),
        (["ip"], None),
        (None, None),
    ],
)
def test_members_are_left_out_by_name_and_when_empty(fields: Any, left: Any) -> None:
    assert Expression("without(x, 'ip', 'url')").of({"x": fields}) == left


@pytest.mark.parametrize(
    ("written", "document"),
    [
        ('{"q1": {"first": "Zoë"}}', {"q1": {"first": "Zoë"}}),
        ("[1]", [1]),
        ("{", None),
        ("[" * 100_000, None),
        ("\ud800", None),
        ({"already": "read"}, None),
        (None, None),
    ],
)
def test_a_document_within_a_text_is_read(written: Any, document: Any) -> None:
    assert Expression("json(x)").of({"x": written}) == document


@pytest.mark.parametrize(
    "expression",
    ["_root", "_root.a", "_webhook.x[?y == z].a", "[_root.a, `1`]", "sort_by(_root.x, &y)", "{a: _root.x[1:2]}", "`1`"],
)
def test_an_expression_of_the_whole_webhook_says_the_same_of_each_entry(expression: str) -> None:
    assert Expression(expression).is_common


@pytest.mark.parametrize(
    "expression", ["@", "a", "a._root", "_root.a || a", "[_root.a, a]", "{a: a}", "add(_root.a, a)"]
)
def test_an_expression_of_an_entry_is_evaluated_for_each(expression: str) -> None:
    assert not Expression(expression).is_common
