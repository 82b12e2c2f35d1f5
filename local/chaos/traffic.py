"""What is sent: webhooks of many kinds from a seed, by senders that retry as real ones do."""

from __future__ import annotations

import json
import queue
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import urllib3

from local.stack import Stack
from tools.senders import sign

from .schedule import BAD, POISON, WORSE

SENDERS = 12
SINGLES = 5.0  # webhooks a second
JSON = {"content-type": "application/json"}
UNMAPPABLE = "no_identifier"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One request to make ``at`` (seconds): ``copies`` at once; ``forged`` says what is wrong with it, if anything.

    It must become the ``events`` of these ``unique_id``s. With a ``reason`` it must be parked as it came, too.
    """

    at: float
    name: str
    source: str
    body: bytes
    events: tuple[str, ...] = ()
    reason: str = ""
    copies: int = 1
    forged: str = ""
    again: int = 0


def webhooks(seed: int, seconds: float, now: float) -> list[Webhook]:
    """Return the traffic of ``seconds``; ``now`` (epoch seconds) is when the events happened."""
    chance = random.Random(f"webhooks {seed}")  # noqa: S311 (a schedule, no secret)
    traffic = Traffic(chance, seconds, int(now))
    plan = [*traffic.singles(), *traffic.batches(), *traffic.storms(), *traffic.oddities()]
    plan += [
        replace(webhook, at=webhook.at + chance.uniform(0.5, 8.0), again=1)
        for webhook in plan
        if not webhook.forged and chance.random() < 0.15
    ]
    return sorted(plan, key=lambda webhook: (webhook.at, webhook.name))


def custom(at: float, now: int, *names: str, unmappable: bool = False) -> Webhook:
    """Return a webhook of events with these ``unique_id``s, and on request with one more that names nobody."""
    events: list[dict[str, Any]] = [
        {
            "profile": {"email": f"{name}@letters.example"},
            "metric": f"Visited {len(name) % 3}",
            "unique_id": name,
            "time": now - place,
            "value": place / 4,
            "properties": {"Page": f"/{name}", "Words": ["straße", "日本"], "Depth": {"of": place}},
        }
        for place, name in enumerate(names)
    ]
    nobody = [{"profile": {}, "metric": "Visited", "unique_id": f"nobody-{names[0]}"}] if unmappable else []
    reason = UNMAPPABLE if unmappable else ""
    return Webhook(at, names[0], "custom", json.dumps(events + nobody).encode(), names, reason)


def _stripe(at: float, name: str, now: int, customer: dict[str, str]) -> Webhook:
    data = {"object": {"object": "customer"} | customer}
    document = {"id": f"evt_{name}", "type": "customer.created", "created": now, "data": data}
    events = (f"stripe:created-account:evt_{name}",) if "email" in customer else ()
    return Webhook(at, name, "stripe", json.dumps(document).encode(), events, "" if events else UNMAPPABLE)


@dataclass(frozen=True, slots=True)
class Traffic:
    """The kinds of webhooks; ``now`` is in epoch seconds."""

    chance: random.Random
    seconds: float
    now: int

    def _moments(self, first: float, least: float, most: float) -> Iterator[tuple[int, float]]:
        """Yield numbers from 1 and moments, ``least`` to ``most`` seconds apart."""
        at, number = first, 0
        while (at := at + self.chance.uniform(least, most)) < self.seconds:
            number += 1
            yield number, at

    def singles(self) -> Iterator[Webhook]:
        """Yield one event each."""
        for number, at in self._moments(0.0, 0.0, 2 / SINGLES):
            name = f"one-{number}"
            if self.chance.random() < 0.3:
                yield _stripe(at, name, self.now, {"id": f"cus_{name}", "email": f"{name}@letters.example"})
            else:
                yield custom(at, self.now, name)

    def batches(self) -> Iterator[Webhook]:
        """Yield up to 250 events, among them some that cannot be delivered."""
        for number, at in self._moments(1.0, 1.0, 4.0):
            names = [f"many-{number}-{index}" for index in range(self.chance.randint(20, 250))]
            for kind in (BAD, WORSE):
                if self.chance.random() < 0.25:
                    names.insert(self.chance.randrange(len(names)), f"{kind}-{number}")
            yield custom(at, self.now, *names, unmappable=self.chance.random() < 0.1)

    def storms(self) -> Iterator[Webhook]:
        """Yield the same webhook many times at once, then many webhooks, then forgeries."""
        for number, at in self._moments(2.0, 4.0, 10.0):
            copies = self.chance.randint(10, 50)
            yield replace(custom(at, self.now, f"storm-{number}"), copies=copies)
            for index in range(self.chance.randint(20, 60)):
                yield custom(at + 1, self.now, f"burst-{number}-{index}")
            for index in range(self.chance.randint(10, 40)):
                forged = self.chance.choice(("signature", "body", "stale", "unknown", "none"))
                yield replace(custom(at + 2, self.now, f"forged-{number}-{index}"), forged=forged)

    def oddities(self) -> Iterator[Webhook]:
        """Yield the poison, and webhooks that name nobody."""
        yield custom(self.chance.uniform(0, self.seconds / 3), self.now, POISON)
        for number, at in self._moments(0.0, 2.0, 6.0):
            yield _stripe(at, f"unmapped-{number}", self.now, {"name": "Nobody"})


class Record(Protocol):
    """The part of ``ledger.Ledger`` that the senders use."""

    def plan(self, webhook: Webhook) -> None:
        """Note a webhook that is going to be sent."""

    def answered(self, webhook: Webhook, status: int) -> None:
        """Note the status of one request."""


class Senders:
    """Sends webhooks at their time and again until there is an answer below 500, or ``finish`` gives up."""

    def __init__(self, stack: Stack, ledger: Record, seed: int) -> None:
        self._stack = stack
        self._ledger = ledger
        self._chance = random.Random(f"senders {seed}")  # noqa: S311 (pauses, no secret)
        self._due: queue.PriorityQueue[tuple[float, int, Webhook]] = queue.PriorityQueue()
        self._stopped = threading.Event()
        self._last = 0.0
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(SENDERS)]

    def start(self, plan: list[Webhook]) -> None:
        """Begin to send ``plan``; its times count from now."""
        began = time.monotonic()
        number = 0
        for webhook in plan:
            self._ledger.plan(webhook)
            for _ in range(webhook.copies):
                number += 1
                self._due.put((began + webhook.at, number, webhook))
                self._last = max(self._last, began + webhook.at)
        for thread in self._threads:
            thread.start()

    def finish(self, seconds: float) -> None:
        """Wait until everything is answered, or until nothing was for ``seconds`` after the last is due."""
        left, end = self._due.unfinished_tasks, max(time.monotonic(), self._last) + seconds
        while left and time.monotonic() < end:
            time.sleep(0.1)
            if self._due.unfinished_tasks < left:  # on a busy machine the senders are late themselves
                left, end = self._due.unfinished_tasks, max(time.monotonic(), self._last) + seconds
        self._stopped.set()
        for thread in self._threads:
            thread.join(40)

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                at, number, webhook = self._due.get(timeout=0.2)
            except queue.Empty:
                continue
            if (rest := at - time.monotonic()) > 0 and self._stopped.wait(rest):
                return
            if self.send(webhook) >= 500 and not webhook.forged:
                self._due.put((time.monotonic() + self._chance.uniform(0.5, 2.0), number, replace(webhook, again=1)))
            self._due.task_done()

    def send(self, webhook: Webhook) -> int:
        """Make one request now; return its status, 599 without an answer."""
        url, headers = self._signed(webhook)
        try:
            status, _ = self._stack.post(url, webhook.body + (b" " if webhook.forged == "body" else b""), headers)
        except (urllib3.exceptions.HTTPError, ValueError):
            status = 599
        self._ledger.answered(webhook, status)
        return status

    def _signed(self, webhook: Webhook) -> tuple[str, dict[str, str]]:
        """Return address and headers; a retry has other headers than the first attempt where those aren't signed."""
        headers = dict(JSON)
        if webhook.again:
            headers |= {"webhook-id": f"msg_{self._chance.random()}", "x-attempt": "2", "user-agent": "retry"}
        url = self._stack.url(webhook.source if webhook.forged != "unknown" else "nobody")
        if webhook.forged == "none":
            return url, headers
        secrets = self._stack.secrets["sources"]
        # A key in the right form that is not this source's.
        secret = secrets["standard_webhooks" if webhook.forged == "signature" else webhook.source][0]
        now = time.time() - (4_000 if webhook.forged == "stale" else 0)
        return sign.sign(webhook.source, secret, body=webhook.body, headers=headers, url=url, now=now)
