"""The queue's own format: encode and decode, pack, stagger, send.

A message is text: a header in JSON on the first line, then one line for each
event, which is that event's finished ``event-bulk-create`` entry. ``deliver``
joins these lines into a request without parsing them again::

    {"v":1,"kind":"events","source":"stripe","received":1700000000.0,"events":[["stripe:placed-order:evt_1",1700000000]]}
    {"type":"event-bulk-create","attributes":{"profile":...,"events":...}}

An authentic webhook that could not be mapped is kept raw, compressed::

    {"v":1,"kind":"raw","source":"shopify","received":1700000000.0,"headers":{"x-shopify-topic":"orders/create"}}
    eJyrVkrOz...

Header fields that hold their default are left out. Facts about SQS (1 MiB a
message and a batch, 10 entries a batch, ``DelaySeconds`` 0-900, 64 KiB billing
chunks): Amazon SQS Developer Guide, "Amazon SQS message quotas".
"""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .cleaning import clean
from .errors import MessageError, NewerMessage

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

VERSION = 1
JOB_EVENTS = 1_000  # of a bulk job at most (Klaviyo's API reference, "Bulk Create Events")
CHUNK_BYTES = 65_536
CHUNK_EVENTS = 100
MESSAGE_BYTES = 1_048_576
BATCH_ENTRIES = 10
MAX_DELAY = 900
RAW_BODY_BYTES = 30_000_000
_ATTRIBUTE_BYTES = 4_500  # the most that attributes take: a detail has 1,000 characters of up to 4 bytes
_HEADER = json.JSONDecoder()
_NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)  # SQS also accepts these names as message groups
_SOURCE = re.compile(rf'\{{"v":\d+,"kind":"\w+","source":"({_NAME.pattern})"', re.ASCII)


class Event(NamedTuple):
    """One event, ready to send.

    ``entry`` is the JSON text of an ``event-bulk-create`` entry with exactly one
    event (no raw newline), ``time`` its time in epoch seconds, ``unique_id`` the
    one inside ``entry``.
    """

    unique_id: str
    time: int
    entry: str


class Message(NamedTuple):
    """Events of one source that travel together.

    ``received`` is when ``receive`` got the first of them (epoch seconds),
    ``deferred`` how often it was sent again. ``suspect``: some of these events were
    in a job that Klaviyo refused, and it refused each of them alone at least ``refusals``
    times. ``refused_at`` is about when it last refused one alone, or first refused one
    with others (epoch seconds; an older version left it out). ``waiting_since`` is when
    the first of them was sent again for the first time (epoch seconds, 0 if none was). ``private_ids``:
    see ``telemetry.event_id``. ``backfill`` chooses the message group, which comes
    after live events. ``redriven`` is known only while a message is handled and is not
    stored: once such a message is sent again, it is like any other. ``extra`` has the
    header fields of a later release, which this one keeps.
    """

    source: str
    events: tuple[Event, ...]
    received: float
    deferred: int = 0
    suspect: bool = False
    backfill: bool = False
    private_ids: bool = False
    refused_at: int = 0
    refusals: int = 0
    waiting_since: int = 0
    redriven: bool = False
    extra: Mapping[str, Any] | None = None


class Raw(NamedTuple):
    """An authentic webhook as it came, to be mapped again after a redrive.

    ``headers`` holds what mapping reads (topic, ids) and what a corrected file may
    read, never a signature or token (``door.kept``). ``only`` has the places of the
    body's items that were parked, ``None`` for all, and ``items`` the digest of the
    expression that selected those items (``Source.items_digest``; the first release left
    it out). ``webhook_id`` is the id in the line that ``receive`` logged.
    """

    source: str
    body: bytes
    headers: Mapping[str, str]
    received: float
    only: tuple[int, ...] | None = None
    webhook_id: str = ""
    items: str = ""
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send: body, fair-queue group, delay in seconds, attributes."""

    body: str
    group: str
    delay: int = 0
    attributes: Mapping[str, str] = field(default_factory=dict)


_COUNTS = ("deferred", "refused_at", "refusals", "waiting_since")
_FLAGS = (*_COUNTS, "suspect", "backfill", "private_ids")
_PLAIN_FIELDS = 5  # of an events header without flags
_EVENTS_FIELDS = frozenset(("v", "kind", "source", "received", "events", *_FLAGS))
_RAW_FIELDS = frozenset(("v", "kind", "source", "received", "headers", "only", "items", "webhook_id"))
_ENDS = ("\n", "")


def _head(kind: str, message: Message | Raw, rest: dict[str, Any]) -> str:
    head: dict[str, Any] = {"v": VERSION, "kind": kind, "source": message.source, "received": message.received}
    head |= {name: value for name in _FLAGS if (value := getattr(message, name, None))}
    # ASCII, since a header or an id may hold characters that SQS refuses (SendMessage, "Valid characters").
    return json.dumps(head | rest | dict(message.extra or {}), separators=(",", ":"))


def encode(message: Message | Raw) -> str:
    """Return the body of ``message`` as SQS text; ``decode`` is its inverse."""
    if isinstance(message, Raw):
        rest: dict[str, Any] = {"headers": dict(message.headers)}
        if message.only is not None:
            rest["only"] = message.only
            rest |= {"items": message.items} if message.items else {}
        if message.webhook_id:
            rest["webhook_id"] = message.webhook_id
        packed = base64.b64encode(zlib.compress(message.body, 6)).decode()
        return _head("raw", message, rest) + "\n" + packed
    index = [[event.unique_id, event.time] for event in message.events]
    return "\n".join([_head("events", message, {"events": index}), *(event.entry for event in message.events)])


def decode(body: str, *, inflate: bool = True) -> Message | Raw:
    """Read a message's body; without ``inflate`` that of a raw webhook stays compressed, and its ``body`` empty.

    Raises
    ------
    NewerMessage
        The header names a later format version.
    MessageError
        The body is not in this format.
    """
    try:
        head, end = _HEADER.raw_decode(body)
        version, kind = head["v"], head["kind"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MessageError("the first line is not a header of this format") from error
    if type(version) is not int or version != VERSION:
        _check_version(version)
    if body[end : end + 1] not in _ENDS:
        raise MessageError("the first line is not a header of this format")
    if not isinstance(head.get("source"), str) or not _NAME.fullmatch(head["source"]):
        raise MessageError("the header names no source")
    try:
        if kind == "raw":
            return _raw(head, _inflated(body[end + 1 :]) if inflate else b"")
        if kind != "events":
            raise MessageError("the header names an unknown kind")
        flags = {} if len(head) == _PLAIN_FIELDS else _flags(head)
        return Message(head["source"], _events(head["events"], body, end + 1), _received(head), **flags)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise MessageError(f"the message does not fit its header ({type(error).__name__})") from error


def _check_version(version: Any) -> None:
    if not isinstance(version, int) or version < 1:
        raise MessageError("the header's version is not a whole number from 1")
    if version > VERSION:
        raise NewerMessage(f"format version {version}, this code reads up to {VERSION}")


def _flags(head: dict[str, Any]) -> dict[str, Any]:
    """Return the flags in ``head``; check their types, since a wrong one would crash a whole batch later."""
    flags: dict[str, Any] = {name: head[name] for name in _FLAGS if name in head}
    for name, value in flags.items():
        if type(value) is not (int if name in _COUNTS else bool) or value < 0:
            raise ValueError(name)
    return flags | {"extra": _extra(head, _EVENTS_FIELDS)}


def _extra(head: dict[str, Any], known: Collection[str]) -> dict[str, Any] | None:
    return {name: value for name, value in head.items() if name not in known} or None


def _received(head: dict[str, Any]) -> float:
    received = float(head["received"])
    if not math.isfinite(received):
        raise ValueError("received")
    return received


def _events(index: list[Any], body: str, start: int) -> tuple[Event, ...]:
    """Return the lines of ``body`` from ``start`` on, each with its id and time in ``index``."""
    end = body.find("\n", start)
    if end < 0 and len(index) == 1 and start < len(body):  # the fast path for most webhooks
        ((uid, time),) = index
        return (Event(str(uid), int(time), body[start:]),)
    entries: list[str] = []
    while end >= 0:  # str.split looks at each character, which is ten times as slow
        entries.append(body[start:end])
        start = end + 1
        end = body.find("\n", start)
    if entries or start < len(body):
        entries.append(body[start:])
    return tuple([Event(str(uid), int(time), entry) for (uid, time), entry in zip(index, entries, strict=True)])


def inflated(raw: Raw, text: str) -> Raw:
    """Return ``raw``, which was decoded from ``text`` without its body, with it; raises as ``decode``."""
    return raw._replace(body=_inflated(text.partition("\n")[2]))


def _inflated(packed: str) -> bytes:
    inflate = zlib.decompressobj()
    try:
        body = inflate.decompress(base64.b64decode(packed, validate=True), RAW_BODY_BYTES)
    except (ValueError, zlib.error) as error:
        raise MessageError(f"the raw body cannot be read ({type(error).__name__})") from error
    if not inflate.eof:
        raise MessageError("the raw body is cut off or too large")
    return body


def _raw(head: dict[str, Any], body: bytes) -> Raw:
    only = tuple(int(place) for place in head["only"]) if "only" in head else None
    return Raw(
        head["source"],
        body,
        {str(name): str(value) for name, value in head["headers"].items()},
        _received(head),
        only,
        webhook_id=str(head.get("webhook_id", "")),
        items=str(head.get("items", "")) if only is not None else "",
        extra=_extra(head, _RAW_FIELDS),
    )


def size(text: str) -> int:
    """Return the bytes of ``text`` in UTF-8, as SQS counts them."""
    return len(text) if text.isascii() else len(text.encode())


def _index_size(event: Event) -> int:
    return len(json.dumps([event.unique_id, event.time])) + 1


def pack(
    events: Iterable[Event], like: Message, *, bytes_limit: int = CHUNK_BYTES, events_limit: int = CHUNK_EVENTS
) -> Iterator[Message]:
    """Cut ``events`` into messages of at most ``events_limit`` events and ``bytes_limit`` bytes.

    ``like`` gives all fields except the events. A single event over the limit
    travels alone. Order is kept.
    """
    listed = list(events)
    if len(listed) == 1:
        yield like._replace(events=tuple(listed))
        return
    empty = size(encode(like._replace(events=())))
    batch: list[Event] = []
    used = empty
    for event in listed:
        weight = size(event.entry) + 1 + _index_size(event)
        if batch and (len(batch) >= events_limit or used + weight > bytes_limit):
            yield like._replace(events=tuple(batch))
            batch, used = [], empty
        batch.append(event)
        used += weight
    if batch:
        yield like._replace(events=tuple(batch))


def group(message: Message | Raw) -> str:
    """Return the message group, so that one busy source or its backfill does not delay another."""
    return f"{message.source}#backfill" if getattr(message, "backfill", False) else message.source


def stagger(messages: Sequence[Message], *, requests_per_minute: int) -> list[Outgoing]:
    """Spread one webhook's messages over the time that their share of the rate takes.

    The delay of a message is the time that the jobs before it need at
    ``requests_per_minute``; a webhook that fits one job is not delayed.
    """
    outgoing: list[Outgoing] = []
    before = 0
    for message in messages:
        delay = min(MAX_DELAY, int(before // JOB_EVENTS * 60 / requests_per_minute))
        outgoing.append(Outgoing(encode(message), group(message), delay))
        before += len(message.events)
    return outgoing


def parked(message: Message | Raw, *, reason: str, detail: str, at: str) -> Outgoing:
    """Return ``message`` for the dead-letter queue; see ``parked_text``."""
    return parked_text(encode(message), message.source, reason=reason, detail=detail, at=at)


def parked_text(body: str, source: str, *, reason: str, detail: str, at: str) -> Outgoing:
    """Return a message's ``body`` for the dead-letter queue, with the reason in its attributes.

    ``detail`` is cut to fit. It must be free of personal data. ``at`` is ISO 8601.
    The group is a separate one, so that a redrive comes after new messages.
    """
    attributes = {"reason": reason, "detail": clean(detail) or reason, "source": source, "parked_at": at}
    return Outgoing(body, f"{source}#redrive", 0, attributes)


def source(body: str) -> str:
    """Return the source in a message's ``body`` without decoding it; ``unknown`` if it is not where it belongs."""
    match = _SOURCE.match(body)
    return match[1] if match else "unknown"


def holds(raw: Raw) -> bool:
    """Return whether a message can hold ``raw`` together with the longest reason."""
    room = MESSAGE_BYTES - _ATTRIBUTE_BYTES
    # Base64, and each character of a header as \ud83d\ude00 in JSON. Only webhooks near the limit are compressed first.
    written = sum(len(name) + len(value) + 1 for name, value in raw.headers.items())
    most = len(raw.body) * 4 // 3 + 12 * written + 10_000
    return most <= room or size(encode(raw)) <= room


def fits(outgoing: Outgoing) -> bool:
    """Return whether SQS accepts this message (1 MiB with its attributes)."""
    return _weight(outgoing) <= MESSAGE_BYTES


def _weight(outgoing: Outgoing) -> int:
    extra = _ATTRIBUTE_BYTES if outgoing.attributes else 0
    return size(outgoing.body) + extra


def batches(outgoing: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """Yield ``outgoing`` in lists that one request may hold: ten messages, 1 MiB."""
    batch: list[Outgoing] = []
    used = 0
    for message in outgoing:
        weight = _weight(message)
        if batch and (len(batch) == BATCH_ENTRIES or used + weight > MESSAGE_BYTES):
            yield batch
            batch, used = [], 0
        batch.append(message)
        used += weight
    if batch:
        yield batch


def _entry(index: int, message: Outgoing) -> SendMessageBatchRequestEntryTypeDef:
    entry: SendMessageBatchRequestEntryTypeDef = {
        "Id": str(index),
        "MessageBody": message.body,
        "MessageGroupId": message.group,
    }
    if message.delay:
        entry["DelaySeconds"] = message.delay
    if message.attributes:
        entry["MessageAttributes"] = {
            name: {"DataType": "String", "StringValue": value} for name, value in message.attributes.items()
        }
    return entry


def send(
    client: SQSClient,
    queue_url: str,
    outgoing: Sequence[Outgoing],
    *,
    attempts: int = 3,
    is_late: Callable[[], bool] = lambda: False,
) -> list[Outgoing]:
    """Send ``outgoing`` in batches; a batch's ``Failed`` entries are tried again. None begins once ``is_late()``.

    Returns
    -------
    list of Outgoing
        The messages that the queue did not accept after ``attempts``; empty if it accepted all.

    Raises
    ------
    botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
        The queue cannot be reached at all.
    """
    waiting = list(outgoing)
    for _ in range(attempts):
        refused: list[Outgoing] = []
        for batch in batches(waiting):
            if is_late():
                refused += batch
                continue
            answer = client.send_message_batch(
                QueueUrl=queue_url, Entries=[_entry(index, message) for index, message in enumerate(batch)]
            )
            refused += [batch[int(entry["Id"])] for entry in answer.get("Failed", [])]
        if not refused:
            return []
        waiting = refused
    return waiting
