"""What the local stack starts ends with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from local import aws

# A process that has started another as the stack does, and says which; it waits to be ended.
PARENT = """
import sys
from local import aws
child = "import os, signal; signal.alarm(60); print(os.getpid(), flush=True); signal.pause()"
aws.spawn([sys.executable, "-c", child], sys.stdout.buffer)
sys.stdin.read()
"""


def test_what_was_started_ends_when_the_parents_whole_group_is_killed() -> None:
    with subprocess.Popen(  # noqa: S603 (our own command line)
        [sys.executable, "-c", PARENT],
        cwd=aws.ROOT,
        env=os.environ | {"PYTHONPATH": f"src{os.pathsep}."},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        os.killpg(parent.pid, signal.SIGKILL)
        # Child and guard hold the pipe that they print to: it is at its end when both have ended.
        assert parent.stdout.read() == b""
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
