"""SECURITY.md promises nothing that no test shows."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from handler.events import senders

ROOT = Path(__file__).parents[3]


def rows() -> list[list[str]]:
    """The cells of the threat model's rows."""
    lines = (ROOT / "SECURITY.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return cells[2:]


def defined() -> Counter[str]:
    """How often each test's name is given to one."""
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "tests").rglob("test_*.py")]
    return Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_row_names_its_tests() -> None:
    assert len(rows()) > 10
    for row in rows():
        assert re.fullmatch(r"`test_\w+`(, `test_\w+`)*", row[3]), row[1]


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text("utf-8"))
    known = defined()
    assert {name for name in named if not known[name]} == set()


def test_senders_that_leave_their_topic_unsigned_are_named() -> None:
    limits = (ROOT / "SECURITY.md").read_text("utf-8").split("## Limits of it")[1].lower().replace(" ", "_")
    for name in senders.names():
        if senders.load(name).topic_header not in (None, "", *senders.load(name).id_headers):
            assert name in limits, name


def test_every_arrow_of_the_picture_is_there() -> None:
    arrows = " ".join(row[0] for row in rows())
    for end in ("sender", "API", "receive", "queues", "deliver", "table", "Klaviyo", "logs", "dead-letter"):
        assert end in arrows, end
