"""From the exact bytes of a request to a document: JSON, forms, multipart, gzip."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any
from urllib.parse import parse_qsl

from .errors import NotParseable, TooLarge, Unmapped

INFLATED_BYTES = 20_000_000
MOST_OBJECTS = 50_000  # objects and lists in a body: with more, mapping it could outlast the door's time and memory
_FORM_FIELDS = 5_000
_DIGITS = 400


def unpack(body: bytes, content_encoding: str) -> bytes:
    """``body`` without its ``Content-Encoding``.

    Raises
    ------
    NotParseable
        An encoding other than gzip, or bytes that are not gzip.
    TooLarge
        It would inflate past 20 MB.
    """
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip"):
        raise NotParseable("unknown_encoding", "Content-Encoding is neither gzip nor identity")
    inflate = zlib.decompressobj(wbits=31)
    try:
        plain = inflate.decompress(body, INFLATED_BYTES)
    except zlib.error:
        raise NotParseable("not_gzip", "Content-Encoding says gzip and the body is not") from None
    if inflate.unconsumed_tail:
        raise TooLarge("too_large", f"the body inflates past {INFLATED_BYTES:,} bytes")
    if not inflate.eof or inflate.unused_data:
        raise NotParseable("not_gzip", "the gzip body is cut off, or something follows it")
    return plain


def parse(body: bytes, content_type: str) -> Any:
    """The document in ``body``: JSON unless ``content_type`` names a form.

    Form fields become an object of strings; ``data[merges][EMAIL]`` becomes
    nested objects, a repeated name a list. Multipart files are left out. JSON
    lines become a list.

    Raises
    ------
    NotParseable
        ``not_utf8``, ``not_json``, ``not_form``; the detail gives the place, never the text.
    Unmapped
        ``nested_too_deep``, ``too_many_objects``: well-formed, but no mapping could walk it.
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
    NotParseable
        ``not_utf8`` or ``not_form``.
    """
    text = _text(body)
    try:
        # Not strictly: the URL Standard (5.1) passes over empty pieces and takes names without values.
        found = parse_qsl(text, keep_blank_values=True, max_num_fields=_FORM_FIELDS)
    except ValueError:
        raise NotParseable("not_form", "the body is a form of too many fields") from None
    if text and "=" not in text:
        raise NotParseable("not_form", "the body is not a URL-encoded form")
    return found


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotParseable("not_utf8", f"the body is not UTF-8 at byte {error.start}") from None


def _integer(written: str) -> int:
    # Python refuses to read integers of more than 4,300 digits; past 64 bits all are left out alike.
    return int(written) if len(written) < _DIGITS else 10**_DIGITS


_DECODER = json.JSONDecoder(parse_int=_integer)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # also one without an end, lest each quote looks for it anew


def _objects(text: str) -> int:
    return text.count("{") + text.count("[")


def _json(text: str) -> Any:
    # Before they are made, for millions fit into a body; a text may hold many brackets that are none.
    if _objects(text) > MOST_OBJECTS and _objects(_STRING.sub("", text)) > MOST_OBJECTS:
        raise Unmapped("too_many_objects", f"the body holds more than {MOST_OBJECTS:,} objects and lists")
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise Unmapped("nested_too_deep", "the body is nested deeper than any mapping goes") from None
    except json.JSONDecodeError as error:
        if (found := _lines(text)) is not None:
            return found
        where = f"line {error.lineno}, column {error.colno}"
        raise NotParseable("not_json", f"the body is not JSON: {error.msg} at {where}") from None


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

    pairs = multipart.fields(body, content_type, most=_FORM_FIELDS)
    if pairs is None:
        raise NotParseable("not_form", "the body is not multipart/form-data")
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
