"""No address from a payload is ever fetched: reading one opens no connection, and few modules could."""

from __future__ import annotations

import ast
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from handler.events import senders
from tools.senders import payload
from tools.senders.payload import Payload
from tools.senders.preview import preview_request

ROOT = Path(__file__).parents[3]
NETWORK = {"boto3", "botocore", "urllib3", "socket", "ssl", "http", "requests", "smtplib", "ftplib", "asyncio"}
HOOK = b"http://169.254.169.254/latest/meta-data/"


REACHES = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}
_tried: dict[int, list[Any]] = {}  # by thread, only while one is cut off


def _refuse(event: str, arguments: Any) -> None:
    if event in REACHES and (tried := _tried.get(threading.get_ident())) is not None:
        tried.append(arguments)
        raise OSError("no network here")


@cache
def _listen() -> None:
    """Refuse from now on, in Python's own way (library reference, "Audit events table").

    A hook stays as long as its process and is called for each import and opened file: only tests that need it add it.
    """
    sys.addaudithook(_refuse)


@pytest.fixture
def no_network() -> Iterator[list[Any]]:
    """Every attempt of this thread to look a name up or to connect, none of which succeeds.

    Other threads go on as before: a stack that other tests of the process share may be running in some.
    """
    _listen()
    yield _tried.setdefault(threading.get_ident(), [])
    _tried.clear()


@pytest.mark.parametrize("name", [name for name in senders.names() if (ROOT / "events" / name).is_dir()])
def test_reading_a_webhook_connects_to_nothing(no_network: list[Any], name: str) -> None:
    for path in sorted((ROOT / "events" / name).glob("*.json")):
        sent = payload.request(path)
        lured = sent.body.replace(b"https://", HOOK).replace(b"https:\\/\\/", HOOK)
        for body in (sent.body, lured):
            preview_request(name, Payload(sent.method, sent.query, sent.headers, body), 1_795_500_000)
    assert no_network == []


def test_only_the_reading_thread_is_cut_off(no_network: list[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as elsewhere:
        address = server.getsockname()
        elsewhere.submit(socket.create_connection, address, 5).result().close()
        assert no_network == []
        with pytest.raises(OSError, match="no network here"):
            socket.create_connection(address, 5)
    assert len(no_network) == 1


def imported(path: Path) -> set[str]:
    """Top-level names of what a module imports."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain} | {
        (node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
    }


def test_only_the_edges_can_reach_the_network() -> None:
    paths = [path for path in (ROOT / "src/handler").rglob("*.py") if "custom" not in path.parts]
    able = {path.stem for path in paths if imported(path) & NETWORK}
    # messages, returns and pacing_table are handed their client; klaviyo has its one address from the template.
    assert able <= {"aws", "function", "klaviyo", "messages", "returns", "pacing", "pacing_table", "secret"}
    text = "".join(path.read_text("utf-8") for path in paths)
    assert "urllib.request" not in text


def test_the_one_address_comes_from_the_template() -> None:
    tree = ast.parse((ROOT / "src/handler/delivery/function.py").read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "connection"]
    assert [ast.unparse(call.args[0]) for call in calls] == ["settings.klaviyo_url"]
