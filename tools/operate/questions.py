"""What the log lines say of the usual questions: what became of it, why was it refused, is the relay keeping up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Line = Mapping[str, Any]
MOST_EVENTS = 20
SOON = 60.0  # seconds from door to Klaviyo: the batching window, the stagger and some waiting for a slot
REFUSED = ("webhook", "webhooks refused")  # one, and how many more there were in a minute
_JOBS = ("job", "job continued")
_WEBHOOKS = ("webhook", "webhook continued", "webhook mapped again")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Messages in the events queue (ready, in flight, delayed), and in the dead-letter queue."""

    ready: int
    in_flight: int
    delayed: int
    parked: int

    def __str__(self) -> str:
        return f"{self.ready:,} ready, {self.in_flight:,} in flight, {self.delayed:,} delayed"


def event_ids(lines: Sequence[Line], words: str) -> list[str]:
    """Return the events that ``words`` names; of a webhook that it names by something else, all its events."""
    ids = [event_id for line in lines if line["message"] in _WEBHOOKS + _JOBS + ("parked",) for event_id in _ids(line)]
    named = [event_id for event_id in ids if words in event_id]
    about = [event_id for line in lines if line["message"] in _WEBHOOKS for event_id in _ids(line)]
    return list(dict.fromkeys(named or about))


def _ids(line: Line) -> list[str]:
    return list(line.get("event_ids", []))


def outcomes(lines: Sequence[Line], words: str, waiting: Waiting, deferred: Line | None) -> Iterator[str]:
    """Yield a sentence for each event, or for the webhook if no event came of it.

    ``lines`` are in order of time and hold everything that is known of the events;
    ``deferred`` is the latest deferral of any, because deferrals name no event.
    """
    ids = event_ids(lines, words)
    for line in lines:
        if line["message"] == "webhook" and (not _ids(line) or line.get("parked")):
            yield f"webhook {line.get('webhook_id')} of {line.get('source')}: {_at_the_door(line)}"
    for name in ids[:MOST_EVENTS]:
        yield f"{name}: {_outcome([line for line in lines if name in _ids(line)], waiting, deferred)}"
    if len(ids) > MOST_EVENTS:
        yield f"… and {len(ids) - MOST_EVENTS} more events: ask for one by its event_id"


def _at_the_door(line: Line) -> str:
    why = f" ({line['reason']}: {line.get('detail', '')})" if line.get("reason") else ""
    if line["outcome"] == "refused":
        return f"refused with {line['status']}{why}"
    if parked := line.get("parked"):
        return f"{sum(parked.values())} of its events parked in the dead-letter queue{why}"
    return f"{line['outcome']}: nothing is sent to Klaviyo"


def _outcome(about: Sequence[Line], waiting: Waiting, deferred: Line | None) -> str:
    jobs = [line for line in about if line["message"] in _JOBS]
    taken = [line for line in jobs if line["outcome"] == "delivered"]
    parked = [line for line in about if line["message"] == "parked"]
    if taken:
        request = next((f", request {line['klaviyo_request_id']}" for line in taken if _is_named(line)), "")
        return f"delivered at {_time(taken[0])}{request}"
    if parked:
        return f"parked at {_time(parked[-1])} ({parked[-1]['reason']}: {parked[-1]['detail']})"
    tried = f"Klaviyo answered {jobs[-1].get('status') or 'nothing'} at {_time(jobs[-1])}; " if jobs else ""
    last = f"; the last deferral, at {_time(deferred)}: {deferred['reason']}" if deferred else ""
    if not waiting.ready + waiting.in_flight + waiting.delayed:
        return (
            f"accepted; {tried}the events queue is empty: its log line is not available yet, or the event is in the "
            "dead-letter queue"
        )
    return f"accepted and not delivered yet; {tried}the events queue holds {waiting} messages{last}"


def _is_named(line: Line) -> bool:
    return bool(line.get("klaviyo_request_id"))


def _time(line: Line) -> str:
    return str(line.get("timestamp", ""))[11:19]


def refusals(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """Return refused webhooks by source and reason, the most frequent first, under a heading."""
    counts: Counter[tuple[str, str]] = Counter()
    latest: dict[tuple[str, str], Line] = {}
    for line in lines:
        if line["message"] in REFUSED and line.get("outcome") == "refused":
            key = (str(line["source"]), str(line["reason"]))
            counts[key] += int(line.get("more", 1))
            latest[key] = line
    rows = [(*key, str(count), _time(latest[key]), str(latest[key]["detail"])) for key, count in counts.most_common()]
    return [("SOURCE", "REASON", "WEBHOOKS", "LAST", "DETAIL"), *rows] if rows else []


def rate(lines: Sequence[Line], *, limit: int, most: int) -> list[tuple[str, ...]]:
    """Return the jobs and events of the latest ``most`` minutes that had any, under a heading.

    ``limit`` is in jobs a minute.

    The minutes have their date if they are of several days.
    """
    minutes: dict[str, list[Line]] = {}
    for line in lines:
        if line["message"] == "job":
            minutes.setdefault(str(line["timestamp"])[:16], []).append(line)
    heading = ("MINUTE", f"JOBS OF {limit}", "NOT ACCEPTED", "EVENTS", "OLDEST, S", "SLOT WAIT, MS")
    shown = list(minutes.items())[-most:]
    start = len("2026-") if len({minute[:10] for minute, _ in shown}) > 1 else len("2026-11-24T")
    rows = [(minute[start:].replace("T", " "), *_minute(jobs)) for minute, jobs in shown]
    return [heading, *rows] if rows else []


def _minute(jobs: Sequence[Line]) -> tuple[str, ...]:
    taken = [job for job in jobs if job["outcome"] == "delivered"]
    return (
        str(len(jobs)),
        str(len(jobs) - len(taken)),
        f"{sum(int(job['events']) for job in taken):,}",
        str(max((job["age_seconds"] for job in taken), default="-")),
        str(max(job["slot_wait_ms"] for job in jobs)),
    )


def keeping_up(lines: Sequence[Line], waiting: Waiting, deferred: Line | None) -> Iterator[str]:
    """Yield whether events arrive soon, what waits now, and why nothing is sent if nothing is."""
    jobs = [line for line in lines if line["message"] == "job"]
    late = [job["age_seconds"] for job in jobs if job["outcome"] == "delivered"][-1:]
    held = deferred is not None and (not jobs or str(deferred["timestamp"]) > str(jobs[-1]["timestamp"]))
    if held or max(late, default=0) > SOON:
        yield "behind" + (f": the last delivery was {late[0]:.0f} s after its oldest event came in" if late else "")
    elif late:
        yield f"keeping up: the last delivery was {late[0]:.0f} s after its oldest event came in"
    yield f"events queue: {waiting}; dead-letter queue: {waiting.parked:,}"
    if jobs and jobs[-1]["outcome"] != "delivered":
        last = jobs[-1]
        why = f"{last['outcome']} {last['reason']}: {last['detail']}"
        yield f"the last request, at {_time(last)}, was not accepted: {why}"
    if held and deferred is not None:
        yield f"the last thing that happened, at {_time(deferred)}, was a deferral: {deferred['reason']}"
