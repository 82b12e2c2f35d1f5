"""``make chaos``: run, heal, redrive, account. Exit status 0 only if nothing is lost, duplicated or over the limit."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from local.stack import Stack
from tools.operate import dead_letters
from tools.terminal import error, say, table

from . import schedule, traffic
from .ledger import Account, Ledger, Lying, account, counted, crowded, lying
from .proxy import Proxy
from .schedule import Episode, Rule

PER_MINUTE = 400  # of Klaviyo's 150; as many as ten a second leave room for
PER_SECOND = 10
FUNCTION_SECONDS = 12
VISIBILITY_SECONDS = 15
WINDOW_SECONDS = 1
DRAIN_SECONDS = 180
QUIET = 10  # looks, half a second apart: longer than an invocation may come again later
SENDERS_SECONDS = 60
# What Klaviyo goes on refusing after all else works again: the relay is to park it, and only that.
FOR_GOOD: list[dict[str, Any]] = [
    {"point": True, "matching": f'"{traffic.BAD}-', "detail": "Invalid input for this row."},
    {"status": 400, "body": schedule.NO_ROW, "matching": f'"{traffic.WORSE}-'},
]
GUILTY = (schedule.POISON, *(f"{kind}-{n}" for kind in (traffic.BAD, traffic.WORSE) for n in range(1, 10_000)))


def short_lived(template: dict[str, Any]) -> None:
    """Change the translated template: the functions that can be killed, and times to match."""
    for name, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Lambda::Function":
            deliver = properties["Handler"] == "handler.deliver.handler"
            properties["Handler"] = f"local.chaos.killed_{'deliver' if deliver else 'receive'}.handler"
            properties["Timeout"] = FUNCTION_SECONDS
        elif name == "EventsQueue":
            properties["VisibilityTimeout"] = VISIBILITY_SECONDS


@dataclass
class Run:
    """One run on a running stack."""

    stack: Stack
    proxy: Proxy
    ledger: Ledger
    seed: int
    happened: Counter[str]

    def begin(self, episodes: list[Episode]) -> None:
        """Let each episode happen at its time; returns when the last is over."""
        marks = sorted({moment for one in episodes for moment in (one.start, one.end)})
        began = time.monotonic()
        last: set[str] = set()
        for mark in marks:
            time.sleep(max(0.0, began + mark - time.monotonic()))
            active = [one for one in episodes if one.start <= mark < one.end]
            self._set(active)
            for one in active:
                if one.side == "other" and one.name not in last:
                    threading.Thread(target=self._other, args=(one,), daemon=True).start()
            last = {one.name for one in active}

    def heal(self) -> None:
        """Everything works again, except what Klaviyo refuses for good."""
        self._set([])

    def _set(self, active: list[Episode]) -> None:
        rules = [dict(one.fault) for one in active if isinstance(one.fault, Mapping)]
        self.stack.standin("faults", [*FOR_GOOD, *rules])
        self.proxy.rules = {one.name: one.fault for one in active if isinstance(one.fault, Rule)}
        self.happened.update(one.name for one in active if one.side == "klaviyo" and one.name not in self._before)
        self._before = {one.name for one in active}

    _before: frozenset[str] | set[str] = frozenset()

    def _other(self, episode: Episode) -> None:
        self.happened[episode.name] += 1
        if episode.fault == schedule.RESTART_TRIGGER:
            self.stack.stop_trigger()
            self.stack.start_trigger()
            return
        key = {"api_key": f"pk_replaced_{time.monotonic_ns()}"}
        self.stack.standin("key", key)
        time.sleep((episode.end - episode.start) / 2)
        name = self.stack.outputs["KlaviyoSecretName"]
        self.stack.aws.client("secretsmanager").put_secret_value(SecretId=name, SecretString=json.dumps(key))

    def drain(self) -> bool:
        """Wait until nothing waits, is in flight or under way.

        A good event now and then, as live traffic brings them: rows that Klaviyo
        refuses without naming them are parked only beside proof that it takes others.
        """
        end = time.monotonic() + DRAIN_SECONDS
        quiet = looks = 0
        while time.monotonic() < end and quiet < QUIET:
            busy = self.stack.waiting() or self.proxy.under_way
            quiet = 0 if busy else quiet + 1
            looks += 1
            if busy and looks % QUIET == 0:
                self._good(f"alive-{time.monotonic_ns()}")
            time.sleep(0.5)
        return quiet == QUIET

    def _good(self, name: str) -> None:
        events = [{"profile": {"email": f"{name}@letters.example"}, "metric": "Visited", "unique_id": name}]
        status, answer = self.stack.send("custom", json.dumps(events).encode(), dict(traffic.JSON))
        self.ledger.answered(name, "", status, answer)

    def redrive(self) -> list[Lying]:
        """Everything that is parked goes back, once, as with ``make redrive``; returns what that was."""
        sqs = self.stack.aws.client("sqs")
        events, dead = self.stack.outputs["EventsQueueUrl"], self.stack.outputs["DeadLetterQueueUrl"]
        parcels = dead_letters.Sorted(None, None, datetime.now(UTC).replace(microsecond=0))
        found: list[Lying] = []

        def noted() -> Iterator[dead_letters.DeadLetter]:
            for one in parcels.through(dead_letters.read(sqs, dead)):
                found.extend(lying([{"body": one.body, "reason": one.reason}]))
                yield one

        dead_letters.put_back(sqs, noted(), events, dead, rate=500, sleep=time.sleep)
        dead_letters.release(sqs, dead, parcels.kept)
        return found


def report(run: Run, redriven: list[Lying], unanswered: int, drained: bool) -> int:
    """Print the account; the exit status."""
    stats = run.stack.standin("stats")
    stored = [one["unique_id"] for one in run.stack.arrived()]
    end = account(run.ledger, stored, lying(run.stack.parked()), GUILTY)
    at = [one["at"] for one in run.stack.requests()]
    second, over_second = crowded(at, 1.0, PER_SECOND)
    minute, over_minute = crowded(at, 60.0, PER_MINUTE)
    over = over_second + over_minute
    ledger = run.ledger
    failed = sum(count for status, count in ledger.statuses.items() if status >= 500)
    rows = {
        "faults": f"{sum(run.happened.values())} of {len(run.happened)} kinds",
        "webhooks in": f"{len(ledger.webhooks)} in {ledger.attempts} requests ({failed} failed and were sent again)",
        "forged": f"{ledger.forgeries}; let in {len(ledger.let_in | end.unauthentic)}",
        "events accepted": f"{len(ledger.events)}",
        "delivered once": f"{end.delivered}, with {stats['repeats']} repeats that collapsed",
        "parked by then": f"{_counts(counted(redriven))}; re-queued in {len(redriven)} messages",
        "parked in the end": _counts(end.reasons),
        "jobs": f"{stats['jobs']} taken of {stats['requests']} requests; {stats['limited']} over a window",
        "worst second": f"{second} of {PER_SECOND}",
        "worst minute": f"{minute} of {PER_MINUTE}",
    }
    say(*table(list(rows.items())))
    wrong = _wrong(end, ledger, unanswered, drained)
    error(*wrong)
    say(f"lost {len(end.lost)}; duplicated {len(end.duplicated)}; over the limit {over}")
    return 1 if wrong or end.lost or end.duplicated or over else 0


def _wrong(end: Account, ledger: Ledger, unanswered: int, drained: bool) -> list[str]:
    checks = {
        f"{unanswered} webhooks without an answer": unanswered,
        f"{len(ledger.refused)} authentic webhooks refused": ledger.refused,
        f"{len(ledger.let_in | end.unauthentic)} forged webhooks let in": ledger.let_in | end.unauthentic,
        f"{end.without_reason} parked without a reason": end.without_reason,
        f"{len(end.innocent)} parked and nothing wrong with them": end.innocent,
        "the queue did not empty": not drained,
        "nothing was sent": not ledger.events,
    }
    return [what for what, is_so in checks.items() if is_so]


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing"


def chaos(seed: int, seconds: float) -> int:
    """One whole run."""
    began = time.monotonic()
    with (
        Proxy(seed) as proxy,
        Stack(
            limits={"per_minute": PER_MINUTE, "per_second": PER_SECOND},
            properties={"MaximumBatchingWindowInSeconds": WINDOW_SECONDS},
            environment={"AWS_ENDPOINT_URL": proxy.url, "REQUESTS_PER_MINUTE": str(PER_MINUTE)},
            change=short_lived,
            trigger_endpoint=proxy.url,
            deliver=False,
        ) as stack,
    ):
        proxy.target, proxy.deliver = stack.aws.url, "DeliverFunction"
        stack.start_trigger()
        run = Run(stack, proxy, Ledger(), seed, Counter())
        senders = traffic.Senders(stack, run.ledger, traffic.webhooks(seed, seconds, time.time()), seed)
        senders.start()
        run.begin(schedule.episodes(seed, seconds))
        run.heal()
        unanswered = senders.finish(SENDERS_SECONDS)
        drained = run.drain()
        redriven = run.redrive()
        drained = run.drain() and drained
        run.happened.update(proxy.happened)
        say(f"seed {seed}, {seconds:.0f} s of faults, {time.monotonic() - began:.0f} s in all")
        return report(run, redriven, unanswered, drained)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``make chaos``."""
    parser.add_argument("--seed", type=int, help="the schedule of faults; a new one if not given")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults go on; 5 if not given")


def run(asked: argparse.Namespace) -> int:
    """One whole run."""
    seed = asked.seed if asked.seed is not None else int(time.time()) % 100_000
    say(f"chaos with seed {seed} for {asked.minutes:g} minutes ...")
    return chaos(seed, asked.minutes * 60)
