"""``make chaos``: run, heal, redrive, account. Exit status 0 only if everything became what it must."""

from __future__ import annotations

import argparse
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from local.stack import Stack
from tools.operate import dead_letters
from tools.terminal import error, say, table

from . import schedule, traffic
from .ledger import Account, Ledger, Parked, counted, crowded, parked
from .proxy import Proxy
from .schedule import Episode, Fault

PER_MINUTE = 150
PER_SECOND = 10
FUNCTION_SECONDS = 16
VISIBILITY_SECONDS = 18  # seven times before the poison is found
# Functions have an eighth of their time, and slots are as far apart as ever: with more functions and full batches none
# would have the slots to take a refused job apart, or the time to send on what it has no slot for.
EVENT_SOURCE = {
    "MaximumBatchingWindowInSeconds": 1,
    "BatchSize": 1_000,
    "ScalingConfig": {"MaximumConcurrency": 2},
}
DRAIN_SECONDS = 600  # without fewer messages or more stored events than before
LOOK_SECONDS = 0.5
QUIET = 10  # looks: longer than an invocation may come again later
SENDERS_SECONDS = 60
KEPT = "crashed"  # not redriven: it is proved that it would kill seven functions again
TRIES = 20


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
    senders: traffic.Senders
    happened: Counter[str] = field(default_factory=Counter)
    active: dict[str, Episode] = field(default_factory=dict)

    def begin(self, episodes: list[Episode]) -> None:
        """Let each episode happen at its time; return when the last is over."""
        marks = sorted({moment for episode in episodes for moment in (episode.start, episode.end)})
        began = time.monotonic()
        for mark in marks:
            time.sleep(max(0.0, began + mark - time.monotonic()))
            self.fail([episode for episode in episodes if episode.start <= mark < episode.end])

    def fail(self, active: list[Episode]) -> None:
        """Let these episodes happen from now on; without any, all works except what Klaviyo refuses for good."""
        faults = [dict(episode.fault) for episode in active if isinstance(episode.fault, Mapping)]
        self.stack.standin("faults", [*schedule.FOR_GOOD, *faults])
        self.proxy.faults = {episode.name: episode.fault for episode in active if isinstance(episode.fault, Fault)}
        for episode in active:
            if episode.name in self.active or episode.side == "aws":
                continue
            self.happened[episode.name] += 1
            if episode.side == "other":
                threading.Thread(target=self._other, args=(episode,), daemon=True).start()
        self.active = {episode.name: episode for episode in active}

    def _other(self, episode: Episode) -> None:
        if episode.fault == schedule.RESTART_TRIGGER:
            self.stack.stop_trigger()
            self.stack.start_trigger()
            return
        key = {"api_key": f"pk_replaced_{time.monotonic_ns()}"}
        self.stack.standin("key", key)
        time.sleep((episode.end - episode.start) / 2)
        name = self.stack.outputs["KlaviyoSecretName"]
        self.stack.aws.client("secretsmanager").put_secret_value(SecretId=name, SecretString=json.dumps(key))

    def drain(self) -> int:
        """Wait until nothing waits, is in flight or under way, or gets done; return how many messages still wait.

        What is split grows in number, so more stored events show that something gets done, too.

        A good event now and then, as live traffic brings them: rows that Klaviyo
        refuses without naming them are parked only beside proof that it accepts others.
        """
        end, least, most = time.monotonic() + DRAIN_SECONDS, math.inf, -math.inf
        quiet = looks = 0
        while time.monotonic() < end and quiet < QUIET:
            waiting = self.stack.waiting()
            stored = self.stack.standin("stats")["stored"] - len(self.ledger.sent)  # without the events of ``good``
            if waiting < least or stored > most:
                end, least, most = time.monotonic() + DRAIN_SECONDS, min(waiting, least), max(stored, most)
            quiet = 0 if waiting or self.proxy.under_way else quiet + 1
            looks += 1
            if not quiet and looks % QUIET == 0:
                self.good(f"alive-{time.monotonic_ns()}")
            time.sleep(LOOK_SECONDS)
        return self.stack.waiting()

    def good(self, name: str) -> None:
        """Send an event of this name until it is accepted."""
        webhook = traffic.custom(0, int(time.time()), name)
        self.ledger.plan(webhook)
        for _ in range(TRIES):
            if self.senders.send(webhook) < 500:
                return
            time.sleep(LOOK_SECONDS)

    def parked(self) -> list[Parked]:
        """Return what is in the dead-letter queue."""
        return [parked(letter["body"], letter.get("reason", "")) for letter in self.stack.parked()]

    def redrive(self) -> list[Parked]:
        """Redrive what is parked except the poison, once, as ``make redrive`` does; return all that was parked."""
        sqs = self.stack.aws.client("sqs")
        events, dead = self.stack.outputs["EventsQueueUrl"], self.stack.outputs["DeadLetterQueueUrl"]
        letters = dead_letters.Sorted(None, None, datetime.now(UTC).replace(microsecond=0))
        before: list[Parked] = []

        def noted() -> Iterator[dead_letters.DeadLetter]:
            for letter in letters.through(dead_letters.read(sqs, dead)):
                before.append(parked(letter.body, letter.reason))
                if letter.reason == KEPT:
                    letters.kept.append(letter)
                else:
                    yield letter

        dead_letters.put_back(sqs, noted(), events, dead, rate=500, sleep=time.sleep)
        dead_letters.release(sqs, dead, letters.kept)
        return before


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left: parked before and after the redrive, and how many messages still wait."""

    before: list[Parked]
    after: list[Parked]
    waiting: int


def report(run: Run, outcome: Outcome, refused_rows: Sequence[str]) -> int:
    """Print the account; return the exit status. ``refused_rows``: see ``Account.judge``."""
    stats = run.stack.standin("stats")
    account = Account(run.ledger)
    account.judge(outcome.before, refused_rows)
    account.judge(outcome.after, schedule.refused_rows(schedule.FOR_GOOD))
    account.close(run.stack.arrived(), outcome.after, sought=outcome.waiting > 0)
    at = [request["at"] for request in run.stack.requests()]
    second, over_second = crowded(at, 1.0, PER_SECOND)
    minute, over_minute = crowded(at, 60.0, PER_MINUTE)
    over = over_second + over_minute
    ledger = run.ledger
    failed = sum(count for status, count in ledger.statuses.items() if status >= 500)
    rows = {
        "faults": f"{sum(run.happened.values())} of {len(run.happened)} kinds",
        "webhooks": f"{len(ledger.sent)} in {ledger.attempts} requests ({failed} failed and were sent again)",
        "not accepted": f"{len(ledger.unaccepted)}",
        "forged": f"{ledger.forgeries}; let in {len(ledger.let_in)}",
        "events accepted": f"{account.accepted}",
        "delivered": f"{account.delivered}, {account.unread} of them without contents to compare",
        "parked by then": f"{_counts(counted(outcome.before))}; {_redriven(outcome.before)} messages re-queued",
        "innocents among them": _counts(Counter(account.innocent.values())),
        "parked in the end": _counts(counted(outcome.after)),
        "still waiting": f"{outcome.waiting} messages",
        "jobs": f"{stats['jobs']} taken of {stats['requests']} requests; {stats['limited']} over a window",
        "worst second": f"{second} of {PER_SECOND}",
        "worst minute": f"{minute} of {PER_MINUTE}",
        "repeats that collapsed": f"{stats['repeats']}",
    }
    say(*table(list(rows.items())))
    wrong = _wrong(account)
    error(*wrong)
    say(f"lost {len(account.lost)}; innocents parked {len(account.innocent)}; over the limit {over}")
    return 1 if wrong or over else 0


def _wrong(account: Account) -> list[str]:
    ledger = account.ledger
    checks: dict[str, Collection[str]] = {
        "events or webhooks are lost": account.lost,
        "events were parked and nothing is wrong with them": account.innocent,
        "webhooks were never accepted": ledger.unaccepted,
        "authentic webhooks were refused": ledger.refused,
        "forged webhooks were let in": ledger.let_in,
        "events or webhooks belong to no authentic webhook": account.strangers,
        "events differ from what mapping makes of their webhook": account.different,
        "events or webhooks were parked for another reason than was planted": account.misnamed,
    }
    wrong = [f"{len(names)} {what}, such as {min(names)}" for what, names in checks.items() if names]
    return wrong or ([] if ledger.accepted else ["nothing was accepted"])


def _redriven(letters: Sequence[Parked]) -> int:
    return sum(letter.reason != KEPT for letter in letters)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing"


def chaos(seed: int, seconds: float, calm: float = schedule.CALM) -> int:
    """Do one whole run; after ``seconds`` it ends once nothing waits, or nothing gets done for some minutes."""
    began = time.monotonic()
    with (
        Proxy(seed) as proxy,
        Stack(
            properties=EVENT_SOURCE,
            environment={"AWS_ENDPOINT_URL": proxy.url},
            change=short_lived,
            trigger_endpoint=proxy.url,
            deliver=False,
        ) as stack,
    ):
        proxy.target, proxy.deliver = stack.aws.url, "DeliverFunction"
        stack.start_trigger()
        ledger = Ledger()
        senders = traffic.Senders(stack, ledger, seed)
        run = Run(stack, proxy, ledger, senders)
        run.good("awake")  # on a busy machine a short run would be over before the functions have started
        run.drain()
        senders.start(traffic.webhooks(seed, seconds, time.time()))
        episodes = schedule.episodes(seed, seconds, calm)
        run.begin(episodes)
        run.fail([])
        senders.finish(SENDERS_SECONDS)
        say("all faults are over; waiting until nothing waits (some minutes, longer after STORMS=1) ...")
        run.drain()
        before = run.redrive()
        waiting = run.drain()
        outcome = Outcome(before, run.parked(), waiting)
        run.happened.update(proxy.happened)
        say(f"seed {seed}, {seconds:.0f} s of faults, {time.monotonic() - began:.0f} s in all")
        faults = [episode.fault for episode in episodes if isinstance(episode.fault, Mapping)]
        return report(run, outcome, schedule.refused_rows([*schedule.FOR_GOOD, *faults]))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``make chaos``."""
    parser.add_argument("--seed", type=int, help="the schedule of faults; a new one if not given")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults go on; 5 if not given")
    parser.add_argument("--storms", action="store_true", help="no calm between storms")


def run(asked: argparse.Namespace) -> int:
    """Do one whole run."""
    seed = asked.seed if asked.seed is not None else int(time.time()) % 100_000
    say(f"chaos with seed {seed} for {asked.minutes:g} minutes ...")
    return chaos(seed, asked.minutes * 60, 0.0 if asked.storms else schedule.CALM)
