"""The front door of a local relay: what API Gateway is to a deployed one, and all that a tunnel shows.

``/webhooks/{source}`` goes on to MiniStack, which speaks for the rest of AWS
under the same address: anyone who could name another path there would read the
secrets and run code. So the path that goes on is made here, never passed on.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl

import urllib3

# One plain segment: no slash, no escape, no dots that lead elsewhere.
_ROUTE = re.compile(r"/webhooks/(?!\.)[A-Za-z0-9._~-]{1,100}")
_METHODS = ("GET", "HEAD", "POST")  # those of the template's routes
LARGEST = 10_000_000  # bytes of a body; as API Gateway has it
# Bytes of the event, as JSON, that Lambda accepts (Lambda guide, "Quotas": 6 MB, and its refusals name this number).
INVOKE = 6_291_456
# The content types whose bodies API Gateway passes on as text; all others, and those without one, arrive as base64
# (observed: MiniStack's pull request 766). So do compressed ones, here: AWS does not say.
_TEXT = ("application/json", "application/xml", "application/javascript")
_HOPS = frozenset(
    [
        "host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "content-length",
        "te",
        "trailer",
        "upgrade",
        "expect",
    ]
)
_KEPT = frozenset({"content-type", "cache-control"})


class Keeper(Protocol):
    """A recorder of the requests that came in; as ``console.exchanges.Exchanges``."""

    def add(
        self,
        *,
        at: float,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        status: int,
        answer: bytes,
        milliseconds: float,
    ) -> object:
        """Keep one exchange."""


class _Unreadable(Exception):
    """The end of the body is not known, or is too large: ``status``, and the connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "relay", ""
    error_message_format, error_content_type = "%(message)s\n", "text/plain; charset=utf-8"
    timeout = 65  # seconds of silence
    target = ""
    keeper: Keeper | None = None
    pool = urllib3.PoolManager(maxsize=32)

    def log_message(self, *_: Any) -> None:
        """Write no log: URLs may hold tokens."""

    def _take(self) -> None:
        at = time.time()
        try:
            body = self._body()
        except _Unreadable as error:
            self.close_connection = True
            return self._answer(error.status, *_said(str(error)))
        path, mark, query = self.path.partition("?")
        headers = _joined(self.headers.items())
        if self.command in _METHODS and _ROUTE.fullmatch(path):
            if event_bytes(self.command, path, query, headers, body) > INVOKE:
                status, (kept, answer) = 413, _said("Request Entity Too Large")
            else:
                status, kept, answer = self._pass_on(path + mark + query, headers, body)
        elif path.startswith("/webhooks/"):
            status, (kept, answer) = 404, _said("Not Found")
        else:
            return self._answer(404, *_said("Not Found"))
        if self.keeper is not None:
            self.keeper.add(
                at=at,
                method=self.command,
                target=self.path,
                headers=headers,
                body=body,
                status=status,
                answer=answer,
                milliseconds=(time.time() - at) * 1000,
            )
        return self._answer(status, kept, answer)

    def _pass_on(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        try:
            got = self.pool.request(
                self.command, self.target + path, body=body, headers=headers, retries=False, timeout=60
            )
        except urllib3.exceptions.HTTPError:
            return 503, *_said("Service Unavailable")
        return got.status, {name: value for name, value in got.headers.items() if name.lower() in _KEPT}, got.data

    def _body(self) -> bytes:
        """Read the body, also in chunks, as tunnels and some senders pass it on."""
        length = self.headers.get_all("Content-Length", [])
        if coding := self.headers.get("Transfer-Encoding"):
            if coding.strip().lower() != "chunked" or length:
                raise _Unreadable(400, "Bad Request")
            return b"".join(self._chunks())
        if not length:
            return b""
        if len(set(length)) > 1 or not re.fullmatch("[0-9]{1,18}", length[0]):
            raise _Unreadable(400, "Bad Request")
        return self._read(int(length[0]), LARGEST)

    def _chunks(self) -> Any:
        left = LARGEST
        while size := self._size_of_chunk():
            yield self._read(size, left)
            left -= size
            if self.rfile.readline(3) != b"\r\n":
                raise _Unreadable(400, "Bad Request")
        while self.rfile.readline(65_537) not in (b"\r\n", b"\n", b""):
            continue  # trailers

    def _size_of_chunk(self) -> int:
        size, _, _ = self.rfile.readline(1_024).partition(b";")
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size.strip()):
            raise _Unreadable(400, "Bad Request")
        return int(size, 16)

    def _read(self, size: int, most: int) -> bytes:
        if size > most:
            raise _Unreadable(413, "Request Entity Too Large")
        body = self.rfile.read(size)
        if len(body) < size:
            raise _Unreadable(400, "Bad Request")
        return body

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        try:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except ConnectionError:  # the sender hung up
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _take  # noqa: N815 (http.server's names)


def event_bytes(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> int:
    """Return the size in bytes of the event with which Lambda would be invoked (payload format 2.0).

    The event is counted as JSON in UTF-8 without spaces: a quotation mark of the body counts double. What
    only API Gateway knows is counted with its usual length; how AWS writes what is not
    ASCII is not known.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    text = (kind.startswith("text/") or kind in _TEXT) and "content-encoding" not in headers
    source = path.rpartition("/")[2]
    host = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com"
    event = {
        "version": "2.0",
        "routeKey": f"{method} /webhooks/{{source}}",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {
            **headers,
            "host": host,
            "content-length": str(len(body)),
            "x-amzn-trace-id": f"Root=1-{'0' * 8}-{'0' * 24}",
            "x-forwarded-for": "203.0.113.255",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        },
        "queryStringParameters": dict(parse_qsl(query, keep_blank_values=True)),
        "requestContext": {
            "accountId": "0" * 12,
            "apiId": host[:10],
            "domainName": host,
            "domainPrefix": host[:10],
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.255",
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": "0" * 16,
            "routeKey": f"{method} /webhooks/{{source}}",
            "stage": "$default",
            "time": "01/Jan/2026:00:00:00 +0000",
            "timeEpoch": 10**12,
        },
        "pathParameters": {"source": source},
        "body": body.decode("utf-8", "replace") if text else base64.b64encode(body).decode(),
        "isBase64Encoded": not text,
    }
    return len(json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


def _said(message: str) -> tuple[dict[str, str], bytes]:
    """Return an answer of the platform's own, as API Gateway words it."""
    return {"content-type": "application/json"}, json.dumps({"message": message}).encode()


def _joined(headers: Any) -> dict[str, str]:
    """Return the headers that concern the webhook, not the connection.

    A header that comes twice is joined by a comma, as at API Gateway.
    """
    joined: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower not in _HOPS:
            joined[lower] = f"{joined[lower]},{value}" if lower in joined else value
    return joined


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def door(port: int, target: str, keeper: Keeper | None) -> ThreadingHTTPServer:
    """Return a server on 127.0.0.1, not yet running, that passes webhooks on to ``target``.

    ``target`` is the address of an API's stage.
    """
    return _Server(("127.0.0.1", port), type("BoundHandler", (_Handler,), {"target": target, "keeper": keeper}))
