"""Where the tables and keys of a sender's file are, so that a mistake has a line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.errors import SourceError
from tools.paths import shown

Place = tuple[str | int, ...]


def lines(text: str) -> dict[Place, int]:
    """Return the line of each table and key of a TOML text: ``("event", 0, "value")`` is on line 12, say."""
    numbers: dict[Place, int] = {}
    counts: dict[str, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if head := re.match(r"\s*\[\[(\w+)\]\]", line):
            counts[head[1]] = counts.get(head[1], -1) + 1
            table = (head[1], counts[head[1]])
        elif head := re.match(r"\s*\[([\w.]+)\]", line):
            first, *rest = head[1].split(".")
            table = (first, *([counts[first]] if first in counts else []), *rest)
        elif pair := re.match(r"""\s*(?:"([^"]+)"|'([^']+)'|([\w-]+))\s*=""", line):
            numbers.setdefault((*table, pair[1] or pair[2] or pair[3]), number)
            continue
        numbers.setdefault(table, number)
    return numbers


@dataclass(frozen=True)
class Checked:
    """One file: its own tables, those with what it extends, and the line of everything."""

    path: Path
    own: dict[str, Any]
    whole: dict[str, Any]
    where: dict[Place, int]

    def problem(self, place: Place, message: str, code: str = "") -> SourceError:
        """Return a mistake at ``place``, or at the nearest table around it."""
        around = next((place[:end] for end in range(len(place), 0, -1) if place[:end] in self.where), ())
        return SourceError(shown(self.path), self.where.get(around), message, code)


def listed(value: Any) -> list[Any]:
    """Return ``value`` if it is a list, otherwise a list of it alone."""
    return value if isinstance(value, list) else [value]
