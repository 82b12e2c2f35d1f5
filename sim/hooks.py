"""Hooks: what is called around a call, to sleep, to raise, to count, to wait for a turn."""

from __future__ import annotations

from collections.abc import Callable

Hook = Callable[[str], None]  # with the operation's name


def nothing(operation: str) -> None:
    """Do nothing."""
