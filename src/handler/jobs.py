"""From messages to bulk jobs, and what to do with a job that was refused.

Pure. A job holds whole messages: finished entries are joined, not parsed. Its
limits are Klaviyo's (API reference, "Bulk Create Events"): 1,000 events and,
on the strictest reading of "5 MB", 5,000,000 bytes of body.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from .messages import Event, Message, size

JOB_EVENTS = 1_000
JOB_BYTES = 5_000_000
_HEAD = '{"data":{"type":"event-bulk-create-job","attributes":{"events-bulk-create":{"data":['
_TAIL = "]}}}}"
ENVELOPE = len(_HEAD) + len(_TAIL)
REPEAT_ROUNDS = 3  # refusals that point at repeats are believed this often for one job
PROOF_SECONDS = 10.0  # so long an accepted request shows that Klaviyo reads what the relay sends


class Row(NamedTuple):
    """One event of a job: ``text`` is sent, ``event`` is as it was queued.

    ``owner`` is the place of its message in the batch, ``weight`` the bytes of
    ``text`` and a comma.
    """

    owner: int
    event: Event
    text: str
    weight: int


@dataclass(frozen=True, slots=True)
class Job:
    """One request. ``suspect``: cut out of a refused one; ``rounds``: refusals for repeats so far."""

    rows: tuple[Row, ...]
    suspect: bool = False
    rounds: int = 0

    def body(self) -> bytes:
        """The request's body."""
        return (_HEAD + ",".join(row.text for row in self.rows) + _TAIL).encode()

    def halves(self) -> list[Job]:
        """Two jobs of half the rows each."""
        middle = len(self.rows) // 2
        return [Job(part, suspect=True) for part in (self.rows[:middle], self.rows[middle:])]

    def without(self, indices: Iterable[int]) -> list[Job]:
        """The job less the rows at ``indices``: one job, or none if nothing is left."""
        gone = set(indices)
        rows = tuple(row for index, row in enumerate(self.rows) if index not in gone)
        return [replace(self, rows=rows)] if rows else []


def rows(owner: int, message: Message, *, now: float, late_after: float) -> list[Row]:
    """The rows of ``message``; events older than ``late_after`` seconds (0: never) as quiet backfills."""
    oldest = now - late_after if late_after else float("-inf")
    found: list[Row] = []
    for event in message.events:
        text = event.entry if event.time >= oldest else _late(event.entry)
        found.append(Row(owner, event, text, size(text) + 1))
    return found


def _late(entry: str) -> str:
    # Loaded here: most invocations meet no late event, and this brings the parsers of values along.
    from . import schema

    try:
        return schema.identifiers_only(entry)
    except (ValueError, KeyError, TypeError):
        return entry  # not an entry: Klaviyo says so, and it is parked with that


def pack(messages: Sequence[tuple[int, Message]], *, now: float, late_after: float = 0.0) -> list[Job]:
    """Cut ``messages``, each with its owner, into jobs, in the order of their arrival.

    A job is full when the next whole message would not fit. No job holds a
    ``unique_id`` twice: a repeat of the same event is left out, since it is
    delivered with the first; another event under the same id goes with a later
    job. Backfills fill up after what is live; what a redrive brought back comes
    in jobs of its own, which may be refused; suspect messages last, each apart.
    """
    jobs: list[Job] = []
    for suspect, group in _groups(messages):
        batches = [rows(owner, message, now=now, late_after=late_after) for owner, message in group]
        while batches:
            builders, batches = _fill(batches)
            jobs += [Job(builder.finished(), suspect=suspect) for builder in builders]
    return jobs


def _groups(messages: Sequence[tuple[int, Message]]) -> Iterator[tuple[bool, list[tuple[int, Message]]]]:
    sound = [pair for pair in messages if not pair[1].suspect]
    yield False, sorted((pair for pair in sound if not pair[1].redriven), key=lambda pair: pair[1].backfill)
    yield False, [pair for pair in sound if pair[1].redriven]
    for pair in messages:
        if pair[1].suspect:
            yield True, [pair]


@dataclass(slots=True)
class _Builder:
    """A job being filled."""

    rows: dict[str, Row] = field(default_factory=dict)
    weight: int = ENVELOPE

    def has_room(self, events: int, weight: int) -> bool:
        # The last row needs no comma, which leaves one byte unused.
        return len(self.rows) + events <= JOB_EVENTS and self.weight + weight <= JOB_BYTES

    def add(self, row: Row) -> None:
        self.rows[row.event.unique_id] = row
        self.weight += row.weight

    def finished(self) -> tuple[Row, ...]:
        return tuple(sorted(self.rows.values(), key=lambda row: row.event.time))


def _fill(batches: list[list[Row]]) -> tuple[list[_Builder], list[list[Row]]]:
    """Jobs out of messages' rows, and the rows whose id is taken by another event of their job."""
    builders = [_Builder()]
    left: list[list[Row]] = []
    for batch in batches:
        clashing: list[Row] = []
        for part in _parts(batch):
            if not builders[-1].has_room(len(part), sum(row.weight for row in part)):
                builders.append(_Builder())
            for row in part:
                known = builders[-1].rows.get(row.event.unique_id)
                if known is None:
                    builders[-1].add(row)
                elif not _same(known, row):
                    clashing.append(row)
        if clashing:
            left.append(clashing)
    return [builder for builder in builders if builder.rows], left


def _parts(batch: list[Row]) -> Iterator[list[Row]]:
    """``batch`` whole, unless it is a webhook that alone fills more than a job."""
    if len(batch) == 1:
        yield batch
        return
    part = _Builder()
    taken: list[Row] = []
    for row in batch:
        if taken and not part.has_room(len(taken) + 1, row.weight):
            yield taken
            part, taken = _Builder(), []
        taken.append(row)
        part.weight += row.weight
    if taken:
        yield taken


def _same(one: Row, other: Row) -> bool:
    """Whether Klaviyo takes both for one event: it goes by profile, metric and ``unique_id``."""
    if one.text == other.text:
        return True
    identity = _identity(one.text)
    return identity is not None and identity == _identity(other.text)


def _identity(text: str) -> Any:
    try:
        attributes = json.loads(text)["attributes"]
        profile = attributes["profile"]["data"]
        metric = attributes["events"]["data"][0]["attributes"]["metric"]["data"]["attributes"]
        known = ("email", "phone_number", "external_id", "anonymous_id", "_kx")
        who = [profile.get("id"), *(profile["attributes"].get(name) for name in known)]
        return who, metric["name"], metric.get("service")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


Verdict = Literal["split", "control", "park", "hold", "give_up", "brake"]


@dataclass(slots=True)
class Doubt:
    """Is it the rows? Judges refusals that name no row.

    A row is blamed only beside proof that Klaviyo accepts others. If a request,
    both its halves and then two single rows from different messages fail alike,
    it is not the rows: that is the brake.
    """

    accepted_at: float = float("-inf")
    alike: int = 0
    signature: tuple[object, ...] = ()
    singles: list[int] = field(default_factory=list)

    def accepted(self, now: float) -> None:
        """Klaviyo took a request, or named the rows that stand in the way: it reads what we send."""
        self.accepted_at = now
        self.alike = 0
        self.singles.clear()

    def refused(self, job: Job, signature: tuple[object, ...], now: float) -> Verdict:
        """What to do with ``job``, which was refused without a pointer.

        Returns
        -------
        str
            ``split`` it; split it and try two single rows (``control``); ``park``
            its one row; ``hold`` that row until others got through; ``give_up`` for
            now, since there are rows of one message only; ``brake``.
        """
        single = len(job.rows) == 1
        if now - self.accepted_at < PROOF_SECONDS:
            return "park" if single else "split"
        if signature != self.signature:
            self.signature, self.alike = signature, 0
            self.singles.clear()
        self.alike += 1
        if not single:
            return "control" if self.alike == 3 else "split"
        self.singles.append(job.rows[0].owner)
        if len(set(self.singles)) > 1:
            return "brake"
        return "give_up" if len(self.singles) > 1 else "hold"


def controls(jobs: Sequence[Job]) -> list[Job]:
    """``jobs`` with two single rows in front, from different messages if there are such."""
    flat = [row for job in jobs for row in job.rows]
    first = flat[0]
    second = next((row for row in flat if row.owner != first.owner), flat[-1])
    chosen = [first] if second is first else [first, second]
    rest = [replace(job, rows=tuple(row for row in job.rows if row not in chosen)) for job in jobs]
    return [Job((row,), suspect=True) for row in chosen] + [job for job in rest if job.rows]
