"""What the stand-in refuses: Klaviyo's schema and every documented limit, read strictly.

The shapes are in ``klaviyo-schema.json``; what a schema says badly (bytes,
depth, dates, repeats) is checked here. An answer points at each bad row, as
Klaviyo's does, and nothing of a refused request is taken.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs

ROWS = ("data", "attributes", "events-bulk-create", "data")
MAX_BODY = 5_000_000
MAX_EVENTS = 1_000
MAX_STRING = 100_000
MAX_DEPTH = 10
MAX_ARRAY = 4_000
MAX_PROFILE = 95_000
IDENTIFIERS = ("email", "phone_number", "external_id", "anonymous_id", "_kx")
# Addresses for which Klaviyo accepts an event and drops it (RFC 2606 and similar).
RESERVED_ADDRESS = re.compile(r"@(example\.(com|org|net)|test\.com)$", re.IGNORECASE)
_EPOCH = datetime(1990, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?")
_SCHEMA = jsonschema_rs.validator_for(json.loads(Path(__file__).with_name("klaviyo-schema.json").read_text("utf-8")))


class Problem(Exception):
    """One reason to refuse: ``path`` leads to the value, ``detail`` says what is wrong."""

    def __init__(self, path: tuple[str | int, ...], detail: str) -> None:
        super().__init__(detail)
        self.path = path
        self.detail = detail

    def as_error(self) -> dict[str, Any]:
        """Return this problem as an entry of Klaviyo's ``errors``."""
        return error(400, "invalid", "Invalid input.", self.detail, "/" + "/".join(map(str, self.path)))


def error(status: int, code: str, title: str, detail: str, pointer: str | None = None) -> dict[str, Any]:
    """Return one entry of an error body, in Klaviyo's shape."""
    source = {"source": {"pointer": pointer}} if pointer else {}
    return {"id": f"standin-{code}", "status": status, "code": code, "title": title, "detail": detail} | source


def parse(body: bytes) -> Any:
    """Return ``body`` as JSON, or raise ``Problem``: also for NaN and Infinity, which JSON does not have."""
    try:
        return json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as mistake:
        raise Problem(("data",), "The body is not JSON.") from mistake


def _no_constant(name: str) -> None:
    raise ValueError(name)


def rows(document: Any) -> list[dict[str, Any]]:
    """Return the ``event-bulk-create`` entries of a document that ``problems`` found nothing in."""
    entries: list[dict[str, Any]] = document["data"]["attributes"]["events-bulk-create"]["data"]
    return entries


def events(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the attributes of each event of one entry."""
    return [event["attributes"] for event in row["attributes"]["events"]["data"]]


def problems(document: Any, now: datetime) -> list[Problem]:
    """Return everything that Klaviyo would refuse ``document`` for; ``now`` bounds the events' times."""
    by_schema = [Problem(tuple(bad.instance_path), _brief(bad.message)) for bad in _SCHEMA.iter_errors(document)]
    return by_schema or list(_limits(document, now))


def _brief(message: str) -> str:
    return message if len(message) <= 200 else message[:200] + "..."


def _limits(document: Any, now: datetime) -> Iterator[Problem]:
    entries = rows(document)
    if sum(len(events(row)) for row in entries) > MAX_EVENTS:
        yield Problem(ROWS, f"More than {MAX_EVENTS} events.")
        return
    seen: set[str] = set()
    for index, row in enumerate(entries):
        at = (*ROWS, index)
        try:
            _check_row(at, row, seen, now)
        except Problem as problem:
            yield problem


def _check_row(at: tuple[str | int, ...], row: dict[str, Any], seen: set[str], now: datetime) -> None:
    profile = row["attributes"]["profile"]["data"]
    where = (*at, "attributes", "profile", "data")
    if not profile.get("id") and not any(profile["attributes"].get(name) for name in IDENTIFIERS):
        raise Problem((*where, "attributes"), "A profile needs an identifier.")
    if len(json.dumps(profile, ensure_ascii=False).encode()) > MAX_PROFILE:
        raise Problem(where, f"A profile holds at most {MAX_PROFILE} bytes.")
    _check_value(where, profile, -3)
    for number, event in enumerate(events(row)):
        _check_event((*at, "attributes", "events", "data", number, "attributes"), event, seen, now)


def _check_event(at: tuple[str | int, ...], event: dict[str, Any], seen: set[str], now: datetime) -> None:
    if event.get("time") is not None:
        _check_time((*at, "time"), event["time"], now)
    _check_value((*at, "value"), event.get("value"), 0)
    _check_value((*at, "properties"), event["properties"], 0)
    unique_id = event.get("unique_id")
    if unique_id is not None and unique_id in seen:
        raise Problem((*at, "unique_id"), "This unique_id is in the request twice.")
    if unique_id is not None:
        seen.add(unique_id)


def _check_time(at: tuple[str | int, ...], text: str, now: datetime) -> None:
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(at, "Not an ISO 8601 time.") from None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    if not _EPOCH <= time <= now + timedelta(days=366):
        raise Problem(at, "The time is before 1990 or over a year ahead.")


def _check_value(at: tuple[str | int, ...], value: Any, depth: int) -> None:
    """Check strings, numbers, arrays and nesting; ``depth`` counts the objects and arrays around ``value``."""
    if isinstance(value, str):
        if len(value) > MAX_STRING // 4 and len(value.encode()) > MAX_STRING:
            raise Problem(at, f"A string holds at most {MAX_STRING} bytes.")
        return
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise Problem(at, "An integer has at most 64 bits.")
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Problem(at, "A number must be finite.")
        return
    if depth >= MAX_DEPTH:
        raise Problem(at, f"Nested more than {MAX_DEPTH} deep.")
    if isinstance(value, list) and len(value) > MAX_ARRAY:
        raise Problem(at, f"An array holds at most {MAX_ARRAY} values.")
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        _check_value((*at, key), inner, depth + 1)
