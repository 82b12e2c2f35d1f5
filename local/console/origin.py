"""Where a value of an event comes from: the expression, and its line in the sender's file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from local.check import Place

Path = tuple[str, ...]
_NAMES = ("first_name", "last_name")


@dataclass(frozen=True, slots=True)
class Written:
    """A sender's file with what it extends: ``tables`` is the whole, ``where`` the lines of the file itself.

    ``inherited`` is the number of events that stand in the file that it extends.
    """

    title: str
    tables: Mapping[str, Any]
    where: Mapping[Place, int]
    inherited: int

    def line(self, place: Place) -> int | None:
        """The line of a key; ``None`` if it does not stand in this file."""
        if place[:1] == ("event",):
            place = ("event", int(place[1]) - self.inherited, *place[2:])
        return self.where.get(place)

    def line_of(self, reason: str) -> int | None:
        """The line of the text under ``[ignore]`` or ``otherwise`` that says why nothing is made of a topic."""
        for place, line in self.where.items():
            whole = place
            if len(place) > 1 and place[0] == "event":
                whole = ("event", int(place[1]) + self.inherited, *place[2:])
            if place[:1] in (("ignore",), ("event",)) and self._at(whole) == reason:
                return line
        return None

    def of(self, path: Path, rule: int) -> tuple[str, int | None]:
        """The expression behind a value at ``path``, and its line; ``("", None)`` for what the relay itself adds."""
        for place in _places(path, rule, self.title, self._shared(rule)):
            found = self._at(place)
            if found is not None and not isinstance(found, dict):
                return str(found), self.line(place)
        return "", None

    def wanted(self, rule: int) -> Iterator[Path]:
        """Every property and profile attribute that the event's expressions ask for."""
        event = self.tables["event"][rule]
        shared = self.tables.get("shared", {}).get(self._shared(rule), {})
        for name in {**shared, **event.get("properties", {})}:
            yield ("properties", name)
        common, own = self.tables.get("profile", {}), event.get("profile", {})
        yield from (("profile", name) for name in {**common, **own} if name not in ("location", "properties"))

    def _shared(self, rule: int) -> str:
        return str(self.tables["event"][rule].get("shared", ""))

    def _at(self, place: Place) -> Any:
        found: Any = self.tables
        for step in place:
            if isinstance(found, dict):
                found = found.get(step)
            elif isinstance(found, list) and isinstance(step, int) and step < len(found):
                found = found[step]
            else:
                return None
        return found


def _places(path: Path, rule: int, title: str, shared: str) -> Iterator[Place]:
    """Where the expression may stand, the first that is there counts; as ``handler.sources`` joins the tables."""
    event: Place = ("event", rule)
    first, *rest = path
    if first == "metric":
        yield from ((*event, "metric_from"), (*event, "metric"))
    elif first in ("value", "value_currency"):
        yield (*event, "currency" if first == "value_currency" else "value")
    elif first in ("time", "backfill", "unique_id"):
        name = "key" if first == "unique_id" else first
        yield from ((*event, name), ("webhook", name))
    elif first == "service":
        yield ("title",)
    elif first == "properties":
        yield from ((*event, "properties", *rest), ("shared", shared, *rest), (*event, "properties_from"))
    elif first == "profile":
        names = [rest]
        if len(rest) == 1 and rest[0] in _NAMES:
            names.append(["full_name"])
        if rest in (["external_id"], ["properties", f"{title} Customer ID"]):
            names.append(["customer_id"])
        for found in names:
            yield from ((*event, "profile", *found), ("profile", *found))
