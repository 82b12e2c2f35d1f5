"""What ``deliver`` logged, by event: which job took it, what Klaviyo answered, why it was parked.

Pure: log lines in, answers out. Bounded; the oldest lines go first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

KEPT_EVENTS = 200_000
KEPT_JOBS = 5_000
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """One request to Klaviyo; ``at`` is when it was sent (epoch seconds), ``status`` ``None`` without an answer."""

    at: float
    status: int | None
    events: int
    bytes: int
    line: Line


@dataclass(slots=True)
class Fate:
    """What became of one event: the jobs that it went in, oldest first, and the line that parked it."""

    jobs: list[Job] = field(default_factory=list)
    parked: Line | None = None

    @property
    def delivered(self) -> Job | None:
        """The job in which Klaviyo took it."""
        return next((job for job in reversed(self.jobs) if job.line.get("outcome") == "delivered"), None)


class Trail:
    """An index of log lines; ``version`` changes with every line that it takes."""

    def __init__(self) -> None:
        self._fates: OrderedDict[str, Fate] = OrderedDict()
        self.jobs: deque[Job] = deque(maxlen=KEPT_JOBS)
        self.version = 0

    def take(self, lines: Iterable[Line]) -> None:
        """Add lines in order of time."""
        for line in lines:
            kind = line.get("message")
            if kind == "job":
                self.jobs.append(_job(line))
                self._went(line, self.jobs[-1])
            elif kind == "job continued" and self.jobs:
                self._went(line, self.jobs[-1])
            elif kind == "parked":
                for name in line.get("event_ids", []):
                    self._fate(name).parked = line
            else:
                continue
            self.version += 1
        while len(self._fates) > KEPT_EVENTS:
            self._fates.popitem(last=False)

    def _went(self, line: Line, job: Job) -> None:
        for name in line.get("event_ids", []):
            fate = self._fate(name)
            fate.jobs.append(job)
            fate.parked = None  # what was parked before came back by a redrive

    def _fate(self, name: str) -> Fate:
        return self._fates.setdefault(name, Fate())

    def of(self, event_id: str) -> Fate:
        """What is known of an event."""
        return self._fates.get(event_id, Fate())

    def state(self, event_ids: Iterable[str]) -> str:
        """``delivered``, ``parked`` or ``waiting``: what the events of one webhook have come to, taken together."""
        fates = [self.of(name) for name in event_ids]
        if any(fate.parked for fate in fates):
            return "parked"
        return "delivered" if all(fate.delivered for fate in fates) else "waiting"


def _job(line: Line) -> Job:
    answered = datetime.fromisoformat(str(line["timestamp"])).timestamp()
    return Job(
        at=answered - float(line.get("answer_ms", 0)) / 1000,
        status=line.get("status"),
        events=int(line.get("events", 0)),
        bytes=int(line.get("bytes", 0)),
        line=line,
    )
