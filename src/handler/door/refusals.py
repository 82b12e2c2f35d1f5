"""Log lines of refusals, thinned: anyone can cause refusals, and each line costs money.

Only unverified requests are thinned, so that every authentic webhook has its
line. Metrics count each refusal, whether it has a line or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

WINDOW = 60.0  # seconds
PER_WINDOW = 10  # lines of each source and reason in one window and one execution environment
_UNPROVED = (400, 401, 404)  # a 413 is authentic, and a 503 may be


@dataclass(slots=True)
class _Kind:
    """Refusals of one source for one reason since the window began; ``detail`` is the latest's."""

    count: int = 0
    detail: str = ""


class More(NamedTuple):
    """How many refusals of one source for one reason had no line, and the detail of the latest."""

    source: str
    reason: str
    webhooks: int
    detail: str


class Refusals:
    """The refusals of one execution environment; those without a line of their own are reported together once a minute.

    ``clock`` gives seconds. There are as many kinds as sources and reasons.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = float("-inf")
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def is_logged(self, source: str, status: int, reason: str, detail: str) -> bool:
        """Return whether this refusal has a line of its own. Call ``left`` first."""
        if status not in _UNPROVED:
            return True
        kind = self._kinds.setdefault((source, reason), _Kind())
        kind.count += 1
        kind.detail = detail
        return kind.count <= PER_WINDOW

    def left(self) -> list[More]:
        """Return the kinds with more refusals than lines once the window is over, and begin a new window."""
        now = self._clock()
        if now - self._began < WINDOW:
            return []
        kinds, self._kinds, self._began = self._kinds, {}, now
        return [
            More(source, reason, kind.count - PER_WINDOW, kind.detail)
            for (source, reason), kind in kinds.items()
            if kind.count > PER_WINDOW
        ]
