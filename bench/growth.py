"""Growth: CPU and memory from 1,000 events on, each size in a process of its own.

The door takes ``custom`` webhooks of one event and of 1,000; ``deliver``'s share
is from queue messages to request bytes. Sizes are measured as far as minutes
allow and ten million events follow by the line; ``ten_million`` runs them
through ``deliver``'s share, a few minutes more.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from handler.messages import CHUNK_EVENTS

from . import door, job, orders
from .measure import table

DOOR = {"single": (1_000, 3_000, 10_000), "batched": (1_000, 10_000, 50_000)}
DELIVERY = {"single": (1_000, 10_000, 100_000, 300_000), "batched": (1_000, 10_000, 100_000, 1_000_000)}
TEN_MILLION = 10_000_000
SECONDS = 600


@dataclass(frozen=True, slots=True)
class Point:
    """CPU seconds and peak memory (MB: above the start, and in all) for ``events`` events."""

    events: int
    cpu: float
    grown: float
    peak: float


def webhook(count: int, number: int) -> bytes:
    """Return a ``custom`` webhook with ``count`` orders, the first of which has this ``number``."""
    return json.dumps([_order(number + place) for place in range(count)]).encode()


def _order(number: int) -> dict[str, Any]:
    draft = orders.draft(number)
    plain = json.loads(json.dumps(draft.properties, default=float))
    return {
        "profile": draft.profile,
        "metric": draft.metric,
        "unique_id": draft.unique_id,
        "properties": plain,
        "value": float(draft.value or 0),
        "value_currency": "EUR",
    }


def measure(part: str, form: str, events: int) -> Point:
    """Measure one size, in this process."""
    step = _door(form) if part == "door" else _delivery(form)
    per_step = 1 if (part, form) == ("door", "single") else 1_000
    for _ in range(3):
        step()
    gc.collect()
    before = _peak()
    begun = time.process_time()
    for _ in range(events // per_step):
        step()
    return Point(events, time.process_time() - begun, _peak() - before, _peak())


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


def _door(form: str) -> Callable[[], object]:
    relay = door.Door()
    body = webhook(1 if form == "single" else 1_000, 1)
    event = door.request("custom", body, {"content-type": "application/json"})

    def step() -> None:
        if relay.handler(event, None)["statusCode"] != 200:
            raise RuntimeError("the door does not accept the webhook")

    return step


def _delivery(form: str) -> Callable[[], object]:
    records = job.records(1 if form == "single" else CHUNK_EVENTS)
    return lambda: job.ours(records)


def _apart(part: str, form: str, events: int) -> Point:
    """Run ``measure`` in a fresh process."""
    command = [sys.executable, "-m", "bench.growth", part, form, str(events)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)  # noqa: S603 (our own)
    return Point(**json.loads(done.stdout.splitlines()[-1]))


def run() -> dict[str, Any]:
    """Measure every part, form and size; print the table and return the figures."""
    figures: dict[str, Any] = {}
    rows: list[tuple[object, ...]] = []
    for part, forms in (("door", DOOR), ("delivery", DELIVERY)):
        for form, sizes in forms.items():
            points = [_apart(part, form, events) for events in sizes]
            each = [point.cpu / point.events for point in points]
            rows += [
                (f"{part}, {form}", f"{point.events:,}", f"{point.cpu:.2f}", f"{cpu * 1e6:.1f}", f"{point.grown:.1f}")
                for point, cpu in zip(points, each, strict=True)
            ]
            rows.append((f"{part}, {form}", f"{TEN_MILLION:,}", f"({each[-1] * TEN_MILLION:,.0f})", "", ""))
            figures[f"{part}_{form}"] = {
                "points": [
                    {"events": p.events, "cpu_s": round(p.cpu, 3), "grown_mb": round(p.grown, 1)} for p in points
                ],
                "us_an_event": round(each[-1] * 1e6, 2),
                "largest_over_smallest": round(each[-1] / each[0], 2),
            }
    head = ("", "events", "CPU s", "us an event", "MB grown")
    print(table("Growth (10 million: by the line)", head, rows))
    return figures


def ten_million() -> dict[str, Any]:
    """Put ten million events through ``deliver``'s share in fresh processes; print the table and return the figures."""
    points = {form: _apart("delivery", form, TEN_MILLION) for form in DELIVERY}
    rows = [
        (form, f"{p.cpu:.0f}", f"{p.cpu / p.events * 1e6:.1f}", f"{p.grown:.1f}", f"{p.peak:.0f}")
        for form, p in points.items()
    ]
    head = ("messages", "CPU s", "us an event", "MB grown", "MB in all")
    print(table(f"{TEN_MILLION:,} events, from records to request bytes", head, rows))
    return {
        form: {
            "events": p.events,
            "cpu_s": round(p.cpu, 1),
            "us_an_event": round(p.cpu / p.events * 1e6, 2),
            "grown_mb": round(p.grown, 1),
            "peak_mb": round(p.peak, 1),
        }
        for form, p in points.items()
    }


if __name__ == "__main__":
    with door.silenced():
        point = measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print(json.dumps(asdict(point)))
