"""Lambda 1, ``receive`` (the door): a webhook comes in, its events go into the queue.

Every request is answered, counted and logged once. Of very many refusals only
some have a line of their own. Nothing else is kept of an unverified request. An
authentic webhook is queued, parked or deliberately ignored before the sender
gets its 200. It is refused only if no queue message can hold it
(docs/decisions/0029).
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import BotoCoreError, ClientError

from .. import aws, messages
from ..cleaning import clean, cleaned
from ..errors import NotParseable, NotVerified, Refused, SourceError, TooLarge, Unavailable, UnknownSource, Unmapped
from ..events import handshakes, mapping, parking, senders
from ..events.mapping import Defaults, Outcome
from ..events.senders import Handshake, Source
from ..events.values import iso
from ..events.webhook import Webhook
from ..messages import Message, Outgoing, Raw
from ..pauses import PAUSES, Pauses
from ..secret import Secret
from ..settings import ReceiveSettings, for_receive
from ..telemetry import by_line, crash, event_id, logger, metrics
from . import http, kept, signatures
from .refusals import Refusals

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_Checked = TypeVar("_Checked")
ANSWER_BYTES = 4_000_000  # of ids; Lambda returns 6 MB at most, and a longer answer would be a 500
# Seconds after which no request to a queue begins: it may take 8 s (two attempts), and ``receive`` may run for 20.
# If reading took long, sending has a few seconds all the same: the sender's next attempt would take as long.
SEND_SECONDS, SEND_AT_LEAST = 11.0, 3.0
_IDS_AT_LEAST = 3_000  # an id has up to 255 characters
_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)  # these headers are not signed: only ids are logged
_REFUSALS = {kind.status: kind.__name__ for kind in (UnknownSource, NotVerified, NotParseable, TooLarge, Unavailable)}


@dataclass(slots=True)
class Reply:
    """Status and document for the sender, and fields for the log line."""

    status: int
    document: Any
    outcome: str
    reason: str = ""
    log: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> Any:
        """The document as it may leave. The answer to a check of the URL stays as it is: the sender compares it."""
        return self.document if self.outcome == "handshake" else cleaned(self.document)


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of an authentic webhook: its answer, and what each queue must accept before the answer is given."""

    answer: Reply
    events: list[Outgoing] = field(default_factory=list)
    parked: list[Outgoing] = field(default_factory=list)


class Receive:
    """The function: called with an HTTP API event and Lambda's context.

    ``clock`` gives epoch seconds, ``load`` a source by its name.
    """

    def __init__(
        self,
        *,
        settings: ReceiveSettings,
        sqs: SQSClient,
        secrets: Secret,
        refusals: Refusals,
        clock: Callable[[], float],
        load: Callable[[str], Source] = senders.load,
    ) -> None:
        self._settings = settings
        self._sqs = sqs
        self._secrets = secrets
        self._refusals = refusals
        self._clock = clock
        self._load = load
        self._defaults = Defaults(settings.phone_region, settings.time_zone)

    @classmethod
    def from_environment(
        cls, env: Mapping[str, str], *, pauses: Pauses = PAUSES, client: Callable[..., Any] = aws.client
    ) -> Self:
        """Build the function with AWS as ``env`` names it; raises as ``settings.for_receive``."""
        settings = for_receive(env)
        return cls(
            settings=settings,
            # Senders wait at least five seconds: one slow attempt and a second one fit.
            sqs=client("sqs", connect=1, read=3, attempts=2),
            secrets=Secret(
                client("secretsmanager", connect=1, read=3, attempts=2),
                settings.sources_secret,
                time.time,
                kept=pauses.kept,
                reread=pauses.reread,
            ),
            refusals=Refusals(time.time),
            clock=time.time,
        )

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG002 (Lambda calls with both)
        """Answer one HTTP API request."""
        received = self._clock()
        name, silent = "unknown", False
        response: dict[str, Any] = {}
        try:
            request = http.read(event)
            source = self._load(request.source)
            name, silent = source.name, source.silent
            answer = self._take(request, source, received)
            response = http.answer(answer.status, answer.shown, silent=silent)
        except Refused as error:
            answer = Reply(error.status, {"error": error.reason, "detail": error.detail}, "refused", error.reason)
        except Exception as error:  # noqa: BLE001 (every request gets an answer, a line and a count)
            answer = _unavailable(error, name)
        self._record(event, answer, name, received)
        return response or http.answer(answer.status, answer.shown, silent=silent)

    def _take(self, request: http.Request, source: Source, received: float) -> Reply:
        """Verify the sender, then settle the webhook. Only unverified requests are refused here."""
        webhook = request.webhook
        if check := handshakes.find(source, webhook, signed=False):
            if check[0].token is None:
                return _strangers(*check)
            self._with_secrets(source, lambda secrets: signatures.check_token(*check, secrets))
            return self._settle(source, request, received, lambda _: _greeting(*check))
        if webhook.method in ("GET", "HEAD"):
            return Reply(200, "ok", "handshake")
        http.check_not_klaviyo(webhook)
        secret = self._with_secrets(
            source, lambda secrets: signatures.verify(source.schemes, webhook, secrets, now=received, body=source.body)
        )
        return self._settle(source, request, received, lambda raw: self._read(source, raw, webhook, secret))

    def _settle(self, source: Source, request: http.Request, received: float, read: Callable[[Raw], Plan]) -> Reply:
        """Settle an authentic webhook as ``read`` plans it; park it if ``read`` fails for any reason.

        Raises
        ------
        TooLarge
            No message could hold it if it had to be parked.
        Unavailable, ClientError, BotoCoreError
            The queue does not accept it.
        """
        raw = _raw(source, request, received)
        settled = parking.settled(source.name, lambda: read(raw))
        plan = self._plan(source, raw, settled) if isinstance(settled, Outcome) else settled
        until = max(received + SEND_SECONDS, self._clock() + SEND_AT_LEAST)
        self._send(self._settings.events_queue_url, plan.events, until=until)
        self._send(self._settings.dead_letter_queue_url, plan.parked, until=until)
        return plan.answer

    def _read(self, source: Source, raw: Raw, webhook: Webhook, secret: str) -> Plan:
        if check := handshakes.find(source, webhook, signed=True):
            return _greeting(*check, secret=secret)
        outcome = mapping.understand(source, webhook, received=raw.received, defaults=self._defaults)
        return self._plan(source, raw, outcome)

    def _plan(self, source: Source, raw: Raw, outcome: Outcome) -> Plan:
        """Plan the messages to queue (cut and staggered), those to park (one for each reason) and the answer."""
        named = _named(outcome, source, raw)
        if outcome.ignored:
            log = named | {"detail": outcome.ignored}
            return Plan(Reply(200, {"accepted": 0, "ignored": outcome.ignored}, "ignored", log=log))
        like = Message(source.name, (), raw.received, backfill=outcome.backfill, private_ids=outcome.private_ids)
        packed = list(messages.pack(outcome.events, like))
        return Plan(
            _accepted(outcome, named),
            messages.stagger(packed, requests_per_minute=self._settings.requests_per_minute),
            list(parking.letters(raw, outcome, at=iso(raw.received))),
        )

    def _with_secrets(self, source: Source, check: Callable[[list[str]], _Checked]) -> _Checked:
        """Check with the source's secrets; if none matches, read them again and check once more."""
        try:
            return check(_secrets(self._secrets.document(), source.name))
        except NotVerified as error:
            if error.reason not in ("no_secret", "signature_wrong", "token_wrong"):
                raise
            document = self._secrets.doubted()
            if document is None:
                raise
            return check(_secrets(document, source.name))

    def _send(self, queue_url: str, outgoing: list[Outgoing], *, until: float) -> None:
        if messages.send(self._sqs, queue_url, outgoing, is_late=lambda: self._clock() > until):
            raise Unavailable("queue_refuses", "some events could not be queued; please retry (repeats are discarded)")

    def _record(self, event: dict[str, Any], answer: Reply, name: str, received: float) -> None:
        webhook_id, length = _id_and_length(event)
        line: dict[str, Any] = {
            "webhook_id": webhook_id,
            "source": name,
            "outcome": answer.outcome,
            "status": answer.status,
            "bytes": length,
            "milliseconds": round((self._clock() - received) * 1000, 1),
            **({"reason": answer.reason} if answer.reason else {}),
            **({"detail": answer.document["detail"]} if answer.outcome == "refused" else {}),
            **{key: value for key, value in answer.log.items() if value},
        }
        for source, reason, more, detail in self._refusals.left():
            extra = {"source": source, "outcome": "refused", "reason": reason, "more": more, "detail": detail}
            logger.info("webhooks refused", extra=extra)
        if answer.outcome != "refused" or self._refusals.is_logged(name, answer.status, answer.reason, line["detail"]):
            _log(line)
        if self._settings.metrics_by_source & {"*", name}:
            metrics.add_dimensions(source=name)
        for counted, count in _counts(answer).items():
            metrics.add_metric(counted, MetricUnit.Count, count)


def _unavailable(error: Exception, name: str) -> Reply:
    """Return the answer if ``receive`` itself fails; the log says how, and whether the fault is in our code."""
    cause, place = crash(error)
    line, reason = {"cause": cause, "source": name}, "unavailable"
    if isinstance(error, (ClientError, BotoCoreError, SourceError)):
        logger.error("receive unavailable", extra=line)
    else:
        logger.error("receive crashed", extra=line | {"place": place})
        reason = "receive_crashed"
    detail = "the relay cannot accept webhooks now; please retry"
    return Reply(503, {"error": "unavailable", "detail": detail}, "refused", reason)


def _strangers(check: Handshake, document: dict[str, Any]) -> Reply:
    """Return the answer to a check of the URL, which anyone may make."""
    try:
        return _greeting(check, document).answer
    except Unmapped as error:
        raise NotParseable(error.reason, error.detail) from None


def _greeting(check: Handshake, document: dict[str, Any], *, secret: str = "") -> Plan:
    return Plan(Reply(200, handshakes.answer(check, document, secret=secret), "handshake"))


def _raw(source: Source, request: http.Request, received: float) -> Raw:
    """Return the webhook as it would be parked; near the limit of a message only with the headers that mapping reads.

    Raises
    ------
    TooLarge
        No message could hold it.
    """
    webhook = request.webhook
    for headers in (kept.headers(source, webhook.headers), kept.needed(source, webhook.headers)):
        raw = Raw(source.name, webhook.body, headers, received, webhook_id=request.webhook_id)
        if messages.holds(raw):
            return raw
    raise TooLarge("too_large", "the webhook is larger than a queue message can hold (1 MiB), even when compressed")


def _secrets(document: dict[str, Any], name: str) -> list[str]:
    entry = document.get(name, [])
    listed = [entry] if isinstance(entry, str) else entry
    if not isinstance(listed, list) or not all(isinstance(secret, str) for secret in listed):
        raise Unavailable("secret_unreadable", "the secrets of this source are not a list of strings")
    return listed


def _accepted(outcome: Outcome, named: dict[str, Any]) -> Reply:
    ids = [event_id(event.unique_id, private=outcome.private_ids) for event in outcome.events]
    named_in_answer = ids if sum(map(messages.size, ids)) <= ANSWER_BYTES else ids[:_IDS_AT_LEAST]
    document: dict[str, Any] = {"accepted": len(ids), "event_ids": named_in_answer}
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
    return Reply(200, document, state, outcome.parked[0].reason if outcome.parked else "", log)


def _named(outcome: Outcome, source: Source, raw: Raw) -> dict[str, Any]:
    written = (raw.headers.get(name, "") for name in source.delivery_headers)
    return {
        "topics": [clean(topic, hide_numbers=True) for topic in outcome.topics[:20]],
        "sender_ids": outcome.sender_ids[:20],
        "delivery_ids": [delivery_id for delivery_id in written if _ID.fullmatch(delivery_id)],
    }


def _place(where: str) -> str:
    # The sender chooses the names of properties, so the log names only the part of the event.
    return where if where in ("email", "phone_number", "time", "value", "metric") else where.split(".")[0]


def _id_and_length(event: Any) -> tuple[str, int]:
    """Return the request's id and its body's length, as far as ``event`` has them: a test event may be anything."""
    request = event if isinstance(event, dict) else {}
    context, body = request.get("requestContext"), request.get("body")
    request_id = context.get("requestId", "") if isinstance(context, dict) else ""
    return request_id if isinstance(request_id, str) else "", len(body) if isinstance(body, str) else 0


def _log(line: dict[str, Any]) -> None:
    """Write ``line``; ids for which it has no room follow in further lines."""
    # Ids last: Logs Insights finds only the first 200 fields of a line, and each id is one.
    first, *rest = by_line(line.pop("event_ids", []))
    logger.info("webhook", extra=line | ({"event_ids": first} if first else {}))
    for more in rest:
        extra = {"webhook_id": line["webhook_id"], "source": line["source"], "event_ids": more}
        logger.info("webhook continued", extra=extra)


def _counts(answer: Reply) -> dict[str, int]:
    """Return the metrics of one webhook: accepted and parked count events, the others count webhooks."""
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
