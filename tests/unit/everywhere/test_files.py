"""Every file of the repository is as .editorconfig says, and the files of the forge do what they promise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tools.words import tracked

ROOT = Path(__file__).parents[3]


def settings(name: str) -> dict[str, str]:
    """What .editorconfig says about a file of this name: later sections go before earlier ones."""
    parser = ConfigParser()
    parser.read_string("[root]\n" + (ROOT / ".editorconfig").read_text("utf-8"))
    rules: dict[str, str] = {}
    for section in parser.sections():
        if fnmatch(name, section):
            rules |= dict(parser[section])
    return rules


def faults(name: str, content: bytes) -> Iterator[str]:
    """In which ways a file is not as .editorconfig says."""
    expected = settings(name)
    try:
        text = content.decode(expected["charset"])
    except UnicodeDecodeError:
        yield "not UTF-8"
        return
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield "does not end with one line break"
    if "\r" in text:
        yield "has a carriage return"
    if re.search(r"[ \t]$", text, re.MULTILINE):
        yield "has spaces at the end of a line"
    if expected["indent_style"] == "space" and "\t" in text:
        yield "has a tab"
    if expected["indent_style"] == "tab" and re.search(r"^ ", text, re.MULTILINE):
        yield "has a line that begins with a space"


def test_every_file_is_as_editorconfig_says() -> None:
    wrong = [
        (str(path.relative_to(ROOT)), fault) for path in tracked() for fault in faults(path.name, path.read_bytes())
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.py", b"x = 1"),
        ("a.py", b"x = 1\n\n"),
        ("a.md", b"text \n"),
        ("a.md", b"text\r\n"),
        ("a.yaml", b"a:\n\t- b\n"),
        ("a.js", b"\xff\n"),
        ("Makefile", b"all:\n  make\n"),
    ],
)
def test_a_file_that_is_otherwise_is_named(name: str, content: bytes) -> None:
    assert len(list(faults(name, content))) == 1


def test_a_makefile_has_tabs() -> None:
    assert not list(faults("Makefile", b"all:\n\tmake\n"))


def test_the_workflow_runs_what_make_ci_runs_on_both_pythons() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "- run: make ci\n" in workflow
    assert re.search(r"^ci:.*\n\t@\.ci/run$", makefile, re.MULTILINE)
    run = (ROOT / ".ci/run").read_text("utf-8")
    pythons = set(re.findall(r"find-python (\d\.\d+)", run))
    assert pythons == set(re.findall(r'python-version: "(.*)"', workflow)) == {"3.11", "3.13"}


def test_actions_are_pinned_by_commit() -> None:
    used = re.findall(r"uses: (.*)", (ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action)] == []


@pytest.mark.parametrize(
    "path", [*(ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"), *(ROOT / ".github").glob("*.md")], ids=str
)
def test_templates_warn_against_pasting_secrets_and_peoples_data(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.search("no secrets and no customers' data", text, re.IGNORECASE)
