"""Words that this project does not use are found where they are banned, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from tools import paths, words
from tools.words import Banned

FLURB = Banned("flurb", "again", pages_only=True)
ZOND = Banned("zond(s|ed|ing)?", "fix", pages_only=False)


def test_no_banned_word_is_in_the_project() -> None:
    assert list(words.mistakes(words.banned(), words.ours())) == []


@pytest.mark.parametrize(("text", "place"), [("flurb", 1), ("Flurb, it", 1), ("read\nflurb.", 2), ("`flurb`", 1)])
def test_a_banned_word_is_named_with_its_line_and_what_to_write(text: str, place: int) -> None:
    (line,) = words.mistakes([FLURB], {"docs/x.md": text})
    assert line.startswith(f"docs/x.md:{place}: ")
    assert line.endswith("write 'again'")


@pytest.mark.parametrize("text", ["rezond", "azonded", "a_zond", "zonded_it"])
def test_a_word_in_another_is_left_alone(text: str) -> None:
    assert list(words.mistakes([ZOND], {"docs/x.md": text})) == []


def test_a_word_of_pages_is_not_refused_in_code_and_counted_there() -> None:
    texts = {"local/x.py": "# flurb\n", "docs/x.md": "again"}
    assert list(words.mistakes([FLURB], texts)) == []
    assert list(words.counts([FLURB], texts)) == ["flurb: 0 in pages, 1 in code: local"]


def test_a_word_that_is_banned_everywhere_is_refused_in_code() -> None:
    assert len(list(words.mistakes([ZOND], {"local/x.py": "# zonded\n", "Makefile": "zond"}))) == 2


def test_pages_and_code_are_searched_and_payloads_are_not() -> None:
    searched = set(words.ours())
    assert {"README.md", "docs/runbook.md", "Makefile", "template.yaml", ".github/workflows/ci.yml"} <= searched
    assert not [name for name in searched if name.startswith(("events/", "tests/unit/expected/"))]


def test_the_list_has_two_tables_and_says_what_to_write() -> None:
    tables = tomllib.loads(words.WORDS.read_text("utf-8"))
    assert set(tables) == {"everywhere", "pages"}
    assert all(word.instead for word in words.banned())


@pytest.mark.parametrize(("text", "status"), [("rec" + "ieve", 65), ("receive fulfilment behaviour", 0)])
def test_the_spell_checker_finds_misspellings_and_leaves_british_spelling(text: str, status: int) -> None:
    command = [sys.executable, "-m", "codespell_lib", "-"]
    done = subprocess.run(command, cwd=paths.ROOT, input=text, text=True, capture_output=True, check=False)  # noqa: S603
    assert done.returncode == status, done.stdout + done.stderr
