"""What is sent: webhooks of many kinds from a seed, by senders that retry as real ones do."""

from __future__ import annotations

import json
import queue
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import urllib3

from local.stack import Stack
from tools.senders import sign

from .ledger import Ledger
from .schedule import POISON

SENDERS = 12
SINGLES = 5.0  # webhooks a second
JSON = {"content-type": "application/json"}
BAD = "bad"  # Klaviyo refuses such rows for good, and points at them
WORSE = "worse"  # ... without pointing at them


@dataclass(frozen=True, slots=True)
class Webhook:
    """One request to make ``at`` (seconds): ``copies`` at once; ``forged`` says what is wrong with it, if anything."""

    at: float
    name: str
    source: str
    body: bytes
    copies: int = 1
    forged: str = ""
    again: int = 0


def webhooks(seed: int, seconds: float, now: float) -> list[Webhook]:
    """The traffic of ``seconds``; ``now`` (epoch seconds) is when the events happened."""
    chance = random.Random(f"webhooks {seed}")  # noqa: S311 (a schedule, no secret)
    found = [
        *_singles(chance, seconds, int(now)),
        *_batches(chance, seconds),
        *_storms(chance, seconds),
        *_oddities(chance, seconds, int(now)),
    ]
    found += [replace(one, at=one.at + chance.uniform(0.5, 8.0), again=1) for one in found if _repeated(one, chance)]
    return sorted(found, key=lambda one: (one.at, one.name))


def _repeated(one: Webhook, chance: random.Random) -> bool:
    return not one.forged and chance.random() < 0.15


def _custom(at: float, *names: str) -> Webhook:
    events = [
        {"profile": {"email": f"{name}@letters.example"}, "metric": "Visited", "unique_id": name} for name in names
    ]
    return Webhook(at, names[0], "custom", json.dumps(events).encode())


def _stripe(at: float, name: str, now: int, customer: dict[str, str]) -> Webhook:
    data = {"object": {"object": "customer"} | customer}
    document = {"id": f"evt_{name}", "type": "customer.created", "created": now, "data": data}
    return Webhook(at, name, "stripe", json.dumps(document).encode())


def _singles(chance: random.Random, seconds: float, now: int) -> Iterator[Webhook]:
    at, number = 0.0, 0
    while (at := at + chance.expovariate(SINGLES)) < seconds:
        number += 1
        name = f"one-{number}"
        if chance.random() < 0.3:
            yield _stripe(at, name, now, {"id": f"cus_{name}", "email": f"{name}@letters.example"})
        else:
            yield _custom(at, name)


def _batches(chance: random.Random, seconds: float) -> Iterator[Webhook]:
    at, number = 1.0, 0
    while (at := at + chance.uniform(1.0, 4.0)) < seconds:
        number += 1
        names = [f"many-{number}-{index}" for index in range(chance.randint(20, 250))]
        for kind in (BAD, WORSE):
            if chance.random() < 0.25:
                names.insert(chance.randrange(len(names)), f"{kind}-{number}")
        yield _custom(at, *names)


def _storms(chance: random.Random, seconds: float) -> Iterator[Webhook]:
    at, number = 2.0, 0
    while (at := at + chance.uniform(4.0, 10.0)) < seconds:
        number += 1
        yield replace(_custom(at, f"storm-{number}"), copies=chance.randint(10, 50))
        yield from (_custom(at + 1, f"burst-{number}-{index}") for index in range(chance.randint(20, 60)))
        for index in range(chance.randint(10, 40)):
            forged = chance.choice(("signature", "body", "stale", "unknown", "none"))
            yield replace(_custom(at + 2, f"forged-{number}-{index}"), forged=forged)


def _oddities(chance: random.Random, seconds: float, now: int) -> Iterator[Webhook]:
    yield _custom(chance.uniform(0, seconds / 3), *(f"beside-{index}" for index in range(3)))
    yield _custom(chance.uniform(0, seconds / 3), POISON)
    at, number = 0.0, 0
    while (at := at + chance.uniform(2.0, 6.0)) < seconds:
        number += 1
        yield _stripe(at, f"unmapped-{number}", now, {"name": "Nobody"})


class Senders:
    """Sends webhooks at their time and again until there is an answer below 500, or ``stop``."""

    def __init__(self, stack: Stack, ledger: Ledger, plan: list[Webhook], seed: int) -> None:
        self._stack = stack
        self._ledger = ledger
        self._plan = plan
        self._chance = random.Random(f"senders {seed}")  # noqa: S311 (pauses, no secret)
        self._due: queue.PriorityQueue[tuple[float, int, Webhook]] = queue.PriorityQueue()
        self._stopped = threading.Event()
        self._last = 0.0
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(SENDERS)]

    def start(self) -> None:
        """Begin; times count from now."""
        began = time.monotonic()
        number = 0
        for one in self._plan:
            for _ in range(one.copies):
                number += 1
                self._due.put((began + one.at, number, one))
                self._last = max(self._last, began + one.at)
        for thread in self._threads:
            thread.start()

    def finish(self, seconds: float) -> int:
        """Wait until everything is answered, at most ``seconds`` after the last is due; returns how much is not."""
        end = max(time.monotonic(), self._last) + seconds
        while self._due.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.1)
        self._stopped.set()
        for thread in self._threads:
            thread.join(40)
        return self._due.unfinished_tasks

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                at, number, one = self._due.get(timeout=0.2)
            except queue.Empty:
                continue
            if (rest := at - time.monotonic()) > 0 and self._stopped.wait(rest):
                return
            status, answer = self._send(one)
            if status >= 500 and not one.forged:
                self._due.put((time.monotonic() + self._chance.uniform(0.5, 2.0), number, replace(one, again=1)))
            self._ledger.answered(one.name, one.forged, status, answer)
            self._due.task_done()

    def _send(self, one: Webhook) -> tuple[int, dict[str, Any]]:
        url, headers = self._signed(one)
        try:
            return self._stack.post(url, one.body + (b" " if one.forged == "body" else b""), headers)
        except (urllib3.exceptions.HTTPError, ValueError):
            return 599, {}

    def _signed(self, one: Webhook) -> tuple[str, dict[str, str]]:
        """Address and headers; a retry has other headers than the first attempt wherever they aren't signed bytes."""
        headers = dict(JSON)
        if one.again:
            headers |= {"webhook-id": f"msg_{self._chance.random()}", "x-attempt": "2", "user-agent": "retry"}
        url = self._stack.url(one.source if one.forged != "unknown" else "nobody")
        if one.forged == "none":
            return url, headers
        secrets = self._stack.secrets["sources"]
        # A key in the right form that is not this source's.
        secret = secrets["standard_webhooks" if one.forged == "signature" else one.source][0]
        now = time.time() - (4_000 if one.forged == "stale" else 0)
        return sign.sign(one.source, secret, body=one.body, headers=headers, url=url, now=now)
