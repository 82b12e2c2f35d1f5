"""Profile, metric, event: Klaviyo's limits and its wire format.

``build`` turns loose attributes into one finished ``event-bulk-create`` entry
and reports what it had to change. Limits and shape: Klaviyo API reference,
revision 2026-10-15, "Bulk Create Events"; the guides "Events API overview" and
"Rate limits, status codes, and errors".
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import Any

from ..errors import Unmapped
from ..messages import Event, size
from ..work import CHARACTERS, put_out, spend
from . import values

STRING_BYTES = 100_000
EVENT_PROPERTIES = 400
DEPTH = 10
ARRAY_ITEMS = 4_000
UNIQUE_ID_LENGTH = 255
METRIC_LENGTH = 127
EXTERNAL_ID_LENGTH = 255
NAME_LENGTH = 255  # of a property
PROFILE_BYTES = 95_000
ENTRY_BYTES = 900_000  # a message is 1 MiB with its header
MARK = "RelayDropped"
_MARKS = 20
_FEW = 16  # members that the cost of their property covers
_UNITS = 20  # of work for each event, regardless of its size
_NOTE_UNITS = 4  # for what is left out: a note takes memory rather than time
SILENT = "klaviyo_drops_domain"

IDENTIFIERS = ("email", "phone_number", "external_id", "anonymous_id", "_kx")
_TEXTS = ("first_name", "last_name", "organization", "locale", "title", "image")
_LOCATION = ("address1", "address2", "city", "region", "zip", "timezone", "ip")
PROFILE_FIELDS = frozenset({*IDENTIFIERS, *_TEXTS, "id", "location", "properties", "meta"})
LOCATION_FIELDS = frozenset({*_LOCATION, "country", "latitude", "longitude"})

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
CONTROL = re.compile("[\x00\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was left out or changed: a code, and the field's path (no value)."""

    code: str
    where: str


@dataclass(slots=True)
class Draft:
    """The loose attributes of one event, before Klaviyo's rules.

    ``profile`` has the names of Klaviyo's profile attributes plus ``id`` and
    ``meta``, and may give lists of candidates for email and phone; ``time`` is
    in epoch seconds, ``value`` a decimal amount. ``fallback_id`` becomes the
    ``external_id`` if there is no other identifier. ``notes`` has what was left
    out so far.
    """

    profile: dict[str, Any]
    metric: str
    unique_id: str
    time: float
    properties: dict[str, Any] = field(default_factory=dict)
    service: str | None = None
    value: Decimal | None = None
    currency: str | None = None
    backfill: bool = False
    fallback_id: str | None = None
    notes: list[Note] = field(default_factory=list)


def build(draft: Draft, *, phone_region: str = "") -> tuple[Event, list[Note]]:
    """Return the finished event and what had to be left out of it, the draft's own notes first.

    The event's property ``RelayDropped`` also lists what was left out.

    Raises
    ------
    Unmapped
        ``no_identifier`` if the event has no valid identifier, ``no_metric``
        or ``no_unique_id`` if the draft lacks one, ``too_large`` if no message
        can hold the event even without its properties.
    """
    spend(_UNITS)
    notes = list(draft.notes)
    unique_id = _short(draft.unique_id, UNIQUE_ID_LENGTH, "unique_id", notes)
    if not draft.metric.strip() or not draft.unique_id:
        raise Unmapped(
            "no_metric" if draft.unique_id else "no_unique_id", "the event has no metric name or no unique_id"
        )
    profile = _profile(draft, phone_region, notes)
    properties = _properties(draft.properties, "properties", notes)
    event = _event(draft, unique_id, properties, notes)
    backfill = ',"backfill":true' if draft.backfill else ""
    head = f'{{"type":"event-bulk-create","attributes":{{"profile":{{"data":{profile}}},"events":{{"data":['
    tail = f"]}}{backfill}}}}}"
    room = ENTRY_BYTES - size(head) - size(tail)
    marks = _Marks(properties, notes)
    written = _fit(event, room, [properties], "properties", "too_large", notes, marks)
    entry = head + written + tail
    put_out(sys.getsizeof(entry))
    return Event(unique_id, int(draft.time), entry), notes


def _event(draft: Draft, unique_id: str, properties: dict[str, Any], notes: list[Note]) -> dict[str, Any]:
    metric: dict[str, Any] = {"name": _short(draft.metric.strip(), METRIC_LENGTH, "metric", notes)}
    if draft.service:
        metric["service"] = _short(draft.service, METRIC_LENGTH, "service", notes)
    attributes: dict[str, Any] = {
        "metric": {"data": {"type": "metric", "attributes": metric}},
        "properties": properties,
        "time": values.iso(draft.time),
        "unique_id": unique_id,
    }
    if draft.value is not None:
        amount = values.number(draft.value) if abs(draft.value) < Decimal(10) ** 15 else None
        if amount is None:
            notes.append(Note("number_out_of_range", "value"))
        else:
            attributes["value"] = amount
            if draft.currency:
                attributes["value_currency"] = draft.currency
    return {"type": "event", "attributes": attributes}


def identifiers_only(entry: str) -> str:
    """Return ``entry`` as a backfill with only the profile's identifiers, for an event that comes late."""
    document = json.loads(entry)
    attributes = document["attributes"]
    data = attributes["profile"]["data"]
    kept = {name: value for name, value in data["attributes"].items() if name in IDENTIFIERS}
    attributes["profile"]["data"] = {"type": "profile", "attributes": kept} | (
        {"id": data["id"]} if "id" in data else {}
    )
    attributes["backfill"] = True
    return _dump(document)


def _dump(document: Any) -> str:
    return _ENCODER.encode(document)


def _without_control(written: str) -> str:
    """Return ``written`` without the characters that SQS or Klaviyo refuses, each replaced."""
    return written if written.isprintable() else CONTROL.sub("\ufffd", written)


def _short(value: str, limit: int, where: str, notes: list[Note]) -> str:
    clean = _without_control(value)
    if len(clean) > limit:
        notes.append(Note("cut", where))
    return clean[:limit]


class _Marks:
    """The property ``RelayDropped``: the first 20 of what was left out, in alphabetical order."""

    def __init__(self, properties: dict[str, Any], notes: list[Note]) -> None:
        self._properties = properties
        self._first = sorted({_mark(note) for note in notes if note.code != SILENT})[:_MARKS]
        if self._first:
            properties[MARK] = self._first

    def add(self, note: Note) -> int:
        """Add ``note``; return by how many bytes the property has grown (it may have shrunk)."""
        before = _weight(MARK, self._first) if self._first else 0
        self._first[:] = sorted({*self._first, _mark(note)})[:_MARKS]
        self._properties[MARK] = self._first
        return _weight(MARK, self._first) - before


def _mark(note: Note) -> str:
    return f"{note.where.removeprefix('properties.')}: {note.code}"[:300]


def _profile(draft: Draft, phone_region: str, notes: list[Note]) -> str:
    """Return the profile as JSON text."""
    loose = draft.profile
    location = _location(loose.get("location"), notes)
    attributes = _identifiers(loose, [location.get("country"), phone_region], notes)
    for name in _TEXTS:
        if value := values.text(loose.get(name)):
            attributes[name] = _string(value, name, notes)
    if location:
        attributes["location"] = location
    properties = _properties(loose.get("properties"), "profile.properties", notes)
    if properties:
        attributes["properties"] = properties
    profile: dict[str, Any] = {"type": "profile", "attributes": attributes}
    if identity := values.text(loose.get("id")):
        profile["id"] = _short(identity, EXTERNAL_ID_LENGTH, "id", notes)
    if draft.fallback_id and not any(name in attributes for name in IDENTIFIERS):
        attributes["external_id"] = _short(draft.fallback_id, EXTERNAL_ID_LENGTH, "external_id", notes)
    if not any(name in attributes for name in IDENTIFIERS) and "id" not in profile:
        codes = sorted({note.code for note in notes if note.code.startswith("invalid_")})
        why = f" ({', '.join(codes)})" if codes else ""
        detail = f"the event names no email, phone or other identifier that Klaviyo accepts{why}"
        raise Unmapped("no_identifier", detail)
    if meta := _meta(loose.get("meta"), notes):
        profile["meta"] = meta
    return _fit(profile, PROFILE_BYTES, [properties, attributes], "profile", "profile_too_large", notes)


def _identifiers(loose: Mapping[str, Any], regions: list[Any], notes: list[Note]) -> dict[str, Any]:
    identifiers: dict[str, Any] = {}
    emails, phones = _candidates(loose.get("email")), _candidates(loose.get("phone_number"))
    if address := next(filter(None, map(values.email, emails)), None):
        identifiers["email"] = address
        if values.is_dropped(address):
            notes.append(Note(SILENT, "email"))
    elif emails:
        notes.append(Note("invalid_email", "email"))
    if number := next(filter(None, (values.phone(phone, regions) for phone in phones)), None):
        identifiers["phone_number"] = number
    elif phones:
        notes.append(Note("invalid_phone", "phone_number"))
    for name in ("external_id", "anonymous_id", "_kx"):
        if identity := values.text(loose.get(name)):
            if len(identity) <= EXTERNAL_ID_LENGTH or name == "_kx":
                identifiers[name] = _without_control(identity)
            else:
                notes.append(Note(f"invalid_{name}", name))
    return identifiers


def _candidates(value: Any) -> list[Any]:
    return [
        candidate
        for candidate in (value if isinstance(value, list) else [value])[:10]
        if candidate not in (None, "", [], {})
    ]


def _location(loose: Any, notes: list[Note]) -> dict[str, Any]:
    if not isinstance(loose, Mapping):
        return {}
    location: dict[str, Any] = {}
    for name in _LOCATION:
        if value := values.text(loose.get(name)):
            location[name] = _string(value, f"location.{name}", notes)
    if country := values.country(loose.get("country")):
        location["country"] = _string(country, "location.country", notes)
    for name, bound in (("latitude", 90), ("longitude", 180)):
        degrees = values.money(loose.get(name))
        if degrees is not None and abs(degrees) <= bound:
            location[name] = float(degrees)
        elif loose.get(name) not in (None, ""):
            notes.append(Note("out_of_range", f"location.{name}"))
    return location


def _meta(loose: Any, notes: list[Note]) -> dict[str, Any]:
    """Return ``patch_properties`` and ``patch_identifiers``, with only the operations that Klaviyo knows."""
    if not isinstance(loose, Mapping):
        return {}
    meta: dict[str, Any] = {}
    for name, operations in (
        ("patch_properties", ("append", "unappend", "unset")),
        ("patch_identifiers", ("append", "unappend")),
    ):
        patch = loose.get(name)
        if not isinstance(patch, Mapping):
            continue
        kept: dict[str, Any] = {}
        for operation in operations:
            wanted = _operation(operation, patch.get(operation), f"meta.{name}.{operation}", notes)
            if wanted:
                kept[operation] = wanted
        if kept:
            meta[name] = kept
    return meta


def _operation(operation: str, value: Any, where: str, notes: list[Note]) -> Any:
    if value is None:
        return None
    if operation != "unset":
        return _properties(value, where, notes)
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        return _clean(value, where, 1, notes)
    notes.append(Note("wrong_type", where))
    return None


def _string(value: str, where: str, notes: list[Note]) -> str:
    clean = _without_control(value)
    if len(clean) * 4 <= STRING_BYTES or len(encoded := clean.encode()) <= STRING_BYTES:
        return clean
    notes.append(Note("string_cut", where))
    spend(len(clean) >> CHARACTERS)
    return encoded[:STRING_BYTES].decode("utf-8", "ignore")


class _Left:
    """Marks a value that is left out."""


_LEFT = _Left()


def _clean(value: Any, where: str, depth: int, notes: list[Note]) -> Any:
    """Return ``value`` within Klaviyo's limits, or ``_LEFT``; ``depth`` counts the containers around it."""
    if isinstance(value, str):
        return _string(value, where, notes)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Decimal):
        value = values.number(value)
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return value
        notes.append(Note("number_out_of_range", where))
    elif isinstance(value, float):
        if math.isfinite(value):
            return value
        notes.append(Note("number_not_finite", where))
    elif not isinstance(value, (dict, list)):
        notes.append(Note("wrong_type", where))
    elif depth >= DEPTH:
        notes.append(Note("nested_too_deep", where))
    else:
        return _container(value, where, depth + 1, notes)
    spend(_NOTE_UNITS)
    return _LEFT


def _container(value: dict[Any, Any] | list[Any], where: str, depth: int, notes: list[Note]) -> Any:
    if len(value) > _FEW:
        spend(len(value))
    if isinstance(value, dict):
        return _members(value, where, depth, notes)
    if len(value) > ARRAY_ITEMS:
        notes.append(Note("array_cut", where))
    inside = f"{where}[]"
    kept = [_clean(item, inside, depth, notes) for item in value[:ARRAY_ITEMS]]
    return [item for item in kept if item is not _LEFT]


def _members(value: Mapping[Any, Any], where: str, depth: int, notes: list[Note]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, member in value.items():
        key = name if isinstance(name, str) and name.isprintable() else _without_control(str(name))
        key = key[:NAME_LENGTH]
        if isinstance(member, str) and len(member) * 4 <= STRING_BYTES and member.isprintable():
            kept[key] = member  # the fast path for nearly all of them
            continue
        clean = _clean(member, f"{where}.{key}" if depth == 1 else where, depth, notes)
        if clean is not _LEFT:
            kept[key] = clean
    return kept


def _properties(loose: Any, where: str, notes: list[Note]) -> dict[str, Any]:
    """Return the properties within the limits, without null and empty ones, which Klaviyo counts as never set."""
    if loose is None:
        return {}
    if not isinstance(loose, Mapping):
        notes.append(Note("wrong_type", where))
        return {}
    if len(loose) < EVENT_PROPERTIES:
        return _set(_members(loose, where, 1, notes))
    kept: dict[str, Any] = {}
    waiting = iter(loose.items())
    # Only as many at a time as there is room for, since a webhook may have a million of them.
    while more := dict(islice(waiting, EVENT_PROPERTIES - 1 - len(kept))):
        kept |= _set(_members(more, where, 1, notes))
    if any(_set({name: value}) for name, value in waiting):
        notes.append(Note("too_many_properties", where))
    return kept


def _set(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value or value is False or value == 0}


def _fit(
    document: dict[str, Any],
    room: int,
    shelves: Sequence[dict[str, Any]],
    where: str,
    code: str,
    notes: list[Note],
    marks: _Marks | None = None,
) -> str:
    """Return ``document`` as JSON text of at most ``room`` bytes; drop the largest members of ``shelves`` for that.

    A shelf is an object in ``document``. The next one is used when the one before is empty.

    Raises
    ------
    Unmapped
        ``too_large`` if that is not enough.
    """
    droppable = _largest_first(shelves)
    while (excess := size(written := _dump(document)) - room) > 0:
        spend(len(written) >> CHARACTERS)
        while excess > 0:
            largest = next(droppable, None)
            if largest is None:
                raise Unmapped("too_large", "the event is larger than a message even without its properties")
            shelf, name, weight = largest
            del shelf[name]
            notes.append(Note(code, f"{where}.{name}"))
            excess += (marks.add(notes[-1]) if marks else 0) - weight
    return written


def _largest_first(shelves: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Yield what may be dropped from each shelf, longest first, with its weight; measure each member once."""
    for shelf in shelves:
        names = [name for name in shelf if name not in IDENTIFIERS and name != MARK]
        measured = [(len(_dump(shelf[name])), name, _weight(name, shelf[name])) for name in names]
        for _, name, weight in sorted(measured, key=lambda member: -member[0]):
            yield shelf, name, weight


def _weight(name: str, value: Any) -> int:
    """Return bytes of a member in an object's JSON text, with its comma."""
    return size(_dump({name: value})) - 1
