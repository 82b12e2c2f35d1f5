"""JMESPath's syntax tree as Python functions, so that a webhook's expressions are called, not walked.

The library's interpreter looks up each node's method at each visit, which is a
third of a webhook's CPU (docs/performance.md). The parser, the functions and
everything rare stay the library's own. Semantics: JMESPath specification,
https://jmespath.org/specification.html. ``tests/unit/events/test_compiler.py``
compares both.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

from jmespath.functions import Functions
from jmespath.visitor import Options, TreeInterpreter

from ..work import spend, weight

Evaluate = Callable[[Any], Any]
Node = Any  # the parser's own tree: mappings with type, value and children

_FEW = 16
_SIZED = {str, list, dict}
_WORDS = 4  # a unit is 2 ** 4 characters that may be cut to pieces
_ORDER = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}


def is_false(value: Any) -> bool:
    """Return whether JMESPath takes ``value`` for false: null, false and everything empty, but not 0."""
    return value is None or value is False or (not value and isinstance(value, str | list | dict))


class _Interpreter(TreeInterpreter):
    """The library's interpreter, which also counts its visits."""

    def visit(self, node: Node, *arguments: Any, **options: Any) -> Any:
        spend(3)
        return super().visit(node, *arguments, **options)


class Compiler:
    """Turns trees into functions; calls go to ``functions``."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        self._interpreter = _Interpreter(Options(custom_functions=functions))

    def compile(self, node: Node) -> Evaluate:
        """Return the function of one value that gives what the library's interpreter gives for ``node``."""
        build = getattr(self, f"_{node['type']}", None)
        if build is None:
            return partial(self._interpreter.visit, node)
        evaluate: Evaluate = build(node)
        return evaluate

    def _children(self, node: Node) -> list[Evaluate]:
        return [self.compile(child) for child in node["children"]]

    def _field(self, node: Node) -> Evaluate:
        name = node["value"]

        def field(value: Any) -> Any:
            return value.get(name) if isinstance(value, dict) else None

        return field

    def _index(self, node: Node) -> Evaluate:
        place = node["value"]

        def index(value: Any) -> Any:
            if not isinstance(value, list) or not -len(value) <= place < len(value):
                return None
            return value[place]

        return index

    def _subexpression(self, node: Node) -> Evaluate:
        if all(child["type"] == "field" for child in node["children"]):
            return _path([child["value"] for child in node["children"]])
        steps = self._children(node)

        def chain(value: Any) -> Any:
            for step in steps:
                value = step(value)
            return value

        return chain

    _pipe = _index_expression = _subexpression

    def _current(self, _: Node) -> Evaluate:
        return lambda value: value

    _identity = _current

    def _literal(self, node: Node) -> Evaluate:
        literal = node["value"]
        return lambda _: literal

    def _or_expression(self, node: Node) -> Evaluate:
        left, right = self._children(node)

        def either(value: Any) -> Any:
            result = left(value)
            return right(value) if is_false(result) else result

        return either

    def _and_expression(self, node: Node) -> Evaluate:
        left, right = self._children(node)

        def both(value: Any) -> Any:
            result = left(value)
            return result if is_false(result) else right(value)

        return both

    def _not_expression(self, node: Node) -> Evaluate:
        (inner,) = self._children(node)

        def negate(value: Any) -> bool:
            result = inner(value)
            return not result and not (_is_number(result) and result == 0)

        return negate

    def _comparator(self, node: Node) -> Evaluate:
        if (order := _ORDER.get(node["value"])) is None:
            return self._equality(node)
        left, right = self._children(node)

        def compare(value: Any) -> Any:
            a, b = left(value), right(value)
            return order(a, b) if _is_ordered(a) and _is_ordered(b) else None

        return compare

    def _equality(self, node: Node) -> Evaluate:
        left, right = self._children(node)
        wanted = node["value"] == "eq"

        def equal(value: Any) -> bool:
            a, b = left(value), right(value)
            if isinstance(a, list | dict) and type(a) is type(b):
                spend(weight(a))
            # In Python 0 equals False and 1 equals True.
            return (a == b and isinstance(a, bool) == isinstance(b, bool)) is wanted

        return equal

    def _multi_select_list(self, node: Node) -> Evaluate:
        members = self._children(node)
        return lambda value: None if value is None else [member(value) for member in members]

    def _multi_select_dict(self, node: Node) -> Evaluate:
        members = [(pair["value"], self.compile(pair["children"][0])) for pair in node["children"]]
        return lambda value: None if value is None else {name: member(value) for name, member in members}

    def _flatten(self, node: Node) -> Evaluate:
        (base,) = self._children(node)

        def flatten(value: Any) -> Any:
            elements = base(value)
            if not isinstance(elements, list):
                return None
            merged: list[Any] = []
            for element in elements:
                merged.extend(element if isinstance(element, list) else (element,))
            _go_through(merged)
            _go_through(elements)
            return merged

        return flatten

    def _projection(self, node: Node) -> Evaluate:
        base, each = self._children(node)

        def project(value: Any) -> Any:
            elements = base(value)
            if not isinstance(elements, list):
                return None
            _go_through(elements)
            return [result for result in map(each, elements) if result is not None]

        return project

    def _filter_projection(self, node: Node) -> Evaluate:
        base, each, condition = self._children(node)

        def project(value: Any) -> Any:
            elements = base(value)
            if not isinstance(elements, list):
                return None
            _go_through(elements)
            kept = (element for element in elements if not is_false(condition(element)))
            return [result for result in map(each, kept) if result is not None]

        return project

    def _function_expression(self, node: Node) -> Evaluate:
        arguments = self._children(node)
        call = self._call(node["value"], len(arguments))
        if len(arguments) == 1:
            (only,) = arguments

            def of_one(value: Any) -> Any:
                result = only(value)
                if result.__class__ in _SIZED and len(result) > _FEW:
                    _read(result)
                return call([result])

            return of_one

        def of_several(value: Any) -> Any:
            results = [argument(value) for argument in arguments]
            for result in results:
                if result.__class__ in _SIZED and len(result) > _FEW:
                    _read(result)
            return call(results)

        return of_several

    def _call(self, name: str, count: int) -> Callable[[list[Any]], Any]:
        """Return a call of the function, without the library's check of arguments where every type is valid."""
        known = self._functions.FUNCTION_TABLE.get(name)
        signature = known["signature"] if known else ()
        if signature and not any(argument["types"] for argument in signature):
            least, most = len(signature), None if signature[-1].get("variadic") else len(signature)
            if count >= least and (most is None or count <= most):
                method = known["function"]
                return lambda arguments: method(self._functions, *arguments)
        return lambda arguments: self._functions.call_function(name, arguments)


def _go_through(elements: list[Any]) -> None:
    """Count the cost of evaluating something for each of ``found``; the cost of a rule covers a few."""
    if len(elements) > _FEW:
        spend(2 * len(elements))


def _read(value: str | list[Any] | dict[str, Any]) -> None:
    """Count the cost for a function of reading an argument."""
    spend(len(value) >> _WORDS if isinstance(value, str) else len(value))


def _path(names: list[str]) -> Evaluate:
    def path(value: Any) -> Any:
        for name in names:
            if not isinstance(value, dict):
                return None
            value = value.get(name)
        return value

    return path


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _is_ordered(value: Any) -> bool:
    return isinstance(value, str) or _is_number(value)
