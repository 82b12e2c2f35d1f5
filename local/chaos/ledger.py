"""What was sent, what the door said, and what became of it."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from handler import messages
from handler.errors import MessageError
from handler.messages import Raw
from handler.telemetry import event_id


class Ledger:
    """The senders' own record. Names of events are those that the door answers with."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.events: set[str] = set()
        self.parked: set[str] = set()  # names of webhooks
        self.webhooks: set[str] = set()
        self.forged: set[str] = set()
        self.let_in: set[str] = set()
        self.refused: set[str] = set()
        self.attempts = 0
        self.forgeries = 0
        self.statuses: Counter[int] = Counter()

    def answered(self, name: str, forged: str, status: int, answer: Mapping[str, Any]) -> None:
        """Note the door's answer to one request."""
        with self._lock:
            if forged:
                self.forgeries += 1
                self.forged.add(name)
                if status < 400:
                    self.let_in.add(name)
                return
            self.attempts += 1
            self.statuses[status] += 1
            self.webhooks.add(name)
            if status >= 400:
                if status < 500:
                    self.refused.add(name)
                return
            self.events.update(answer.get("event_ids", []))
            if answer.get("parked"):
                self.parked.add(name)


@dataclass(frozen=True, slots=True)
class Lying:
    """One message of the dead-letter queue: why, and the events or the raw webhook in it."""

    reason: str
    events: tuple[str, ...]
    raw: bytes = b""


def lying(parked: Iterable[Mapping[str, str]]) -> list[Lying]:
    """Read what ``Stack.parked`` returns."""
    return [_lying(one) for one in parked]


def _lying(one: Mapping[str, str]) -> Lying:
    reason = one.get("reason", "")
    try:
        message = messages.decode(one["body"])
    except MessageError:
        return Lying(reason, ())
    if isinstance(message, Raw):
        return Lying(reason, (), message.body)
    return Lying(reason, tuple(event_id(event.unique_id, private=message.private_ids) for event in message.events))


def crowded(at: Sequence[float], length: float, allowed: int) -> tuple[int, int]:
    """The most arrivals within ``length`` seconds, wherever they begin, and how many came over ``allowed``."""
    ordered = sorted(at)
    counts = [place + 1 - bisect_left(ordered, moment - length + 1e-9) for place, moment in enumerate(ordered)]
    return max(counts, default=0), sum(count > allowed for count in counts)


@dataclass(frozen=True, slots=True)
class Account:
    """The end of it. ``innocent`` names what is in the dead-letter queue though nothing is wrong with it."""

    lost: set[str]
    duplicated: set[str]
    delivered: int
    reasons: Counter[str]
    without_reason: int
    innocent: set[str] = field(default_factory=set)
    unauthentic: set[str] = field(default_factory=set)


def account(ledger: Ledger, stored: Sequence[str], dead: Sequence[Lying], guilty: Sequence[str]) -> Account:
    """Compare: ``stored`` are the unique_ids at Klaviyo, ``guilty`` are marks in names of what may be parked."""
    by_name = {event_id(name, private=private): name for name in stored for private in (False, True)}
    there = {name for one in dead for name in one.events}
    raws = b"\n".join(one.raw for one in dead)
    lost = {name for name in ledger.events if name not in by_name and name not in there}
    lost |= {name for name in ledger.parked if f'{name}"'.encode() not in raws}
    allowed = {event_id(mark, private=True) for mark in guilty}
    return Account(
        lost=lost,
        duplicated={name for name, count in Counter(stored).items() if count > 1},
        delivered=len(ledger.events & set(by_name)),
        reasons=counted(dead),
        without_reason=sum(not one.reason for one in dead),
        innocent={name for name in there if name not in allowed},
        unauthentic=_unauthentic(ledger, set(stored), there, raws),
    )


def _unauthentic(ledger: Ledger, stored: set[str], there: set[str], raws: bytes) -> set[str]:
    return {
        name
        for name in ledger.forged
        if name in stored or event_id(name, private=True) in there or f'{name}"'.encode() in raws
    }


def counted(dead: Iterable[Lying]) -> Counter[str]:
    """Events by the reason beside them; a raw webhook counts one."""
    counts: Counter[str] = Counter()
    for one in dead:
        counts[one.reason or "none"] += max(1, len(one.events))
    return counts
