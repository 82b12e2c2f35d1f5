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

import pytest

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
context = SimpleNamespace(aws_request_id="1", get_remaining_time_in_millis=lambda: 10_000)
print("answered", json.dumps(handler(json.load(sys.stdin), context)))
"""


@contextmanager
def surroundings(secret: dict[str, Any], klaviyo_status: int = 202) -> Iterator[tuple[str, list[str]]]:
    """The URL of a server that is the proxy, AWS and Klaviyo; the steps and the calls of AWS that it is told of."""
    steps: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            steps.append(self.path.removeprefix(STEP))
            self.answer(200, {})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            done = [{"Id": entry["Id"], "MessageId": entry["Id"]} for entry in request.get("Entries", [])]
            if "UpdateExpression" in request:
                steps.append("UpdateItem")
            status = klaviyo_status if self.path == klaviyo.PATH else 200
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
    return python(CALL.format(function=function), url, json.dumps(event))


def python(code: str, url: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """A process with the functions' environment that runs ``code``; AWS and Klaviyo are at ``url``."""
    settings = environment.receive() | environment.deliver(KlaviyoUrl=url) | aws.NO_ONE
    return subprocess.run(  # noqa: S603 (our own command line)
        [sys.executable, "-c", code],
        input=text,
        env=settings | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "AWS_ENDPOINT_URL": url, "PATH": "/usr/bin:/bin"},
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
        # One is parked, and one came back: what is settled is deleted before it is handled.
        garbage = {**records("c")[0], "body": "garbage"}
        done = called("deliver", url, {"Records": [*records("a"), garbage, *records("b", receives=2)]})
    assert "answered" in done.stdout, done.stderr[-500:]
    assert {*steps} - {"UpdateItem"} == {f"deliver/{step}" for step in STEPS["deliver"]}


def test_deliver_has_a_step_where_it_takes_a_slot_and_none_where_it_closes_the_relay() -> None:
    with surroundings({"api_key": "pk_test"}, klaviyo_status=503) as (url, steps):
        done = called("deliver", url, {"Records": records("a")})
    assert "answered" in done.stdout, done.stderr[-500:]
    posted = steps.index("deliver/posted")
    assert steps[posted + 1] == "UpdateItem"


def test_poison_kills_deliver_before_it_is_posted() -> None:
    with surroundings({"api_key": "pk_test"}) as (url, steps):
        done = called("deliver", url, {"Records": [*records("a"), *records(POISON)]})
    assert done.returncode < 0
    assert "deliver/reserved" in steps
    assert "deliver/posting" not in steps


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ('steps.clients("deliver", {"dynamo": {}})', "ValueError: the relay uses no dynamo"),
        (
            'steps.clients("receive", {"sqs": {"send_letters": steps.Around("queueing", "queued")}})'
            '("sqs", connect=1, read=1, attempts=1)',
            "AttributeError: 'SQS' object has no attribute 'send_letters'",
        ),
        (
            'steps.between("deliver", steps.Around("queueing", "sent"), print)',
            "ValueError: deliver has no step queueing",
        ),
    ],
)
def test_unknown_name_of_a_seam_is_refused(code: str, error: str) -> None:
    done = python(f"from local.chaos import steps; {code}", "http://127.0.0.1:1")
    assert error in done.stderr


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
