"""An invocation of the real ``deliver``: CPU for one event and for a full job, all but the network.

AWS is answered in this process, Klaviyo by the stand-in's thread on 127.0.0.1. Only the
handler's own thread is timed: its sleep until the slot costs nothing.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from handler.delivery.function import Deliver
from handler.messages import CHUNK_EVENTS
from handler.telemetry import metrics
from local import aws
from local.standin import Klaviyo, Limits, Server
from sim import environment

from . import door, job
from .measure import Timing, table, timing

ROUNDS = 40
WIDE = 1_000_000  # requests: Klaviyo limits nothing


class _Context:
    """What ``deliver`` reads of Lambda's context."""

    aws_request_id = "bench"

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        """Return all of the function's time."""
        return 120_000


def run() -> dict[str, Any]:
    """Time the handler; print the table and return the figures."""
    server = Server(Klaviyo(Limits(per_second=WIDE, per_minute=WIDE), key="pk_bench"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The orders' times are fixed: without late events, which are parsed again, they stay comparable.
    ours = environment.deliver(KlaviyoUrl=server.url, LateAfterHours="0")
    os.environ.update(aws.NO_ONE)
    door.answer_aws()
    handler = metrics.log_metrics(Deliver.from_environment(ours))

    singles, many = job.records(1), job.records(CHUNK_EVENTS)
    events = {
        "one event": {"Records": singles[:1]},
        "1,000 messages of one": {"Records": singles},
        "1,000 in few": {"Records": many},
    }
    timings: dict[str, Timing] = {}
    logged: dict[str, int] = {}
    for name, event in events.items():
        logged[name] = door.logged_bytes(lambda event=event: handler(event, _Context()))  # type: ignore[misc]
        with door.silenced():
            timings[name] = timing([_once(handler, event) for _ in range(ROUNDS)])
    server.shutdown()
    server.server_close()
    if set(server.klaviyo.statuses) != {202}:
        raise RuntimeError(f"not every job was taken: {dict(server.klaviyo.statuses)}")
    rows = [
        (name, f"{times.median * 1e3:.2f}", f"{times.p99 * 1e3:.2f}", logged[name]) for name, times in timings.items()
    ]
    print(table("An invocation of deliver", ("", "CPU ms", "p99 ms", "bytes logged"), rows))
    return {name: times.document() | {"log_bytes": logged[name]} for name, times in timings.items()}


def _once(handler: Any, event: dict[str, Any]) -> float:
    begun = time.thread_time_ns()
    if handler(event, _Context()) != {"batchItemFailures": []}:
        raise RuntimeError("deliver did not deliver the batch")
    return (time.thread_time_ns() - begun) / 1e9
