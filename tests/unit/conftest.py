"""Fixtures of many tests: what the functions log, and a folder of senders' files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim import lines
from tests.unit.support_senders import custom_folder


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the functions log."""
    with lines.into(io.StringIO()) as stream:
        yield stream


@pytest.fixture
def custom_senders(tmp_path: Path) -> Iterator[Path]:
    """The folder of the user's own senders, which is empty."""
    with custom_folder(tmp_path / "custom_senders") as folder:
        folder.mkdir()
        yield folder
