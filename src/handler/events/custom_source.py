"""Events that are already in the profile/metric schema: the ``custom`` source.

One event, an array of them, or ``{"events": [...]}`` (optionally with a common
``profile``), each either flat::

    {"profile": {"email": …, "location": {…}, "properties": {…}, "meta": {…}},
     "metric": "Placed Order" or {"name": …, "service": …},
     "properties": {…}, "time": …, "value": …, "value_currency": …,
     "unique_id": …, "backfill": …}

or in Klaviyo's own JSON:API form (``event``, ``event-bulk-create`` or a whole
``event-bulk-create-job``).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import tzinfo
from decimal import Decimal
from typing import Any

from ..errors import Unmapped
from ..work import spend
from . import bodies, entry, values
from .entry import Draft, Note

_UNITS = 20  # of work for each event, regardless of its size
_RESOURCES = ("event", "event-bulk-create", "event-bulk-create-job")
_FIELDS = {"profile", "metric", "properties", "time", "value", "value_currency", "unique_id", "backfill"}


def read(document: Any, *, delivery: str, received: float, local: tzinfo) -> tuple[int, Iterator[Draft | Unmapped]]:
    """Return the number of events in ``document``, and for each, in order, a draft or the reason why there is none.

    A time that names no zone is read in ``local``.

    An event without ``unique_id`` gets one made of ``delivery``, the signed webhook id
    (empty if there is none), and its place in the body, so that retries of one delivery collapse.

    Raises
    ------
    Unmapped
        ``no_events``: the document is in none of the forms. ``too_many_objects``.
    """
    events = list(_events(document))
    if not events:
        raise Unmapped("no_events", "the body holds no event in the profile/metric schema")
    bodies.check_items(events)
    return len(events), (
        _read(event, f"{delivery}:{index}" if delivery else "", received, local) for index, event in enumerate(events)
    )


def _events(document: Any) -> Iterator[Any]:
    if isinstance(document, list):
        for item in document:
            yield from _events(item)
    elif isinstance(document, dict) and isinstance(document.get("events"), list):
        common = {name: document[name] for name in ("profile", "backfill") if name in document}
        for event in document["events"]:
            yield {**common, **event} if isinstance(event, dict) else event
    elif isinstance(document, dict) and ("data" in document or document.get("type") in _RESOURCES):
        yield from _unwrap(document)
    else:
        yield document


def _unwrap(resource: dict[str, Any]) -> Iterator[Any]:
    """Yield the flat events in one of Klaviyo's JSON:API resources."""
    inner = resource.get("data", resource)
    if isinstance(inner, list):
        for event in inner:
            yield from _unwrap(event) if isinstance(event, dict) else [event]
        return
    if not isinstance(inner, dict):
        yield inner
        return
    attributes = inner.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    if inner.get("type") == "event-bulk-create-job":
        bulk = attributes.get("events-bulk-create")
        yield from _unwrap(bulk) if isinstance(bulk, dict) else []
    elif inner.get("type") == "event-bulk-create":
        events = attributes.get("events")
        common = {name: attributes[name] for name in ("profile", "backfill") if name in attributes}
        for event in _unwrap(events) if isinstance(events, dict) else [events]:
            yield {**common, **event} if isinstance(event, dict) else event
    else:
        yield attributes


def _inner(value: Any) -> dict[str, Any]:
    """Return a profile or metric without its JSON:API envelope: its attributes with ``id`` and ``meta``."""
    if not isinstance(value, dict):
        return {}
    data = value.get("data", value)
    if not isinstance(data, dict):
        return {}
    attributes = data.get("attributes")
    if not isinstance(attributes, dict):
        return data
    return {**attributes, **{name: data[name] for name in ("id", "meta") if name in data}}


def _read(event: Any, fallback_id: str, received: float, local: tzinfo) -> Draft | Unmapped:
    spend(_UNITS)
    if not isinstance(event, dict):
        return Unmapped("not_an_object", "expected a JSON object for each event")
    metric = event.get("metric")
    name = {"name": metric} if isinstance(metric, str) else _inner(metric)
    if not isinstance(name.get("name"), str) or not name["name"].strip():
        return Unmapped("no_metric", "the event has no metric name")
    notes = [Note("unknown_field", "event")] if set(event) - _FIELDS else []
    unique_id = values.text(event.get("unique_id")) or fallback_id or values.digest(event)
    return Draft(
        profile=_inner(event.get("profile")),
        metric=name["name"],
        service=values.text(name.get("service")),
        unique_id=unique_id if len(unique_id) <= entry.UNIQUE_ID_LENGTH else values.digest(unique_id),
        time=_time(event.get("time"), received, local, notes),
        properties=event.get("properties") or {},
        value=_amount(event.get("value"), notes),
        currency=_currency(event.get("value_currency"), notes),
        backfill=event.get("backfill") is True,
        notes=notes,
    )


def _time(written: Any, received: float, local: tzinfo, notes: list[Note]) -> float:
    seconds = values.time(written, local)
    if seconds is not None and values.plausible(seconds, received):
        return seconds
    if written is not None:
        notes.append(Note("time_of_receipt", "time"))
    return received


def _amount(written: Any, notes: list[Note]) -> Decimal | None:
    amount = values.money(written)
    if amount is None and written is not None:
        notes.append(Note("wrong_type", "value"))
    return amount


def _currency(written: Any, notes: list[Note]) -> str | None:
    code = values.currency(written)
    if code is None and written is not None:
        notes.append(Note("wrong_type", "value_currency"))
    return code
