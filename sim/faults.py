"""Faults of an invocation: it dies or raises at a point of its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Literal
from unittest.mock import patch

from handler import messages
from handler.messages import Message, Raw

# Before the handler; before any call out; before a call to the pacing table or Klaviyo; after a post; after copies were
# sent; after the handler, when Lambda does not get its answer.
Point = Literal["start", "call", "work", "posted", "copied", "end"]
_CALLS = 12  # a death half-way in the work comes before one of so many calls


class Killed(BaseException):
    """The process is gone: nothing in it catches this."""


@dataclass(slots=True)
class Fate:
    """The invocation raises ``error`` when it passes ``point`` for the ``times``-th time, and each time after that."""

    point: Point
    times: int = 1
    error: type[BaseException] = Killed

    def at(self, point: Point) -> None:
        """Pass ``point``."""
        if point == self.point:
            self.times -= 1
            if self.times <= 0:
                raise self.error


@contextmanager
def decoding(step: Callable[[str], None]) -> Iterator[None]:
    """Call ``step`` with the body of each message before it is decoded: it may raise, kill, or take time.

    Nothing outside takes part in this step: a fault of our code in it has no other way in.
    """
    read = messages.decode

    def decode(body: str, **asked: Any) -> Message | Raw:
        step(body)
        return read(body, **asked)

    with patch.object(messages, "decode", decode):
        yield


def anywhere(chance: Random) -> Fate:
    """Pick a random point to die: before anything, half-way, after a post, after the copies were sent, at the end."""
    point: Point = chance.choice(("start", "call", "posted", "copied", "end"))
    return Fate(point, chance.randint(1, _CALLS) if point == "call" else 1)
