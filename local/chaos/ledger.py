"""What was sent, what it must become, and what became of it.

What it must become is known from the traffic (which events) and from the mapping
library in this process (their contents), never from the relay's answers.
"""

from __future__ import annotations

import json
import re
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from handler import messages
from handler.errors import MessageError
from handler.events import mapping, senders
from handler.events.webhook import Webhook as Posted
from handler.messages import Raw

from .schedule import POISON, REFUSED, plant
from .traffic import Webhook


class Ledger:
    """The senders' own record: the authentic webhooks by name, and which of them were accepted or refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.sent: dict[str, Webhook] = {}
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self.let_in: set[str] = set()
        self.attempts = 0
        self.forgeries = 0
        self.statuses: Counter[int] = Counter()

    def plan(self, webhook: Webhook) -> None:
        """Note a webhook that is going to be sent."""
        if not webhook.forged:
            self.sent[webhook.name] = webhook

    def answered(self, webhook: Webhook, status: int) -> None:
        """Note the status of one request."""
        with self._lock:
            if webhook.forged:
                self.forgeries += 1
                if status < 400:
                    self.let_in.add(webhook.name)
                return
            self.attempts += 1
            self.statuses[status] += 1
            if status < 400:
                self.accepted.add(webhook.name)
            elif status < 500:
                self.refused.add(webhook.name)

    @property
    def unaccepted(self) -> set[str]:
        """Names of the webhooks that were sent, and never accepted: their senders know that."""
        return self.sent.keys() - self.accepted


@dataclass(frozen=True, slots=True)
class Parked:
    """One message of the dead-letter queue: its events by ``unique_id``, or what else is in it."""

    reason: str
    entries: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None


def parked(body: str, reason: str) -> Parked:
    """Read a message of the dead-letter queue; one that cannot be read is returned as it is."""
    try:
        message = messages.decode(body)
    except MessageError:
        return Parked(reason, raw=body.encode())
    if isinstance(message, Raw):
        return Parked(reason, raw=message.body)
    return Parked(reason, {event.unique_id: event.entry for event in message.events})


def counted(letters: Iterable[Parked]) -> Counter[str]:
    """Count parked events by their reason; a raw webhook counts as one."""
    counts: Counter[str] = Counter()
    for letter in letters:
        counts[letter.reason or "none"] += max(1, len(letter.entries))
    return counts


def crowded(at: Sequence[float], length: float, allowed: int) -> tuple[int, int]:
    """Return the most arrivals within ``length`` seconds, and how many came over ``allowed``."""
    ordered = sorted(at)
    counts = [place + 1 - bisect_left(ordered, moment - length + 1e-9) for place, moment in enumerate(ordered)]
    return max(counts, default=0), sum(count > allowed for count in counts)


@dataclass
class Account:
    """How what became of the webhooks differs from what they must become; the collections name what is wrong.

    ``innocent`` were parked though Klaviyo refused none of them on its own account, ``misnamed`` for another reason
    than was planted; both have the reason. ``different`` do not have the contents that mapping makes of the webhook,
    ``strangers`` belong to no authentic webhook. ``unread`` counts stored events without their contents, of which the
    stand-in keeps 64 MB.
    """

    ledger: Ledger
    lost: set[str] = field(default_factory=set)
    innocent: dict[str, str] = field(default_factory=dict)
    misnamed: dict[str, str] = field(default_factory=dict)
    different: set[str] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)
    accepted: int = 0
    delivered: int = 0
    unread: int = 0

    @cached_property
    def entries(self) -> dict[str, str]:
        """The entry of each event by its ``unique_id``, as mapping makes it of the webhook."""
        entries: dict[str, str] = {}
        for webhook in self.ledger.sent.values():
            outcome = mapping.understand(
                senders.load(webhook.source),
                Posted.posted({}, webhook.body),
                received=time.time(),
                defaults=mapping.Defaults(),
            )
            entries |= {event.unique_id: event.entry for event in outcome.events}
        return entries

    @cached_property
    def _by_body(self) -> dict[bytes, Webhook]:
        return {webhook.body: webhook for webhook in self.ledger.sent.values()}

    def judge(self, letters: Iterable[Parked], refused_rows: Sequence[str]) -> None:
        """Ask of each parked event whether it had to be; ``refused_rows`` are patterns of what Klaviyo refused."""
        for letter in letters:
            for name, entry in letter.entries.items():
                self._compare(name, entry)
                excused = letter.reason == REFUSED and any(re.search(rows, entry) for rows in refused_rows)
                self._judge(letter.reason, plant(name), {name}, excused=excused)
            if letter.raw is None:
                continue
            webhook = self._by_body.get(letter.raw)
            if webhook is None:
                self.strangers.add(letter.raw[:100].decode(errors="replace"))
            else:
                self._judge(letter.reason, webhook.reason, {*webhook.events} or {webhook.name})

    def _judge(self, reason: str, planted: str, names: set[str], *, excused: bool = False) -> None:
        if reason != planted and not excused:
            (self.misnamed if planted else self.innocent).update(dict.fromkeys(names, reason))

    def _compare(self, name: str, entry: Any) -> None:
        if name not in self.entries:
            self.strangers.add(name)
        elif entry != (self.entries[name] if isinstance(entry, str) else json.loads(self.entries[name])):
            self.different.add(name)

    def close(self, stored: Iterable[Mapping[str, Any]], letters: Iterable[Parked], *, sought: bool = False) -> None:
        """Find what is neither ``stored`` nor parked; ``sought``: the poison may still be in the queue."""
        there: set[str] = set()
        for event in stored:
            there.add(event["unique_id"])
            self.unread += "entry" not in event
            self._compare(event["unique_id"], event.get("entry", self.entries.get(event["unique_id"])))
        kept: set[str] = set()
        bodies: set[bytes] = set()
        for letter in letters:
            kept |= letter.entries.keys()
            bodies |= {letter.raw} if letter.raw is not None else set()
        for name in self.ledger.accepted:
            webhook = self.ledger.sent[name]
            self.accepted += len(webhook.events)
            self.delivered += len(there.intersection(webhook.events))
            if webhook.reason and webhook.body not in bodies:
                self.lost.add(name)
            if webhook.reason or webhook.body not in bodies:
                missing = {event for event in webhook.events if event not in there and event not in kept}
                self.lost |= missing - ({POISON} if sought else set())
