"""The limit of work for one webhook: linear in its bytes, and counted instead of timed.

With a clock, a busy machine would park webhooks that pass at other times, and a
redrive might give another result. So every step reports its cost in units of about a
microsecond (docs/decisions/0031). Steps that cannot happen more often than the body
has bytes report nothing. Outside of ``bounded`` nothing is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .errors import Unmapped

# A webhook of many small events costs up to 1 unit a byte, and becomes up to 10 bytes for each of its own.
UNITS, UNITS_A_BYTE, MOST_UNITS = 300_000, 3, 4_000_000
OUTPUT, OUTPUT_A_BYTE, MOST_OUTPUT = 5_000_000, 30, 30_000_000

CHARACTERS = 6  # a unit is 2 ** 6 characters that are written, searched or compared
LONG = 256  # characters; the cost of a rule covers shorter texts


class _Left:
    """The rest of a webhook's budget."""

    __slots__ = ("output", "units")

    def __init__(self, units: int, output: int) -> None:
        self.units = units
        self.output = output


class _Spent(Exception):
    """The end of the budget. Not an ``Unmapped``, after which the next event would be tried."""


_LEFT: ContextVar[_Left | None] = ContextVar("left", default=None)


@contextmanager
def bounded(size: int) -> Iterator[None]:
    """Limit the work within the context to the budget of a webhook of ``size`` bytes.

    Raises
    ------
    Unmapped
        ``too_much_work``: it has spent more.
    """
    units = min(UNITS + UNITS_A_BYTE * size, MOST_UNITS)
    output = min(OUTPUT + OUTPUT_A_BYTE * size, MOST_OUTPUT)
    token = _LEFT.set(_Left(units, output))
    try:
        yield
    except _Spent:
        detail = "mapping this webhook takes more work, or produces more bytes, than its length allows"
        raise Unmapped("too_much_work", detail) from None
    finally:
        _LEFT.reset(token)


def spend(units: int) -> None:
    """Count ``units`` of work."""
    if left := _LEFT.get():
        left.units -= units
        if left.units < 0:
            raise _Spent


def weight(value: Any) -> int:
    """Return the cost of reading all of ``value``; a part that occurs several times counts each time."""
    total, waiting = 0, [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            total += 1 + (len(node) >> CHARACTERS)
        elif isinstance(node, list | dict):
            spend(1 + len(node))
            waiting += node.values() if isinstance(node, dict) else node
        total += 1
    return total


def put_out(size: int) -> None:
    """Count an event of ``size`` bytes."""
    if left := _LEFT.get():
        left.output -= size
        if left.output < 0:
            raise _Spent
