"""Where a value of an event comes from: the expression, its line, and the file, if it is one that was extended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.senders.places import Place

Path = tuple[str, ...]
_NAMES = ("first_name", "last_name")


@dataclass(frozen=True, slots=True)
class Spot:
    """A line, and the name of the source in whose file it is; no name for the file in the editor."""

    line: int | None
    file: str


NOWHERE = Spot(None, "")


@dataclass(frozen=True, slots=True)
class Written:
    """A sender's file with what it extends: ``tables`` is the whole, ``where`` the lines of the file itself.

    ``base`` is the source that it extends, as such a file; ``name`` is this source's, empty for the one in the editor.
    """

    name: str
    title: str
    tables: Mapping[str, Any]
    where: Mapping[Place, int]
    base: Written | None = None
    inherited: int = 0  # events of ``tables`` that are in the base, and come first

    def spot(self, place: Place) -> Spot:
        """Return the place of a key, in this file or in what it extends; ``NOWHERE`` if in none."""
        if place[:1] == ("event",):
            number = int(place[1])
            if number < self.inherited and self.base:
                number = self.base.tables["event"].index(self.tables["event"][number])
                return self.base.spot(("event", number, *place[2:]))
            line = self.where.get(("event", number - self.inherited, *place[2:]))
        else:
            line = self.where.get(place)
        if line is None:
            return self.base.spot(place) if self.base and place[:1] != ("event",) else NOWHERE
        return Spot(line, self.name)

    def spot_of(self, reason: str) -> Spot:
        """Return the place of the text that says why nothing is made of a topic.

        It is under ``[ignore]`` or ``otherwise``.
        """
        for place, line in self.where.items():
            whole = place
            if len(place) > 1 and place[0] == "event":
                whole = ("event", int(place[1]) + self.inherited, *place[2:])
            if place[:1] in (("ignore",), ("event",)) and self._at(whole) == reason:
                return Spot(line, self.name)
        return self.base.spot_of(reason) if self.base else NOWHERE

    def of(self, path: Path, rule: int) -> tuple[str, Spot]:
        """Return the expression behind a value at ``path``, and its place; none for what the relay itself adds."""
        for place in _places(path, rule, self.title, self._shared(rule)):
            text = self._at(place)
            if text is not None and not isinstance(text, dict):
                return str(text), self.spot(place)
        return "", NOWHERE

    def wanted(self, rule: int) -> Iterator[Path]:
        """Yield every property and profile attribute that the event's expressions ask for."""
        event = self.tables["event"][rule]
        shared = self.tables.get("shared", {}).get(self._shared(rule), {})
        for name in {**shared, **event.get("properties", {})}:
            yield ("properties", name)
        common, own = self.tables.get("profile", {}), event.get("profile", {})
        yield from (("profile", name) for name in {**common, **own} if name not in ("location", "properties"))

    def _shared(self, rule: int) -> str:
        return str(self.tables["event"][rule].get("shared", ""))

    def _at(self, place: Place) -> Any:
        node: Any = self.tables
        for step in place:
            if isinstance(node, dict):
                node = node.get(step)
            elif isinstance(node, list) and isinstance(step, int) and step < len(node):
                node = node[step]
            else:
                return None
        return node


def _places(path: Path, rule: int, title: str, shared: str) -> Iterator[Place]:
    """Yield where the expression may be; the first that is there counts, as ``handler.events.senders`` joins them."""
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
        for place in names:
            yield from ((*event, "profile", *place), ("profile", *place))
