"""The pages of the rate, and of what is parked."""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from tools.operate import dead_letters
from tools.operate.dead_letters import DeadLetter

from . import story
from .exchanges import Exchange
from .state import console, defaults, frame
from .trail import SentJob, Trail
from .trail import state as trail_state

pages = Blueprint("rate", __name__)
SECONDS = 120  # what the charts show
JOBS = 14
LISTED = 500
FRESH = 4.0  # seconds for which a list of parked messages is valid, if their number is the same
REDRIVE_RATE = 200
EVENTS_A_JOB, BYTES_A_JOB = 1_000, 5_000_000


@dataclass(frozen=True, slots=True)
class Second:
    """Requests of one second: accepted, refused with 429, failed otherwise; and those of the minute before its end."""

    taken: int
    throttled: int
    failed: int
    minute: int


def seconds(requests: Iterable[SentJob], now: float) -> list[Second]:
    """Return the last two minutes, second by second, the last one under way."""
    end = int(now) + 1
    by_second: Counter[tuple[int, str]] = Counter()
    for job in requests:
        if job.at >= end - SECONDS - 60:
            kind = "taken" if job.status == 202 else "throttled" if job.status == 429 else "failed"
            by_second[int(job.at), kind] += 1
    counts = []
    for second in range(end - SECONDS, end):
        taken, throttled, failed = (by_second[second, kind] for kind in ("taken", "throttled", "failed"))
        minute = sum(by_second[past, kind] for past in range(second - 59, second + 1) for kind in ("taken", "failed"))
        counts.append(Second(taken, throttled, failed, minute))
    return counts


def latest(jobs: Iterable[SentJob]) -> list[SentJob]:
    """Return the last jobs, the newest first.

    Invocations that run at once report theirs one after the other.
    """
    return heapq.nlargest(JOBS, list(jobs), key=lambda job: job.at)


def _oldest_waiting(now: float) -> float | None:
    """Return the age in seconds of the oldest webhook with an event still on its way."""
    trail = console().watch.trail
    accepted = (exchange for exchange in console().exchanges.newest_first() if exchange.outcome == "accepted")
    waiting = [exchange.at for exchange in accepted if _is_waiting(exchange, trail)]
    return now - min(waiting) if waiting else None


def _is_waiting(exchange: Exchange, trail: Trail) -> bool:
    return trail_state([story.history_of(name, exchange, trail) for name in exchange.event_ids]) == "waiting"


def _numbers() -> dict[str, Any]:
    watch, now = console().watch, time.time()
    limits = watch.snapshot.stats.get("limits", {"per_second": 10, "per_minute": 150})
    chart = seconds(list(watch.requests), now)
    return {
        "limits": limits,
        "share": int(console().stack.parameters.get("RequestsPerMinute", limits["per_minute"])),
        "chart": chart,
        "minute": sum(1 for job in watch.requests if job.at > now - 60 and job.status != 429),
        "second": sum(1 for job in watch.requests if job.at > now - 1 and job.status != 429),
        "jobs": latest(watch.trail.jobs),
        "oldest": _oldest_waiting(now),
        "full_events": EVENTS_A_JOB,
        "full_bytes": BYTES_A_JOB,
    }


@pages.get("/rate")
def index() -> str:
    """Render both windows as they fill, the queue, the jobs."""
    return render_template("rate.html", page="rate", **_numbers(), **frame())


@pages.get("/rate/now")
def now() -> str:
    """Render the numbers alone, for a page that is open."""
    return render_template("rate_now.html", **_numbers(), **frame())


@pages.post("/rate/empty")
def empty() -> Response:
    """Let the stand-in forget what it stored, so that a repeat counts as new."""
    console().stack.standin("reset", {})
    return redirect(url_for("rate.index"), 303)


class _DeadLetters:
    """The messages of the dead-letter queue, looked at no more often than needed: a look hides them for a moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[int, int] = (-1, -1)
        self._found: list[DeadLetter] = []

    def look(self, count: int) -> list[DeadLetter]:
        key = (count, int(time.monotonic() / FRESH) if count else 0)
        with self._lock:
            if key != self._key:
                sqs, queue = _sqs(), console().stack.outputs["DeadLetterQueueUrl"]
                self._found = list(islice(dead_letters.read(sqs, queue, wait=0), LISTED))
                dead_letters.release(sqs, queue, self._found)
                self._key = key
            return self._found

    def requeue(self, source: str | None, reason: str | None) -> int:
        outputs = console().stack.outputs
        with self._lock:
            sqs, queue = _sqs(), outputs["DeadLetterQueueUrl"]
            letters = list(dead_letters.read(sqs, queue, wait=0))
            chosen = [letter for letter in letters if dead_letters.wanted(letter, source, reason)]
            moved = dead_letters.put_back(
                sqs, chosen, outputs["EventsQueueUrl"], queue, rate=REDRIVE_RATE, sleep=time.sleep
            )
            dead_letters.release(sqs, queue, [letter for letter in letters if letter not in chosen])
            self._key = (-1, -1)
        return moved


_dead_letters = _DeadLetters()


def _sqs() -> Any:
    return console().stack.aws.client("sqs")


@dataclass(frozen=True, slots=True)
class Group:
    """Parked messages of one source and reason; ``events`` in them, ``since`` the first of them was parked."""

    source: str
    reason: str
    messages: list[DeadLetter]

    @property
    def events(self) -> int:
        """The number of events; a raw webhook counts one."""
        return sum(letter.events for letter in self.messages)

    @property
    def since(self) -> str:
        """The time at which the oldest was parked."""
        return min(letter.parked_at for letter in self.messages)

    @property
    def details(self) -> list[str]:
        """The details of them, each once."""
        return list(dict.fromkeys(letter.detail for letter in self.messages if letter.detail))


def groups(letters: Sequence[DeadLetter]) -> list[Group]:
    """Return parked messages by source and reason, the largest group first."""
    by_key: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in letters:
        by_key.setdefault((letter.source, letter.reason), []).append(letter)
    return sorted((Group(*key, listed) for key, listed in by_key.items()), key=lambda group: -group.events)


def _unknown_topics() -> dict[str, dict[str, int]]:
    """Return, by source, the topics that no file knows, each with the last webhook of it that is kept."""
    numbers: dict[str, dict[str, int]] = {}
    for exchange in console().exchanges.newest_first():
        if exchange.outcome == "parked" and exchange.reason == "unknown_topic":
            for topic in story.unknown_topics(exchange, defaults()):
                numbers.setdefault(exchange.source, {}).setdefault(topic, exchange.number)
    return numbers


def _parked() -> dict[str, Any]:
    return {
        "groups": groups(_dead_letters.look(console().watch.snapshot.parked)),
        "listed": LISTED,
        "topics": _unknown_topics(),
        "changed": console().changed(),
        "moved": request.args.get("moved", type=int),
    }


@pages.get("/parked")
def parked() -> str:
    """Render what is in the dead-letter queue, by reason."""
    return render_template("parked.html", page="parked", **_parked(), **frame())


@pages.get("/parked/list")
def parked_list() -> str:
    """Render the groups alone, for a page that is open."""
    return render_template("parked_list.html", **_parked(), **frame())


@pages.get("/parked/count")
def parked_count() -> str:
    """Return how many messages are parked, for every page's head."""
    return render_template("count.html", **frame())


@pages.post("/parked/back")
def back() -> Response:
    """Re-queue a group; a changed mapping is deployed first."""
    if console().changed():
        console().deploy()
    moved = _dead_letters.requeue(request.form.get("source") or None, request.form.get("reason") or None)
    return redirect(url_for("rate.parked", moved=moved), 303)
