"""The last webhooks at the front door, as they came and as they were answered, in memory.

Bounded by number and by bytes; the oldest go first. URL tokens and the
credentials in headers are masked before anything is kept.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from handler.door import signatures
from handler.errors import SourceError, UnknownSource
from handler.events import senders
from handler.events.senders import Source

KEPT = 5_000
KEPT_BYTES = 64_000_000
MASKED = "masked"
_NOT_MASKED = frozenset({"topic", "event", "type"})
CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie"})
# What API Gateway says in place of the relay, in words that help.
_PLATFORM = {
    "Not Found": "the address is /webhooks/ and the name of a source, with nothing after it",
    "Request Entity Too Large": "receive never ran: Lambda takes 6 MB of JSON, 4.7 MB of a form or a compressed body",
    "Service Unavailable": "the relay did not answer: is make local still running?",
}


Receipt = tuple[int, float]


@dataclass(frozen=True, eq=False)
class Exchange:
    """One request to the webhook endpoint and its answer; ``at`` in epoch seconds, header names in lower case.

    ``mapping`` is the source as it stood then, ``None`` if there was none of that name; ``understood`` is
    ``story``'s own, so that a webhook is mapped once however often it is shown. ``came`` has, for each accepted
    event, number and time of every kept webhook that brought it.
    """

    number: int
    at: float
    method: str
    path: str
    source: str
    mapping: Source | None
    headers: Mapping[str, str]
    body: bytes
    status: int
    answer: bytes
    milliseconds: float
    understood: dict[Any, Any] = field(default_factory=dict)
    came: dict[str, list[Receipt]] = field(default_factory=dict)

    @cached_property
    def document(self) -> dict[str, Any]:
        """Return the answer as JSON; empty if it is not JSON."""
        try:
            parsed = json.loads(self.answer)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def outcome(self) -> str:
        """``accepted``, ``parked``, ``ignored``, ``handshake`` or ``refused``, as ``receive`` logs it."""
        if self.status >= 300:
            return "refused"
        if self.document.get("ignored"):
            return "ignored"
        if self.event_ids:
            return "accepted"
        return "parked" if self.document.get("parked") else "handshake"

    @property
    def event_ids(self) -> list[str]:
        """The names of the accepted events."""
        return list(self.document.get("event_ids", []))

    @property
    def reason(self) -> str:
        """The code with which receive refused or parked it."""
        parked = self.document.get("parked") or [{}]
        return str(self.document.get("error") or parked[0].get("reason", ""))

    @property
    def detail(self) -> str:
        """The sentence of receive that says why, or what the platform's answer means."""
        parked = self.document.get("parked") or [{}]
        said = self.document.get("detail") or parked[0].get("detail") or self.document.get("ignored")
        return str(said or _PLATFORM.get(str(self.document.get("message")), ""))

    def receipts(self, event_id: str) -> list[Receipt]:
        """Return every kept webhook that brought the event, this one among them, oldest first."""
        own = (self.number, self.at)
        numbers = self.came.get(event_id, [])
        return numbers if own in numbers else [own]  # a page may hold one that was just let go

    @property
    def size(self) -> int:
        """The approximate size in memory, in bytes."""
        return len(self.body) + len(self.answer) + sum(len(name) + len(value) for name, value in self.headers.items())


class Exchanges:
    """The exchanges, safe to share between threads."""

    def __init__(self, most: int = KEPT, most_bytes: int = KEPT_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: deque[Exchange] = deque()
        self._bytes = 0
        self._came: dict[str, list[Receipt]] = {}
        self.again: dict[int, int] = {}  # a webhook that the console sent, and the one that it repeats
        self._lock = threading.Lock()
        self.total = 0

    def add(
        self,
        *,
        at: float,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        status: int,
        answer: bytes,
        milliseconds: float,
    ) -> Exchange:
        """Keep one exchange; ``target`` is the path with its query."""
        source = urlsplit(target).path.removeprefix("/webhooks/").strip("/")
        mapping = _mapping(source)
        came: dict[str, list[Receipt]] = {}
        with self._lock:
            self.total += 1
            exchange = Exchange(
                number=self.total,
                at=at,
                method=method,
                path=masked(target),
                source=source[:100],
                mapping=mapping,
                headers=_masked_headers(headers, mapping),
                body=body,
                status=status,
                answer=answer,
                milliseconds=milliseconds,
                came=came,
            )
            for event_id in exchange.event_ids:
                came[event_id] = self._came.setdefault(event_id, [])
                came[event_id].append((exchange.number, at))
                came[event_id].sort(key=lambda receipt: receipt[1])
            self._kept.append(exchange)
            self._bytes += exchange.size
            while len(self._kept) > self._most or (self._bytes > self._most_bytes and len(self._kept) > 1):
                self._forget(self._kept.popleft())
        return exchange

    def _forget(self, exchange: Exchange) -> None:
        self._bytes -= exchange.size
        self.again.pop(exchange.number, None)
        for event_id, receipts in exchange.came.items():
            receipts.remove((exchange.number, exchange.at))
            if not receipts:
                del self._came[event_id]

    def find(self, number: int) -> Exchange | None:
        """Return the exchange of that number, if it is still kept."""
        with self._lock:
            place = number - (self._kept[0].number if self._kept else 1)
            return self._kept[place] if 0 <= place < len(self._kept) else None

    def newest_first(self) -> Iterator[Exchange]:
        """Return every kept exchange, the newest first by arrival; numbers are given when it was answered."""
        with self._lock:
            kept = list(self._kept)
        return iter(sorted(kept, key=lambda exchange: (exchange.at, exchange.number), reverse=True))

    def __len__(self) -> int:
        return len(self._kept)


def masked(target: str) -> str:
    """Return a path whose query shows names only: senders that sign nothing have their token there."""
    parts = urlsplit(target)
    if not parts.query:
        return parts.path
    pairs = [
        (name, value if name in _NOT_MASKED else MASKED)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return f"{parts.path}?{urlencode(pairs)}"


def _masked_headers(headers: Mapping[str, str], mapping: Source | None) -> dict[str, str]:
    """Return headers with names in lower case.

    Credentials, and headers in which this sender has its token, are without their values.
    """
    hidden = set(CREDENTIALS)
    for scheme in mapping.schemes if mapping else ():
        if scheme.scheme == signatures.TOKEN:
            hidden.update(scheme.header)
    return {name.lower(): _hidden(value) if name.lower() in hidden else value for name, value in headers.items()}


def _hidden(value: str) -> str:
    kind, space, _ = value.partition(" ")
    return f"{kind} {MASKED}" if space else MASKED


def _mapping(name: str) -> Source | None:
    try:
        return senders.load(name)
    except (UnknownSource, SourceError):
        return None
