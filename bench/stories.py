"""Stories that the delivery must survive, on virtual time: storms, poison, suspects, refusals, two stacks, clocks.

``python -m bench.stories [STORY …]`` runs the real delivery through each of them (see
``simulation``), at the template's defaults and at its largest concurrency, and prints
a line for each run: ``ok`` or ``FAIL``, its figures with their bounds, and the seconds of
a processor that it took. Exit status 0 if every figure keeps its bound. A run is the
same for its seed.

In every story each event must be accepted or parked, innocent events must not be
parked, and Klaviyo must never receive more than 10 requests in any second or 150 in
any minute. Latency is the time from the queue to the request that Klaviyo accepted.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time as real_time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from handler.delivery.klaviyo import Answer
from sim.faults import Fate, Killed, anywhere
from sim.klaviyo import PER_MINUTE, PER_SECOND, POINTER, Request

from .simulation import VISIBILITY, Clocks, Simulation, names

MINUTE, HOUR = 60.0, 3_600.0
SETTINGS = {"default": {}, "largest": {"MaximumConcurrency": "1000"}}
Parameters = Mapping[str, str]
# So that minutes at the full rate are cheap: jobs and their messages of a tenth of their size, and as many of these
# messages in a batch as Lambda's 6 MB hold of full ones.
JOB_EVENTS, MESSAGES, BATCH = 100, 10, 130
SPREAD = 0.4  # seconds: the default ArrivalSpread
# Minutes until the shares hold: a thousand functions that start together take slots before they know of another stack.
SETTLING = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a story; ``most`` and ``least`` are its bounds, if it has any."""

    name: str
    value: float
    most: float | None = None
    least: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it is within its bounds."""
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    def __str__(self) -> str:
        bounds = [f"{sign}{bound:,g}" for sign, bound in (("≤", self.most), ("≥", self.least)) if bound is not None]
        value = f"{self.value:,.0f}" if self.value == round(self.value) else f"{self.value:,.1f}"
        mark = "" if self.kept else "!"
        return f"{self.name} {value}{mark}{' ' + ' '.join(bounds) if bounds else ''}"


@dataclass(slots=True)
class Found:
    """What came of a story."""

    figures: list[Figure]

    def __getitem__(self, name: str) -> float:
        return next(figure.value for figure in self.figures if figure.name == name)

    def wrong(self) -> list[str]:
        """Return the figures that are out of their bounds."""
        return [str(figure) for figure in self.figures if not figure.kept]


@dataclass(slots=True)
class Traffic:
    """Live events of ``sources`` in turn, ``each`` of them every ``seconds``, until ``end``."""

    sim: Simulation
    seconds: float
    sources: Sequence[str] = ("shop",)
    each: int = 1
    sent: list[str] = field(default_factory=list)
    on: bool = True

    def start(self, after: float = 0.0) -> Traffic:
        """Begin after so many seconds."""
        self.sim.time.call(self.sim.time.now + after, self._again)
        return self

    def _again(self) -> None:
        if not self.on:
            return
        for _ in range(self.each):
            source = self.sources[len(self.sent) % len(self.sources)]
            self.sent.append(f"{source}-live-{len(self.sent)}")
            self.sim.send([self.sim.event(self.sent[-1])], source=source)
        self.sim.time.call(self.sim.time.now + self.seconds, self._again)

    def end(self) -> None:
        """Stop sending."""
        self.on = False

    def took(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Return the latencies, in order, of what was sent between these times and has been accepted."""
        sent, first = self.sim.sent, self.sim.klaviyo.first
        return sorted(first[name] - sent[name] for name in self.sent if name in first and since <= sent[name] < until)


def judge(sim: Simulation, *others: Simulation, poison: Iterable[str] = ()) -> list[Figure]:
    """Return the figures that every story has; ``others`` are further stacks on the same table."""
    stacks, guilty = (sim, *others), set(poison)
    accepted = sim.klaviyo.first.keys()
    parked = {name for stack in stacks for name in names(stack.dead)}
    waiting = {name for stack in stacks for name in names(stack.events)} - accepted - parked
    sent = {name for stack in stacks for name in stack.sent}
    innocents = parked - guilty
    figures = [
        Figure("events", len(sent)),
        Figure("parked", len(innocents), most=0),
        Figure("of them delivered too", len(innocents & accepted)),
        Figure("lost", len(sent - accepted - parked - waiting), most=0),
        Figure("waiting", len(waiting), most=0),
        Figure("a second", sim.worst(1.0), most=PER_SECOND),
        Figure("a minute", sim.worst(60.0), most=PER_MINUTE),
        Figure("429s", len(sim.times(429))),
        Figure("breaches", sum(len(stack.faults) for stack in stacks)),
    ]
    if guilty:
        figures.append(Figure("poison parked", len(parked & guilty), least=len(guilty)))
    return figures


def settle(sim: Simulation, traffic: Traffic | None, until: float, *, most: float) -> float:
    """Run until everything that was sent before ``until`` has arrived or is parked, ``most`` seconds at most.

    Returns when the last of it arrived, in seconds since ``until`` (0 if that was before).
    """
    sim.run(until)
    left, old, seen = set(sim.sent), set(sim.sent), -1

    def done() -> bool:
        nonlocal seen
        left.difference_update([name for name in left if name in sim.klaviyo.first])
        if len(sim.dead) != seen:
            seen = len(sim.dead)
            left.difference_update(names(sim.dead))
        return not left

    sim.run(until + most, done)
    if traffic:
        traffic.end()
    sim.run(sim.time.now + HOUR, lambda: len(sim.events) == 0)
    return max(0.0, max((sim.klaviyo.first[name] - until for name in old if name in sim.klaviyo.first), default=0.0))


def _world(parameters: Parameters, **setup: Any) -> Simulation:
    """Make a world whose clocks and network use up the ArrivalSpread of the settings together."""

    def near(_: int, chance: Random) -> float:
        return chance.uniform(-SPREAD / 4, SPREAD / 4)

    return Simulation(parameters=parameters, clocks=near, jitter=SPREAD / 2, **setup)


# ---- storms


def broken(
    parameters: Parameters,
    *,
    hours: float,
    fate: Callable[[], Fate] | None = None,
    backlog: int = 1_240,
    every: float = 57.0,
) -> Found:
    """Run a release that starts and then fails: each invocation meets ``fate``, or fails at each message it decodes."""
    sim = _world(parameters)
    fixed = sim.time.now + hours * HOUR
    if fate:
        sim.fates = lambda: fate() if sim.time.now < fixed else None
    else:
        sim.poison[""] = KeyError
        sim.time.call(fixed, sim.poison.clear)
    for number in range(backlog):
        sim.send([sim.event(f"backlog-{number}")], source=f"shop{number % 3}")
    traffic = Traffic(sim, every).start(1.0)
    drained = settle(sim, traffic, fixed, most=6 * HOUR)
    return Found([*judge(sim), Figure("drained min", drained / MINUTE, most=120)])


def storm(
    parameters: Parameters, *, hours: float = 6.0, share: float = 0.5, events: int = 2_820, poison: int = 1
) -> Found:
    """Let a share of all invocations die at random points; some messages kill each invocation that decodes them."""
    sim = _world(parameters)
    over = sim.time.now + hours * HOUR

    def fate() -> Fate | None:
        return anywhere(sim.chance) if sim.time.now < over and sim.chance.random() < share else None

    sim.fates = fate
    guilty = [f"poison-{number}" for number in range(poison)]
    for number, name in enumerate(guilty):
        sim.poison[name] = Killed
        sim.time.call(sim.time.now + 600 + number, partial(_send_one, sim, name))
    traffic = Traffic(sim, hours * HOUR / events, ("shop", "forms")).start()
    drained = settle(sim, traffic, over, most=24 * HOUR)
    return Found([*judge(sim, poison=guilty), Figure("drained min", drained / MINUTE)])


def outage(
    parameters: Parameters, *, hours: float = 24.0, deaths: float = 0.0, refuses: float = 0.0, events: int = 501
) -> Found:
    """Let Klaviyo answer 503, while a share of the invocations dies, or SQS lists a share of entries as failed."""
    sim = _world(parameters)
    back = sim.time.now + hours * HOUR
    sim.klaviyo.told = _until(back, lambda _: sim.klaviyo.answer(503))
    sim.fates = lambda: anywhere(sim.chance) if sim.time.now < back and sim.chance.random() < deaths else None
    sim.refuses = refuses
    traffic = Traffic(sim, 1.0, ("shop", "forms"))
    sim.time.call(sim.time.now + events, traffic.end)
    traffic.start()
    drained = settle(sim, None, back, most=6 * HOUR)
    return Found([*judge(sim), Figure("drained min", drained / MINUTE)])


# ---- suspects and poison


def _send_suspects(sim: Simulation, count: int, crashes: int, receives: int) -> None:
    """Queue messages that came back: ``crashes`` times as release 1 marks them, or ``receives`` times as SQS counts."""
    marked = {"crashes": str(crashes)} if crashes else {}
    for number in range(count):
        sim.send([sim.event(f"suspect-{receives}-{number}")], source="sick", attributes=marked, receives=receives)


def suspects(
    parameters: Parameters, *, count: int = 5_000, every: float = 2.0, crashes: int = 0, receives: int = 0
) -> Found:
    """Send messages that came back, and live events of other sources."""
    sim = _world(parameters)
    began = sim.time.now
    _send_suspects(sim, count, crashes, receives)
    traffic = Traffic(sim, every, ("shop", "forms", "loyalty")).start(5.0)
    drained = settle(sim, traffic, began + 60, most=6 * HOUR) + 60
    return Found([*judge(sim), *_latency(traffic), Figure("drained min", drained / MINUTE, most=8)])


def returned(parameters: Parameters, *, count: int = 5_000, every: float = 2.0, minutes: float = 27.5) -> Found:
    """Let invocations die that have certain messages for some time, and then send live events of other sources."""
    sim = _world(parameters)
    over = sim.time.now + minutes * MINUTE
    sim.fates = lambda: Fate("work") if sim.time.now < over else None
    for number in range(count):
        sim.send([sim.event(f"suspect-{number}")], source="sick")
    sim.run(over)
    traffic = Traffic(sim, every, ("shop", "forms", "loyalty")).start(5.0)
    # The last of them are hidden until SQS's visibility timeout has passed.
    drained = settle(sim, traffic, over + VISIBILITY, most=6 * HOUR)
    return Found([*judge(sim), *_latency(traffic), Figure("drained min", drained / MINUTE, most=8)])


def _latency(traffic: Traffic) -> list[Figure]:
    took = traffic.took()
    return [
        Figure("live median s", statistics.median(took), most=6),
        Figure("live worst s", max(took), most=60),
    ]


def poison(
    parameters: Parameters,
    *,
    error: type[BaseException] = Killed,
    at: Any = "decode",
    most: float = 8.0,
    seconds: float = 0.3,
    each: int = 5,
    window: float = 10.0,
) -> Found:
    """Let one message kill, or fail, every invocation that handles it; ``each`` live events come every ``seconds``.

    ``window`` minutes: of each so long stretch the median latency counts.
    """
    sim = _world(parameters)
    began = sim.time.now
    sim.poison["poison"], sim.poison_at = error, at
    traffic = Traffic(sim, seconds, ("shop", "forms", "loyalty", "desk"), each).start()
    sim.time.call(began + 300, partial(_send_one, sim, "poison"))
    sim.run(began + most * HOUR, lambda: len(sim.dead) > 0)
    found_after = sim.time.now - began - 300
    sim.run(sim.time.now + window * MINUTE)
    ended = sim.time.now
    settle(sim, traffic, ended, most=2 * HOUR)
    stretches = itertools.count(began, window * MINUTE)
    windows = itertools.takewhile(lambda start: start + window * MINUTE <= ended, stretches)
    medians = [statistics.median(traffic.took(start, start + window * MINUTE) or [0.0]) for start in windows]
    return Found(
        [
            *judge(sim, poison=["poison"]),
            Figure("found after h", found_after / HOUR, most=most - 0.01),
            Figure("worst live median s", max(medians), most=6),
            Figure("live worst s", max(traffic.took())),
        ]
    )


def slow_queue(parameters: Parameters, *, count: int = 5_000, seconds: float = 1.0, hours: float = 2.0) -> Found:
    """Let many suspects wait while each call of SQS takes seconds."""
    sim = _world(parameters)
    over = sim.time.now + hours * HOUR

    def quick_again() -> None:
        sim.queue_seconds = 0.0

    sim.queue_seconds = seconds
    sim.time.call(over, quick_again)
    _send_suspects(sim, count // 2, 2, 0)
    _send_suspects(sim, count // 2, 0, 8)
    traffic = Traffic(sim, 10.0, ("shop", "forms")).start()
    drained = settle(sim, traffic, over, most=6 * HOUR)
    return Found([*judge(sim), Figure("died", sim.died), Figure("drained min", drained / MINUTE)])


# ---- refusals


def pointers(parameters: Parameters, *, row: Callable[[Request], int], hours: float = 4.0, events: int = 60) -> Found:
    """Let Klaviyo refuse everything, and point at a row that the job does not have."""
    sim = _world(parameters)
    back = sim.time.now + hours * HOUR
    sim.klaviyo.told = _until(back, lambda request: _pointing(sim, row(request)))
    traffic = Traffic(sim, hours * HOUR / events, ("shop", "forms")).start()
    sim.time.call(back - 1, traffic.end)
    drained = settle(sim, None, back, most=4 * HOUR)
    return Found([*judge(sim), Figure("drained min", drained / MINUTE)])


def too_large(parameters: Parameters, *, minutes: float = 10.0, events: int = 1_000) -> Found:
    """Let Klaviyo, or a proxy, answer 413 to everything for some minutes."""
    sim = _world(parameters)
    back = sim.time.now + minutes * MINUTE
    sim.klaviyo.told = _until(back, lambda _: sim.klaviyo.answer(413))
    for number in range(events):
        sim.send([sim.event(f"event-{number}", size=400)])
    drained = settle(sim, None, back, most=4 * HOUR)
    return Found([*judge(sim), Figure("drained min", drained / MINUTE)])


def flapping(parameters: Parameters, *, share: float, hours: float = 2.0, every: float = 1.0, bad: int = 20) -> Found:
    """Let Klaviyo refuse a share of all requests at random, without a pointer, and some events for good."""
    sim = _world(parameters)
    over = sim.time.now + hours * HOUR
    guilty = _plant(sim, bad)

    def told(request: Request) -> Answer | None:
        wrong = any(name in guilty for name in request.names)
        return _refusal(sim, "400") if wrong or (request.at < over and sim.chance.random() < share) else None

    sim.klaviyo.told = told
    traffic = Traffic(sim, every, ("shop", "forms")).start()
    drained = settle(sim, traffic, over, most=6 * HOUR)
    return Found([*judge(sim, poison=guilty), Figure("drained min", drained / MINUTE)])


def gusts(parameters: Parameters, *, minutes: float = 15.0, each: int = 60, bad: int = 30) -> Found:
    """Let Klaviyo refuse everything for some seconds, fail for some, and accept for some, by turns."""
    sim = _world(parameters)
    over = sim.time.now + minutes * MINUTE
    guilty = _plant(sim, bad)
    kinds = ("400", "413", "past_the_end", "503", "429", *("calm",) * 4)
    until, kind = 0.0, "calm"

    def told(request: Request) -> Answer | None:
        nonlocal until, kind
        if any(name in guilty for name in request.names):
            return _refusal(sim, "400")
        if request.at >= until:
            until, kind = request.at + sim.chance.uniform(1.5, 4.5), sim.chance.choice(kinds)
        return _refusal(sim, kind) if request.at < over and kind != "calm" else None

    sim.klaviyo.told = told
    busy = Traffic(sim, 1.0, ("shop", "forms", "loyalty"), each).start()
    sim.time.call(over, busy.end)
    traffic = Traffic(sim, 3.0, ("shop", "forms")).start(minutes * MINUTE)
    drained = settle(sim, traffic, over, most=6 * HOUR)
    return Found([*judge(sim, poison=guilty), Figure("drained min", drained / MINUTE, most=60)])


def flood(
    parameters: Parameters, *, named: bool, seconds: float, each: int = 1, minutes: float = 18.0, every: float = 1.0
) -> Found:
    """Let Klaviyo refuse all events of one source, ``each`` of them every ``seconds``, beside live events of others.

    A live event comes ``every`` so many seconds.
    """
    sim = _world(parameters)
    over = sim.time.now + minutes * MINUTE

    def told(request: Request) -> Answer | None:
        bad = [row for row, name in enumerate(request.names) if name.startswith("sick-")]
        return (_pointing(sim, *bad) if named else _refusal(sim, "400")) if bad else None

    sim.klaviyo.told = told
    sick = Traffic(sim, seconds, ("sick",), each).start(30.0)
    sim.time.call(over, sick.end)
    traffic = Traffic(sim, every, ("shop", "forms", "loyalty")).start()
    drained = settle(sim, traffic, over, most=6 * HOUR)
    return Found([*judge(sim, poison=sick.sent), *_latency(traffic), Figure("drained min", drained / MINUTE, most=8)])


def _plant(sim: Simulation, bad: int) -> list[str]:
    """Send so many events that Klaviyo is to refuse, one every 20 s from the second minute on; return their names."""
    guilty = [f"bad-{number}" for number in range(bad)]
    for number, name in enumerate(guilty):
        sim.time.call(sim.time.now + 60 + 20 * number, partial(_send_one, sim, name))
    return guilty


def _refusal(sim: Simulation, kind: str) -> Answer:
    if kind == "past_the_end":
        return _pointing(sim, 99_999)
    return sim.klaviyo.answer(int(kind), [{"title": "Invalid input.", "detail": "No."}] if kind == "400" else None)


def _pointing(sim: Simulation, *rows: int) -> Answer:
    error = {"title": "Invalid input.", "detail": "Not valid."}
    return sim.klaviyo.answer(400, [error | {"source": {"pointer": POINTER.format(row)}} for row in rows])


# ---- the rate


def stacks(
    parameters: Parameters,
    *,
    rates: tuple[int, int],
    expected: tuple[float, float],
    minutes: float = 20.0,
    size: int = JOB_EVENTS,
) -> Found:
    """Run two stacks with their own rates on one pacing table, both with a backlog."""
    first, second = ({**parameters, "RequestsPerMinute": str(rate)} for rate in rates)
    sim = _world(first, job_events=size, batch_size=BATCH)
    other = Simulation(parameters=second, batch_size=BATCH, beside=sim)
    for stack, name in ((sim, "a"), (other, "b")):
        _backlog(stack, name, minutes, size)
    sim.run(sim.time.now + minutes * MINUTE)
    shares = [_jobs(sim, name, minutes) for name in ("a", "b")]
    for stack in (sim, other):
        stack.run(sim.time.now + HOUR, lambda stack=stack: len(stack.events) == 0)  # type: ignore[misc]
    return Found(
        [
            *judge(sim, other),
            *(
                Figure(f"jobs a minute of {rate}", share, least=0.97 * wanted - 1 / (minutes - SETTLING))
                for rate, share, wanted in zip(rates, shares, expected, strict=True)
            ),
        ]
    )


def clocks(
    parameters: Parameters,
    *,
    apart: Clocks,
    spread: float = SPREAD,
    least: float = 140.0,
    minutes: float = 20.0,
    size: int = JOB_EVENTS,
    hours: float = 1.0,
) -> Found:
    """Run sandboxes with clocks that are ``apart``, on a backlog; nothing else uses up the ArrivalSpread.

    A sandbox whose clock AWS does not accept posts nothing, and hands back what it is given.
    """
    with_spread = {**parameters, "ArrivalSpread": f"{spread:g}"}
    sim = Simulation(parameters=with_spread, clocks=apart, job_events=size, batch_size=BATCH)
    return _rate(sim, least, minutes, size, hours)


def table(
    parameters: Parameters, *, away: float = 0.02, least: float = 100.0, minutes: float = 20.0, size: int = JOB_EVENTS
) -> Found:
    """Fail a share of the pacing table's calls, half of them after they took effect, on a backlog."""
    sim = _world(parameters, job_events=size, batch_size=BATCH)
    sim.table_away = away
    return _rate(sim, least, minutes, size)


def _rate(sim: Simulation, least: float, minutes: float, size: int, hours: float = 1.0) -> Found:
    """Return the figures of minutes at the full rate, and then of what is left."""
    _backlog(sim, "a", minutes, size)
    sim.run(sim.time.now + minutes * MINUTE)
    rate = _jobs(sim, "a", minutes)
    sim.run(sim.time.now + hours * HOUR, lambda: len(sim.events) == 0)
    return Found([*judge(sim), Figure("jobs a minute", rate, least=least)])


def _backlog(sim: Simulation, name: str, minutes: float, size: int) -> None:
    """Keep two minutes' jobs of ``size`` events in the queue for some minutes."""
    numbers = itertools.count()

    def more(_: int) -> None:
        for _ in range(2 * PER_MINUTE * MESSAGES - len(sim.events)):
            sim.send([sim.event(f"{name}-{next(numbers)}") for _ in range(size // MESSAGES)], source=name)

    sim.every(10, sim.time.now + minutes * MINUTE, more)


def _jobs(sim: Simulation, name: str, minutes: float) -> float:
    """Return the accepted jobs a minute of events named ``name``, without the first ``SETTLING`` minutes."""
    since = sim.time.now - (minutes - SETTLING) * MINUTE
    taken = [
        request for request in sim.klaviyo.requests if request.status == 202 and request.names[0].startswith(f"{name}-")
    ]
    return sum(since <= request.at < sim.time.now for request in taken) / (minutes - SETTLING)


# ---- the table of all


def _send_one(sim: Simulation, name: str) -> None:
    sim.send([sim.event(name)])


def _until(back: float, answer: Callable[[Request], Answer]) -> Callable[[Request], Answer | None]:
    return lambda request: answer(request) if request.at < back else None


DIES = partial(Fate, "work")
STORIES: dict[str, Callable[[Parameters], Found]] = {
    "broken-2h": partial(broken, hours=2, fate=DIES),
    "broken-8h": partial(broken, hours=8, fate=DIES),
    "broken-start": partial(broken, hours=2, fate=partial(Fate, "start")),
    "broken-raises": partial(broken, hours=2, fate=partial(Fate, "work", error=RuntimeError)),
    "broken-decode": partial(broken, hours=2),
    "storm": storm,
    "outage-deaths": partial(outage, deaths=0.01),
    "outage-failed": partial(outage, refuses=0.3),
    "suspects": partial(suspects, crashes=2),
    "suspects-often": partial(suspects, receives=8),
    "returned": returned,
    "poison": poison,
    "poison-raises": partial(poison, error=RuntimeError),
    "poison-posts": partial(poison, at="post", error=RuntimeError),
    "slow-queue": slow_queue,
    "pointers": partial(pointers, row=lambda _: 99_999),
    "pointers-from-1": partial(pointers, row=lambda request: len(request.names)),
    "413": too_large,
    "flapping": partial(flapping, share=1 / 3),
    "gusts": gusts,
    "flood": partial(flood, named=True, seconds=1.0),
    "flood-unnamed": partial(flood, named=False, seconds=5.0),
    "flood-quiet": partial(flood, named=False, seconds=5.0, every=10.0),
    "stacks-100-40": partial(stacks, rates=(100, 40), expected=(100, 40)),
    "stacks-150-10": partial(stacks, rates=(150, 10), expected=(140, 10)),
    "clocks-0.2s": partial(clocks, apart=lambda _, chance: chance.uniform(-0.2, 0.2)),
    "clocks-1s": partial(clocks, apart=lambda _, chance: chance.uniform(-1, 1), spread=2),
    # What docs/settings.md says that it costs.
    "clocks-day": partial(clocks, apart=lambda number, _: 86_400.0 if number == 1 else 0.0, least=20.0, hours=12.0),
    "table": table,
}


def run(name: str, setting: str) -> Found:
    """Run one story."""
    return STORIES[name](SETTINGS[setting])


def main(arguments: list[str]) -> int:
    """Run stories and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m bench.stories", description=__doc__)
    parser.add_argument("stories", nargs="*", metavar="story", help=f"any of {', '.join(STORIES)}; default: all")
    parser.add_argument("--setting", choices=SETTINGS, action="append", help="default: both")
    options = parser.parse_args(arguments)
    if unknown := set(options.stories) - STORIES.keys():
        parser.error(f"no such story: {', '.join(sorted(unknown))}")
    failed = 0
    for name in options.stories or STORIES:
        for setting in options.setting or SETTINGS:
            began = real_time.process_time()
            result = run(name, setting)
            failed += bool(result.wrong())
            verdict = "FAIL" if result.wrong() else "ok"
            figures = "; ".join(map(str, result.figures))
            print(
                f"{verdict:4}  {name:15}  {setting:7}  {figures}  ({real_time.process_time() - began:.0f} s)",
                flush=True,
            )
    print(f"{failed} runs failed" if failed else "every bound kept")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
