"""No address from a payload is ever fetched: reading one opens no connection, and few modules could."""

from __future__ import annotations

import ast
import socket
from pathlib import Path
from typing import Any

import pytest

from handler import sources
from local import payload
from local.payload import Payload
from local.preview import preview_request

ROOT = Path(__file__).parents[2]
NETWORK = {"boto3", "botocore", "urllib3", "socket", "ssl", "http", "requests", "smtplib", "ftplib", "asyncio"}
HOOK = b"http://169.254.169.254/latest/meta-data/"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to look a name up or to connect, none of which succeeds."""
    tried: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        tried.append(arguments)
        raise OSError("no network here")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return tried


@pytest.mark.parametrize("name", [name for name in sources.names() if (ROOT / "events" / name).is_dir()])
def test_reading_a_webhook_connects_to_nothing(no_network: list[Any], name: str) -> None:
    for path in sorted((ROOT / "events" / name).glob("*.json")):
        sent = payload.request(path)
        lured = sent.body.replace(b"https://", HOOK).replace(b"https:\\/\\/", HOOK)
        for body in (sent.body, lured):
            preview_request(name, Payload(sent.method, sent.query, sent.headers, body), 1_795_500_000)
    assert no_network == []


def imported(path: Path) -> set[str]:
    """Top-level names of what a module imports."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain} | {
        (node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
    }


def test_only_the_edges_can_reach_the_network() -> None:
    able = {path.stem for path in (ROOT / "src/handler").glob("*.py") if imported(path) & NETWORK}
    # messages, batch and pacing are handed their client; klaviyo has its one address from the template.
    assert able <= {"clients", "receive", "deliver", "klaviyo", "messages", "batch", "pacing", "keys"}
    text = "".join(path.read_text("utf-8") for path in (ROOT / "src/handler").glob("*.py"))
    assert "urllib.request" not in text


def test_the_one_address_comes_from_the_template() -> None:
    tree = ast.parse((ROOT / "src/handler/deliver.py").read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Connection"]
    assert [ast.unparse(call.args[0]) for call in calls] == ["SETTINGS.klaviyo_url"]
