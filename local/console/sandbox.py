"""The playground's side of the process that tries a file on a payload; it is started when first asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from local import aws

from .worker import SECONDS

_ENDED = {
    -signal.SIGALRM: f"it took longer than {SECONDS} s and was stopped: an expression multiplies what it finds",
}


class Sandbox:
    """One process, one request at a time; a new process after one that was ended."""

    def __init__(self, custom: Path, samples: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="relay-console-")
        self.folder = self._folder.name
        self._command = [sys.executable, "-m", "local.console.worker", self._folder.name, str(custom), str(samples)]
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what becomes of a payload; with ``trouble`` if the process had to be ended over it."""
        with self._lock:
            process = self._running()
            if process.stdin is None or process.stdout is None:
                raise ValueError("the process has no pipes")
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            if line:
                answer: dict[str, Any] = json.loads(line)
                return answer
            ended = self._end()
            return {"mistakes": [], "trouble": _ENDED.get(ended, "it needed too much memory and was stopped")}

    def close(self) -> None:
        """End the process, and leave nothing of it."""
        with self._lock:
            self._end()
            self._folder.cleanup()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            path = f"{aws.ROOT / 'src'}{os.pathsep}{aws.ROOT}"
            self._process = subprocess.Popen(  # noqa: S603 (our own command line)
                self._command,
                cwd=aws.ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": path, "POWERTOOLS_METRICS_DISABLED": "true"},
            )
        return self._process

    def _end(self) -> int:
        """Close the pipes and wait; return the exit status, 0 if there was no process."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        return process.wait(SECONDS + 5)
