"""From messages to bulk jobs.

Pure. The messages' finished entries are joined, not parsed. A job's limits are
Klaviyo's (API reference, "Bulk Create Events"): 1,000 events and, on the strictest
reading of "5 MB", 5,000,000 bytes of body.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..messages import JOB_EVENTS, Event, Message

JOB_BYTES = 5_000_000
SUSPECT_EVENTS = 32  # of small messages together: refused five times, such a job is down to single events
_HEAD = b'{"data":{"type":"event-bulk-create-job","attributes":{"events-bulk-create":{"data":['
_TAIL = b"]}}}}"
ENVELOPE = len(_HEAD) + len(_TAIL)


class Row(NamedTuple):
    """One event of a job: ``entry`` is sent, ``event`` is as it was queued.

    ``owner`` is the place of its message in the batch.
    """

    owner: int
    event: Event
    entry: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """The rows of one request.

    ``refused_at`` is when Klaviyo last refused them alone, or first with others if it
    has not (epoch seconds; 0 if that is not known, ``None`` if never). ``named`` is whether
    Klaviyo named each of them, or none of them, when it last refused them together with
    others; ``None`` if it named no row then. It refused each of them alone at least
    ``refusals`` times.
    """

    rows: tuple[Row, ...]
    refused_at: float | None = None
    named: bool | None = None
    refusals: int = 0

    @property
    def suspect(self) -> bool:
        """Whether it was cut from a refused job."""
        return self.refused_at is not None

    def body(self) -> bytes:
        """Return the request's body."""
        entries = [row.entry for row in self.rows]
        entries[0] = _HEAD + entries[0]
        entries[-1] += _TAIL
        return b",".join(entries)  # the one copy: megabytes are slow to get, not to fill

    def halves(self) -> list[Job]:
        """Return two jobs with half of the rows each."""
        middle = len(self.rows) // 2
        return [replace(self, rows=part) for part in (self.rows[:middle], self.rows[middle:])]

    def without(self, indices: Iterable[int]) -> list[Job]:
        """Return the job without the rows at ``indices``: one job, or none if no row is left."""
        gone = set(indices)
        rows = tuple(row for index, row in enumerate(self.rows) if index not in gone)
        return [replace(self, rows=rows)] if rows else []


def _rows(owner: int, message: Message, oldest: float) -> list[Row]:
    """Return the rows of ``message``; events before ``oldest`` (epoch seconds) become backfills."""
    return [
        Row(owner, event, (event.entry if event.time >= oldest else _late(event.entry)).encode())
        for event in message.events
    ]


def _late(entry: str) -> str:
    # Loaded here: most invocations have no late event, and this also loads the parsers of values.
    from ..events.entry import identifiers_only

    try:
        return identifiers_only(entry)
    except (ValueError, KeyError, TypeError):
        return entry  # not an entry: Klaviyo refuses it, and it is parked with Klaviyo's reason


def pack(messages: Sequence[tuple[int, Message]], *, now: float, late_after: float = 0.0) -> list[Job]:
    """Cut ``messages``, each with its owner, into jobs, in the order of their arrival.

    A job is full when the next event would not fit. No job holds a ``unique_id`` twice.
    A repeat of the same event is left out, since it is delivered with the first. Another
    event under the same id goes into a later job. Backfills come after live events.
    Redriven messages have jobs of their own, which may be refused. Suspect messages come
    last: large ones each in a job of its own, so that taking them apart continues where
    it ended, and small ones together, since most of their events are accepted. Such
    a job was first refused when the last of its messages was.
    """
    jobs: list[Job] = []
    oldest = now - late_after if late_after else float("-inf")
    for like, group in _groups(messages):
        full, clashing = _fill(
            (row for owner, message in group for row in _rows(owner, message, oldest)),
            SUSPECT_EVENTS if like.suspect and len(group) > 1 else JOB_EVENTS,
        )
        apart, clashing = _fill(clashing)
        alone = {(row.event.unique_id, identity(row.entry)): (row,) for row in clashing}
        jobs += [replace(like, rows=rows) for rows in (*full, *apart, *alone.values())]
    return jobs


def _groups(messages: Sequence[tuple[int, Message]]) -> Iterator[tuple[Job, list[tuple[int, Message]]]]:
    groups: dict[tuple[bool, bool, int, int], list[tuple[int, Message]]] = {}
    for place, message in sorted(messages, key=lambda pair: pair[1].backfill):
        large = message.suspect and len(message.events) > SUSPECT_EVENTS
        groups.setdefault(
            (message.suspect, message.redriven, place if large else -1, min(1, message.refusals)), []
        ).append((place, message))
    for (suspect, *_, refusals), group in sorted(groups.items(), key=lambda item: item[0]):
        yield Job((), max(message.refused_at for _, message in group) if suspect else None, refusals=refusals), group


def _fill(rows: Iterable[Row], most: int = JOB_EVENTS) -> tuple[list[tuple[Row, ...]], list[Row]]:
    """Return the rows of each job, ``most`` in one, and the rows whose id another event of their job has."""
    jobs: list[dict[str, Row]] = [{}]
    clashing: list[Row] = []
    weight = ENVELOPE
    for row in rows:
        known = jobs[-1].get(row.event.unique_id)
        if known is None:
            weight += len(row.entry) + 1  # the last comma is a byte too many
            if len(jobs[-1]) == most or weight > JOB_BYTES:
                jobs.append({})
                weight = ENVELOPE + len(row.entry) + 1
            jobs[-1][row.event.unique_id] = row
        elif not _same(known, row):
            clashing.append(row)
    return [tuple(sorted(job.values(), key=lambda row: row.event.time)) for job in jobs if job], clashing


def _same(row: Row, other: Row) -> bool:
    """Return whether both are one event to Klaviyo, which compares profile, metric and ``unique_id``."""
    return row.entry == other.entry or identity(row.entry) == identity(other.entry)


def identity(entry: bytes) -> str | bytes:
    """Return what Klaviyo compares, as one value; ``entry`` itself if it is not an entry."""
    try:
        attributes = json.loads(entry)["attributes"]
        profile = attributes["profile"]["data"]
        metric = attributes["events"]["data"][0]["attributes"]["metric"]["data"]["attributes"]
        known = ("email", "phone_number", "external_id", "anonymous_id", "_kx")
        who = [profile.get("id"), *(profile["attributes"].get(name) for name in known)]
        return repr((who, metric["name"], metric.get("service")))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return entry
