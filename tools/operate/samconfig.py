"""What samconfig.toml keeps of a stack: ``sam deploy --guided`` writes it, and every later ``sam deploy`` uses it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handler.events import senders
from tools import paths

FILE = "samconfig.toml"
_PAIR = re.compile(r"ParameterKey=(?P<name>[^,]+),ParameterValue=(?P<value>.*)", re.DOTALL)
_TABLE = re.compile(r"\s*\[([^\[\]]+)\]\s*(#.*)?")


@dataclass(frozen=True)
class Saved:
    """The parameters saved for one stack, under one environment of the file; empty if nothing is.

    ``parameters`` are those that a plain ``sam deploy`` passes, by name, and
    ``lines`` where in the file each of them is.
    """

    environment: str = ""
    region: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    def place(self, parameter: str) -> str:
        """Return the file and line of a saved parameter."""
        line = self.lines.get(parameter)
        return f"{FILE}:{line}" if line else FILE


def read(stack: str, folder: Path = paths.ROOT) -> Saved:
    """Return what samconfig.toml in ``folder`` has for the stack of that name.

    Raises
    ------
    SourceError
        The file is not TOML.
    """
    try:
        content = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return Saved()
    document = senders.parsed(FILE, content)
    text = content.decode()
    for environment, commands in document.items():
        # `global` holds for every command, and what `deploy` has goes before it (SAM developer guide).
        saved = {**_table(commands, "global", "parameters"), **_table(commands, "deploy", "parameters")}
        if saved.get("stack_name") == stack:
            parameters = dict(_pairs(saved.get("parameter_overrides")))
            return Saved(environment, str(saved.get("region", "")), parameters, _lines(text, environment, parameters))
    return Saved()


def _table(node: Any, *names: str) -> dict[str, Any]:
    for name in names:
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _pairs(written: Any) -> Iterator[tuple[str, str]]:
    """Yield names and values in ``parameter_overrides``.

    It is a text of pairs, which is what ``--guided`` writes, or a list.
    """
    if isinstance(written, list):
        for part in written:
            yield from _pairs(part)
    if isinstance(written, str):
        for word in _words(written):
            if pair := _PAIR.fullmatch(word):
                yield pair["name"], pair["value"]
            elif "=" in word:
                name, _, value = word.partition("=")
                yield name, value


def _words(written: str) -> list[str]:
    try:
        return shlex.split(written)
    except ValueError:  # a quotation mark without its other half
        return written.split()


def _lines(text: str, environment: str, names: Mapping[str, str]) -> dict[str, int]:
    """Return the first line under ``environment`` that gives each of ``names`` a value."""
    numbers: dict[str, int] = {}
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.fullmatch(line):
            inside = header[1].replace('"', "").split(".")[0].strip() == environment
        if inside:
            for name in names:
                if re.search(rf"(?<![\w-])(ParameterKey=)?{re.escape(name)}(,ParameterValue)?=", line):
                    numbers.setdefault(name, number)
    return numbers
