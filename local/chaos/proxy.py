"""Between the functions, the event source and MiniStack: answers as AWS gives them on a bad day."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

from .schedule import Fault

STEP = "/chaos/"
INVOKE = "/invocations"


class Proxy:
    """Passes requests on to ``target``, except for ``faults``; a context manager.

    ``faults`` has the active ones by name, ``happened`` counts those that happened,
    ``deliver`` is the name of that function.
    """

    def __init__(self, seed: int) -> None:
        self.target = ""
        self.deliver = ""
        self.faults: dict[str, Fault] = {}
        self.happened: Counter[str] = Counter()
        self.under_way = 0
        self._chance = random.Random(f"proxy {seed}")  # noqa: S311 (chances, no secret)
        self._lock = threading.Lock()
        self._pool = urllib3.PoolManager(maxsize=64)
        self._server = _Server(("127.0.0.1", 0), type("BoundHandler", (_Handler,), {"proxy": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self, call: str) -> Fault | None:
        """Return the fault that ``call`` meets, if any."""
        with self._lock:
            for name, fault in self.faults.items():
                if call in fault.calls and self._chance.random() < fault.chance:
                    self.happened[name] += 1
                    return fault
        return None

    def some(self, entries: list[Any]) -> list[Any]:
        """Return some of ``entries``, at least one."""
        with self._lock:
            return [entry for entry in entries if self._chance.random() < 0.5] or entries[:1]

    def shuffled(self, body: bytes) -> bytes:
        """Return an invocation's payload with its records in another order."""
        document = json.loads(body)
        with self._lock:
            self._chance.shuffle(document["Records"])
        return json.dumps(document).encode()

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> urllib3.BaseHTTPResponse:
        """Return MiniStack's answer; ``under_way`` counts the invocations that wait for theirs."""
        invokes = path.endswith(INVOKE)
        with self._lock:
            self.under_way += invokes
        try:
            return self._pool.request(method, self.target + path, body=body, headers=headers, retries=False, timeout=90)
        finally:
            with self._lock:
                self.under_way -= invokes


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that went away, or was killed: this is what the proxy is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: Proxy

    def log_message(self, *_: Any) -> None:
        """Write no access log: the proxy counts what it did."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith(STEP):
            fault = self.proxy.fault(self.path.removeprefix(STEP).replace("/", " "))
            order = {"does": fault.does, "seconds": fault.seconds} if fault else {}
            return self._answer(200, {}, json.dumps(order).encode())
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        return self._pass_on(headers, body, self.proxy.fault(self._call()))

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle  # noqa: N815 (http.server's names)

    def _call(self) -> str:
        if self.path.endswith(INVOKE):
            return "Invoke deliver" if self.proxy.deliver in self.path else "Invoke"
        return self.headers.get("X-Amz-Target", "").rpartition(".")[2]

    def _pass_on(self, headers: dict[str, str], body: bytes, fault: Fault | None) -> None:
        does = fault.does if fault else ""
        if fault is None or does == "slow":
            time.sleep(fault.seconds if fault else 0)
            return self._forward(headers, body)
        if does == "refuse":
            return self._answer(fault.status, {}, json.dumps({"__type": fault.code, "message": "chaos"}).encode())
        if does == "dropped":
            return self._hang_up()
        if does == "failed":
            return self._fail_some(headers, body)
        if does == "shuffle":
            body = self.proxy.shuffled(body)
            return self._forward(headers | {"Content-Length": str(len(body))}, body)
        if does in ("twice", "later"):
            threading.Timer(fault.seconds, self.proxy.forward, (self.command, self.path, headers, body)).start()
            return self._forward(headers, body)
        self.proxy.forward(self.command, self.path, headers, body)  # done, and the answer is lost
        return self._hang_up()

    def _forward(self, headers: dict[str, str], body: bytes) -> None:
        answer = self.proxy.forward(self.command, self.path, headers, body)
        self._answer(answer.status, dict(answer.headers), answer.data)

    def _fail_some(self, headers: dict[str, str], body: bytes) -> None:
        document = json.loads(body)
        refused = self.proxy.some(document["Entries"])
        document["Entries"] = [entry for entry in document["Entries"] if entry not in refused]
        answer: dict[str, Any] = {"Successful": []}
        if document["Entries"]:
            text = json.dumps(document).encode()
            lengths = {"Content-Length": str(len(text))}
            kept = {name: value for name, value in headers.items() if name.lower() != "content-length"}
            answer = self.proxy.forward(self.command, self.path, kept | lengths, text).json()
        failed = [{"Id": entry["Id"], "Code": "InternalError", "SenderFault": False} for entry in refused]
        answer["Failed"] = [*answer.get("Failed", []), *failed]
        self._answer(200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(answer).encode())

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
