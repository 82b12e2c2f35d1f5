"""Klaviyo in memory: it accepts jobs, counts them in its two windows, and refuses those that a test names.

Which limits there are: Klaviyo's API reference, "Bulk Create Events". Windows,
headers and errors are those of the stand-in (``local.standin``), which a test
compares; the phase of the windows is not documented, and random.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from handler.delivery.klaviyo import Answer, sort_answer

from .hooks import Hook, nothing
from .time import Time

PER_MINUTE = 150
PER_SECOND = 10
POINTER = "/data/attributes/events-bulk-create/data/{}/attributes/profile"
_UNIQUE_ID = re.compile(rb'"unique_id":\s*("(?:[^"\\]|\\.)*")')
_LATE = re.compile(rb'"backfill":\s*true')


class Windows:
    """Two fixed windows, each of a phase of its own (seconds).

    Attributes
    ----------
    arrivals : list of float
        When each request came, refused ones too.
    refused : int
        So many were over a limit; these do not count.
    """

    def __init__(
        self, minute: float, second: float, *, per_minute: int = PER_MINUTE, per_second: int = PER_SECOND
    ) -> None:
        self.arrivals: list[float] = []
        self.refused = 0
        self.per_minute = per_minute
        self._windows = ((60.0, minute, per_minute), (1.0, second, per_second))
        self._counts = [(0, 0), (0, 0)]  # the number of the window that was last used, and how often

    @classmethod
    def anywhere(cls, chance: Random) -> Windows:
        """Return windows of a random phase."""
        return cls(chance.uniform(0, 60), chance.random())

    def take(self, at: float) -> float | None:
        """Count a request; return the seconds to wait if it is over a limit."""
        self.arrivals.append(at)
        looks = self._look(at)
        wait = max((rest for _, left, rest in looks if left <= 0), default=None)
        if wait is not None:
            self.refused += 1
            return wait
        self._counts = [
            (number, allowed - left + 1)
            for (number, left, _), (_, _, allowed) in zip(looks, self._windows, strict=True)
        ]
        return None

    def headers(self, at: float) -> dict[str, str]:
        """Return the RateLimit-* headers of the minute window."""
        _, left, rest = self._look(at)[0]
        return {
            "RateLimit-Limit": str(self.per_minute),
            "RateLimit-Remaining": str(left),
            "RateLimit-Reset": str(math.ceil(rest)),
        }

    def _look(self, at: float) -> list[tuple[int, int, float]]:
        """Return for each window its number at ``at``, requests left in it, and seconds until it ends."""
        windows = []
        for (length, phase, allowed), (last, used) in zip(self._windows, self._counts, strict=True):
            number = math.floor((at + phase) / length)
            windows.append((number, allowed - (used if number == last else 0), (number + 1) * length - phase - at))
        return windows


@dataclass(slots=True)
class Request:
    """One request and what became of it.

    ``at`` and ``answered_at`` are epoch seconds, ``names`` the events' unique_ids in order, ``late`` how
    many of them are marked as backfill; ``status`` 0 is no answer. ``body`` is there until it is answered.
    """

    at: float
    key: str
    body: bytes
    names: list[str]
    late: int
    status: int = 0
    answered_at: float = math.inf

    @classmethod
    def of(cls, at: float, key: str, body: bytes) -> Request:
        """Read ``body`` as far as it is kept; no property of an event may be called unique_id."""
        names: list[str] = json.loads(b"[" + b",".join(_UNIQUE_ID.findall(body)) + b"]")
        return cls(at, key, body, names, len(_LATE.findall(body)))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The entries of the job."""
        rows: list[dict[str, Any]] = json.loads(self.body)["data"]["attributes"]["events-bulk-create"]["data"]
        return rows


# Of a request: an answer, with the seconds that it takes if those are others than usual; ``None``: as usual.
Told = Callable[[Request], "Answer | tuple[Answer, float] | None"]


def untold(request: Request) -> None:
    """Return nothing to tell Klaviyo: it answers as usual."""


def unheard(body: bytes) -> None:
    """Ignore what is sent."""


@dataclass(slots=True)
class Klaviyo:
    """A ``dispatch.Poster``. Accepts jobs except those with ``bad`` rows, or answers what it is ``told``.

    ``seconds`` pass until an answer; without ``windows`` there is no limit. ``pointers`` is whether a
    refusal names its rows. ``stored`` are the unique_ids in order, repeats included, ``first`` when each
    of them came first. ``before`` and ``after`` a request the hooks are called, and ``leaving`` with its body
    when it is about to be sent.
    """

    time: Time
    windows: Windows | None = None
    seconds: float = 0.2
    told: Told = untold
    bad: set[str] = field(default_factory=set)
    pointers: bool = True
    requests: list[Request] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    first: dict[str, float] = field(default_factory=dict)
    before: Hook = nothing
    after: Hook = nothing
    leaving: Callable[[bytes], None] = unheard

    def open(self) -> Answer | None:
        """Connect, which always works."""
        return None

    def post(self, body: bytes, key: str) -> Answer:
        """Answer one request."""
        self.leaving(body)
        self.before("post")
        request = Request.of(self.time.now, key, body)
        self.requests.append(request)
        answer, seconds = self._decide(request)
        request.body = b""
        request.status = answer.status or 0
        self.time.sleep(seconds)
        request.answered_at = self.time.now
        if answer.kind == "delivered":
            self.stored += request.names
            for name in request.names:
                self.first.setdefault(name, request.at)
        self.after("post")
        return answer

    def answer(self, status: int, errors: Sequence[dict[str, Any]] | None = None, **headers: str) -> Answer:
        """Return an answer of this ``status``; names of ``headers`` with ``_`` for ``-``."""
        return self._sorted(status, {name.replace("_", "-"): value for name, value in headers.items()}, errors)

    def _decide(self, request: Request) -> tuple[Answer, float]:
        wait = self.windows.take(request.at) if self.windows else None
        if wait is not None:
            return self.answer(429, Retry_After=str(max(1, math.ceil(wait)))), self.seconds
        told = self.told(request)
        if told is not None:
            return told if isinstance(told, tuple) else (told, self.seconds)
        limits = self.windows.headers(request.at) if self.windows else {}
        wrong = [index for index, name in enumerate(request.names) if name in self.bad]
        if not wrong:
            return self._sorted(202, limits), self.seconds
        errors = [
            {"title": "Invalid input.", "detail": f"{request.names[index]}@mail.example is bad"}
            | ({"source": {"pointer": POINTER.format(index)}} if self.pointers else {})
            for index in (wrong if self.pointers else wrong[:1])
        ]
        return self._sorted(400, limits, errors), self.seconds

    def _sorted(
        self, status: int, headers: Mapping[str, str], errors: Sequence[dict[str, Any]] | None = None
    ) -> Answer:
        body = json.dumps({"errors": errors}).encode() if errors is not None else b""
        return sort_answer(status, headers, body)
