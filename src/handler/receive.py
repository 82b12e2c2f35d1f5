"""Lambda 1, the door: a webhook comes in, its events go into the queue.

Every request is answered and logged once. What is not authentic leaves no
trace but a count; what is authentic is queued, parked or deliberately ignored
before the sender gets its 200 (design: docs/decisions/).
"""

from __future__ import annotations

import os
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import BotoCoreError, ClientError

from . import clients, door, handshakes, mapping, messages, settings, signatures, sources
from .errors import NotParseable, NotVerified, Refused, SourceError, TooLarge, Unavailable, UnknownSource, Unmapped
from .keys import Secret
from .mapping import Defaults, Outcome
from .messages import Message, Outgoing, Raw
from .sources import Source
from .telemetry import event_id, logger, metrics
from .values import iso

SETTINGS = settings.for_receive(os.environ)
# Senders wait five seconds at the least: one slow try and one more fit in.
SQS = clients.client("sqs", connect=1, read=3, attempts=2)
SECRETS = Secret(clients.client("secretsmanager", connect=1, read=3, attempts=2), SETTINGS.sources_secret, time.time)
_Checked = TypeVar("_Checked")
_IDS_PER_LINE = 1_000  # a log event holds 256 KiB
_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)  # these headers are not signed: what is no id stays out of the log
_REFUSALS = {kind.status: kind.__name__ for kind in (UnknownSource, NotVerified, NotParseable, TooLarge, Unavailable)}


@dataclass(slots=True)
class Answer:
    """Status and document for the sender, and what the log line says of it."""

    status: int
    document: Any
    outcome: str
    reason: str = ""
    log: dict[str, Any] = field(default_factory=dict)


@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 (Lambda calls with both)
    """Answer one HTTP API request."""
    received = time.time()
    name, silent = "", False
    try:
        request = door.read(event)
        source = sources.load(request.source)
        name, silent = source.name, source.silent
        answer = _take(request, source, received)
    except Refused as error:
        answer = Answer(error.status, {"error": error.reason, "detail": error.detail}, "refused", error.reason)
    except (ClientError, BotoCoreError, SourceError) as error:
        logger.error("the door cannot work", extra={"cause": type(error).__name__, "source": name or "unknown"})
        detail = "try again later"
        answer = Answer(503, {"error": "unavailable", "detail": detail}, "refused", "unavailable")
    _record(event, answer, name or "unknown", received)
    return door.answer(answer.status, answer.document, silent=silent)


def _take(request: door.Request, source: Source, received: float) -> Answer:
    delivery = request.delivery
    if unsigned := handshakes.find(source, delivery, signed=False):
        _with_secrets(source, lambda secrets: handshakes.check_token(*unsigned, secrets))
        return Answer(200, handshakes.answer(*unsigned), "handshake")
    if delivery.method in ("GET", "HEAD"):
        return Answer(200, "ok", "handshake")
    door.check_not_klaviyo(delivery)
    secret = _with_secrets(source, lambda secrets: signatures.verify(source.schemes, delivery, secrets, now=received))
    door.check_size(delivery.body)
    if signed := handshakes.find(source, delivery, signed=True):
        return Answer(200, handshakes.answer(*signed, secret=secret), "handshake")
    raw = Raw(source.name, delivery.body, _kept(source, delivery), received, webhook_id=request.webhook_id)
    outcome = _understand(source, raw)
    if outcome.ignored:
        log = _named(outcome, source, raw) | {"detail": outcome.ignored}
        return Answer(200, {"accepted": 0, "ignored": outcome.ignored}, "ignored", log=log)
    _queue(source, outcome, received)
    _park(outcome, raw, received)
    return _accepted(outcome, _named(outcome, source, raw))


def _understand(source: Source, raw: Raw) -> Outcome:
    """Normalise; what is authentic and cannot be normalised is parked, whatever went wrong."""
    defaults = Defaults(SETTINGS.phone_region, SETTINGS.time_zone)
    try:
        return mapping.understand(source, headers=raw.headers, body=raw.body, received=raw.received, defaults=defaults)
    except Refused:
        raise
    except Unmapped as error:
        reason, detail = error.reason, error.detail
    except Exception as error:  # noqa: BLE001 (a fault of ours must not cost an authentic webhook: it is parked)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        logger.error("mapping crashed", extra={"source": source.name, "cause": type(error).__name__, "place": place})
        reason, detail = "mapping_crashed", f"{type(error).__name__} at {place}"
    return Outcome(parked=[mapping.Parked(None, reason, detail)])


def _kept(source: Source, delivery: signatures.Delivery) -> dict[str, str]:
    return {name: delivery.headers[name] for name in source.kept_headers if name in delivery.headers}


def _with_secrets(source: Source, check: Callable[[list[str]], _Checked]) -> _Checked:
    """Check with the source's secrets; what they refuse is checked once more with freshly read ones."""
    try:
        return check(_secrets(SECRETS.document(), source.name))
    except NotVerified as error:
        if error.reason not in ("no_secret", "signature_wrong", "token_wrong"):
            raise
        document = SECRETS.doubted()
        if document is None:
            raise
        return check(_secrets(document, source.name))


def _secrets(document: dict[str, Any], name: str) -> list[str]:
    found = document.get(name, [])
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not all(isinstance(secret, str) for secret in listed):
        raise Unavailable("secret_unreadable", "the secrets of this source are not a list of strings")
    return listed


def _queue(source: Source, outcome: Outcome, received: float) -> None:
    """Send the events, cut and staggered; what the queue does not take makes the sender retry."""
    like = Message(source.name, (), received, backfill=outcome.backfill, private_ids=outcome.private_ids)
    packed = list(messages.pack(outcome.events, like))
    _send(SETTINGS.events_queue_url, messages.stagger(packed, requests_per_minute=SETTINGS.requests_per_minute))


def _park(outcome: Outcome, raw: Raw, received: float) -> None:
    """Send what no event could be made of to the dead-letter queue, once for each reason."""
    by_reason: dict[tuple[str, str], list[int | None]] = {}
    for parked in outcome.parked:
        by_reason.setdefault((parked.reason, parked.detail), []).append(parked.index)
    for (reason, detail), places in by_reason.items():
        indices = tuple(place for place in places if place is not None)
        part = raw._replace(only=indices or None)
        _send(SETTINGS.dead_letter_queue_url, [messages.parked(part, reason=reason, detail=detail, at=iso(received))])


def _send(queue_url: str, outgoing: list[Outgoing]) -> None:
    if messages.send(SQS, queue_url, outgoing):
        raise Unavailable("queue_refuses", "the queue did not take all of it; what it took will not count twice")


def _accepted(outcome: Outcome, named: dict[str, Any]) -> Answer:
    ids = [event_id(event.unique_id, private=outcome.private_ids) for event in outcome.events]
    document: dict[str, Any] = {"accepted": len(ids), "event_ids": ids}
    if outcome.parked:
        document["parked"] = [
            {"index": parked.index, "reason": parked.reason, "detail": parked.detail} for parked in outcome.parked[:100]
        ]
    log = {
        **named,
        "metrics": sorted(set(outcome.metrics))[:20] if not outcome.private_ids else [],
        "event_ids": ids,
        "parked": dict(Counter(parked.reason for parked in outcome.parked)),
        "detail": outcome.parked[0].detail if outcome.parked else "",
        "left_out": dict(Counter(f"{note.code}: {_place(note.where)}" for note in outcome.notes)),
    }
    state = "accepted" if ids else "parked"
    return Answer(200, document, state, outcome.parked[0].reason if outcome.parked else "", log)


def _named(outcome: Outcome, source: Source, raw: Raw) -> dict[str, Any]:
    told = (raw.headers.get(name, "") for name in source.delivery_headers)
    return {
        "topics": outcome.topics[:20],
        "sender_ids": outcome.sender_ids[:20],
        "delivery_ids": [one for one in told if _ID.fullmatch(one)],
    }


def _place(where: str) -> str:
    # Names of properties are the sender's and may be anything: the log names only the part of the event.
    return where if where in ("email", "phone_number", "time", "value", "metric") else where.split(".")[0]


def _record(event: dict[str, Any], answer: Answer, name: str, received: float) -> None:
    context = event.get("requestContext", {})
    line: dict[str, Any] = {
        "webhook_id": context.get("requestId", ""),
        "source": name,
        "outcome": answer.outcome,
        "status": answer.status,
        "bytes": len(event.get("body") or ""),
        "milliseconds": round((time.time() - received) * 1000, 1),
        **({"reason": answer.reason} if answer.reason else {}),
        **({"detail": answer.document["detail"]} if answer.outcome == "refused" else {}),
        **{key: value for key, value in answer.log.items() if value},
    }
    # Last, for Logs Insights finds the first 200 fields of a line, and each id is one.
    ids = line.pop("event_ids", [])
    logger.info("webhook", extra=line | ({"event_ids": ids[:_IDS_PER_LINE]} if ids else {}))
    for start in range(_IDS_PER_LINE, len(ids), _IDS_PER_LINE):
        more = {"webhook_id": line["webhook_id"], "source": name, "event_ids": ids[start : start + _IDS_PER_LINE]}
        logger.info("webhook continued", extra=more)
    metrics.add_dimensions(source=name)
    for counted, count in _counts(answer).items():
        metrics.add_metric(counted, MetricUnit.Count, count)


def _counts(answer: Answer) -> dict[str, int]:
    """Metrics of one webhook; accepted and parked count events, the others webhooks."""
    counts = {
        "Received": 1,
        "Authentic": answer.outcome in ("accepted", "parked", "ignored"),
        "Accepted": len(answer.log.get("event_ids", [])),
        "Parked": sum(answer.log.get("parked", {}).values()),
        "Ignored": answer.outcome == "ignored",
        "Handshake": answer.outcome == "handshake",
        "Refused": answer.outcome == "refused",
        _REFUSALS.get(answer.status, ""): 1,
    }
    return {name: int(count) for name, count in counts.items() if name and count}
