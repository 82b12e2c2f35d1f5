"""What the worst webhooks cost ``receive``: ``python -m bench.worst [shape …]``, some 2 minutes for all.

Each shape is authentic, as large as Lambda can be given, or gzip that inflates to
the limit of ``bodies``, and made to cost: by its size, or by what a rule does with
it again and again. Each runs in a process of its own, through the real ``receive``
with AWS answered there. Exit status 0 if none exceeds ``CPU_SECONDS`` or
``MEGABYTES``, and all are answered 200 or, as no message could hold them, 413.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.events.bodies import INFLATED_BYTES, MOST_OBJECTS
from local import aws

from . import door

CPU_SECONDS, MEGABYTES = 5, 300
RAW_BYTES = 4_600_000  # 6 MB in base64
EMAIL = "kim@mail.example"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Shape:
    """A kind of webhook: ``make(n)`` gives a body of about ``n`` bytes, ``topic`` the headers that name it."""

    source: str
    make: Callable[[int], Any]
    topic: Mapping[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Of the request: what the body is, and its topic if a header names that."""
        return {"content-type": FORM if self.source == "gumroad" else JSON, **(self.topic or {})}

    def body(self, size: int) -> bytes:
        """Return the body's bytes."""
        body = self.make(size)
        return body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _event(**change: Any) -> dict[str, Any]:
    return {"profile": {"email": EMAIL}, "metric": "M", "unique_id": "1"} | change


def order(refunds: int, **change: Any) -> dict[str, Any]:
    """Return an order of Shopify's with so many refunds."""
    return {
        "id": 1,
        "order_number": 1,
        "line_items": [],
        "email": EMAIL,
        "created_at": "2026-11-01T00:00:00Z",
        "updated_at": "2026-11-01T00:00:00Z",
        "refunds": [{"id": number, "created_at": "2026-11-01T00:00:00Z"} for number in range(refunds)],
    } | change


def _included(kind: str, count: int) -> list[dict[str, Any]]:
    return [{"type": kind, "id": str(i), "attributes": {"amount_cents": 1}} for i in range(min(count, 24_000))]


def _commerce_layer(size: int) -> dict[str, Any]:
    order = {
        "id": "a",
        "type": "orders",
        "attributes": {"customer_email": EMAIL, "payment_status": "refunded", "updated_at": "2026-11-01T00:00:00Z"},
        "relationships": {"billing_address": {"data": {"id": "none"}}},
    }
    return {"data": order, "included": _included("refunds", size // 65)}


def _woocommerce(size: int) -> dict[str, Any]:
    return {
        "id": 1,
        "order_key": "k",
        "status": "refunded",
        "billing": {"email": EMAIL},
        "line_items": [{"name": "<b>x</b>", "id": number} for number in range(min(size // 60, 24_000))],
        "refunds": [{"id": number, "total": "-1"} for number in range(min(size // 60, 24_000))],
    }


def _many(size: int, objects: int, make: Callable[[int, str], Any]) -> list[Any]:
    """Return as many as a body may hold of what has ``objects`` objects and lists, and texts of ``size`` bytes."""
    count = min(size // 90, (MOST_OBJECTS - 10) // objects)
    return [make(number, "x" * (size // count - 90)) for number in range(count)]


SHAPES = {
    "events": Shape(
        "custom", lambda n: _many(n, 3, lambda i, x: _event(unique_id=str(i), properties={"p": x} if x else {}))
    ),
    "events with a common profile": Shape(
        "custom",
        lambda n: {
            "profile": {"email": EMAIL, "properties": {f"p{i}": "x" * 200 for i in range(390)}},
            "events": _many(n, 1, lambda i, x: {"metric": "M", "unique_id": f"{i}{x[:200]}"}),
        },
    ),
    "a common profile to be cut": Shape(
        "custom",
        lambda n: {
            "profile": {"email": EMAIL, "properties": {"p": "\xe9" * (n // 4)}},
            "events": _many(n // 2, 1, lambda i, _: {"metric": "M", "unique_id": str(i)}),
        },
    ),
    "phone numbers": Shape(
        "custom",
        lambda n: _many(
            n,
            4,
            lambda i, _: _event(
                profile={"phone_number": ["+49 151"] * 9 + [f"+4915112{i:06}"], "location": {"country": "US"}}
            ),
        ),
    ),
    "properties to be left out": Shape(
        "custom", lambda n: [_event(properties={f"p{i}": "x" * (n // 399) for i in range(399)})]
    ),
    "numbers out of range": Shape(
        "custom", lambda n: [_event(properties={"a": [[10**20] * 390] * (min(n // 22, 900_000) // 390)})]
    ),
    "one object of many members": Shape(
        "hmac", lambda n: {"type": "a.b", "email": EMAIL} | {f"k{i}": i for i in range(min(n // 15, 900_000))}
    ),
    "one emoji in a long text": Shape("custom", lambda n: [_event(properties={"p": "\U0001f600" + "x" * n})]),
    "emojis": Shape(
        "custom", lambda n: [_event(properties={f"p{i}": "\U0001f600" * (n // 200 // 4)}) for i in range(200)]
    ),
    "entries": Shape(
        "sendgrid",
        lambda n: _many(n, 1, lambda i, x: {"email": EMAIL, "event": "open", "sg_event_id": str(i), "x": x}),
    ),
    "entries without a key": Shape(
        "sendgrid", lambda n: _many(n, 1, lambda _, x: {"email": EMAIL, "event": "open", "x": x})
    ),
    "names that are searched for phones, addresses and keys": Shape(
        "custom", lambda n: [_event(metric="(//k_&+" * 280, unique_id=str(i)) for i in range(n // 2_100)]
    ),
    "entries that name nobody": Shape("sendgrid", lambda n: _many(n, 1, lambda _, x: {"event": "open", "x": x})),
    "refunds that list an order's items": Shape("woocommerce", _woocommerce, {"x-wc-webhook-topic": "order.updated"}),
    "refunds that look for an address": Shape(
        "commerce_layer", _commerce_layer, {"x-commercelayer-topic": "orders.refund"}
    ),
    "refunds that repeat an order's tags": Shape(
        "shopify", lambda n: order(min(n // 130, 40_000), tags="t," * (n // 4)), {"x-shopify-topic": "orders/updated"}
    ),
    "fields of a form": Shape(
        "gumroad",
        lambda n: "&".join(
            [
                "sale_id=1&email=kim%40mail.example",
                *(f"f{i}=x" for i in range(4_900)),
                "x=" + "y" * min(n - 60_000, 4_900_000),
            ]
        ).encode(),
    ),
    "nested lists": Shape("custom", lambda n: b"[" * 900 + b",".join([b"1" * 12] * min(49_000, n // 13)) + b"]" * 900),
    "brackets in texts": Shape("custom", lambda n: [_event(properties={"p": "[" * n})]),
    "not JSON": Shape("custom", lambda n: b"{" + b'"a":1,' * (min(n // 6, 900_000))),
}


def request(shape: Shape, *, packed: bool) -> dict[str, Any]:
    """Return the API's event of a webhook of this shape, as large as it can be."""
    if not packed:
        return door.request(shape.source, shape.body(RAW_BYTES), shape.headers)
    body = gzip.compress(shape.body(INFLATED_BYTES - 100_000), 6)
    return door.request(shape.source, body, {**shape.headers, "content-encoding": "gzip"})


def measure(name: str, *, packed: bool) -> dict[str, Any]:
    """Measure CPU seconds, peak megabytes, and the answer, of one webhook in a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(request(SHAPES[name], packed=packed), file)
        file.flush()
        environment = {**os.environ, "PYTHONPATH": f"src{os.pathsep}."}
        command = [sys.executable, "-m", "bench.worst", "--event", file.name]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=aws.ROOT, env=environment)  # noqa: S603
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def handle(path: Path) -> dict[str, Any]:
    """Measure what the event in ``path`` costs this process, which has handled a small one before."""
    receive = door.Door()
    with door.silenced():
        receive.handler(
            door.request(
                "custom",
                json.dumps([_event(profile={"phone_number": "+12025550187"})]).encode(),
                {"content-type": JSON},
            ),
            None,
        )
        event = json.loads(path.read_text("utf-8"))
        begun = time.process_time()
        answer = receive.handler(event, None)
        spent = time.process_time() - begun
    document = json.loads(answer["body"] or "null")
    parked = [item["reason"] for item in document.get("parked", [])] if isinstance(document, dict) else []
    return {
        "cpu": round(spent, 2),
        "megabytes": _peak(),
        "status": answer["statusCode"],
        "accepted": document.get("accepted", 0),
        "reason": parked[0] if parked else document.get("error", ""),
    }


def _peak() -> int:
    """Return the most memory that this process has had, in MB; ``ru_maxrss`` would be its parent's if that had more."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak[1]) // 1024 if peak else 0


def main() -> int:
    """Measure every shape; return exit status 1 if one costs more than it may."""
    parser = argparse.ArgumentParser(prog="python -m bench.worst", description=__doc__)
    parser.add_argument("shapes", nargs="*", metavar="shape", help=f"any of {', '.join(map(repr, SHAPES))}")
    parser.add_argument("--event", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.event:
        print(json.dumps(handle(options.event)))
        return 0
    failed = 0
    print(f"{'shape':<38} {'sent':<5} {'CPU s':>6} {'MB':>5}  answer")
    for name in options.shapes or SHAPES:
        for packed in (False, True):
            figures = measure(name, packed=packed)
            sent = "gzip" if packed else "raw"
            answer = f"{figures['status']} {figures['accepted']:,} events {figures['reason']}"
            print(f"{name:<38} {sent:<5} {figures['cpu']:>6.2f} {figures['megabytes']:>5}  {answer}", flush=True)
            failed += (
                figures["cpu"] > CPU_SECONDS or figures["megabytes"] > MEGABYTES or figures["status"] not in (200, 413)
            )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
