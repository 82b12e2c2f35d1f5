"""The pacing item in memory, with the conditions that ``DynamoTable`` puts to DynamoDB."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from handler.closing import NO_TABLE, Closing
from handler.delivery.pacing import Item, Value
from handler.errors import TableUnavailable
from handler.pauses import PAUSES

from .hooks import Hook, nothing


def silent(now: float) -> TableUnavailable:
    """Return what ``DynamoTable`` raises when DynamoDB throttles, or does not answer."""
    return TableUnavailable(now + PAUSES.long, Closing(NO_TABLE, "the pacing table does not answer"))


class Table:
    """``pacing.Table`` in memory: whole numbers and texts, each call atomic while one thread runs at a time.

    Parameters
    ----------
    item : mapping, optional
        What is stored at first, without its key.
    before, after : callable
        Called with ``read``, ``advance`` or ``swap`` before the call takes effect and before it is
        answered: to sleep, to raise, to wait for a turn. What ``after`` raises hides a change that was made.

    Attributes
    ----------
    item : dict
        The attributes, without the key.
    reads, writes : int
        Calls so far; refused conditions are writes, as on the bill.
    """

    def __init__(
        self, item: Mapping[str, int | str] | None = None, *, before: Hook = nothing, after: Hook = nothing
    ) -> None:
        self.item: dict[str, int | str] = dict(item or {})
        self.before = before
        self.after = after
        self.reads = self.writes = 0
        self.others: dict[str, dict[str, int | str]] = {}

    def at(self, name: str) -> Table:
        """See ``pacing.Table``; the other item is reached in the same way."""
        other = Table(before=self.before, after=self.after)
        other.item = self.others.setdefault(name, {})
        return other

    def reached(self, *, before: Hook = nothing, after: Hook = nothing) -> Table:
        """Return the same item as another sender reaches it, with hooks of its own."""
        other = Table(before=before, after=after)
        other.item = self.item
        other.others = self.others
        return other

    def read(self) -> Item:
        """See ``pacing.Table``."""
        self.reads += 1
        self.before("read")
        copy = dict(self.item)
        self.after("read")
        return copy

    def advance(self, *, first: int, last: int, step: int) -> tuple[bool, Item]:
        """See ``pacing.Table``."""

        def free(item: Item) -> bool:
            # A text is no number to DynamoDB: the condition fails, as without the attribute.
            at = item.get("next")
            return "closed_until" not in item and isinstance(at, int) and first <= at <= last

        return self._update("advance", free, lambda item: {"next": int(item["next"]) + step})

    def swap(self, expected: Mapping[str, Value], changed: Mapping[str, Value]) -> tuple[bool, Item]:
        """See ``pacing.Table``."""

        def as_expected(item: Item) -> bool:
            return all(item.get(name) == value for name, value in expected.items())

        return self._update("swap", as_expected, lambda _: changed)

    def _update(
        self, operation: str, condition: Callable[[Item], bool], change: Callable[[Item], Mapping[str, Value]]
    ) -> tuple[bool, Item]:
        self.writes += 1
        self.before(operation)
        before = dict(self.item)
        good = condition(before)
        if good:
            for name, value in change(before).items():
                if value is None:
                    self.item.pop(name, None)
                else:
                    self.item[name] = value
        self.after(operation)
        return good, before
