"""A webhook, by sender: CPU from the API Gateway event to the SendMessageBatch call, compared with the floor.

The floor is what no relay can do without: parse the body and compute one HMAC.
"""

from __future__ import annotations

import gc
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.events import senders

from . import door
from .measure import Timing, once, table, timing

HEAD = ("sender", "sample", "bytes", "floor us", "to the call us", "x floor", "p99 us", "whole us")


@dataclass(frozen=True, slots=True)
class Figures:
    """One sender's CPU times; ``whole`` adds botocore, the log line, the metrics and the answer."""

    sample: Path
    size: int
    floor: Timing
    call: Timing
    whole: Timing
    logged: int

    @property
    def ratio(self) -> float:
        """The call's median over the floor's."""
        return self.call.median / self.floor.median


def measure(relay: door.Door, path: Path, *, seconds: float) -> Figures:
    """Time one sample until ``seconds`` of CPU have gone by; the first requests (loading) don't count."""
    body, event = door.load(path)
    key = door.SECRETS[path.parent.name][0].encode()
    floor: list[float] = []
    call: list[float] = []
    whole: list[float] = []
    for _ in range(20):
        if relay.handler(event, None)["statusCode"] not in (200, 204):
            raise RuntimeError(f"{path.parent.name}/{path.name} is not accepted")
    gc.collect()
    gc.freeze()
    end = time.process_time() + seconds
    while time.process_time() < end:
        floor.append(once(lambda: _floor(body, key)))
        begun = time.process_time_ns()
        relay.handler(event, None)
        whole.append((time.process_time_ns() - begun) / 1e9)
        call.append((relay.called_at - begun) / 1e9)
    gc.unfreeze()
    logged = door.logged_bytes(lambda: relay.handler(event, None))
    return Figures(path, len(body), timing(floor), timing(call), timing(whole), logged)


def _floor(body: bytes, key: bytes) -> None:
    try:
        json.loads(body)
    except ValueError:  # a form: decoding it is the least that one can do
        body.decode()
    hmac.new(key, body, hashlib.sha256).hexdigest()


def run(seconds: float = 1.5) -> dict[str, Any]:
    """Time every sender that has a sample; print the table and return the figures."""
    relay = door.Door()
    paths = [path for name in senders.names() if (path := door.sample(name))]
    with door.silenced():
        measured = [measure(relay, path, seconds=seconds) for path in paths]
    print(table("A webhook: CPU of receive, by sender", HEAD, [_row(figures) for figures in measured]))
    return {figures.sample.parent.name: _document(figures) for figures in measured}


def _row(figures: Figures) -> tuple[object, ...]:
    times = (figures.floor.median, figures.call.median)
    return (
        figures.sample.parent.name,
        figures.sample.stem,
        figures.size,
        *(f"{seconds * 1e6:.0f}" for seconds in times),
        f"{figures.ratio:.1f}",
        f"{figures.call.p99 * 1e6:.0f}",
        f"{figures.whole.median * 1e6:.0f}",
    )


def _document(figures: Figures) -> dict[str, Any]:
    return {
        "sample": figures.sample.stem,
        "bytes": figures.size,
        "log_bytes": figures.logged,
        "over_floor": round(figures.ratio, 2),
        "floor": figures.floor.document(),
        "to_the_call": figures.call.document(),
        "whole": figures.whole.document(),
    }
