"""How fast a backlog drains through the running stack at Klaviyo's real limits.

``python -m bench.backlog`` puts 200,000 events into the queue, in the queue's own
format, and then lets the event source run. The stand-in's ledger says what came
of it. Exit status 0 if every event was stored once, no request was answered 429,
neither limit was exceeded, and every job but an invocation's last was full.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from handler import messages
from local.klaviyo_checks import MAX_EVENTS
from local.stack import Stack

REAL_PER_MINUTE = 150
REAL_PER_SECOND = 10
FILLING = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. "


def events(number: int, size: int, at: int) -> Iterator[messages.Event]:
    """Yield ``number`` events of about ``size`` bytes; ``at`` is the first one's time in epoch seconds."""
    for index in range(number):
        unique_id = f"backlog:placed-order:{index}"
        time_text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        attributes = {
            "metric": {"data": {"type": "metric", "attributes": {"name": "Placed Order"}}},
            "properties": {"OrderId": str(index), "Note": ""},
            "time": time_text,
            "value": 19.99,
            "value_currency": "EUR",
            "unique_id": unique_id,
        }
        profile = {"data": {"type": "profile", "attributes": {"email": f"person{index % 9973}@mail.example"}}}
        held = {"data": [{"type": "event", "attributes": attributes}]}
        entry = {"type": "event-bulk-create", "attributes": {"profile": profile, "events": held}}
        missing = max(0, size - len(json.dumps(entry, separators=(",", ":"))))
        attributes["properties"] = {"OrderId": str(index), "Note": (FILLING * (missing // len(FILLING) + 1))[:missing]}
        yield messages.Event(unique_id, at, json.dumps(entry, separators=(",", ":")))


def fill(stack: Stack, number: int, size: int, now: float) -> int:
    """Send the backlog; return how many messages it is."""
    like = messages.Message("backlog", (), received=now)
    packed = [
        messages.Outgoing(messages.encode(message), messages.group(message))
        for message in messages.pack(events(number, size, int(now)), like)
    ]
    refused = messages.send(stack.aws.client("sqs"), stack.outputs["EventsQueueUrl"], packed)
    if refused:
        raise RuntimeError(f"the queue refused {len(refused)} messages")
    return len(packed)


@dataclass(frozen=True, slots=True)
class Report:
    """What the stand-in saw. ``seconds`` is from the first request to the last, ``interval`` the mean between two."""

    events: int
    messages: int
    stored: int
    repeats: int
    jobs: int
    full: int
    partial: int
    invocations: int
    throttled: int
    worst_second: int
    worst_minute: int
    seconds: float
    waited: float
    interval: float
    longest: float
    median: float
    rate: int

    @property
    def share(self) -> float:
        """Jobs sent, as a share of those that Klaviyo's minute window allows in the time."""
        return (self.jobs - 1) / max(1e-9, self.seconds * self.rate / 60)

    def failures(self, limits: dict[str, Any]) -> list[str]:
        """Return what is not as it should be."""
        checks = {
            f"{self.events - self.stored} events missing": self.stored != self.events,
            f"{self.throttled} requests answered 429": self.throttled > 0,
            f"{self.worst_second} requests in a second": self.worst_second > limits["per_second"],
            f"{self.worst_minute} requests in a minute": self.worst_minute > limits["per_minute"],
            f"{self.partial} jobs not full in {self.invocations} invocations": self.partial > self.invocations,
        }
        return [what for what, wrong in checks.items() if wrong]

    def text(self) -> str:
        """Return the figures, a line each."""
        bound = "Klaviyo's rate" if self.share >= 0.98 else "this machine"
        return "\n".join(
            [
                f"events         {self.stored:,} of {self.events:,} stored, {self.repeats} repeats",
                f"messages       {self.messages:,}",
                f"jobs           {self.jobs} ({self.full} full, {self.partial} not) in {self.invocations} invocations",
                f"answered 429   {self.throttled}",
                f"worst second   {self.worst_second}",
                f"worst minute   {self.worst_minute}",
                f"duration       {self.seconds:.1f} s from first to last job, {self.waited:.1f} s with the start",
                f"between jobs   {self.interval * 1000:.0f} ms on average, {self.median * 1000:.0f} ms in the middle, "
                f"{self.longest * 1000:.0f} ms at most",
                f"jobs a minute  {self.jobs / self.seconds * 60:.1f}",
                f"events a min.  {self.stored / self.seconds * 60:,.0f}",
                f"bounded by     {bound}: {self.share:.1%} of {self.rate} jobs a minute",
            ]
        )


def full(job: dict[str, Any]) -> bool:
    """Return whether one more event would not have fitted."""
    return int(job["events"]) == MAX_EVENTS


def report(stack: Stack, sent: int, number: int, waited: float, rate: int) -> Report:
    """Read the ledger and the functions' logs."""
    stats = stack.standin("stats")
    requests = stack.standin("requests?limit=1000000")["requests"]
    jobs = sorted(
        (request for request in requests if request["status"] == 202), key=lambda request: float(request["at"])
    )
    gaps = [later["at"] - sooner["at"] for sooner, later in pairwise(jobs)]
    complete = sum(full(job) for job in jobs)
    return Report(
        events=number,
        messages=sent,
        stored=stats["stored"],
        repeats=stats["repeats"],
        jobs=len(jobs),
        full=complete,
        partial=len(jobs) - complete,
        invocations=invocations(stack),
        throttled=stats["statuses"].get("429", 0),
        worst_second=stats["worst_second"],
        worst_minute=stats["worst_minute"],
        seconds=jobs[-1]["at"] - jobs[0]["at"] if len(jobs) > 1 else 0.0,
        waited=waited,
        interval=sum(gaps) / max(1, len(gaps)),
        longest=max(gaps, default=0.0),
        median=statistics.median(gaps) if gaps else 0.0,
        rate=rate,
    )


def invocations(stack: Stack) -> int:
    """Return how often ``deliver`` ran."""
    ids = {line.get("request_id") for line in stack.logs() if line.get("message") == "job"}
    return len(ids - {None})


def drain(stack: Stack, number: int, limit: float) -> float:
    """Start the event source and wait for the last event; return the seconds that it took."""
    started = time.monotonic()
    stack.start_trigger()
    while (passed := time.monotonic() - started) < limit:
        stats = stack.standin("stats")
        print(f"\r{stats['stored']:,} of {number:,} events, {passed:.0f} s   ", end="", flush=True)
        if stats["stored"] >= number and not stack.waiting():
            break
        time.sleep(1)
    print()
    return time.monotonic() - started


def main(arguments: list[str]) -> int:
    """Run the measurement."""
    parser = argparse.ArgumentParser(prog="python -m bench.backlog", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="how many wait in the queue")
    parser.add_argument("--bytes", type=int, default=600, help="size of one event's entry")
    parser.add_argument("--rate", type=int, default=REAL_PER_MINUTE, help="jobs a minute; Klaviyo allows 150")
    options = parser.parse_args(arguments)
    scale = options.rate / REAL_PER_MINUTE
    limits = {"per_second": max(1, round(REAL_PER_SECOND * max(1, scale))), "per_minute": options.rate}
    environment = {"REQUESTS_PER_MINUTE": str(options.rate)}
    with Stack(deliver=False, limits=limits, environment=environment) as stack:
        print(f"filling the queue with {options.events:,} events ...", flush=True)
        sent = fill(stack, options.events, options.bytes, time.time())
        waited = drain(stack, options.events, 120 + options.events / 1_000 * 60 / options.rate * 3)
        result = report(stack, sent, options.events, waited, options.rate)
    print(result.text())
    wrong = result.failures(limits)
    for what in wrong:
        print(f"wrong          {what}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
