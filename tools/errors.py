"""The error that commands raise on purpose."""

from __future__ import annotations


class CommandError(Exception):
    """What was asked for cannot be done: the text says why, and what to do next. It is printed after ``error:``."""
