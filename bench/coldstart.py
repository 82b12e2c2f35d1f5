"""Cold start: from starting the process under ``awslambdaric`` to its first request for work.

A runtime API of a few lines stands where Lambda's stands. Absolute times are
this machine's; what counts is the ratio to an empty handler and to boto3 with
one client, taken in turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from local import aws

from .door import ENVIRONMENT
from .measure import percentile, table

EMPTY = "def handler(event, context):\n    return None\n"
ONE_CLIENT = "import boto3\nCLIENT = boto3.client('sqs')\n" + EMPTY
START_SECONDS = 30
DELIVER = {
    "KLAVIYO_SECRET": "klaviyo",
    "KLAVIYO_URL": "https://127.0.0.1",
    "KLAVIYO_REVISION": "2026-10-15",
    "PACING_TABLE": "pacing",
    "PACING_ACCOUNT": "bench",
    "ARRIVAL_SPREAD": "0.4",
    "LATE_AFTER_HOURS": "24",
}
LAMBDA = {
    "AWS_LAMBDA_FUNCTION_NAME": "bench",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
    "AWS_LAMBDA_FUNCTION_VERSION": "1",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
}
CONTENDERS = {
    "empty handler": "empty.handler",
    "boto3 and one client": "one_client.handler",
    "receive": "handler.receive.handler",
    "deliver": "handler.deliver.handler",
}


class _Runtime(ThreadingHTTPServer):
    """Lambda's runtime API, as far as a start needs it: ``ready`` once a process asks for work."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Api)
        self.ready = threading.Event()
        self.ready_at = 0.0
        self.failed = ""


class _Api(BaseHTTPRequestHandler):
    server: _Runtime

    def log_message(self, *_: object) -> None:
        """A line for each request would stand between the tables."""

    def do_GET(self) -> None:
        """``/invocation/next``: the start is over. It gets no work, and is ended."""
        self.server.ready_at = time.perf_counter()
        self.server.ready.set()

    def do_POST(self) -> None:
        """``/init/error``: the handler could not be imported."""
        self.server.failed = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.server.ready.set()


def start(handler: str, folder: Path) -> float:
    """Seconds of one start of ``handler``, found in ``folder`` or ``src``.

    Raises
    ------
    RuntimeError
        It reports an error, or does not ask for work in time.
    """
    runtime = _Runtime()
    thread = threading.Thread(target=runtime.serve_forever, daemon=True)
    thread.start()
    path = os.pathsep.join((str(folder), str(aws.ROOT / "src")))
    api = f"127.0.0.1:{runtime.server_address[1]}"
    passed = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = passed | ENVIRONMENT | DELIVER | LAMBDA | {"AWS_LAMBDA_RUNTIME_API": api, "PYTHONPATH": path}
    begun = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 (our own command line)
        [sys.executable, "-m", "awslambdaric", handler],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if not runtime.ready.wait(START_SECONDS) or runtime.failed:
            raise RuntimeError(f"{handler} does not start: {runtime.failed[:500]}")
        return runtime.ready_at - begun
    finally:
        process.kill()
        process.wait()
        runtime.shutdown()
        runtime.server_close()


def run(rounds: int = 15) -> dict[str, Any]:
    """Start each contender ``rounds`` times, in turns; prints the table and returns the figures."""
    samples: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "empty.py").write_text(EMPTY)
        (folder / "one_client.py").write_text(ONE_CLIENT)
        for handler in CONTENDERS.values():
            start(handler, folder)  # writes bytecode, fills the page cache
        for _ in range(rounds):
            for name, handler in CONTENDERS.items():
                samples[name].append(start(handler, folder))
    medians = {name: percentile(found, 0.5) for name, found in samples.items()}
    client = medians["boto3 and one client"]
    rows = [
        (name, f"{median * 1e3:.0f}", f"{min(samples[name]) * 1e3:.0f}", f"{median / client:.2f}")
        for name, median in medians.items()
    ]
    print(table("Cold start under awslambdaric", ["", "median ms", "best ms", "x boto3 and a client"], rows))
    return {
        name: {
            "median_ms": round(median * 1e3, 1),
            "best_ms": round(min(samples[name]) * 1e3, 1),
            "over_one_client": round(median / client, 2),
        }
        for name, median in medians.items()
    }
