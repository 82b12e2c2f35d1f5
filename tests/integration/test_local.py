"""``make local`` as a person runs it: it says where it is, other commands find it, and Ctrl-C ends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from threading import Timer

import pytest
import urllib3

from tools import paths

SETTINGS = ("KLAVIYO_URL", "REQUESTS_PER_MINUTE", "PORT", "CONSOLE_PORT", "LONG_POLL", "SECRETS_FILE", "VERBOSE")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with what ``make local`` needs: in that of the tests, a person's own one may run."""
    for folder in ("src", "tools", "local"):
        ignored = shutil.ignore_patterns("__pycache__", "custom")
        shutil.copytree(paths.ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(paths.ROOT / "template.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def relay(project: Path) -> Iterator[subprocess.Popen[str]]:
    """``make local``, which is killed if it hangs."""
    passed = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    with subprocess.Popen(
        [sys.executable, "-m", "tools", "local"],
        cwd=project,
        env=passed | {"PYTHONPATH": f"src{os.pathsep}."},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        limit = Timer(180, process.kill)
        limit.start()
        yield process
        process.kill()
        limit.cancel()


def test_make_local_says_where_it_is_before_it_is_ready_and_leaves_nothing_behind(
    relay: subprocess.Popen[str], project: Path
) -> None:
    assert relay.stdout
    said = dict(line.strip().partition(": ")[::2] for line in takewhile(lambda line: line != "ready\n", relay.stdout))
    running = json.loads((project / ".local/running.json").read_text())
    assert said["webhooks"] == running["webhooks"]
    assert said["aws"] == running["aws"]
    assert urllib3.request("GET", said["console"]).status == 200
    assert urllib3.request("GET", said["webhooks"].format(source="stripe")).status == 200
    relay.send_signal(signal.SIGINT)
    relay.stdout.read()
    assert relay.wait() == 0
    assert not (project / ".local/running.json").exists()
