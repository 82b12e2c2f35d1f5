"""An invocation of the real ``deliver``: CPU for one event and for a full job, all but the network.

AWS is answered in this process, Klaviyo by a thread on 127.0.0.1. Only the
handler's own thread is timed: its sleep until the slot costs nothing.
"""

from __future__ import annotations

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from handler.delivery.function import Deliver
from handler.messages import CHUNK_EVENTS
from handler.telemetry import metrics
from local import aws

from . import coldstart, door, job
from .measure import Timing, table, timing

ROUNDS = 40


class _Klaviyo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """A line for each request would stand between the tables."""

    def do_POST(self) -> None:
        """Take everything."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Context:
    """What ``deliver`` reads of Lambda's context."""

    aws_request_id = "bench"

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        """All of the function's time."""
        return 120_000


def run() -> dict[str, Any]:
    """Time the handler; prints the table and returns the figures."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Klaviyo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The orders' times are fixed: without late events, which are parsed again, they stay comparable.
    ours = {"KLAVIYO_URL": f"http://127.0.0.1:{server.server_address[1]}", "LATE_AFTER_HOURS": "0"}
    os.environ.update(aws.NO_ONE)
    door.answer_aws()
    handler = metrics.log_metrics(Deliver.from_environment(door.ENVIRONMENT | coldstart.DELIVER | ours))

    singles, many = job.records(1), job.records(CHUNK_EVENTS)
    events = {
        "one event": {"Records": singles[:1]},
        "1,000 messages of one": {"Records": singles},
        "1,000 in few": {"Records": many},
    }
    found: dict[str, Timing] = {}
    logged: dict[str, int] = {}
    for name, event in events.items():
        logged[name] = door.logged_bytes(lambda event=event: handler(event, _Context()))  # type: ignore[misc]
        with door.silenced():
            found[name] = timing([_once(handler, event) for _ in range(ROUNDS)])
    server.shutdown()
    server.server_close()
    rows = [(name, f"{one.median * 1e3:.2f}", f"{one.p99 * 1e3:.2f}", logged[name]) for name, one in found.items()]
    print(table("An invocation of deliver", ("", "CPU ms", "p99 ms", "bytes logged"), rows))
    return {name: one.document() | {"log_bytes": logged[name]} for name, one in found.items()}


def _once(handler: Any, event: dict[str, Any]) -> float:
    begun = time.thread_time_ns()
    if handler(event, _Context()) != {"batchItemFailures": []}:
        raise RuntimeError("deliver did not deliver the batch")
    return (time.thread_time_ns() - begun) / 1e9
