"""What waiting costs: days without Klaviyo, a key revoked, a closed window on a huge backlog, on virtual time.

``python -m bench.outage`` runs the real delivery through each of them (see
``simulation``) and prints what became of the events, how quickly the relay came
back, and the bill. Exit status 0 if nothing was lost and every aim was met. A day
with 300,000 events takes some five minutes of a processor.
"""

from __future__ import annotations

import argparse
import time as real_time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from handler import messages
from handler.delivery.klaviyo import Answer, sort_answer
from sim.klaviyo import Request

from .measure import table
from .simulation import Simulation

DAY = 86_400.0
READ_SECONDS = 23.0  # connecting and reading, until deliver gives up
ENTRY_BYTES = 600
LIVE_EVERY = 20.0
SHARE_TIMED_OUT = 0.3
Fault = Callable[[Request], tuple[Answer, float] | None]


@dataclass(slots=True)
class Report:
    """What came of one story; times in seconds since Klaviyo was back."""

    name: str
    events: int
    lost: int
    parked: int
    repeats: int
    most_in_flight: int
    most_waiting: int
    probes_a_minute: int
    worst_second: int
    worst_minute: int
    first_new: float
    slowest_new: float
    full_rate: float
    drained: float
    alarm: float | None
    dollars_a_day: dict[str, float]
    invocations_a_day: float
    sends_a_day: float
    faults: list[str] = field(default_factory=list)

    def wrong(self) -> list[str]:
        """Return the aims that were missed."""
        checks = {
            f"{self.lost} events lost": self.lost != 0,
            f"{self.parked} messages in the dead-letter queue": self.parked != 0,
            f"{self.probes_a_minute} requests in a minute while closed": self.probes_a_minute > 2,
            f"{self.worst_second} requests in a second": self.worst_second > 10,
            f"{self.worst_minute} requests in a minute": self.worst_minute > 150,
            f"new events after {self.first_new:.0f} s only": self.first_new > 60,
            f"backlog back after {self.full_rate / 60:.1f} min only": self.full_rate > 900,
            f"alarm after {self.alarm} s": self.alarm is None or self.alarm > 60,
            "; ".join(self.faults[:3]): bool(self.faults),
        }
        return [what for what, missed in checks.items() if missed]


def story(
    name: str, fault: Callable[[Simulation, float, float], Fault], *, seconds: float, events: int, **setup: Any
) -> Report:
    """Let events come in evenly while Klaviyo fails for ``seconds``, and a live one every 20 s until the end."""
    sim = Simulation(**setup)
    away = sim.time.now + 60
    back = away + seconds
    sim.klaviyo.told = fault(sim, away, back)
    sim.every(seconds / events, back, lambda n: sim.send([sim.event(f"e{n}", size=ENTRY_BYTES)]))
    sim.every(LIVE_EVERY, back + 1_800, lambda n: sim.send([sim.event(f"live{n}")]))
    sim.run(back)
    bill, waiting = sim.bill, sum(body.count('"unique_id":"') for body in sim.bodies())
    scale = DAY / (seconds + 60)
    dollars = {part: amount * scale for part, amount in bill.dollars().items()}
    invocations, sends = bill.invocations * scale, bill.sent * scale
    sim.run(back + 1_800)
    taken = [(at, name) for name, at in sim.klaviyo.first.items()]
    known = min((request.answered_at for request in sim.klaviyo.requests if request.status != 202), default=0.0)
    closed = known + 0.5  # a function that looked for the last time just before has posted by then
    new = [(at - back, at - sim.sent[name]) for at, name in taken if sim.sent[name] >= back]
    old = sorted(at - back for at, name in taken if at >= back and sim.sent[name] < back)
    return Report(
        name=name,
        events=len(sim.sent),
        lost=sim.lost(),
        parked=len(sim.dead),
        repeats=sum(times > 1 for times in Counter(sim.klaviyo.stored).values()),
        most_in_flight=sim.source.most_in_flight,
        most_waiting=waiting,
        probes_a_minute=sim.worst(60, [at for at in sim.times() if closed <= at < back]),
        worst_second=sim.worst(1),
        worst_minute=sim.worst(60),
        first_new=min(at for at, _ in new),
        slowest_new=max(took for _, took in new),
        full_rate=old[int(0.99 * len(old))],
        drained=old[-1],
        alarm=min((at - away for at, _ in sim.log.closed if at >= away), default=None),
        dollars_a_day=dollars,
        invocations_a_day=invocations,
        sends_a_day=sends,
        faults=sim.faults,
    )


def away(sim: Simulation, away: float, back: float) -> Fault:
    """Answer 5xx at once, and for some only a time-out."""

    def fault(request: Request) -> tuple[Answer, float] | None:
        if not away <= request.at < back:
            return None
        if sim.chance.random() < SHARE_TIMED_OUT:
            return Answer("transient", None, "timed_out", "TimeoutError"), READ_SECONDS
        return sort_answer(503, {}, b""), 0.2

    return fault


def revoked(sim: Simulation, away: float, back: float) -> Fault:
    """Refuse the first key from ``away`` on; at ``back`` somebody puts the second into the secret."""

    def replace() -> None:
        sim.use_key("pk_second")

    sim.time.call(back, replace)

    def fault(request: Request) -> tuple[Answer, float] | None:
        refused = request.at >= away and request.key == "pk_first"
        return (sort_answer(401, {}, b"{}"), 0.2) if refused else None

    return fault


def throttled(sim: Simulation, away: float, back: float) -> Fault:  # noqa: ARG001 (as the others)
    """Answer nothing but 429s, each of which asks to wait for a minute."""

    def fault(request: Request) -> tuple[Answer, float] | None:
        refused = away <= request.at < back
        return (sort_answer(429, {"Retry-After": "59"}, b""), 0.3) if refused else None

    return fault


@dataclass(frozen=True, slots=True)
class Return:
    """How a backlog came back. ``share`` is that of the allowance, from a minute after the return to a minute before
    the end; ``drained`` in seconds since the return, ``None`` if half an hour did not do.
    """

    lost: int
    parked: int
    refused: int
    share: float
    drained: float | None

    def wrong(self) -> list[str]:
        """Return the aims that were missed."""
        checks = {
            f"{self.lost} events lost": self.lost != 0,
            f"{self.parked} messages in the dead-letter queue": self.parked != 0,
            f"{self.refused} invocations refused as recursive": self.refused != 0,
            f"{self.share:.0%} of the rate": self.share < 0.97,
            "not delivered within half an hour": self.drained is None,
        }
        return [what for what, missed in checks.items() if missed]


def comes_back(
    fault: Callable[[Simulation, float, float], Fault],
    *,
    hours: float,
    events: int,
    **setup: Any,
) -> Return:
    """Let events come in evenly while Klaviyo fails for ``hours``; ``setup`` is that of ``Simulation``."""
    sim = Simulation(**setup)
    away = sim.time.now + 60
    back = away + hours * 3_600
    sim.klaviyo.told = fault(sim, away, back)
    sim.every((back - away) / events, back, lambda n: sim.send([sim.event(f"e{n}")]))
    sim.run(back + 1_800, lambda: sim.time.now > back and sim.drained())
    taken = [at for at in sim.times(202) if at >= back]
    end = max(taken, default=back)
    busy = max(60.0, end - back - 120)
    return Return(
        lost=sim.lost(),
        parked=len(sim.dead),
        refused=sim.source.refused,
        share=sum(back + 60 <= at < back + 60 + busy for at in taken) / busy / 2.5,
        drained=end - back if sim.drained() else None,
    )


@dataclass(frozen=True, slots=True)
class Window:
    """429s on a backlog. ``share`` is the least share of the allowance used while open again, from ``settled`` on."""

    header: str
    closings: int
    into_closed: int
    probes_a_minute: int
    share: float
    worst_minute: int
    lost: int

    def wrong(self) -> list[str]:
        """Return the aims that were missed."""
        is_right = self.header == "true"
        checks = {
            f"{self.into_closed} requests into a window that was said to be closed": is_right and self.into_closed > 0,
            f"{self.probes_a_minute} requests in a minute while closed": self.probes_a_minute > 2,
            f"{self.share:.0%} of the rate afterwards": self.share < 0.97,
            f"{self.worst_minute} requests in a minute": self.worst_minute > 150,
            f"{self.lost} events lost": self.lost != 0,
        }
        return [what for what, missed in checks.items() if missed]


def closed_window(
    header: str, *, events: int, closings: int = 1, open_for: float = 120.0, settled: float = 60.0, **setup: Any
) -> Window:
    """Answer a backlog with 429 for two minutes, ``closings`` times; ``header`` is the Retry-After ("true": right)."""
    sim = Simulation(**setup)
    start = sim.time.now
    shut = [
        (start + 60 + number * (120 + open_for), start + 180 + number * (120 + open_for)) for number in range(closings)
    ]

    def fault(request: Request) -> tuple[Answer, float] | None:
        at = request.at
        for since, until in shut:
            if since <= at < until:
                value = {"true": str(round(until - at)), "missing": ""}.get(header, header)
                return sort_answer(429, {"Retry-After": value}, b""), 0.3
        return None

    sim.klaviyo.told = fault
    sim.send([sim.event(f"b{number}") for number in range(events)])
    sim.run(shut[-1][1] + open_for)
    if not len(sim.events):
        raise RuntimeError("the backlog was too small to tell")
    # A volley that was under way when the window closed is nobody's fault; it has come within two seconds.
    probes = [at for at in sim.times(429) if any(since + 2 <= at < until for since, until in shut)]
    taken = sim.times(202)
    shares = [
        sum(until + settled <= at < until + open_for for at in taken) / (open_for - settled) / 2.5 for _, until in shut
    ]
    return Window(header, closings, len(probes), sim.worst(60, probes), min(shares), sim.worst(60), sim.lost())


def backfill(events: int, *, source: str = "shop", job_events: int = messages.JOB_EVENTS, **setup: Any) -> list[float]:
    """Return the seconds to arrival of live orders of ``source`` during a backfill of ``events`` by "shop"."""
    sim = Simulation(job_events=job_events, **setup)
    sim.send([sim.event(f"b{number}") for number in range(events)], backfill=True)
    lasts = events / job_events / 2.5
    sim.every(7, sim.time.now + 0.9 * lasts, lambda n: sim.send([sim.event(f"live{n}")], source=source))
    sim.run(sim.time.now + 2 * lasts, sim.drained)
    if sim.lost() or len(sim.events):
        raise RuntimeError("the backfill did not drain")
    return sorted(at - sim.sent[name] for name, at in sim.klaviyo.first.items() if name.startswith("live"))


def trickle(seconds: float, *, every: float = 11.0, **setup: Any) -> list[float]:
    """Return the seconds from sending to arrival of single events."""
    sim = Simulation(**setup)
    sim.every(every, sim.time.now + seconds, lambda n: sim.send([sim.event(f"one{n}")]))
    sim.run(sim.time.now + seconds + 60)
    return sorted(at - sim.sent[name] for name, at in sim.klaviyo.first.items())


def _story(report: Report) -> str:
    rows: list[tuple[object, ...]] = [
        ("events", f"{report.events:,}"),
        ("waiting at the end", f"{report.most_waiting:,}"),
        ("lost / parked / stored twice", f"{report.lost} / {report.parked} / {report.repeats}"),
        ("most messages in flight", f"{report.most_in_flight:,}"),
        ("most probes in a minute", report.probes_a_minute),
        ("most requests in a second / minute", f"{report.worst_second} / {report.worst_minute}"),
        ("alarm after, s", "none" if report.alarm is None else f"{report.alarm:.0f}"),
        ("first new event after return, s", f"{report.first_new:.0f}"),
        ("slowest new event, s", f"{report.slowest_new:.0f}"),
        ("99 % of the backlog delivered, min", f"{report.full_rate / 60:.1f}"),
        ("all of it, min", f"{report.drained / 60:.1f}"),
        ("invocations a day", f"{report.invocations_a_day:,.0f}"),
        ("messages sent again a day", f"{report.sends_a_day:,.0f}"),
    ]
    rows += [(f"dollars a day, {part}", f"{amount:.2f}") for part, amount in report.dollars_a_day.items()]
    rows.append(("dollars a day", f"{sum(report.dollars_a_day.values()):.2f}"))
    return table("Without Klaviyo", ("", report.name), rows)


def _windows(windows: list[Window]) -> str:
    head = ("Retry-After", "closings", "429s while closed", "most a minute", "share afterwards", "worst minute")
    rows = [
        (
            window.header,
            window.closings,
            window.into_closed,
            window.probes_a_minute,
            f"{window.share:.1%}",
            window.worst_minute,
        )
        for window in windows
    ]
    return table("A window closed for two minutes on a backlog", head, rows)


def _delays(delays: dict[str, list[float]]) -> str:
    rows = [(name, f"{took[len(took) // 2]:.1f}", f"{took[-1]:.1f}") for name, took in delays.items()]
    return table("Seconds until a live event arrives", ("", "median", "worst"), rows)


PARTS = ("live", "window", "away", "revoked")


def main() -> int:
    """Run the stories and print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m bench.outage", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of {', '.join(PARTS)}; default: all")
    parser.add_argument("--hours", type=float, default=24.0, help="of an outage")
    parser.add_argument("--events", type=int, default=300_000, help="that come in meanwhile")
    parser.add_argument(
        "--backlog", type=int, default=1_000_000, help="events behind a closed window, or of a backfill"
    )
    options = parser.parse_args()
    parts = options.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    began = real_time.monotonic()
    wrong = _live(options.backlog) if "live" in parts else []
    wrong += _closed(options.backlog) if "window" in parts else []
    kinds = {"away": ("Klaviyo away", away), "revoked": ("key revoked", revoked)}
    chosen = [kinds[part] for part in parts if part in kinds]
    for name, kind in chosen:
        report = story(name, kind, seconds=options.hours * 3_600, events=options.events)
        print(_story(report), flush=True)
        wrong += report.wrong()
    print("\n".join([f"wrong: {what}" for what in wrong] or ["every aim met"]))
    print(f"({real_time.monotonic() - began:.0f} s)")
    return 1 if wrong else 0


def _live(backlog: int) -> list[str]:
    delays = {
        "a trickle of single events": trickle(3_600),
        "a trickle as Lambda polls": trickle(3_600, every=61.0, long_poll=20.0),
        "beside a backfill of the same source": backfill(backlog),
        "beside a backfill of another source": backfill(backlog, source="other"),
    }
    print(_delays(delays), flush=True)
    return [f"a live event took {took[-1]:.0f} s" for took in delays.values() if took[-1] > 60]


def _closed(backlog: int) -> list[str]:
    windows = [closed_window(header, events=backlog) for header in ("true", "0", "missing", "86400")]
    windows.append(closed_window("true", events=backlog, closings=5, open_for=30, settled=15))
    print(_windows(windows), flush=True)
    return [what for window in windows for what in window.wrong()]


if __name__ == "__main__":
    raise SystemExit(main())
