"""A Klaviyo, a table and a clock in memory, for the tests of the delivery."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from handler import report
from handler.delivery.function import Deliver
from handler.dispatch import Dispatcher, Key, Poster
from handler.klaviyo import Answer, sort_answer
from handler.messages import Event
from handler.pacing import Item, Pacer, Value, interval
from handler.pauses import PAUSES
from handler.settings import for_deliver
from handler.telemetry import metrics

# What the template gives deliver.
ENVIRONMENT = {
    "EVENTS_QUEUE_URL": "events",
    "DEAD_LETTER_QUEUE_URL": "dead-letters",
    "REQUESTS_PER_MINUTE": "150",
    "PHONE_REGION": "",
    "TIME_ZONE": "UTC",
    "KLAVIYO_SECRET": "klaviyo",
    "KLAVIYO_URL": "http://127.0.0.1:9",
    "KLAVIYO_REVISION": "2026-10-15",
    "PACING_TABLE": "pacing",
    "PACING_ACCOUNT": "default",
    "ARRIVAL_SPREAD": "0.4",
    "LATE_AFTER_HOURS": "24",
}
POINTER = "/data/attributes/events-bulk-create/data/{}/attributes/profile"


class Clock:
    """Time that passes only in ``sleep`` and in answers."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


class Table:
    """The pacing item in memory; ``fails`` raises instead."""

    def __init__(self) -> None:
        self.item: dict[str, int | str] = {}
        self.fails: Exception | None = None

    def read(self) -> Item:
        self._check()
        return dict(self.item)

    def advance(self, *, first: int, last: int, step: int, learned_at: int | None) -> tuple[bool, Item]:
        self._check()
        before = dict(self.item)
        at = before.get("next")
        free = "closed_until" not in before and before.get("learned_at") == learned_at
        if not (free and isinstance(at, int) and first <= at <= last):
            return False, before
        self.item["next"] = at + step
        return True, before

    def swap(self, expected: Mapping[str, Value], changed: Mapping[str, Value]) -> tuple[bool, Item]:
        self._check()
        before = dict(self.item)
        if any(before.get(name) != value for name, value in expected.items()):
            return False, before
        self.item |= {name: value for name, value in changed.items() if value is not None}
        for name, value in changed.items():
            if value is None:
                self.item.pop(name, None)
        return True, before

    def _check(self) -> None:
        if self.fails:
            raise self.fails


def entry(name: str, **properties: Any) -> str:
    return json.dumps(
        {
            "type": "event-bulk-create",
            "attributes": {
                "profile": {"data": {"type": "profile", "attributes": {"email": f"{name}@mail.example"}}},
                "events": {
                    "data": [
                        {
                            "type": "event",
                            "attributes": {
                                "metric": {"data": {"type": "metric", "attributes": {"name": "Placed Order"}}},
                                "properties": properties,
                                "unique_id": name,
                            },
                        }
                    ]
                },
            },
        }
    )


def event(name: str, time: int = 1_790_000_000) -> Event:
    return Event(name, time, entry(name))


@dataclass
class Klaviyo:
    """Takes jobs; refuses those with bad rows, with pointers or without, or answers what it is told."""

    clock: Clock
    bad: set[str] = field(default_factory=set)
    pointers: bool = True
    told: Callable[[list[str]], Answer | None] = lambda names: None
    requests: list[tuple[float, list[str], str]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    seconds: float = 0.2
    rows: list[dict[str, Any]] = field(default_factory=list)  # of the request that is being answered

    def open(self) -> Answer | None:
        return None

    def post(self, body: bytes, key: str) -> Answer:
        document = json.loads(body)
        rows = self.rows = document["data"]["attributes"]["events-bulk-create"]["data"]
        names = [row["attributes"]["events"]["data"][0]["attributes"]["unique_id"] for row in rows]
        self.requests.append((self.clock(), names, key))
        self.clock.sleep(self.seconds)
        if (answer := self.told(names)) is not None:
            return answer
        wrong = [index for index, name in enumerate(names) if name in self.bad]
        if not wrong:
            self.stored += names
            return self.answer(202)
        source: list[dict[str, Any]] = [{"source": {"pointer": POINTER.format(index)}} for index in wrong]
        listed = [
            {"title": "Invalid input.", "detail": f"{names[wrong[0]]}@mail.example is bad"} | one for one in source
        ]
        return self.answer(400, listed if self.pointers else [{"title": "Invalid input.", "detail": "No."}])

    def answer(self, status: int, errors: list[dict[str, Any]] | None = None, **headers: str) -> Answer:
        body = json.dumps({"errors": errors}).encode() if errors is not None else b""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return sort_answer(status, named, body, now=self.clock())


class Known(Key):
    """The key ``pk_one``, which nobody replaces."""

    def __init__(self, key: str = "pk_one") -> None:
        self.key = key

    def current(self) -> str:
        return self.key

    def renewed(self, old: str) -> bool:
        return False


def pacer(table: Table, clock: Clock) -> Pacer:
    return Pacer(table, spacing=interval(150, 0.4), clock=clock, sleep=clock.sleep, pauses=PAUSES)


def deliver(
    *, sqs: Any, table: Table, poster: Poster, clock: Clock, key: Key | None = None
) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """The function as ``deliver.py`` builds it, with all that is outside in memory."""
    dispatcher = Dispatcher(
        pacer=pacer(table, clock),
        poster=poster,
        key=key or Known(),
        clock=clock,
        sleep=clock.sleep,
        random=random.random,
        record=report.posted,
        pauses=PAUSES,
    )
    found: Callable[[dict[str, Any], Any], dict[str, Any]] = metrics.log_metrics(
        Deliver(
            settings=for_deliver(ENVIRONMENT),
            sqs=sqs,
            dispatcher=dispatcher,
            pauses=PAUSES,
            clock=clock,
            random=random.random,
        )
    )
    return found
