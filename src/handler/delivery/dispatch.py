"""The job loop: take a slot, post, sort the answer, until the work or the time is used up.

This module does not use the queues: it returns what is to be parked or sent again.
Every request takes a slot of its own, including those of a job taken apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..closing import BRAKE, KEY_REFUSED, OUTAGE, REFUSED_ALIKE, Closing
from ..errors import Closed, NoSlot
from ..messages import Message
from ..pauses import Pauses
from ..secret import Key
from . import jobs
from .blame import Doubt
from .jobs import Job, Row
from .klaviyo import Answer
from .pacing import Pacer, Slot
from .returns import RefusedRows
from .scrub import scrub


class Poster(Protocol):
    """The part of ``klaviyo.Connection`` that this module uses."""

    def open(self) -> Answer | None:
        """Connect; return the fault if that fails."""

    def post(self, body: bytes, key: str) -> Answer:
        """Make one request."""


@dataclass(frozen=True, slots=True)
class Post:
    """One request and its answer, for the log; ``waited`` and ``took`` in seconds."""

    job: Job
    slot: Slot
    answer: Answer
    bytes: int
    waited: float
    took: float


@dataclass(slots=True)
class Result:
    """The rows to park, the jobs to send again, and why no more was posted, if there is a reason.

    ``refused_at`` is when Klaviyo first refused a job without naming a row, infinite if it did not.
    """

    parked: list[RefusedRows] = field(default_factory=list)
    left: list[Job] = field(default_factory=list)
    cause: NoSlot | None = None
    delivered: int = 0
    refused_at: float = float("inf")


class Dispatcher:
    """Posts jobs one after the other.

    ``messages[row.owner]`` is the message that a row came in. ``clock`` gives
    epoch seconds, ``random`` numbers from 0 to 1. ``record`` is called after every
    request, with the messages and the time.
    """

    def __init__(
        self,
        *,
        pacer: Pacer,
        poster: Poster,
        key: Key,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        random: Callable[[], float],
        record: Callable[[Post, Mapping[int, Message], float], None],
        pauses: Pauses,
    ) -> None:
        self._pacer = pacer
        self._poster = poster
        self._key = key
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._record = record
        self._pauses = pauses
        self._accepted_at = float("-inf")  # kept over invocations: a request accepted seconds ago is proof

    def run(self, work: Iterable[Job], messages: Mapping[int, Message], deadline: float) -> Result:
        """Post ``work`` while there are slots before ``deadline`` (epoch seconds)."""
        run = _Run(deque(work), messages, Doubt(self._accepted_at))
        while run.work and run.result.cause is None:
            job = run.work.popleft()
            try:
                self._next(run, job, deadline)
            except NoSlot as cause:
                run.result.cause = cause
        self._accepted_at = run.doubt.accepted_at
        return run.finished()

    def _next(self, run: _Run, job: Job, deadline: float) -> None:
        """Make one request. Whatever it raises, ``job`` is then either settled or back in the work."""
        run.work.appendleft(job)
        key = self._key.current()
        began = self._clock()
        body = job.body()
        slot, fault = self._turn(deadline)
        closed_for = slot.closing.code if slot.closing else None
        if closed_for == REFUSED_ALIKE and len(job.rows) > 1:
            # The rows were not at fault, and one is enough to probe. A random one, since the first may be at fault now.
            run.work.popleft()
            place = int(self._random() * len(job.rows))
            run.work.extendleft([*job.without([place]), Job((job.rows[place],), job.suspect)])
            job = run.work[0]
            body = job.body()
        if closed_for == KEY_REFUSED and self._key.renewed(key):
            key = self._key.current()
        posted = self._clock()
        answer = fault or self._poster.post(body, key)
        done = self._clock()
        self._record(Post(job, slot, answer, len(body), posted - began, done - posted), run.messages, done)
        self._settle(run, slot, answer, key)

    def _turn(self, deadline: float) -> tuple[Slot, Answer | None]:
        """Return a slot; wait for a brief closing to end rather than defer a whole batch."""
        patient_until = min(deadline, self._clock() + self._pauses.patience)
        while True:
            try:
                return self._pacer.turn(deadline, self._poster.open)
            except Closed as closed:
                wait = closed.retry_at + 0.2 * self._random()
                if wait > patient_until:
                    raise
                self._sleep(max(0.05, wait - self._clock()))

    def _settle(self, run: _Run, slot: Slot, answer: Answer, key: str) -> None:
        """Apply the answer to the first job of the work; notify the pacer last, since that may fail."""
        if answer.kind == "throttled":
            self._pacer.throttled(slot, answer.retry_after)
        elif answer.kind == "transient":
            self._pacer.failed(slot, Closing(OUTAGE, answer.reason))
        elif answer.kind == "configuration":
            renewed = answer.reason == KEY_REFUSED and self._key.renewed(key)
            if not renewed or slot.lease is not None:
                self._pacer.failed(
                    slot, Closing(answer.reason, answer.detail), pause=0.0 if renewed else self._pauses.long
                )
        elif answer.kind == "refused" and slot.closing is not None and slot.closing.code == REFUSED_ALIKE:
            self._pacer.failed(slot, BRAKE, pause=self._pauses.long)
        else:
            run.doubt.accepted_at = max(run.doubt.accepted_at, self._pacer.accepted_at)
            braked = run.settle(answer, self._clock())
            if braked:
                self._pacer.failed(slot, BRAKE, pause=self._pauses.long)
                raise Closed(self._clock() + self._pauses.long, BRAKE)
            accepted = answer.kind in ("delivered", "rows")
            self._pacer.answered(slot, accepted=accepted, remaining=answer.remaining, reset=answer.reset)


@dataclass(slots=True)
class _Run:
    """One invocation's work: ``work[0]`` is the job under way."""

    work: deque[Job]
    messages: Mapping[int, Message]
    doubt: Doubt
    result: Result = field(default_factory=Result)
    # ``held``: rows refused without a pointer while nothing was accepted, with Klaviyo's words.
    # ``waiting``: jobs that wait for proof.
    held: list[tuple[Row, str]] = field(default_factory=list)
    waiting: list[Job] = field(default_factory=list)

    def settle(self, answer: Answer, now: float) -> bool:
        """Take the first job out of the work and settle its rows by Klaviyo's answer; return true for the brake."""
        job = self.work.popleft()
        if answer.kind == "delivered":
            self.result.delivered += len(job.rows)
            self._proved(now)
        elif answer.kind == "too_large":
            self._too_large(job, answer)
        elif any(complaint.index < len(job.rows) for complaint in answer.rows):
            self._pointed(job, answer, now)
        else:
            return self._unexplained(job, answer, now)
        return False

    def _first(self, parts: Sequence[Job]) -> None:
        self.work.extendleft(reversed(parts))

    def _too_large(self, job: Job, answer: Answer) -> None:
        if len(job.rows) > 1:
            self._first(job.halves())
        else:
            self.result.parked.append(RefusedRows(job.rows, "too_large", answer.detail))

    def _pointed(self, job: Job, answer: Answer, now: float) -> None:
        # Scrubbed first, so that a row's own text, such as an id with "repeat" in it, is not read as Klaviyo's words.
        complaints = [
            replace(complaint, words=scrub(complaint.words, job.rows[complaint.index].entry))
            for complaint in answer.rows
            if complaint.index < len(job.rows)
        ]
        repeats = [complaint.index for complaint in complaints if complaint.repeat]
        for complaint in complaints:
            if not complaint.repeat:
                row = job.rows[complaint.index]
                self.result.parked.append(RefusedRows((row,), "refused_by_klaviyo", complaint.words))
        believed = job.rounds < jobs.REPEAT_ROUNDS or len(job.rows) == 1
        gone = [complaint.index for complaint in complaints if believed or not complaint.repeat]
        self.result.delivered += len(repeats) if believed else 0
        rest = job.without(gone)
        if not believed and rest:
            # Klaviyo has called rows of this job repeats several times: halve the job to find out which really are.
            self._first(rest[0].halves() if len(rest[0].rows) > 1 else rest)
        else:
            self._first([Job(part.rows, part.suspect, part.rounds + bool(repeats)) for part in rest])
        self._proved(now)

    def _unexplained(self, job: Job, answer: Answer, now: float) -> bool:
        message = self.messages[job.rows[0].owner]
        verdict = self.doubt.refused(job, (answer.status, answer.detail), now, message)
        if verdict == "park":
            self._park(job.rows[0], answer.words)
        elif verdict == "hold":
            self.held.append((job.rows[0], answer.words))
        elif verdict == "split":
            self._split(job)
        elif verdict == "control":
            apart = job.halves()
            while self.work and self.work[0].suspect:
                apart.append(self.work.popleft())
            self._first(jobs.controls(apart))
        elif verdict == "give_up":
            self._give_up(job)
        else:
            self._brake(job)
        return verdict == "brake"

    def _split(self, job: Job) -> None:
        """Put both halves first, or behind the other half of their whole while the rows may not be at fault."""
        sibling = [self.work.popleft()] if self.doubt.alike == 2 and self.work and self.work[0].suspect else []
        self._first([*sibling, *job.halves()])

    def _give_up(self, job: Job) -> None:
        """Let a message's rows, all refused, wait until others were tried; without proof they are deferred."""
        owner = job.rows[0].owner
        self.waiting.append(job)
        for part in list(self.work):
            if part.suspect and all(row.owner == owner for row in part.rows):
                self.work.remove(part)
                self.waiting.append(part)

    def _brake(self, job: Job) -> None:
        """Put all work back unchanged, since the rows are not at fault, except those that were refused alone."""
        alone = [job, *(Job((row,), suspect=True) for row, _ in self.held)]
        apart = [*self.work, *self.waiting]
        innocent = tuple(row for part in apart for row in part.rows if not self.messages[row.owner].suspect)
        self.work = deque(
            Job(rows, suspect=True)
            for part in apart
            if (rows := tuple(row for row in part.rows if self.messages[row.owner].suspect))
        )
        self.work.extend(Job(part.rows, suspect=True) for part in alone)
        if innocent:
            self.work.appendleft(Job(innocent))
        self.held, self.waiting = [], []
        self.doubt.alike = 0
        self.doubt.singles.clear()

    def _proved(self, now: float) -> None:
        """Park the rows held until now: Klaviyo accepts other requests, so these rows are at fault."""
        self.doubt.accepted(now)
        for row, words in self.held:
            self._park(row, words)
        self._first(self.waiting)
        self.held, self.waiting = [], []

    def _park(self, row: Row, words: str) -> None:
        detail = scrub(words, row.entry) or "Klaviyo gave no reason"
        self.result.parked.append(RefusedRows((row,), "refused_by_klaviyo", detail, suspect=True))

    def finished(self) -> Result:
        """Return the result; rows that still wait for proof are left over."""
        self.result.refused_at = self.doubt.began
        self.result.left += [*(Job((row,), suspect=True) for row, _ in self.held), *self.waiting, *self.work]
        return self.result
