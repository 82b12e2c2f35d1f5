"""JMESPath as the TOML files use it: compiled on first use, with more functions.

In addition to JMESPath's own functions (https://jmespath.org/specification.html)::

    minor(amount, currency)   decimal amount from minor units, by ISO 4217
    money(x)                  decimal amount from text or number, digit for digit
    add(a, b, …) add(list)    sum of amounts; other values are ignored
    subtract(a, b)  multiply(a, b)  absolute(x)
    time(x)                   ISO 8601 in UTC from epoch or text; a text without a zone is in the source's zone
    first_name(x)  last_name(x)   parts of a name in one field
    digest(x, …)              32 hexadecimal digits that stand for the values
    object(pairs)             an object from [[name, value], …]
    pairs(object)             [[name, value], …] from an object
    relabel(object, labels)   the object's names replaced through another object
    like(object, word, …)     the first member whose name holds one of the words
    without(object, name, …)  the object without these members and without empty ones
    scalars(object)           its texts, numbers and truth values, without secrets
    public(x)                 all of it, without secrets at any depth
    find(list, name, value)   the first object in a list whose member is that value
    with(list, name, value)   the list with one more member in each object
    json(x)                   the document in a text of JSON
    title(x)                  "order.created" as "Order Created"
    plain(html)               text without tags and entities
    address(x)                "Ada <ada@…>" as "ada@…"
    lower(x)  upper(x)  trim(x)  split(x, separator)

These return null where the input makes no sense, and never raise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, tzinfo
from decimal import Decimal
from functools import cached_property
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions, signature

from ..errors import Unmapped
from ..work import CHARACTERS, LONG, spend, weight
from . import bodies, values
from .compiler import Compiler, Evaluate, Node

_ANY: Any = {"types": []}
_MORE: Any = {"types": [], "variadic": True}
_SECRET = re.compile(
    r"passw|secret|token|(?:api|access|private)[_-]?key|signature|credential|card[_-]?num|cvv|cvc|iban|ssn|social[_-]?security",
    re.IGNORECASE,
)


_NO_ADDRESS = re.compile(r"[>\s]")
_DATE = re.compile(r"\s*\d{4}-\d{2}-\d{2}\s*")
# In these trees the first branch reads the document, and the others read its result.
_FROM_THE_FIRST = {
    *("subexpression", "index_expression", "pipe"),
    *("projection", "value_projection", "filter_projection", "flatten"),
}
_LOCAL: ContextVar[tzinfo] = ContextVar("local", default=UTC)


@contextmanager
def times_in(local: tzinfo) -> Iterator[None]:
    """Read times without a zone in ``local`` within the context: JMESPath passes its functions only their arguments."""
    token = _LOCAL.set(local)
    try:
        yield
    finally:
        _LOCAL.reset(token)


def is_secret(name: str) -> bool:
    """Return whether a field of that name holds a secret."""
    return _SECRET.search(name) is not None


def _public(value: Any) -> Any:
    if isinstance(value, dict | list):
        spend(1 + len(value))
    if isinstance(value, dict):
        return {name: _public(member) for name, member in value.items() if not is_secret(name)}
    return [_public(item) for item in value] if isinstance(value, list) else value


def _label(value: Any) -> str | None:
    return " ".join(value.split())[:255] if isinstance(value, str) else values.text(value)


class _Functions(Functions):
    @signature(_ANY, _ANY)
    def _func_minor(self, amount: Any, currency: Any) -> Decimal | None:
        return values.minor(amount, currency)

    @signature(_ANY)
    def _func_money(self, amount: Any) -> Decimal | None:
        return values.money(amount)

    @signature(_MORE)
    def _func_add(self, *amounts: Any) -> Decimal | None:
        listed = amounts[0] if len(amounts) == 1 and isinstance(amounts[0], list) else amounts
        numbers = [number for number in map(values.money, listed) if number is not None]
        return sum(numbers, Decimal(0)) if numbers else None

    @signature(_ANY, _ANY)
    def _func_subtract(self, left: Any, right: Any) -> Decimal | None:
        a, b = values.money(left), values.money(right)
        return a if b is None else a - b if a is not None else None

    @signature(_ANY, _ANY)
    def _func_multiply(self, left: Any, right: Any) -> Decimal | None:
        a, b = values.money(left), values.money(right)
        return a * b if a is not None and b is not None else None

    @signature(_ANY)
    def _func_absolute(self, amount: Any) -> Decimal | None:
        number = values.money(amount)
        return abs(number) if number is not None else None

    @signature(_ANY)
    def _func_time(self, written: Any) -> str | None:
        # A date alone stays that date in every zone: it is a day, not a moment.
        is_date = isinstance(written, str) and _DATE.fullmatch(written)
        seconds = values.time(written, UTC if is_date else _LOCAL.get())
        return values.iso(seconds) if seconds is not None and 0 <= seconds < 253_402_300_800 else None

    @signature(_ANY)
    def _func_first_name(self, full: Any) -> str | None:
        return values.names(full)[0]

    @signature(_ANY)
    def _func_last_name(self, full: Any) -> str | None:
        return values.names(full)[1]

    @signature(_MORE)
    def _func_digest(self, *parts: Any) -> str:
        return values.digest(*parts)

    @signature(_ANY)
    def _func_object(self, pairs: Any) -> dict[str, Any] | None:
        if not isinstance(pairs, list):
            return None
        named = ((_label(pair[0]), pair[1]) for pair in pairs if isinstance(pair, list) and len(pair) == 2)
        return {name: value for name, value in named if name}

    @signature(_ANY)
    def _func_pairs(self, fields: Any) -> list[list[Any]] | None:
        return [[name, value] for name, value in fields.items()] if isinstance(fields, dict) else None

    @signature(_ANY, _ANY)
    def _func_relabel(self, fields: Any, labels: Any) -> dict[str, Any] | None:
        if not isinstance(fields, dict) or not isinstance(labels, dict):
            return fields if isinstance(fields, dict) else None
        named: dict[str, Any] = {}
        for name, value in fields.items():
            label = _label(labels.get(name)) or name
            named[f"{label} ({name})" if label in named else label] = value
        return named

    @signature(_ANY, _MORE)
    def _func_like(self, fields: Any, *words: Any) -> Any:
        if not isinstance(fields, dict):
            return None
        wanted = [word for word in words if isinstance(word, str)]
        matches = (value for word in wanted for name, value in fields.items() if word in str(name).lower())
        return next((value for value in matches if value or isinstance(value, values.NUMBERS)), None)

    @signature(_ANY, _MORE)
    def _func_without(self, fields: Any, *names: Any) -> dict[str, Any] | None:
        if not isinstance(fields, dict):
            return None
        return {
            name: value
            for name, value in fields.items()
            if name not in names and (value or isinstance(value, values.NUMBERS))
        }

    @signature(_ANY)
    def _func_scalars(self, fields: Any) -> dict[str, Any] | None:
        if not isinstance(fields, dict):
            return None
        return {
            name: value
            for name, value in fields.items()
            if isinstance(value, str | int | float) and not is_secret(name) and not name.startswith("_")
        }

    @signature(_ANY)
    def _func_public(self, value: Any) -> Any:
        return _public(value)

    @signature(_ANY, _ANY, _ANY)
    def _func_find(self, items: Any, name: Any, value: Any) -> Any:
        listed = items if isinstance(items, list) and value is not None else []
        return next((item for item in listed if isinstance(item, dict) and item.get(name) == value), None)

    @signature(_ANY, _ANY, _ANY)
    def _func_with(self, items: Any, name: Any, value: Any) -> list[Any] | None:
        if not isinstance(items, list) or not isinstance(name, str):
            return None
        spend(len(items) * weight(value))  # the result holds the value once for each item
        return [{**item, name: value} for item in items if isinstance(item, dict)]

    @signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, parts: list[str]) -> str:
        spend(len(separator) * len(parts) >> CHARACTERS)  # before the text is made
        return separator.join(parts)

    @signature(_ANY)
    def _func_to_string(self, value: Any) -> str:
        written: str = super()._func_to_string(value)  # type: ignore[misc]  # the library's names are not in its types
        spend(len(written) >> CHARACTERS)
        return written

    @signature(_ANY)
    def _func_json(self, written: Any) -> Any:
        try:
            return bodies.parse(written.encode("utf-8", "surrogatepass")) if isinstance(written, str) else None
        except Unmapped:
            return None

    @signature(_ANY)
    def _func_title(self, written: Any) -> str | None:
        if not isinstance(written, str):
            return None
        return " ".join(word[:1].upper() + word[1:] for word in re.split(r"[\W_]+", written) if word) or None

    @signature(_ANY)
    def _func_plain(self, markup: Any) -> str | None:
        return values.plain(markup)

    @signature(_ANY)
    def _func_address(self, written: Any) -> str | None:
        if isinstance(written, str):
            # Not a pattern, which would search again from each "<" and each "@".
            _, bracket, inner = written[:1000].rstrip().rpartition("<")
            address = inner.removesuffix(">")
            if bracket and address != inner and "@" in address[1:-1] and not _NO_ADDRESS.search(address):
                return address
        return values.text(written)

    @signature(_ANY)
    def _func_lower(self, written: Any) -> str | None:
        return written.lower() if isinstance(written, str) else None

    @signature(_ANY)
    def _func_upper(self, written: Any) -> str | None:
        return written.upper() if isinstance(written, str) else None

    @signature(_ANY)
    def _func_trim(self, written: Any) -> str | None:
        return values.text(written)

    @signature(_ANY, _ANY)
    def _func_split(self, written: Any, separator: Any) -> list[str] | None:
        if not isinstance(written, str) or not isinstance(separator, str) or not separator:
            return None
        return [part.strip() for part in written.split(separator) if part.strip()]


def arities() -> dict[str, tuple[int, int | None]]:
    """Return every function by name, with its least and most arguments (``None``: unlimited)."""
    return {
        name: (len(known["signature"]), None if _variadic(known["signature"]) else len(known["signature"]))
        for name, known in _Functions.FUNCTION_TABLE.items()
    }


def _variadic(signature: Any) -> bool:
    return bool(signature) and bool(signature[-1].get("variadic"))


_COMPILER = Compiler(_Functions())


class Expression:
    """One expression of a TOML file, parsed at its first use."""

    def __init__(self, text: str, tree: Node = None) -> None:
        """``tree`` is given for a part of another expression."""
        self.text = text
        self._tree = tree
        self._evaluate: Evaluate | None = None

    @property
    def tree(self) -> Node:
        """Its syntax tree."""
        return self._tree or jmespath.compile(self.text).parsed

    @cached_property
    def is_common(self) -> bool:
        """Whether it reads only ``_webhook`` and ``_root``, so that its value is the same for each entry of a list."""
        return _starts_at(self.tree, {"_webhook", "_root"})

    def of(self, document: Any) -> Any:
        """Return the expression's value on ``document``.

        Raises
        ------
        ExpressionFailed
            The document holds a type that the expression cannot use. The error's
            text names no value of the document.
        """
        if self._evaluate is None:
            self._evaluate = _COMPILER.compile(self.tree)
        try:
            result = self._evaluate(document)
        except (JMESPathError, ValueError, TypeError, RecursionError, ArithmeticError) as error:
            raise ExpressionFailed(type(error).__name__) from None
        if isinstance(result, str) and len(result) > LONG:
            spend(len(result) >> CHARACTERS)  # the caller reads all of it
        return result


def _starts_at(tree: Node, names: set[str]) -> bool:
    """Return whether a syntax tree reads only below the fields ``names`` of the document."""
    kind, children = tree["type"], [child for child in tree["children"] if isinstance(child, dict)]
    if kind == "field":
        return tree["value"] in names
    if kind in ("current", "identity"):
        return False
    if kind in ("literal", "expref"):  # an expref reads the function's argument
        return True
    if kind in _FROM_THE_FIRST:
        return _starts_at(children[0], names)
    return all(_starts_at(child, names) for child in children)


class ExpressionFailed(Exception):
    """An expression that failed on a value of a type it cannot use; the text is the cause's class."""


def holds(condition: Expression, document: Any) -> bool:
    """Return whether ``condition`` is true of ``document``; one that fails is false."""
    try:
        return bool(condition.of(document))
    except ExpressionFailed:
        return False
