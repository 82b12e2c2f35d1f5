"""Hooks: what is called around a call, to sleep, to raise, to count, to wait for a turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Hook = Callable[[str], None]  # with the operation's name
Call = Callable[[str, Mapping[str, Any]], None]  # with the operation and what is asked


def nothing(operation: str, *asked: Mapping[str, Any]) -> None:
    """Do nothing."""
