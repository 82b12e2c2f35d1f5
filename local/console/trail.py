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
class SentJob:
    """One request to Klaviyo; ``at`` is when it was sent (epoch seconds), ``status`` ``None`` without an answer."""

    at: float
    status: int | None
    events: int
    bytes: int
    line: Line


@dataclass(slots=True)
class History:
    """The fate of one event: the jobs that it went in, oldest first, and the line that parked it last.

    Once it was sent back, ``parked`` is ``None`` and ``was_parked`` that line.
    """

    jobs: list[SentJob] = field(default_factory=list)
    parked: Line | None = None
    was_parked: Line | None = None

    @property
    def delivered(self) -> SentJob | None:
        """The job in which Klaviyo accepted it."""
        return next((job for job in reversed(self.jobs) if job.line.get("outcome") == "delivered"), None)

    def take(self, step: SentJob | Line) -> None:
        """Add the next job, or the line that parked it."""
        if isinstance(step, SentJob):
            self.jobs.append(step)
            self.was_parked, self.parked = self.parked or self.was_parked, None
        else:
            self.parked = step


class Trail:
    """An index of log lines; ``version`` changes with every line that it takes."""

    def __init__(self) -> None:
        self._steps: OrderedDict[str, list[SentJob | Line]] = OrderedDict()
        self.jobs: deque[SentJob] = deque(maxlen=KEPT_JOBS)
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

    def _went(self, line: Line, job: SentJob) -> None:
        for name in line.get("event_ids", []):
            self._steps.setdefault(name, []).append(job)

    def of(self, event_id: str, receipts: Sequence[float] = (0.0,), which: int = 0) -> History:
        """Return what is known of an event that came in webhook ``which`` of those in ``receipts``.

        ``receipts`` are the times at which they were received, oldest first.

        A job names the event, not the webhook: it counts for the first webhook that was there before it and is
        neither delivered nor parked, otherwise for one that was parked and re-queued, otherwise for the last one.
        """
        histories = [History() for _ in receipts]
        for step in self._steps.get(event_id, []):
            at = step.at if isinstance(step, SentJob) else _written(step)
            there = [history for history, received in zip(histories, receipts, strict=True) if received <= at]
            waiting = [history for history in there if not history.delivered]
            if there:
                min(waiting, key=lambda history: history.parked is not None, default=there[-1]).take(step)
        return histories[which]


def state(histories: Sequence[History]) -> str:
    """Return ``delivered``, ``parked`` or ``waiting``: what the events of one webhook have come to, taken together."""
    if any(history.parked for history in histories):
        return "parked"
    return "delivered" if all(history.delivered for history in histories) else "waiting"


def _written(line: Line) -> float:
    return datetime.fromisoformat(str(line["timestamp"])).timestamp()


def _job(line: Line) -> SentJob:
    return SentJob(
        at=_written(line) - float(line.get("answer_ms", 0)) / 1000,
        status=line.get("status"),
        events=int(line.get("events", 0)),
        bytes=int(line.get("bytes", 0)),
        line=line,
    )
