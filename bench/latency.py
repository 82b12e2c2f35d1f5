"""Latency from webhook to Klaviyo on the running local stack, idle and under backlog, by part.

What is local: the network (none), MiniStack's door and queue, and the event
source, which keeps AWS's batching window and fair groups as AWS's guide says.
What is the relay's own: everything else. The backlog also shows the real rate
over a whole minute, to compare with the model's in ``virtual``.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from handler import messages
from handler.messages import Event, Message
from local.stack import Stack

from .measure import table

IDLE_EVENTS = 8
LIVE_EVENTS = 8
BACKLOG_EVENTS = 190_000
WAIT_SECONDS = 120
PARTS = ("door", "queue and window", "slot", "Klaviyo's answer")


def views(count: int) -> Iterator[Event]:
    """Yield ``count`` small events, a hundred of which fit one message."""
    for number in range(count):
        name = f"backlog-{number}"
        attributes = {
            "metric": {"data": {"type": "metric", "attributes": {"name": "Viewed Product"}}},
            "properties": {"ProductID": str(number % 500), "Page": f"/products/{number % 500}"},
            "time": "2026-06-01T10:00:00Z",
            "unique_id": name,
        }
        who = {"type": "profile", "attributes": {"email": f"{name}@mail.example"}}
        inner = {"profile": {"data": who}, "events": {"data": [{"type": "event", "attributes": attributes}]}}
        entry = {"type": "event-bulk-create", "attributes": inner}
        yield Event(name, int(time.time()), json.dumps(entry, separators=(",", ":")))


def fill(stack: Stack, count: int) -> None:
    """Put ``count`` events of a source of their own into the queue, as the door would."""
    like = Message("backlog", (), time.time())
    packed = messages.pack(views(count), like)
    waiting = [messages.Outgoing(messages.encode(message), messages.group(message)) for message in packed]
    if messages.send(stack.aws.client("sqs"), stack.outputs["EventsQueueUrl"], waiting):
        raise RuntimeError("the queue did not take the backlog")


def post(stack: Stack, name: str) -> tuple[float, float]:
    """Post one live event; return when it was sent and when the door had answered (epoch seconds)."""
    event = {"profile": {"email": f"{name}@mail.example"}, "metric": "Visited", "unique_id": name}
    sent = time.time()
    status, _ = stack.send("custom", json.dumps(event).encode(), {"content-type": "application/json"})
    if status != 200:
        raise RuntimeError(f"the door answered {status}")
    return sent, time.time()


def arrivals(stack: Stack, names: set[str]) -> dict[str, dict[str, Any]]:
    """Return the accepted request in which each event came, once all have come."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        jobs = {event["unique_id"]: event["job"] for event in stack.arrived() if event["unique_id"] in names}
        if len(jobs) == len(names):
            taken = [request for request in stack.requests() if request["status"] == 202]
            return {name: taken[job - 1] for name, job in jobs.items()}
        time.sleep(0.5)
    raise RuntimeError("live events did not arrive")


def parts(
    times: dict[str, tuple[float, float]], came: dict[str, dict[str, Any]], waits: dict[float, float]
) -> dict[str, float]:
    """Return the median seconds of each part; ``waits`` are the slot waits by the time of their log line."""
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    for name, (sent, answered) in times.items():
        request = came[name]
        logged = min(waits, key=lambda at: abs(at - request["at"] - request["seconds"]))
        slot = waits[logged]
        parts["door"].append(answered - sent)
        parts["queue and window"].append(max(0.0, request["at"] - answered - slot))
        parts["slot"].append(slot)
        parts["Klaviyo's answer"].append(request["seconds"])
    return {name: round(statistics.median(values), 3) for name, values in parts.items()}


def job_lines(stack: Stack) -> list[dict[str, Any]]:
    """Return ``deliver``'s log lines, one for each request."""
    return [line for line in stack.logs() if line.get("message") == "job"]


def slot_waits(lines: list[dict[str, Any]]) -> dict[float, float]:
    """Return the seconds that each request waited for its slot, by when it was logged (epoch seconds)."""
    return {datetime.fromisoformat(line["timestamp"]).timestamp(): line["slot_wait_ms"] / 1e3 for line in lines}


def idle(stack: Stack) -> tuple[dict[str, float], list[float]]:
    """Measure one event at a time, each after the one before has arrived."""
    times: dict[str, tuple[float, float]] = {}
    came: dict[str, dict[str, Any]] = {}
    for number in range(IDLE_EVENTS):
        name = f"idle-{number}"
        times[name] = post(stack, name)
        came |= arrivals(stack, {name})
    return parts(times, came, slot_waits(job_lines(stack))), _whole(times, came)


def busy(stack: Stack) -> tuple[dict[str, float], list[float], dict[str, Any]]:
    """Measure live events while a backlog of another source drains, and the rate at which it does."""
    stack.stop_trigger()
    stack.standin("reset", {})
    fill(stack, BACKLOG_EVENTS)
    stack.start_trigger()
    time.sleep(15)
    times: dict[str, tuple[float, float]] = {}
    for number in range(LIVE_EVENTS):
        times[f"live-{number}"] = post(stack, f"live-{number}")
        time.sleep(6)
    came = arrivals(stack, set(times))
    stats = stack.standin("stats")
    begun = min(request["at"] for request in stack.requests())
    counted = [request for request in stack.requests() if begun <= request["at"] < begun + 60]
    rate = {
        "requests_first_minute": len(counted),
        "events_first_minute": sum(request["events"] for request in counted if request["status"] == 202),
        "worst_second": stats["worst_second"],
        "worst_minute": stats["worst_minute"],
        "throttled": stats["limited"],
    }
    return parts(times, came, slot_waits(job_lines(stack))), _whole(times, came), rate


def _whole(times: dict[str, tuple[float, float]], came: dict[str, dict[str, Any]]) -> list[float]:
    return [round(came[name]["at"] + came[name]["seconds"] - sent, 3) for name, (sent, _) in times.items()]


def run() -> dict[str, Any]:
    """Start the stack with the template's own settings and measure; print the tables and return the figures."""
    with Stack() as stack:
        quiet, quiet_whole = idle(stack)
        under, under_whole, rate = busy(stack)
    rows = [
        (name, *(f"{parts[part]:.3f}" for part in PARTS), f"{statistics.median(whole):.2f}", f"{max(whole):.2f}")
        for name, parts, whole in (("idle", quiet, quiet_whole), ("under backlog", under, under_whole))
    ]
    print(table("Webhook to Klaviyo on the local stack, seconds", ("", *PARTS, "median", "worst"), rows))
    head = ("requests", "events", "worst s", "worst min", "429")
    print(table("Its first minute of backlog", ("", *head), [("local stack", *rate.values())]))
    return {
        "parts_s": {"idle": quiet, "under backlog": under},
        "whole_s": {"idle": quiet_whole, "under backlog": under_whole},
        "rate": rate,
    }
