"""From the exact bytes of a request to a document: JSON, forms, multipart, gzip."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any
from urllib.parse import parse_qsl

from .errors import Unmapped

INFLATED_BYTES = 20_000_000
# With more parts than these, reading and mapping a body could outlast the time and the memory of ``receive``.
MOST_OBJECTS = 50_000  # objects and lists
MOST_VALUES = 1_000_000
FORM_BYTES = 5_000_000  # the parsers of forms take up to 80 times as much memory; Lambda hands over 4.7 MB of bytes
_FORM_FIELDS = 5_000
_DIGITS = 400


def unpack(body: bytes, content_encoding: str) -> bytes:
    """``body`` without its ``Content-Encoding``.

    Raises
    ------
    Unmapped
        ``unknown_encoding``, ``not_gzip``, or ``inflates_too_far``: past 20 MB.
    """
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip"):
        raise Unmapped("unknown_encoding", "Content-Encoding is neither gzip nor identity")
    inflate = zlib.decompressobj(wbits=31)
    try:
        plain = inflate.decompress(body, INFLATED_BYTES)
    except zlib.error:
        raise Unmapped("not_gzip", "Content-Encoding is gzip, but the body is not gzip data") from None
    if inflate.unconsumed_tail:
        raise Unmapped("inflates_too_far", f"the body is larger than {INFLATED_BYTES:,} bytes when decompressed")
    if not inflate.eof or inflate.unused_data:
        raise Unmapped("not_gzip", "the gzip data is cut off, or other data follows it")
    return plain


def parse(body: bytes, content_type: str) -> Any:
    """The document in ``body``: JSON unless ``content_type`` names a form.

    Form fields become an object of strings; ``data[merges][EMAIL]`` becomes
    nested objects, a repeated name a list. Multipart files are left out. JSON
    lines become a list.

    Raises
    ------
    Unmapped
        ``not_utf8``, ``not_json``, ``not_form``: the detail gives the place, never the text.
        ``nested_too_deep``, ``too_many_objects``, ``too_many_fields``, ``inflates_too_far``:
        well-formed, but no mapping could walk it.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _multipart(body, content_type)
    if kind == "application/x-www-form-urlencoded":
        return _nest(fields(body))
    return _json(_text(body))


def fields(body: bytes) -> list[tuple[str, str]]:
    """Names and values of a URL-encoded form, in their order.

    Raises
    ------
    Unmapped
        ``not_utf8``, ``not_form``, ``too_many_fields`` or ``inflates_too_far``.
    """
    _check_form(body)
    text = _text(body)
    try:
        # Not strictly: the URL Standard (5.1) passes over empty pieces and takes names without values.
        found = parse_qsl(text, keep_blank_values=True, max_num_fields=_FORM_FIELDS)
    except ValueError:
        raise Unmapped("too_many_fields", f"the form has more than {_FORM_FIELDS:,} fields") from None
    if text and "=" not in text:
        raise Unmapped("not_form", "the body is not a URL-encoded form")
    return found


def _check_form(body: bytes) -> None:
    if len(body) > FORM_BYTES:
        raise Unmapped("inflates_too_far", f"the form is larger than {FORM_BYTES:,} bytes when decompressed")


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unmapped("not_utf8", f"the body is not UTF-8 at byte {error.start}") from None


def _integer(written: str) -> int:
    # Python refuses to read integers of more than 4,300 digits; past 64 bits all are left out alike.
    return int(written) if len(written) < _DIGITS else 10**_DIGITS


_DECODER = json.JSONDecoder(parse_int=_integer)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # also one without an end, lest each quote looks for it anew


def _too_many(text: str) -> str:
    """What ``text`` holds too many of, as far as brackets and commas tell; empty if nothing."""
    if text.count("{") + text.count("[") > MOST_OBJECTS:
        return f"more than {MOST_OBJECTS:,} objects and lists"
    return f"more than {MOST_VALUES:,} values" if text.count(",") > MOST_VALUES else ""


def check_items(items: list[Any]) -> None:
    """Refuse to walk more items than a body may hold objects, which plain numbers may be.

    Raises
    ------
    Unmapped
        ``too_many_objects``.
    """
    if len(items) > MOST_OBJECTS:
        raise Unmapped("too_many_objects", f"the webhook holds more than {MOST_OBJECTS:,} items")


def _json(text: str) -> Any:
    # Before they are made, for millions fit into a body; a text may hold many brackets that are none.
    if _too_many(text) and (excess := _too_many(_STRING.sub("", text))):
        raise Unmapped("too_many_objects", f"the body holds {excess}")
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise Unmapped("nested_too_deep", "the body is nested deeper than any mapping goes") from None
    except json.JSONDecodeError as error:
        if (found := _lines(text)) is not None:
            return found
        where = f"line {error.lineno}, column {error.colno}"
        raise Unmapped("not_json", f"the body is not JSON: {error.msg} at {where}") from None


def _lines(text: str) -> list[Any] | None:
    """The objects of JSON lines (https://jsonlines.org), which Auth0's log streams are; ``None`` if these are none."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < 2 or not all(line.lstrip().startswith("{") for line in lines):
        return None
    try:
        return [_DECODER.decode(line) for line in lines]
    except (json.JSONDecodeError, RecursionError):
        return None


def _multipart(body: bytes, content_type: str) -> dict[str, Any]:
    from . import multipart

    _check_form(body)
    pairs = multipart.fields(body, content_type, most=_FORM_FIELDS)
    if pairs is None:
        raise Unmapped("not_form", "the body is not readable as multipart/form-data")
    return _nest(pairs)


def _nest(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in pairs:
        head, rest = name.split("[", 1) if re.fullmatch(r"[^\[\]]+(?:\[[^\[\]]*\])+", name) else (name, "")
        keys = [head, *re.findall(r"([^\[\]]+)\]", "[" + rest if rest else "")]
        _put(document, keys[:10], value)
    return document


def _put(document: dict[str, Any], keys: list[str], value: str) -> None:
    *path, last = keys
    for key in path:
        inner = document.setdefault(key, {})
        if not isinstance(inner, dict):
            return
        document = inner
    if last not in document:
        document[last] = value
    elif isinstance(document[last], list):
        document[last].append(value)
    else:
        document[last] = [document[last], value]
