"""Which functions are called: seen from outside, with nothing replaced."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def calls(*functions: Callable[..., Any]) -> Iterator[list[str]]:
    """The names of those of ``functions`` that this thread calls meanwhile, in their order."""
    names = {function.__code__: function.__name__ for function in functions}
    called: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in names:
            called.append(names[frame.f_code])

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(before)
