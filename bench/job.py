"""A full job: CPU from SQS records to the bytes of the request, compared with the usual alternatives.

All contenders produce the same request: 1,000 orders, 2 MB. The official SDK
is the real one (``klaviyo-api``) up to its HTTP call, which is answered here.
"""

from __future__ import annotations

import json
from typing import Any

import orjson
from klaviyo_api import KlaviyoAPI

from handler import messages
from handler.delivery import crashes, jobs
from handler.delivery.records import of_event
from handler.delivery.records import read as decoded
from handler.messages import Message

from . import orders
from .measure import Timing, Work, compare, table

EVENTS = 1_000


def records(message_events: int) -> list[dict[str, Any]]:
    """Return SQS records as Lambda hands them over, of messages of at most ``message_events`` of 1,000 orders."""
    like = Message("shopify", (), float(orders.START))
    packed = messages.pack(orders.events(EVENTS), like, events_limit=message_events)
    return [_record(place, messages.encode(message)) for place, message in enumerate(packed)]


def _record(place: int, body: str) -> dict[str, Any]:
    return {
        "messageId": str(place),
        "receiptHandle": "r",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1", "MessageGroupId": "shopify"},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
    }


def ours(records: list[dict[str, Any]]) -> bytes:
    """Do what ``deliver`` does with a batch's records before it posts, step by step as its handler does."""
    new, _, _ = crashes.apart(of_event(records), now=orders.START)
    read = decoded(new, at="", now=orders.START).messages
    (job,) = jobs.pack(list(read.items()), now=orders.START, late_after=86_400)
    return job.body()


class _Sdk:
    """The official client, its connection replaced by one that keeps the body and answers 202."""

    def __init__(self) -> None:
        api = KlaviyoAPI("pk_bench")
        self.events = api.Events
        self.sent = b""
        self.events.api_client.rest_client.pool_manager.request = self._request

    def _request(self, *_: str, body: str, **__: Any) -> Any:
        self.sent = body.encode()
        return _Accepted()

    def post(self, document: dict[str, Any]) -> bytes:
        self.events.bulk_create_events(document)
        return self.sent


class _Accepted:
    """The part of urllib3's response that the SDK looks at."""

    status = 202
    reason = "Accepted"
    data = b""
    headers: dict[str, str] = {}  # noqa: RUF012 (never changed)


def document(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the request as an object."""
    return {"data": {"type": "event-bulk-create-job", "attributes": {"events-bulk-create": {"data": events}}}}


def contenders() -> dict[str, Work]:
    """Return every way to the same request; they are checked to agree before anything is timed."""
    single, batched = records(1), records(messages.CHUNK_EVENTS)
    entries = [event.entry for event in orders.events(EVENTS)]
    whole = document([json.loads(entry) for entry in entries])
    sdk = _Sdk()
    contenders: dict[str, Work] = {
        "relay, messages of one event": lambda: ours(single),
        "relay, messages of many": lambda: ours(batched),
        "orjson.dumps (floor)": lambda: orjson.dumps(whole),
        "orjson.loads each, dumps": lambda: orjson.dumps(document([orjson.loads(entry) for entry in entries])),
        "json.dumps": lambda: json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode(),
        "json.loads each, dumps": lambda: json.dumps(document([json.loads(entry) for entry in entries])).encode(),
        "klaviyo-api SDK": lambda: sdk.post(whole),
    }
    for name, work in contenders.items():
        body = work()
        if not isinstance(body, bytes) or _as_given(orjson.loads(body)) != whole:
            raise RuntimeError(f"{name} does not make the same request as the others")
    return contenders


def _as_given(value: Any) -> Any:
    """Return ``value`` without what the SDK adds: ``"backfill": false``, and ``Z`` spelt as an offset."""
    if isinstance(value, dict):
        return {name: _as_given(inner) for name, inner in value.items() if (name, inner) != ("backfill", False)}
    if isinstance(value, list):
        return [_as_given(inner) for inner in value]
    return value.replace("+00:00", "Z") if isinstance(value, str) else value


def run(seconds: float = 12.0) -> dict[str, Any]:
    """Time all contenders; print the table and return the figures."""
    timings = compare(contenders(), seconds=seconds)
    floor, sdk = timings["orjson.dumps (floor)"], timings["klaviyo-api SDK"]
    rows = [(name, *_row(timing, floor, sdk)) for name, timing in timings.items()]
    print(table(f"A full job: {EVENTS:,} orders, 2 MB", ["", "CPU ms", "x floor", "SDK is slower by"], rows))
    return {
        "events": EVENTS,
        "bytes": len(ours(records(1))),
        "timings": {name: timing.document() for name, timing in timings.items()},
        "sdk_over_relay": round(sdk.median / timings["relay, messages of one event"].median, 1),
        "sdk_over_relay_batched": round(sdk.median / timings["relay, messages of many"].median, 1),
        "relay_over_floor": round(timings["relay, messages of one event"].median / floor.median, 2),
        "relay_batched_over_floor": round(timings["relay, messages of many"].median / floor.median, 2),
    }


def _row(timing: Timing, floor: Timing, sdk: Timing) -> tuple[str, str, str]:
    return (
        f"{timing.median * 1e3:.2f}",
        f"{timing.median / floor.median:.2f}",
        f"{sdk.median / timing.median:.1f} x",
    )
