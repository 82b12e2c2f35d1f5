"""The real ``receive``, with AWS answered in this process: everything runs but the network."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from handler.aws import SESSION
from handler.door.function import Receive
from handler.events import senders
from handler.telemetry import metrics
from local import aws
from sim import environment
from tools.senders import payload, sign
from tools.senders.preview import preview_request

SAMPLES = aws.ROOT / "events"
# What a sender of this name sends most, or what weighs most with it.
TYPICAL = {
    "stripe": "checkout.session.completed",
    "shopify": "orders.create",
    "woocommerce": "order.created",
    "custom": "event",
}
SECRETS: dict[str, Any] = sign.development_secrets(senders.names())["sources"]
ENVIRONMENT = environment.receive() | aws.NO_ONE

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


class _Raw(io.BytesIO):
    def stream(self) -> Iterator[bytes]:
        """Yield the body, as urllib3's response does."""
        yield self.getvalue()


def answer_aws() -> Any:
    """Answer the functions' AWS clients, made from now on, in this process; return the session's events."""
    events = SESSION.events
    events.register("before-send.*.*", _answer)
    return events


def _answer(request: Any, **_: Any) -> Any:
    target = request.headers["X-Amz-Target"]
    operation = (target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]
    document = ANSWERS[operation]()
    return AWSResponse(request.url, 200, HTTPHeaders(), _Raw(json.dumps(document).encode()))


ANSWERS: dict[str, Callable[[], dict[str, Any]]] = {
    "SendMessageBatch": lambda: {"Successful": [], "Failed": []},
    "GetSecretValue": lambda: {"Name": "secret", "SecretString": json.dumps({**SECRETS, "api_key": "pk_bench"})},
    "UpdateItem": lambda: {"Attributes": {"next": {"N": str(round(time.time() * 1_000) + 50)}}},
    "GetItem": lambda: {"Item": {}},
}


class Door:
    """``receive``; ``called_at`` is the CPU time (ns) at which it last turned to SQS."""

    def __init__(self) -> None:
        os.environ.update(aws.NO_ONE)
        self.called_at = 0
        answer_aws().register("before-parameter-build.sqs.SendMessageBatch", self._called)
        self.handler: Handler = metrics.log_metrics(Receive.from_environment(ENVIRONMENT))

    def _called(self, **_: Any) -> None:
        self.called_at = time.process_time_ns()


@contextlib.contextmanager
def silenced(path: str = os.devnull) -> Iterator[None]:
    """Send standard output to ``path`` meanwhile: log lines cost what they cost and don't stand between the tables."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(path, "wb") as elsewhere:
        os.dup2(elsewhere.fileno(), 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def logged_bytes(work: Callable[[], object]) -> int:
    """Return the bytes that one call of ``work`` writes to the log."""
    with tempfile.NamedTemporaryFile() as log:
        with silenced(log.name):
            work()
        return os.stat(log.name).st_size


def sample(source: str) -> Path | None:
    """Return the event sample that stands for ``source``, of those that become events; ``None`` if it has none."""
    paths = sorted((SAMPLES / source).glob("*.json"), key=lambda path: path.stat().st_size)
    with_events = [path for path in paths if preview_request(source, payload.request(path), time.time())["events"]]
    named = [path for path in with_events if path.stem == TYPICAL.get(source)]
    return next(iter([*named, *reversed(with_events)]), None)


def request(source: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """Return the API Gateway event of a webhook, signed now as ``source`` would."""
    path = f"/webhooks/{source}"
    body = sign.fresh(source, body, time.time())
    url, signed = sign.sign(
        source, SECRETS[source][0], body=body, headers=headers, url=f"https://bench.example{path}", now=time.time()
    )
    query = url.partition("?")[2]
    plain = "json" in signed.get("content-type", "") and "content-encoding" not in signed
    return {
        "version": "2.0",
        "routeKey": "POST /webhooks/{source}",
        "rawPath": path,
        "rawQueryString": query,
        "queryStringParameters": dict(pair.split("=", 1) for pair in query.split("&")) if query else {},
        "pathParameters": {"source": source},
        "headers": signed,
        "requestContext": {
            "requestId": "bench",
            "domainName": "bench.example",
            "http": {"method": "POST", "path": path},
        },
        "body": body.decode() if plain else base64.b64encode(body).decode(),
        "isBase64Encoded": not plain,
    }


def load(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return a sample's body and its signed API Gateway event."""
    headers, body = payload.read(path)
    return body, request(path.parent.name, body, headers)
