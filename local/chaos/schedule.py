"""What fails and when: the same seed gives the same schedule."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

HTML = "<html>Bad gateway</html>"
NO_ROW = {"errors": [{"id": "1", "code": "invalid", "title": "Invalid input.", "detail": "No."}]}
POISON = "poison"  # a message with an event of such a name kills the function that handles it
READ_SECONDS = 2.0  # how long the relay waits for Klaviyo's answer here
STORM, CALM = 30.0, 60.0

# Klaviyo's answers: fields of the stand-in's ``Fault``.
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
    "400 now and then": {"status": 400, "body": NO_ROW, "chance": 0.3},
    "400 and garbage": {"status": 400, "body": "{]", "chance": 0.3},
    "400 pointing at good rows": {"point": True, "matching": "[37]@", "chance": 0.5},
    "404 for everything": {"status": 404, "body": NO_ROW},
    "409": {"status": 409, "body": NO_ROW, "chance": 0.3},
    "410 for everything": {"status": 410, "body": NO_ROW},
    "413": {"status": 413, "chance": 0.3},
    "time-out, not stored": {"delay": READ_SECONDS + 0.5, "drop": True, "chance": 0.6},
    "time-out, stored": {"delay": READ_SECONDS + 0.5, "drop": True, "store": True, "chance": 0.6},
    "reset, not stored": {"drop": True, "chance": 0.6},
    "reset, stored": {"drop": True, "store": True, "chance": 0.6},
    "202 cut off, stored": {"status": 202, "body": "stored and said so at length", "cut": True, "store": True},
    "answers in 1.5 s": {"delay": 1.5},
}


@dataclass(frozen=True, slots=True)
class Rule:
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
AWS: dict[str, Rule] = {
    "queue refuses": Rule(_SEND, "refuse"),
    "queue lists Failed": Rule(_SEND, "failed"),
    "queue slow": Rule(_SEND, "slow", seconds=1.5),
    "queue takes and does not answer": Rule(_SEND, "unheard"),
    "queue drops connections": Rule(_SEND, "dropped"),
    "deletes refused": Rule(_DELETE, "refuse"),
    "deletes listed Failed": Rule(_DELETE, "failed"),
    "deletes unanswered": Rule(_DELETE, "unheard"),
    "receives refused": Rule(("ReceiveMessage",), "refuse"),
    "table throttled": Rule(_TABLE, "refuse", status=400, code="ProvisionedThroughputExceededException"),
    "table slow": Rule(_TABLE, "slow", seconds=0.7),
    "table too slow": Rule(_TABLE, "slow", chance=0.3, seconds=1.5),
    "table away": Rule(_TABLE, "dropped", chance=1.0),
    "table takes and does not answer": Rule(_TABLE, "unheard", chance=0.3),
    "secrets unreadable": Rule(("GetSecretValue",), "refuse", chance=1.0, status=500, code="InternalServiceError"),
    "handed over twice at once": Rule(_INVOKE, "twice"),
    "handed over again later": Rule(_INVOKE, "later", seconds=4.0),
    "out of order": Rule(_INVOKE, "shuffle", chance=1.0),
    "answer of deliver lost": Rule(_INVOKE, "unheard", chance=0.3),
}
# Steps of the functions at which they may be killed; see ``killed_deliver`` and ``killed_receive``.
STEPS = {
    "deliver": ("received", "reserving", "reserved", "posting", "posted", "sending", "sent", "deleted", "answering"),
    "receive": ("received", "queueing", "queued", "answering"),
}
KILLED = {
    f"{function} killed at {step}": Rule((f"{function} {step}",), "kill", chance=0.25)
    for function, steps in STEPS.items()
    for step in steps
}
HANGS = {
    f"deliver hangs at {step}": Rule((f"deliver {step}",), "slow", chance=0.15, seconds=60.0)
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
    fault: Mapping[str, Any] | Rule | str | None = field(compare=False, default=None)


def episodes(seed: int, seconds: float) -> list[Episode]:
    """The schedule: three lanes, one for Klaviyo, one for AWS, one for what kills, each in an order of its own.

    Faults come in storms of ``STORM`` seconds, with ``CALM`` seconds between them: in a storm functions are killed
    half of the time, and what a relay is to show is that it recovers, not that it keeps up meanwhile.
    """
    chance = random.Random(f"episodes {seed}")  # noqa: S311 (a schedule, no secret)
    lanes: list[list[tuple[str, str, Mapping[str, Any] | Rule | str]]] = [
        [("klaviyo", name, fault) for name, fault in KLAVIYO.items()]
        + [("other", "key revoked and replaced", REPLACE_KEY)],
        [("aws", name, rule) for name, rule in AWS.items()],
        [("aws", name, rule) for name, rule in (KILLED | HANGS).items()]
        + [("other", "trigger restarted", RESTART_TRIGGER)],
    ]
    found = [episode for lane in lanes for episode in _lane(lane, seconds, chance)]
    return sorted(found, key=lambda one: (one.start, one.name))


def _lane(
    kinds: list[tuple[str, str, Mapping[str, Any] | Rule | str]], seconds: float, chance: random.Random
) -> Iterator[Episode]:
    now = chance.uniform(1.0, 3.0)
    while True:
        for side, name, fault in chance.sample(kinds, len(kinds)):
            length = chance.uniform(1.5, 4.5)
            if now % (STORM + CALM) + length > STORM:
                now += STORM + CALM - now % (STORM + CALM)
            end = now + length
            if end > seconds:
                return
            yield Episode(round(now, 3), round(end, 3), side, name, fault)
            now = end + chance.uniform(0.2, 1.5)
