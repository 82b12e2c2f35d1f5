"""What ``deliver`` logged, by event: which job took it, what Klaviyo answered, why it was parked.

Pure: log lines in, answers out. Bounded; the oldest lines go first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
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
    """What became of one event: the jobs that it went in, oldest first, and the line that parked it last.

    Once it was sent back, ``parked`` is ``None`` and ``was_parked`` that line.
    """

    jobs: list[Job] = field(default_factory=list)
    parked: Line | None = None
    was_parked: Line | None = None

    @property
    def delivered(self) -> Job | None:
        """The job in which Klaviyo took it."""
        return next((job for job in reversed(self.jobs) if job.line.get("outcome") == "delivered"), None)

    def take(self, step: Job | Line) -> None:
        """Add the next job, or the line that parked it."""
        if isinstance(step, Job):
            self.jobs.append(step)
            self.was_parked, self.parked = self.parked or self.was_parked, None
        else:
            self.parked = step


class Trail:
    """An index of log lines; ``version`` changes with every line that it takes."""

    def __init__(self) -> None:
        self._steps: OrderedDict[str, list[Job | Line]] = OrderedDict()
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
                    self._steps.setdefault(name, []).append(line)
            else:
                continue
            self.version += 1
        while len(self._steps) > KEPT_EVENTS:
            self._steps.popitem(last=False)

    def _went(self, line: Line, job: Job) -> None:
        for name in line.get("event_ids", []):
            self._steps.setdefault(name, []).append(job)

    def of(self, event_id: str, receipts: Sequence[float] = (0.0,), which: int = 0) -> Fate:
        """What is known of an event that came in ``which`` of the webhooks received at ``receipts``, oldest first.

        A job names the event, not the webhook: it counts for the first webhook that was there before it and is
        neither delivered nor parked, else for one that was parked and sent back, else for the last one.
        """
        fates = [Fate() for _ in receipts]
        for step in self._steps.get(event_id, []):
            at = step.at if isinstance(step, Job) else _written(step)
            there = [fate for fate, received in zip(fates, receipts, strict=True) if received <= at]
            waiting = [fate for fate in there if not fate.delivered]
            if there:
                min(waiting, key=lambda fate: fate.parked is not None, default=there[-1]).take(step)
        return fates[which]


def state(fates: Sequence[Fate]) -> str:
    """``delivered``, ``parked`` or ``waiting``: what the events of one webhook have come to, taken together."""
    if any(fate.parked for fate in fates):
        return "parked"
    return "delivered" if all(fate.delivered for fate in fates) else "waiting"


def _written(line: Line) -> float:
    return datetime.fromisoformat(str(line["timestamp"])).timestamp()


def _job(line: Line) -> Job:
    return Job(
        at=_written(line) - float(line.get("answer_ms", 0)) / 1000,
        status=line.get("status"),
        events=int(line.get("events", 0)),
        bytes=int(line.get("bytes", 0)),
        line=line,
    )
