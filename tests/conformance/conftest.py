"""The real clients on two emulators.

Tests that need one are in one group of pytest-xdist, so that each starts once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from local import aws
from tools import loopback

Client = Callable[[str], Any]
_NUMBERS = count(1)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Clients of the emulator that the local stack runs on."""
    with (tmp_path_factory.mktemp("ministack") / "log").open("wb") as log:
        running = aws.Aws(log)
        yield running.client
        running.close()


@pytest.fixture(scope="session")
def moto() -> Iterator[Client]:
    """Clients of moto's server, which shares no line with MiniStack: a second witness for DynamoDB."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    once = Config(retries={"total_max_attempts": 1})
    yield lambda service: loopback.client(service, f"http://{host}:{port}", config=once)
    server.stop()


@pytest.fixture
def name() -> str:
    """A name that no other test uses: emulators are never emptied."""
    return f"conformance{next(_NUMBERS)}"
