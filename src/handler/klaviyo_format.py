"""Events that already are in the profile/metric schema: the ``custom`` source.

One event, an array of them, or ``{"events": [...]}``, each either flat::

    {"profile": {"email": …, "location": {…}, "properties": {…}, "meta": {…}},
     "metric": "Placed Order" or {"name": …, "service": …},
     "properties": {…}, "time": …, "value": …, "value_currency": …,
     "unique_id": …, "backfill": …}

or in Klaviyo's own JSON:API form (``event``, ``event-bulk-create`` or a whole
``event-bulk-create-job``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

from . import schema, values
from .errors import Unmapped
from .schema import Draft

_ID_HEADERS = ("webhook-id", "svix-id")
_FIELDS = {"profile", "metric", "properties", "time", "value", "value_currency", "unique_id", "backfill"}


def read(document: Any, *, headers: Mapping[str, str], received: float) -> list[Draft | Unmapped]:
    """A draft for each event in ``document``, or why there is none, in their order.

    An event without ``unique_id`` gets one of the signed webhook id and its place
    in the body, so that retries of one delivery collapse.

    Raises
    ------
    Unmapped
        ``no_events``: the document is in none of the forms.
    """
    delivery = next((headers[name] for name in _ID_HEADERS if headers.get(name)), "")
    found = list(_events(document))
    if not found:
        raise Unmapped("no_events", "the body holds no event in the profile/metric schema")
    return [_read(event, f"{delivery}:{index}" if delivery else "", received) for index, event in enumerate(found)]


def _events(document: Any) -> Iterator[Any]:
    if isinstance(document, list):
        for item in document:
            yield from _events(item) if _is_wrapper(item) else [item]
    elif isinstance(document, dict):
        if isinstance(document.get("events"), list):
            yield from document["events"]
        elif _is_wrapper(document):
            yield from _unwrap(document)
        else:
            yield document


def _is_wrapper(item: Any) -> bool:
    return isinstance(item, dict) and ("data" in item or item.get("type") in ("event", "event-bulk-create"))


def _unwrap(resource: dict[str, Any]) -> Iterator[Any]:
    """The flat events in a JSON:API resource of Klaviyo's."""
    inner = resource.get("data", resource)
    if isinstance(inner, list):
        for one in inner:
            yield from _unwrap(one) if isinstance(one, dict) else [one]
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
        for one in _unwrap(events) if isinstance(events, dict) else []:
            yield {**common, **one} if isinstance(one, dict) else one
    else:
        yield attributes


def _inner(value: Any) -> dict[str, Any]:
    """A profile or metric without its JSON:API envelope; ``id`` and ``meta`` stay beside the attributes."""
    if not isinstance(value, dict):
        return {}
    data = value.get("data", value)
    if not isinstance(data, dict):
        return {}
    attributes = data.get("attributes")
    if not isinstance(attributes, dict):
        return data
    return {**attributes, **{name: data[name] for name in ("id", "meta") if name in data}}


def _read(event: Any, fallback_id: str, received: float) -> Draft | Unmapped:
    if not isinstance(event, dict):
        return Unmapped("not_an_object", "an event is a JSON object")
    metric = event.get("metric")
    name = {"name": metric} if isinstance(metric, str) else _inner(metric)
    unique_id = values.text(event.get("unique_id")) or fallback_id or values.digest(event)
    if len(unique_id) > schema.UNIQUE_ID_LENGTH:
        unique_id = values.digest(unique_id)
    if (wrong := _wrong(event, name)) is not None:
        return wrong
    time = values.time(event.get("time"), UTC)
    if event.get("time") is not None and not (time is not None and values.plausible(time, received)):
        return Unmapped(
            "invalid_time", "time is not one that Klaviyo takes (ISO 8601, after 1990, at most a year ahead)"
        )
    return Draft(
        profile=_inner(event.get("profile")),
        metric=name["name"],
        service=values.text(name.get("service")),
        unique_id=unique_id,
        time=time if time is not None else received,
        properties=event.get("properties") or {},
        value=values.money(event.get("value")),
        currency=values.currency(event.get("value_currency")),
        backfill=event.get("backfill") is True,
    )


def _wrong(event: dict[str, Any], metric: dict[str, Any]) -> Unmapped | None:
    if not values.text(metric.get("name")):
        return Unmapped("no_metric", "the event has no metric name")
    if not isinstance(metric["name"], str):
        return Unmapped("wrong_type", "the metric's name is not text")
    if not isinstance(event.get("properties") or {}, dict):
        return Unmapped("wrong_type", "properties is not an object")
    if event.get("value") is not None and values.money(event["value"]) is None:
        return Unmapped("wrong_type", "value is not a number")
    unknown = len(set(event) - _FIELDS)
    if unknown:
        return Unmapped(
            "unknown_field", f"{unknown} field(s) are not of the event schema: {', '.join(sorted(_FIELDS))}"
        )
    return None
