"""The functions as chaos runs them reach each step at which they may be killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from handler import messages
from handler.delivery import klaviyo
from handler.messages import Event, Message
from local import aws
from local.chaos.proxy import STEP
from local.chaos.schedule import POISON, STEPS
from sim import environment
from tests.unit.support_delivery import entry
from tools.senders import sign

ROOT = Path(__file__).parents[3]
SOURCES = sign.development_secrets(["custom"])["sources"]
CALL = """
import json, sys
from types import SimpleNamespace
from local.chaos.killed_{function} import handler
context = SimpleNamespace(aws_request_id="1", get_remaining_time_in_millis=lambda: 60_000)
print("answered", json.dumps(handler(json.load(sys.stdin), context)))
"""


@contextmanager
def surroundings(secret: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The URL of a server that is the proxy, and takes what AWS and Klaviyo are sent; the steps that it is told of."""
    steps: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            steps.append(self.path.removeprefix(STEP))
            self.answer(200, {})

        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            done = [{"Id": one["Id"], "MessageId": one["Id"]} for one in given.get("Entries", [])]
            status = 202 if self.path == klaviyo.PATH else 200
            self.answer(status, {"Successful": done, "SecretString": json.dumps(secret)})

        def answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", steps
        server.shutdown()


def called(function: str, url: str, event: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Chaos's ``function``, called with ``event`` in a process of its own."""
    given = environment.receive() | environment.deliver(KlaviyoUrl=url) | aws.NO_ONE
    return subprocess.run(  # noqa: S603 (our own command line)
        [sys.executable, "-c", CALL.format(function=function)],
        input=json.dumps(event),
        env=given | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "AWS_ENDPOINT_URL": url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def records(*names: str, receives: int = 1) -> list[dict[str, Any]]:
    sent = [Message("shop", (Event(name, 1_789_999_990, entry(name)),), 1_789_999_990.0) for name in names]
    return [
        {
            "messageId": message.events[0].unique_id,
            "receiptHandle": message.events[0].unique_id,
            "body": messages.encode(message),
            "attributes": {"ApproximateReceiveCount": str(receives)},
        }
        for message in sent
    ]


def test_deliver_comes_by_each_step() -> None:
    with surroundings({"api_key": "pk_test"}) as (url, steps):
        # One came back: it is sent again and deleted before the other is posted.
        done = called("deliver", url, {"Records": [*records("a"), *records("b", receives=2)]})
    assert "answered" in done.stdout, done.stderr[-500:]
    assert set(steps) == {f"deliver/{step}" for step in STEPS["deliver"]}


def test_poison_kills_deliver_before_its_first_request() -> None:
    with surroundings({"api_key": "pk_test"}) as (url, steps):
        done = called("deliver", url, {"Records": records(f"{POISON}-1")})
    assert done.returncode < 0
    assert steps == ["deliver/received"]


def test_receive_comes_by_each_step() -> None:
    address, body = "https://relay.example/webhooks/custom", f"[{entry('a')}]".encode()
    _, headers = sign.sign("custom", SOURCES["custom"][0], body=body, headers={}, url=address, now=time.time())
    event = {
        "requestContext": {"requestId": "1", "domainName": "relay.example", "http": {"method": "POST"}},
        "rawPath": "/webhooks/custom",
        "pathParameters": {"source": "custom"},
        "headers": headers,
        "body": body.decode(),
    }
    with surroundings(SOURCES) as (url, steps):
        done = called("receive", url, event)
    assert "answered" in done.stdout, done.stderr[-500:]
    assert set(steps) == {f"receive/{step}" for step in STEPS["receive"]}, done.stdout
