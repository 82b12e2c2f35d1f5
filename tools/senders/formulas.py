"""Mistakes in the JMESPath expressions of a sender's file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

import jmespath
from jmespath.exceptions import EmptyExpressionError, IncompleteExpressionError, JMESPathError, ParseError

from handler.events import expressions

AMOUNTS = {"money", "minor", "add", "subtract", "multiply", "absolute"}


def meant(name: str, known: Iterable[str]) -> str:
    """Return the known name that ``name`` resembles, otherwise all of them."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(known))}"


def wrong(text: Any) -> str | None:
    """Return what is wrong with an expression; ``None`` if nothing is."""
    if not isinstance(text, str):
        return "expected an expression, which is a text"
    try:
        tree = jmespath.compile(text).parsed
    except JMESPathError as error:
        return f"expected a JMESPath expression: {_misread(error)}"
    if _negates_a_part(tree):
        return "!a.b is read as (!a).b: expected !(a.b)"
    known = expressions.arities()
    for name, count in _calls(tree):
        if name == "to_number":
            return "to_number loses digits: expected money()"
        if name not in known:
            return f"unknown function {name}(): {meant(name, set(known) - {'to_number'})}"
        least, most = known[name]
        if count < least or (most is not None and count > most):
            return f"expected {least}{'' if most == least else ' or more'} arguments of {name}(), found {count}"
    return None


def _misread(error: JMESPathError) -> str:
    """Return where an expression cannot be read, in our own words."""
    if isinstance(error, EmptyExpressionError):
        return "it is empty"
    if not isinstance(error, ParseError) or isinstance(error, IncompleteExpressionError) or not error.token_value:
        return "it ends too early"
    place = f"{error.token_value!r} at character {error.lex_position + 1}"
    return f"{place} is not closed" if str(error.token_type).startswith("UNCLOSED") else f"{place} is not expected"


def _calls(tree: Any) -> Iterator[tuple[str, int]]:
    if tree["type"] == "function_expression":
        yield tree["value"], len(tree["children"])
    for child in tree["children"]:
        if isinstance(child, dict):
            yield from _calls(child)


def _negates_a_part(tree: Any) -> bool:
    """Return whether a "!" binds to less than the expression after it."""
    inner = [child for child in tree["children"] if isinstance(child, dict)]
    parted = tree["type"] in ("subexpression", "comparator", "index_expression", "projection", "flatten")
    return (parted and bool(inner) and inner[0]["type"] == "not_expression") or any(map(_negates_a_part, inner))


def is_amount(text: Any) -> bool:
    """Return whether every branch of the expression ends in a function that keeps an amount's digits."""
    return isinstance(text, str) and wrong(text) is None and _ends_in_amount(jmespath.compile(text).parsed)


def _ends_in_amount(tree: Any) -> bool:
    if tree["type"] == "or_expression":
        return all(_ends_in_amount(child) for child in tree["children"])
    if tree["type"] == "and_expression":
        return _ends_in_amount(tree["children"][1])
    return tree["type"] == "function_expression" and tree["value"] in AMOUNTS
