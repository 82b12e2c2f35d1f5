"""The job loop: take a slot, post, sort the answer, until the work or the time is used up.

This module does not use the queues: it returns what is to be parked or sent again.
Every request takes a slot of its own, including those of a job taken apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..closing import BRAKE, KEY_REFUSED, OUTAGE, REFUSED_ALIKE, THROTTLE, Closing
from ..errors import Closed, NoSlot
from ..messages import Message
from ..pauses import Pauses
from ..secret import Key
from .blame import PROOF_SECONDS, ROWS, Doubt, Verdict
from .jobs import Job
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


@dataclass(slots=True, kw_only=True)
class Result:
    """The rows to park, the jobs to send again, and why no more was posted, if there is a reason."""

    parked: list[RefusedRows] = field(default_factory=list)
    left: list[Job] = field(default_factory=list)
    cause: NoSlot | None = None
    delivered: int = 0


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
        self._doubt = Doubt()  # kept over invocations: a request accepted seconds ago is proof

    def run(
        self, work: Iterable[Job], messages: Mapping[int, Message], deadline: float, closed: Closed | None = None
    ) -> Result:
        """Post ``work`` while there are slots before ``deadline`` (epoch seconds).

        Nothing is posted if the work before it in this invocation found the relay ``closed``, or was all refused.
        """
        self._doubt.refused.clear()
        run = _Run(work=deque(work), messages=messages, doubt=self._doubt, cause=closed)
        while run.work and run.cause is None:
            try:
                self._next(run, deadline)
            except NoSlot as cause:
                run.cause = cause
        self._doubt = run.doubt
        run.left += [*run.held, *run.work]  # rows that still wait for proof are left over
        return run

    def _next(self, run: _Run, deadline: float) -> None:
        """Make one request. Whatever it raises, the first job of the work is then either settled or still there."""
        job = run.work[0]
        key = self._key.current()
        began = self._clock()
        body = job.body()
        slot, fault = self._turn(deadline)
        closed_for = slot.closing.code if slot.closing else None
        if closed_for == REFUSED_ALIKE and len(job.rows) > 1:
            # The rows were not at fault, and one is enough to probe. A random one, since the first may be at fault now.
            job = run.single(0, int(self._random() * len(job.rows)))
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
            self._pacer.failed(slot, THROTTLE, pause=answer.retry_after or 0.0)
        elif answer.kind == "transient":
            self._pacer.failed(slot, Closing(OUTAGE, answer.reason))
        elif answer.kind == "configuration":
            renewed = answer.reason == KEY_REFUSED and self._key.renewed(key)
            if not renewed or slot.lease is not None:
                self._pacer.failed(
                    slot, Closing(answer.reason, answer.detail), pause=0.0 if renewed else self._pauses.long
                )
        elif not answer.accepted and slot.closing is not None and slot.closing.code == REFUSED_ALIKE:
            self._pacer.failed(slot, BRAKE, pause=self._pauses.long)
        else:
            run.doubt.accepted_at = max(run.doubt.accepted_at, (self._pacer.known.accepted_at or 0) / 1000)
            delivered_at = (self._pacer.known.delivered_at or 0) / 1000
            if run.settle(answer, self._clock()):
                # As of the slot, since the item was read before it: answers may be slow.
                if abs(slot.at - delivered_at) > self._pauses.long or slot.lease is not None:
                    self._pacer.failed(slot, BRAKE, pause=self._pauses.long)
                raise Closed(self._clock() + self._pauses.long, BRAKE)
            if slot.lease is not None:
                self._pacer.opened(slot, accepted=answer.accepted)
            if answer.accepted and abs(self._clock() - delivered_at) > PROOF_SECONDS / 2:
                self._pacer.note("delivered_at")  # a function that has only rows that are refused then stops alone


@dataclass(slots=True, kw_only=True)
class _Run(Result):
    """One invocation's work: ``work[0]`` is the job under way.

    ``held`` are rows that Klaviyo refused alone, to be tried once more after it accepts a request.
    """

    work: deque[Job]
    messages: Mapping[int, Message]
    doubt: Doubt
    held: list[Job] = field(default_factory=list)

    def settle(self, answer: Answer, now: float) -> bool:
        """Take the first job out of the work and settle its rows by Klaviyo's answer; return true for the brake."""
        job = self.work.popleft()
        if answer.accepted:
            self.delivered += len(job.rows)
            self.doubt = self.doubt.after(job, now)
            self._first(self.held)  # to be refused once more now, or accepted: a fault may have ended meanwhile
            self.held = []
            return False
        words = {index: said for index, said in answer.rows.items() if index < len(job.rows)}
        every = len(words) == len(job.rows)
        whole = every and job.refused_at is None and len(words) <= ROWS
        job = replace(job, refused_at=now if job.refused_at is None else job.refused_at)
        if len(job.rows) == 1 or whole or (every and job.named):
            alone = words or {0: answer.words or answer.detail}
            verdicts = [self._alone(job, index, said, answer, now, whole=whole) for index, said in alone.items()]
            if "brake" in verdicts:  # the rows are not at fault
                self.work = deque(
                    job if self.messages[job.rows[0].owner].suspect else Job(job.rows) for job in self.work
                )
            elif "hold" in verdicts and self.work and self.doubt.wants_proof(now):
                # A row from elsewhere is next: if it is accepted, what is held is settled.
                other = next((index for index, job in enumerate(self.work) if not job.suspect), len(self.work) - 1)
                self.single(other, len(self.work[other].rows) // 2)
            return "brake" in verdicts
        if job.named is None and 0 < len(words) < len(job.rows):
            # Tried again apart, after the others: Klaviyo may have named the wrong rows.
            self._first(replace(part, named=False) for part in job.without(words))
            self.work.append(replace(job, rows=tuple(job.rows[index] for index in words), named=True))
        else:
            self._first(replace(part, named=job.named or None) for part in job.halves())
        return False

    def _alone(self, job: Job, index: int, words: str, answer: Answer, now: float, *, whole: bool) -> Verdict:
        """Judge a row that Klaviyo refused alone, or named for the second time, or with its ``whole`` job."""
        row = job.rows[index]
        tries = max(job.refusals, self.messages[row.owner].refusals) + 1
        verdict = self.doubt.judge(row, job, tries, now, named=index in answer.rows, believe=whole)
        if verdict == "park":
            # Suspect when it is redriven, unless Klaviyo named it.
            self.parked.append(
                RefusedRows(
                    (row,),
                    answer.reason,
                    scrub(words, row.entry) or "Klaviyo gave no reason",
                    suspect=index not in answer.rows,
                )
            )
        else:
            (self.left if verdict == "later" else self.held).append(Job((row,), refused_at=now, refusals=tries))
        return verdict

    def single(self, index: int, place: int) -> Job:
        """Cut the row at ``place`` out of the job at ``index``, and put it first; return its job."""
        job = self.work[index]
        alone = replace(job, rows=(job.rows[place],))
        del self.work[index]
        for rest in job.without([place]):
            self.work.insert(index, rest)
        self.work.appendleft(alone)
        return alone

    def _first(self, parts: Iterable[Job]) -> None:
        self.work.extendleft(reversed(list(parts)))
