"""Compiled expressions give what JMESPath's own interpreter gives, for every document."""

from __future__ import annotations

from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jmespath.exceptions import JMESPathError
from jmespath.visitor import Options, TreeInterpreter

from handler.events.compiler import Compiler
from handler.events.expressions import _Functions

FUNCTIONS = _Functions()
THEIRS = TreeInterpreter(Options(custom_functions=FUNCTIONS))
EXPRESSIONS = [
    "a",
    "a.b",
    "a.b.c",
    "a[0]",
    "a[-1].b",
    "a[1:]",
    "a[].b",
    "a[*].b[]",
    "a.*.b",
    "a || b",
    "a && b || c",
    "!a",
    "!(a || b)",
    "a == b",
    "a != b",
    "a == `0`",
    "a == `false`",
    "a < b",
    "a >= `1`",
    "a == 'x' && b || `null`",
    "[a, b.c]",
    "{One: a, Two: b.c}",
    "a[?b]",
    "a[?b == 'x'].c",
    "a[?b > `1`].{B: b, C: c}",
    "a[?!b].c | [0]",
    "a | [0] | b",
    "a.[b, c]",
    "@",
    "@.a",
    "length(a)",
    "contains(a, 'x')",
    "type(a) == 'array'",
    "join(', ', a)",
    "sort_by(a, &b)[0]",
    "map(&b, a)",
    "add(a[].b)",
    "add(a, b)",
    "money(a)",
    "minor(a, b)",
    "multiply(a, b) || add(c)",
    "first_name(a)",
    "find(a, 'b', c)",
    "with(a, 'b', c)",
    "object(a[].[b, c])",
    "like(@, 'a')",
    "not_null(a, b, c)",
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(allow_nan=False, width=16),
    st.sampled_from(["", "x", "1.5"]),
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=12,
)


def outcome(call: Any, document: Any) -> Any:
    """A value with its types, or the class of what was raised."""
    try:
        return repr(call(document))
    except (JMESPathError, TypeError, ValueError, AttributeError) as error:
        return type(error)


@pytest.mark.parametrize("text", EXPRESSIONS)
@given(document=documents)
def test_it_gives_what_the_library_gives(text: str, document: Any) -> None:
    tree = jmespath.compile(text).parsed
    assert outcome(Compiler(FUNCTIONS).compile(tree), document) == outcome(
        lambda value: THEIRS.visit(tree, value), document
    )


@pytest.mark.parametrize("text", ["money()", "money(a, b)", "nothing(a)", "length(a, b)"])
def test_a_wrong_call_is_the_library_s_mistake_to_name(text: str) -> None:
    tree = jmespath.compile(text).parsed
    with pytest.raises(JMESPathError):
        Compiler(FUNCTIONS).compile(tree)({"a": 1})
