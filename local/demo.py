"""``make demo``: every sample of ``events/`` through the whole stack, and an account of all of it."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.telemetry import event_id
from tools import paths
from tools.senders import payload
from tools.senders.preview import SILENT, event_ids, preview_request
from tools.terminal import progress, say, table

from .stack import Stack

DRAIN_SECONDS = 120


@dataclass
class Sent:
    """One sample: its source and topic, the answer of ``receive``, and what became of it."""

    source: str
    topic: str
    status: int
    answer: dict[str, Any]
    event_ids: tuple[str, ...] = ()
    parks: bool = False
    metrics: tuple[str, ...] = ()

    @property
    def events(self) -> int:
        """The number of accepted events."""
        return len(self.event_ids)

    @property
    def refused(self) -> bool:
        """True if the sample was refused, or parked although it should not be, or the reverse."""
        return self.status >= 300 or (self.status != SILENT and bool(self.answer.get("parked")) is not self.parks)

    @property
    def outcome(self) -> str:
        """The outcome in a word, or the reason."""
        if self.status >= 300:
            return f"refused: {self.answer.get('error')}"
        if self.answer.get("parked"):
            return f"parked: {self.answer['parked'][0]['reason']}"
        if self.answer.get("ignored"):
            return f"ignored: {self.answer['ignored']}"
        return "delivered" if self.events else "answered"


def samples() -> list[Path]:
    """Return every sample, by source and topic."""
    return sorted(paths.SAMPLES.glob("*/*.json"))


def send_all(stack: Stack) -> list[Sent]:
    """Post every sample, signed as its sender would."""
    sent = []
    for path in samples():
        source, request = path.parent.name, payload.request(path)
        status, answer = stack.send_payload(source, request)
        shown = preview_request(source, request, time.time())
        sent.append(Sent(source, path.stem, status, answer, event_ids(status, answer, shown), bool(shown["unmapped"])))
    return sent


def drain(stack: Stack, expected: int, *, quiet: bool = False) -> None:
    """Wait until the queue is empty and ``expected`` events arrived, or two minutes have passed."""
    end = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < end:
        waiting, arrived = stack.waiting(), stack.standin("stats")["stored"]
        if not quiet:
            progress(f"{arrived} of {expected} events arrived, {waiting} messages wait")
        if not waiting and arrived >= expected:
            break
        time.sleep(0.25)
    if not quiet:
        say("")


def metrics_by_id(stored: list[dict[str, Any]]) -> dict[str, str]:
    """Return the metric names of what the stand-in stored, by the ids of the events in the answers."""
    return {
        event_id(event["unique_id"], private=private): event["metric"] for event in stored for private in (False, True)
    }


def outcomes(rows: list[Sent]) -> list[tuple[str, ...]]:
    """Return sender, topic, metric, events and status of each sample, under a heading."""
    heading = ("SENDER", "TOPIC", "METRIC", "EVENTS", "STATUS")
    cells = [(row.source, row.topic, ", ".join(row.metrics) or "-", str(row.events), row.outcome) for row in rows]
    return [heading, *cells]


def account(rows: list[Sent], arrived: Collection[str], stats: dict[str, Any]) -> tuple[str, bool]:
    """Return the last line, and whether all is as it should be; ``arrived`` names what the stand-in stored."""
    expected = {name for row in rows for name in row.event_ids}
    delivered = len(expected.intersection(arrived))
    lost = len(expected) - delivered
    answered = sum(count for status, count in stats["statuses"].items() if status not in ("202", "429"))
    refused = answered + sum(row.refused for row in rows)
    throttled = stats["limited"]
    line = (
        f"delivered {delivered} of {len(expected)} events in {stats['jobs']} jobs; "
        f"lost {lost}; refused {refused}; throttled {throttled}"
    )
    return line, bool(rows) and delivered == len(expected) and not (lost or refused or throttled)


def explained(rows: list[Sent]) -> str:
    """Return why the table's events are more than arrive, and which samples are meant to become none."""
    accepted = sum(row.events for row in rows)
    repeats = accepted - len({name for row in rows for name in row.event_ids})
    kinds = Counter(row.outcome.split(":")[0] for row in rows)
    return (
        f"{accepted} events accepted, {repeats} of them repeats that count once; other samples: "
        f"{kinds['ignored']} ignored, {kinds['parked']} parked, {kinds['answered']} answered"
    )


def run(_: argparse.Namespace) -> int:
    """Run the demo; return 0 only if every event arrived, none refused, none throttled."""
    say("starting the stack ...")
    with Stack() as stack:
        say(f"sending {len(samples())} samples ...")
        rows = send_all(stack)
        drain(stack, len({name for row in rows for name in row.event_ids}))
        stats = stack.standin("stats")
        metrics = metrics_by_id(stack.arrived())
    for row in rows:
        names = [metrics.get(name) for name in row.event_ids]
        row.metrics = tuple(dict.fromkeys(name for name in names if name))
    say(*table(outcomes(rows)), explained(rows))
    line, good = account(rows, metrics, stats)
    say(line)
    return 0 if good else 1
