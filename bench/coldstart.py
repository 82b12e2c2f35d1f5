"""Cold start: from starting the process under ``awslambdaric`` to its first request for work.

A runtime API of a few lines stands where Lambda's stands. Absolute times are
this machine's; what counts is the ratio to an empty handler and to boto3 with
one client, taken in turns, of CPU time: other work on the machine blurs the
rest. The handlers bring their bytecode, as the package does (src/Makefile).
"""

from __future__ import annotations

import compileall
import os
import py_compile
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from local import aws
from sim import environment

from .door import ENVIRONMENT
from .measure import percentile, table

EMPTY = "def handler(event, context):\n    return None\n"
ONE_CLIENT = "import boto3\nCLIENT = boto3.client('sqs')\n" + EMPTY
START_SECONDS = 30
QUIET = 0.2  # the share of starts that count as undisturbed: other work empties the caches, and costs CPU as well
# Over https, as deployed: what a handshake needs is loaded.
DELIVER = environment.deliver(KlaviyoUrl="https://127.0.0.1")
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
        """Write nothing: a line for each request would stand between the tables."""

    def do_GET(self) -> None:
        """End the start at ``/invocation/next``: it is over, and gets no work."""
        self.server.ready_at = time.perf_counter()
        self.server.ready.set()

    def do_POST(self) -> None:
        """Note at ``/init/error`` that the handler could not be imported."""
        self.server.failed = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.server.ready.set()


def start(handler: str, folder: Path) -> tuple[float, float]:
    """Return the seconds of one start of ``handler``, found in ``folder``: by the clock, and of CPU.

    Raises
    ------
    RuntimeError
        It reports an error, or does not ask for work in time.
    """
    runtime = _Runtime()
    thread = threading.Thread(target=runtime.serve_forever, daemon=True)
    thread.start()
    api = f"127.0.0.1:{runtime.server_address[1]}"
    passed = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    variables = passed | DELIVER | ENVIRONMENT | LAMBDA | {"AWS_LAMBDA_RUNTIME_API": api, "PYTHONPATH": str(folder)}
    before, begun = _children_cpu(), time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 (our own command line)
        [sys.executable, "-m", "awslambdaric", handler],
        cwd=folder,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if not runtime.ready.wait(START_SECONDS) or runtime.failed:
            raise RuntimeError(f"{handler} does not start: {runtime.failed[:500]}")
    finally:
        process.kill()
        process.wait()
        runtime.shutdown()
        runtime.server_close()
    return runtime.ready_at - begun, _children_cpu() - before


def _children_cpu() -> float:
    """Return the CPU seconds of the processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(rounds: int = 15) -> dict[str, Any]:
    """Start each contender ``rounds`` times, in turns; print the table and return the figures."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "empty.py").write_text(EMPTY)
        (folder / "one_client.py").write_text(ONE_CLIENT)
        shutil.copytree(aws.ROOT / "src" / "handler", folder / "handler")
        compileall.compile_dir(folder, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        for handler in CONTENDERS.values():
            start(handler, folder)  # fills the page cache
        for _ in range(rounds):
            for name, handler in CONTENDERS.items():
                samples[name].append(start(handler, folder))
    figures = {name: _figures(starts) for name, starts in samples.items()}
    client = figures["boto3 and one client"]["cpu_ms"]
    for times in figures.values():
        times["over_one_client"] = round(times["cpu_ms"] / client, 2)
    rows = [
        (name, *(f"{times[key]:.0f}" for key in ("median_ms", "best_ms", "cpu_ms")), f"{times['over_one_client']:.2f}")
        for name, times in figures.items()
    ]
    heads = ["", "median ms", "best ms", "CPU ms", "x boto3 and a client"]
    print(table("Cold start under awslambdaric", heads, rows))
    return figures


def _figures(samples: list[tuple[float, float]]) -> dict[str, float]:
    by_clock, cpu = zip(*samples, strict=True)
    return {
        "median_ms": round(percentile(by_clock, 0.5) * 1e3, 1),
        "best_ms": round(min(by_clock) * 1e3, 1),
        "cpu_ms": round(percentile(cpu, QUIET) * 1e3, 1),
    }
