"""SECURITY.md promises nothing that no test shows."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows() -> list[list[str]]:
    """The cells of the threat model's rows."""
    lines = (ROOT / "SECURITY.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return cells[2:]


def test_every_row_names_a_test_that_exists() -> None:
    assert len(rows()) > 10
    for row in rows():
        named = re.findall(r"`(tests/[\w/.]+)`", row[3])
        assert named, row[1]
        assert all((ROOT / name).exists() for name in named), row[1]


def test_every_arrow_of_the_picture_is_there() -> None:
    arrows = " ".join(row[0] for row in rows())
    for end in ("sender", "API", "receive", "queues", "deliver", "table", "Klaviyo", "logs", "dead-letter"):
        assert end in arrows, end
