"""Find words that this project does not use: ``python -m tools words``, part of ``make lint``.

The words are data, in words.toml. Every tracked text file is searched, except
payloads of senders and what is made from them.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .paths import ROOT
from .terminal import say

WORDS = Path(__file__).with_suffix(".toml")
BINARY = {".png"}
# Texts of others: payloads, what they become, test vectors, Klaviyo's schema, the licence. And the list itself.
BY_OTHERS = ("events/", "tests/unit/expected/", "tests/unit/golden/", "tests/unit/vectors/", "LICENSE")
BY_OTHERS_NAMES = {"klaviyo-schema.json", "words.toml"}


class Banned(NamedTuple):
    """A word that is not used: ``pattern`` as it is written in words.toml."""

    pattern: str
    instead: str
    pages_only: bool

    def places(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield line number and word of each place in ``text``."""
        expression = re.compile(rf"(?<!\w)(?:{self.pattern})(?!\w)", re.IGNORECASE)
        for number, line in enumerate(text.split("\n"), 1):
            for match in expression.finditer(line):
                yield number, match[0]


def banned(path: Path = WORDS) -> list[Banned]:
    """Read the list of words."""
    tables: Mapping[str, Mapping[str, str]] = tomllib.loads(path.read_text("utf-8"))
    return [Banned(*entry, pages_only=name == "pages") for name, table in tables.items() for entry in table.items()]


def tracked(root: Path = ROOT) -> list[Path]:
    """Return every text file that git has, or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode()  # noqa: S603 (our own command line)
    paths = (root / name for name in listed.split("\0") if name)
    return [path for path in paths if path.is_file() and path.suffix not in BINARY]


def ours(root: Path = ROOT) -> dict[str, str]:
    """Return the texts that this project wrote, by path."""
    texts = {path.relative_to(root).as_posix(): path for path in tracked(root)}
    chosen = {name: path for name, path in texts.items() if not name.startswith(BY_OTHERS)}
    return {name: path.read_text("utf-8") for name, path in chosen.items() if path.name not in BY_OTHERS_NAMES}


def mistakes(words: Iterable[Banned], texts: Mapping[str, str]) -> Iterator[str]:
    """Yield ``path:line: what is found and what to write`` for each use of a word where it is banned."""
    for word in words:
        for name, text in texts.items():
            if name.endswith(".md") or not word.pages_only:
                for line, written in word.places(text):
                    yield f"{name}:{line}: '{written}': write '{word.instead}'"


def counts(words: Iterable[Banned], texts: Mapping[str, str]) -> Iterator[str]:
    """Yield for each word in how many places pages and code have it, and in which folders."""
    for word in words:
        places = [name for name, text in texts.items() for _ in word.places(text)]
        folders = sorted({name.split("/")[0] for name in places})
        pages = sum(name.endswith(".md") for name in places)
        yield f"{word.pattern}: {pages} in pages, {len(places) - pages} in code: {' '.join(folders)}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``python -m tools words``."""
    parser.add_argument("--count", action="store_true", help="print in how many places each word is found")


def run(asked: argparse.Namespace) -> int:
    """Print what is wrong, or the counts; return 1 if something is wrong."""
    if asked.count:
        say(*counts(banned(), ours()))
        return 0
    lines = list(mistakes(banned(), ours()))
    say(*lines, error=True)
    return 1 if lines else 0
