"""The front door of a local relay: a tunnel shows it to everybody, and AWS is behind it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from local import front
from local.console.exchanges import Exchanges

STAGE = "/api/$default"
# What a tunnel adds, and what its Host is.
TUNNEL = {
    "Host": "quiet-otter.tunnel.example",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Host": "127.0.0.1",
    "X-Forwarded-Proto": "https",
    "X-Original-URL": "/rate",
    "X-Rewrite-URL": "/rate",
}


class _Behind(BaseHTTPRequestHandler):
    """Answers everything, and remembers what it was asked for."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str, dict[str, str], bytes]]

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.command, self.path, {name.lower(): text for name, text in self.headers.items()}, body))
        self.send_response(202)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Of-The-Platform", "inside")
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"{}")

    do_GET = do_HEAD = do_POST  # noqa: N815


@contextmanager
def served(server: ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Front:
    """A door before a platform that answers all."""

    def __init__(self, port: int, asked: list[tuple[str, str, dict[str, str], bytes]], exchanges: Exchanges) -> None:
        self.port, self.asked, self.exchanges = port, asked, exchanges

    def say(self, raw: bytes) -> bytes:
        """All that comes back on a connection on which ``raw`` is all that is said."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while part := connection.recv(65_536):
                received += part
        return received

    def ask(self, target: str, method: str = "POST", body: bytes = b"{}", more: Mapping[str, str] | None = None) -> int:
        lines = [f"{method} {target} HTTP/1.1", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in {**TUNNEL, **(more or {})}.items()]
        return int(self.say("\r\n".join([*lines, "", ""]).encode() + body).split()[1])


@pytest.fixture(scope="module")
def front_door() -> Iterator[Front]:
    asked: list[tuple[str, str, dict[str, str], bytes]] = []
    behind = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Behind,), {"asked": asked}))
    exchanges = Exchanges()
    with (
        served(behind) as port,
        served(front.door(0, f"http://127.0.0.1:{port}{STAGE}", exchanges)) as outer,
    ):
        yield Front(outer, asked, exchanges)


@pytest.fixture
def there(front_door: Front) -> Front:
    front_door.asked.clear()
    return front_door


@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
def test_webhooks_go_on_with_their_query_and_headers_but_not_the_tunnels_host(there: Front, method: str) -> None:
    body = b'{"a": 1}' if method == "POST" else b""
    assert there.ask("/webhooks/my_shop?topic=a%2Fb", method, body, {"X-Signature": "1"}) == 202
    ((asked, path, headers, came),) = there.asked
    assert (asked, path, came) == (method, f"{STAGE}/webhooks/my_shop?topic=a%2Fb", body)
    assert headers["x-signature"] == "1"
    assert headers["host"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/rate",
        "/playground/save",
        "/webhooks",
        "/webhooks/",
        "/webhooks/.",
        "/webhooks/..",
        "/webhooks/../rate",
        "/webhooks/../../../_ministack/health",
        "/webhooks/stripe/../../../..",
        "/webhooks/..%2f..%2f..",
        "/webhooks/%2e%2e/%2e%2e/%2e%2e",
        "/webhooks/..\\..\\..",
        "/webhooks/stripe/",
        "/webhooks/stripe;/../..",
        "/webhooks/" + "a" * 101,
        "/webhooks/stripe#/../..",
        "//other.example/webhooks/stripe",
        "http://other.example/webhooks/stripe",
        "/WEBHOOKS/stripe",
        "*",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_no_other_path_leaves_the_door(there: Front, method: str, target: str) -> None:
    assert there.ask(target, method, more={"X-Amz-Target": "secretsmanager.ListSecrets"}) == 404
    assert there.asked == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "X"])
def test_no_other_method_leaves_the_door(there: Front, method: str) -> None:
    assert there.ask("/webhooks/stripe", method) in (404, 501)
    assert there.asked == []


def test_what_the_platform_says_of_itself_stays_inside(there: Front) -> None:
    answer = there.say(b"POST /webhooks/stripe HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    assert b"202" in answer
    assert b"inside" not in answer
    assert b"python" not in answer.lower()


def test_a_body_in_chunks_is_one_body_and_nothing_of_it_is_another_request(there: Front) -> None:
    head = b"POST /webhooks/stripe HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = there.say(head + b"2\r\n{}\r\n3;x=y\r\n \r\n\r\n0\r\nTrailer: 1\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert [came for *_, came in there.asked] == [b"{} \r\n"]
    assert "transfer-encoding" not in there.asked[0][2]


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        ("Content-Length: abc", "", 400),
        ("Content-Length: -1", "", 400),
        ("Content-Length: 2\r\nContent-Length: 3", "{}x", 400),
        ("Content-Length: 9", "{}", 400),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding: gzip", "", 400),
        ("Transfer-Encoding: chunked", "z\r\n", 400),
        ("Transfer-Encoding: chunked", "-2\r\n{}\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", "2\r\n{}GET / HTTP/1.1\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", "ffffffff\r\n", 413),
        (f"Content-Length: {front.LARGEST + 1}", "", 413),
        ("Content-Length: 999999999999999999", "", 413),
    ],
)
def test_a_body_without_a_sure_end_is_refused_unread(there: Front, head: str, body: str, status: int) -> None:
    after = "GET /webhooks/stripe HTTP/1.1\r\n\r\n"
    answer = there.say(
        f"POST /webhooks/stripe HTTP/1.1\r\n{head}\r\n\r\n{body}{after if len(body) != 2 else ''}".encode()
    )
    assert int(answer.split()[1]) == status
    assert answer.count(b"HTTP/1.1 ") == 1
    assert there.asked == []


JSON = "application/json; charset=utf-8"
FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("headers", "unit", "weight"),
    [
        ({"Content-Type": JSON}, b"a", 1),
        ({"Content-Type": JSON}, b'"', 2),
        ({"Content-Type": JSON}, b"\\", 2),
        ({"Content-Type": "text/plain"}, "é".encode(), 2),
        ({"Content-Type": FORM}, b"aaa", 4),
        ({"Content-Type": "application/vnd.api+json"}, b"aaa", 4),
        ({"Content-Type": "multipart/form-data; boundary=a"}, b"aaa", 4),
        ({"Content-Type": JSON, "Content-Encoding": "gzip"}, b"aaa", 4),
        ({}, b"aaa", 4),
    ],
)
def test_what_lambdas_event_cannot_hold_is_refused_before_receive(
    there: Front, headers: dict[str, str], unit: bytes, weight: int
) -> None:
    path = "/webhooks/my_shop"
    sent = {name.lower(): value for name, value in (TUNNEL | headers).items() if name != "Host"}
    seven_digits = len("4718592") - len("0")  # the length of a body of megabytes has more digits than that of none
    envelope = front.event_bytes("POST", path, "", sent, b"") + seven_digits
    assert 800 < envelope < 2_000
    most = (front.INVOKE - envelope) // weight
    assert there.ask(path, body=unit * most, more=headers) == 202
    assert len(there.asked) == 1
    assert there.ask(path, body=unit * (most + 1), more=headers) == 413
    assert len(there.asked) == 1
    kept = next(iter(there.exchanges.newest_first()))
    assert kept.outcome == "refused"
    assert "receive never ran" in kept.detail


def test_long_headers_and_queries_count_too(there: Front) -> None:
    body = b"a" * (front.INVOKE - 4_000)
    assert there.ask("/webhooks/stripe", body=body, more={"Content-Type": JSON}) == 202
    assert there.ask("/webhooks/stripe", body=body, more={"Content-Type": JSON, "X-Long": "a" * 4_000}) == 413
    assert there.ask(f"/webhooks/stripe?a={'a' * 2_000}", body=body, more={"Content-Type": JSON}) == 413


def test_what_misses_the_address_by_a_little_is_kept_with_the_reason(there: Front) -> None:
    assert there.ask("/webhooks/stripe/") == 404
    kept = next(iter(there.exchanges.newest_first()))
    assert (kept.outcome, kept.source) == ("refused", "stripe")
    assert "/webhooks/ and the name of a source" in kept.detail
    before = there.exchanges.total
    assert there.ask("/favicon.ico", "GET") == 404
    assert there.exchanges.total == before


def test_a_platform_that_is_gone_is_said() -> None:
    exchanges = Exchanges()
    with served(front.door(0, "http://127.0.0.1:9", exchanges)) as port:
        there = Front(port, [], exchanges)
        assert there.ask("/webhooks/stripe") == 503
        answer = there.say(b"POST /webhooks/stripe HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"message": "Service Unavailable"}
    assert exchanges.total == 2
