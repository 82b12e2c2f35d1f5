"""Run a command that must not outlive its parent.

Standard input is a pipe from the parent: when it closes, however the parent
ended, the command's whole process group gets SIGTERM, then SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 12  # the event source gives back thousands of messages


def main(command: list[str]) -> int:
    """Start ``command`` in a group of its own; return its exit status."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 (our own command line)

    def stop_with_parent() -> None:
        sys.stdin.buffer.read()
        _signal(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
        _signal(child.pid, signal.SIGKILL)

    watcher = threading.Thread(target=stop_with_parent)
    watcher.start()
    status = child.wait()
    _signal(child.pid, signal.SIGKILL)
    os._exit(status & 0xFF)


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
