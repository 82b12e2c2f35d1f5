"""What fails and when: the same seed gives the same schedule."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

HTML = "<html>Bad gateway</html>"
NO_ROW: dict[str, Any] = {"errors": [{"id": "1", "code": "invalid", "title": "Invalid input.", "detail": "No."}]}
PAST_THE_END = {
    "errors": [{**NO_ROW["errors"][0], "source": {"pointer": "/data/attributes/events-bulk-create/data/99999"}}]
}
# Plants: the names of events that must end in the dead-letter queue begin so.
POISON = "poison"  # kills the function that posts it
BAD = "bad"  # Klaviyo refuses such rows for good, and points at them
WORSE = "worse"  # ... without pointing at them
REFUSED = "refused_by_klaviyo"
_REASONS = {POISON: "crashed", BAD: REFUSED, WORSE: REFUSED}
READ_SECONDS = 2.0  # how long the relay waits for Klaviyo's answer here
STORM, CALM = 30.0, 60.0

# Klaviyo's answers: fields of the stand-in's ``Fault``. A refusal meets either everything, which proves nothing against
# an event, or the rows that ``matching`` finds, which are then refused on their own account.
FOR_GOOD: list[dict[str, Any]] = [
    {"point": True, "matching": f'"{BAD}-', "detail": "Invalid input for this row."},
    {"status": 400, "body": NO_ROW, "matching": f'"{WORSE}-'},
]
KLAVIYO: dict[str, dict[str, Any]] = {
    "429": {"status": 429, "headers": {"Retry-After": "2"}, "chance": 0.5},
    "429 without Retry-After": {"status": 429, "chance": 0.5},
    "429 with Retry-After 0": {"status": 429, "headers": {"Retry-After": "0"}, "chance": 0.5},
    "500 and garbage": {"status": 500, "body": "\0\1{", "chance": 0.5},
    "502": {"status": 502, "body": HTML},
    "503 now and then": {"status": 503, "body": HTML, "chance": 0.4},
    "524, stored": {"status": 524, "body": HTML, "store": True, "chance": 0.6},
    "403 challenge": {"status": 403, "body": HTML, "chance": 0.7},
    "400 for everything": {"status": 400, "body": NO_ROW},
    "400 for some rows": {"status": 400, "body": NO_ROW, "matching": "[37]3@"},
    "400 and garbage": {"status": 400, "body": "{]"},
    "400 pointing at some rows": {"point": True, "matching": "[37]7@", "chance": 0.5},
    "400 pointing past the end": {"status": 400, "body": PAST_THE_END},
    "404 for everything": {"status": 404, "body": NO_ROW},
    "409 for some rows": {"status": 409, "body": NO_ROW, "matching": "[37]5@"},
    "410 for everything": {"status": 410, "body": NO_ROW},
    "413 for everything": {"status": 413},
    "time-out, not stored": {"delay": READ_SECONDS + 0.5, "drop": True, "chance": 0.6},
    "time-out, stored": {"delay": READ_SECONDS + 0.5, "drop": True, "store": True, "chance": 0.6},
    "reset, not stored": {"drop": True, "chance": 0.6},
    "reset, stored": {"drop": True, "store": True, "chance": 0.6},
    "202 cut off, stored": {"status": 202, "body": "stored and said so at length", "cut": True, "store": True},
    "answers in 1.5 s": {"delay": 1.5},
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault between the functions and AWS.

    ``does``: ``refuse`` (with ``status`` and ``code``), ``slow`` (``seconds``),
    ``unheard`` (done, but the answer is lost), ``dropped`` (not done, no
    answer), ``failed`` (some entries of a batch are listed as such), ``twice``,
    ``later`` (once more after ``seconds``), ``shuffle``, ``kill``.
    """

    calls: tuple[str, ...]
    does: str
    chance: float = 0.5
    status: int = 503
    code: str = "ServiceUnavailable"
    seconds: float = 0.0


_SEND, _DELETE = ("SendMessageBatch",), ("DeleteMessageBatch",)
_TABLE = ("UpdateItem", "GetItem")
_INVOKE = ("Invoke deliver",)
AWS: dict[str, Fault] = {
    "queue refuses": Fault(_SEND, "refuse"),
    "queue lists Failed": Fault(_SEND, "failed"),
    "queue slow": Fault(_SEND, "slow", seconds=1.5),
    "queue takes and does not answer": Fault(_SEND, "unheard"),
    "queue drops connections": Fault(_SEND, "dropped"),
    "deletes refused": Fault(_DELETE, "refuse"),
    "deletes listed Failed": Fault(_DELETE, "failed"),
    "deletes unanswered": Fault(_DELETE, "unheard"),
    "receives refused": Fault(("ReceiveMessage",), "refuse"),
    "table throttled": Fault(_TABLE, "refuse", status=400, code="ProvisionedThroughputExceededException"),
    "table slow": Fault(_TABLE, "slow", seconds=0.7),
    "table too slow": Fault(_TABLE, "slow", chance=0.3, seconds=1.5),
    "table away": Fault(_TABLE, "dropped", chance=1.0),
    "table takes and does not answer": Fault(_TABLE, "unheard", chance=0.3),
    "secrets unreadable": Fault(("GetSecretValue",), "refuse", chance=1.0, status=500, code="InternalServiceError"),
    "handed over twice at once": Fault(_INVOKE, "twice"),
    "handed over again later": Fault(_INVOKE, "later", seconds=4.0),
    "out of order": Fault(_INVOKE, "shuffle", chance=1.0),
    "answer of deliver lost": Fault(_INVOKE, "unheard", chance=0.3),
}
# Steps of the functions at which they may be killed; see ``killed_deliver`` and ``killed_receive``.
STEPS = {
    "deliver": ("received", "reserving", "reserved", "posting", "posted", "sending", "sent", "deleted", "answering"),
    "receive": ("received", "queueing", "queued", "answering"),
}
KILLED = {
    f"{function} killed at {step}": Fault((f"{function} {step}",), "kill", chance=0.25)
    for function, steps in STEPS.items()
    for step in steps
}
HANGS = {
    f"deliver hangs at {step}": Fault((f"deliver {step}",), "slow", chance=0.15, seconds=60.0)
    for step in ("reserved", "posted")
}
REPLACE_KEY, RESTART_TRIGGER = "replace_key", "restart_trigger"


@dataclass(frozen=True, slots=True)
class Episode:
    """Between ``start`` and ``end`` (seconds) something fails; ``fault`` is the stand-in's, the proxy's or a code."""

    start: float
    end: float
    side: str
    name: str
    fault: Mapping[str, Any] | Fault | str | None = field(compare=False, default=None)


def plant(unique_id: str) -> str:
    """Return the reason for which an event of that name must be parked; empty if it must be delivered."""
    return _REASONS.get(unique_id.partition("-")[0], "")


def refused_rows(faults: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return patterns of the rows that Klaviyo refuses on their own account under these faults of its own."""
    return [fault["matching"] for fault in faults if "matching" in fault]


def episodes(seed: int, seconds: float, calm: float = CALM) -> list[Episode]:
    """Return the schedule: three lanes, for Klaviyo, for AWS, for what kills, each in an order of its own.

    Faults come in storms of ``STORM`` seconds, with ``calm`` seconds between them: in a storm functions are killed
    half of the time. With a ``calm`` of 0 faults never rest.
    """
    chance = random.Random(f"episodes {seed}")  # noqa: S311 (a schedule, no secret)
    lanes: list[list[tuple[str, str, Mapping[str, Any] | Fault | str]]] = [
        [("klaviyo", name, fault) for name, fault in KLAVIYO.items()]
        + [("other", "key revoked and replaced", REPLACE_KEY)],
        [("aws", name, fault) for name, fault in AWS.items()],
        [("aws", name, fault) for name, fault in (KILLED | HANGS).items()]
        + [("other", "trigger restarted", RESTART_TRIGGER)],
    ]
    schedule = [episode for lane in lanes for episode in _lane(lane, seconds, calm, chance)]
    return sorted(schedule, key=lambda episode: (episode.start, episode.name))


def _lane(
    kinds: list[tuple[str, str, Mapping[str, Any] | Fault | str]], seconds: float, calm: float, chance: random.Random
) -> Iterator[Episode]:
    now = chance.uniform(1.0, 3.0)
    while True:
        for side, name, fault in chance.sample(kinds, len(kinds)):
            length = chance.uniform(1.5, 4.5)
            if calm and now % (STORM + calm) + length > STORM:
                now += STORM + calm - now % (STORM + calm)
            end = now + length
            if end > seconds:
                return
            yield Episode(round(now, 3), round(end, 3), side, name, fault)
            now = end + chance.uniform(0.2, 1.5)
