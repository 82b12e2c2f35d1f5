"""From the exact bytes of a request to a document: JSON, forms, multipart, gzip.

The sender's file lists the kinds of its bodies, and the bytes decide among them.
No header is read here: hardly any sender signs one, so a header must not change
what signed bytes mean (docs/decisions/0032).
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from ..errors import Unmapped

JSON = "json"
FORM = "form"
MULTIPART = "multipart"
KINDS = (JSON, FORM, MULTIPART)
INFLATED_BYTES = 20_000_000
# With more parts than these, reading and mapping a body could outlast the time and the memory of ``receive``.
MOST_OBJECTS = 50_000  # objects and lists
MOST_VALUES = 1_000_000
FORM_BYTES = 5_000_000  # the parsers of forms take up to 80 times as much memory; Lambda hands over 4.7 MB of bytes
_FORM_FIELDS = 5_000
_PLAIN_FIELDS = (
    150  # a form whose fields are signed is read before it is verified, and Twilio's requests have a few dozen
)
_DIGITS = 400
_GZIP = b"\x1f\x8b"  # RFC 1952, 2.3.1; no UTF-8 text starts with these bytes
_START = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*(--|.?)", re.DOTALL)
# A URL-encoded form has no line break after a boundary. Without this pattern, name="a" would pass for a field.
# Any of a part's headers may be first; all begin with Content- (RFC 2046, 5.1).
_MULTIPART = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*--[^\r\n]{1,200}\r?\nContent-[A-Za-z-]{1,50}:", re.IGNORECASE)
_PLAIN_NAME = re.compile(rb"[A-Za-z0-9_.-]{1,100}")


@dataclass(frozen=True, slots=True)
class Body:
    """The form of a sender's bodies: the keys ``body``, ``form`` and ``charset`` of its ``[webhook]`` table.

    The first bytes decide among several ``kinds``. A form may then hold each of
    the fields in ``form`` once, and no other. ``charset`` is that of bytes that are not UTF-8.
    ``once``: the sender signs a form's fields and not its bytes.
    """

    kinds: tuple[str, ...] = (JSON,)
    form: tuple[str, ...] = ()
    charset: str = ""
    once: bool = False


ANY_JSON = Body()


def unpack(body: bytes) -> bytes:
    """Return ``body``, decompressed if it is gzip. Its ``Content-Encoding`` does not count.

    Raises
    ------
    Unmapped
        ``not_gzip``: cut off, or not gzip behind its first bytes; ``inflates_too_far``: past 20 MB.
    """
    if not body.startswith(_GZIP):
        return body
    inflate = zlib.decompressobj(wbits=31)
    try:
        plain = inflate.decompress(body, INFLATED_BYTES)
    except zlib.error:
        raise Unmapped("not_gzip", "the body starts like gzip data, but cannot be decompressed") from None
    if inflate.unconsumed_tail:
        raise Unmapped("inflates_too_far", f"the body is larger than {INFLATED_BYTES:,} bytes when decompressed")
    if not inflate.eof or inflate.unused_data:
        raise Unmapped("not_gzip", "the gzip data is cut off, or other data follows it")
    return plain


def parse(body: bytes, read: Body = ANY_JSON) -> Any:
    """Return the document in ``body``, which is of one of the kinds in ``read``.

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
    kind = _kind(body, read.kinds)
    if kind == MULTIPART:
        return _nest(_multipart(body, read.charset))
    if kind == FORM:
        return _nest(fields(body, read))
    return _json(_text(body, read.charset))


def looks(body: bytes) -> str:
    """Return the kind that the first bytes are of: no two kinds start alike."""
    start = _START.match(body)
    first = start[1] if start else b""
    return MULTIPART if first == b"--" else JSON if first in (b"{", b"[") else FORM


def _kind(body: bytes, kinds: tuple[str, ...]) -> str:
    kind = kinds[0] if len(kinds) == 1 else looks(body)
    return kind if kind in kinds else kinds[0]


def fields(body: bytes, read: Body) -> list[tuple[str, str]]:
    """Return names and values of a URL-encoded form, in their order.

    Raises
    ------
    Unmapped
        ``not_utf8``, ``not_form``, ``too_many_fields`` or ``inflates_too_far``.
    """
    if read.once:
        return plain_fields(body)
    if len(read.kinds) > 1:
        pairs = plain_fields(body.removeprefix(codecs.BOM_UTF8), read.charset)
        if {name for name, _ in pairs} <= set(read.form):
            return pairs
        raise Unmapped("not_form", "the form has fields that this sender's forms do not have")
    _check_form(body)
    if _MULTIPART.match(body):
        raise Unmapped("not_form", "the body is multipart/form-data, not a URL-encoded form")
    if looks(body) == JSON:  # its texts may hold "&email=…"; a form's name never begins with a bracket
        raise Unmapped("not_form", "the body is JSON, not a URL-encoded form")
    text = _text(body, read.charset)
    if text.count("&") >= _FORM_FIELDS:
        raise Unmapped("too_many_fields", f"the form has more than {_FORM_FIELDS:,} fields")
    if text and "=" not in text:
        raise Unmapped("not_form", "the body is not a URL-encoded form")
    return _pairs(text, read.charset)


def _pairs(text: str, charset: str) -> list[tuple[str, str]]:
    # Not strict: the URL Standard (5.1) skips empty pieces and accepts names without values.
    for encoding in filter(None, ("utf-8", charset)):
        try:
            return parse_qsl(text, keep_blank_values=True, encoding=encoding, errors="strict")
        except UnicodeError:
            continue
    raise Unmapped("not_utf8", f"the form has an escape that is not UTF-8{_nor(charset)}")


def _nor(charset: str) -> str:
    return f", nor {charset}" if charset else ""


def plain_fields(body: bytes, charset: str = "") -> list[tuple[str, str]]:
    """Return the fields of a form in which each name occurs once and is a plain word.

    A form whose fields are signed, and not its bytes, must be of this kind. The signed
    text joins sorted names and values, so one signature would otherwise fit several
    forms. All of Twilio's names are plain words.

    Raises
    ------
    Unmapped
        ``not_form``, ``too_many_fields`` or ``inflates_too_far``.
    """
    _check_form(body)
    pieces = body.split(b"&", _PLAIN_FIELDS)
    if len(pieces) > _PLAIN_FIELDS:
        raise Unmapped("too_many_fields", f"the form has more than {_PLAIN_FIELDS} fields")
    pairs = [piece.partition(b"=") for piece in pieces if piece]
    if not all(_PLAIN_NAME.fullmatch(name) for name, _, _ in pairs):
        raise Unmapped("not_form", "the form has a field whose name is not a plain word")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise Unmapped("not_form", "the form has a field twice")
    return [(name.decode("ascii"), _unescaped(value, charset)) for name, _, value in pairs]


def _unescaped(piece: bytes, charset: str) -> str:
    """Decode ``%41`` and ``+``, 15 times as fast as ``unquote_plus``: this runs before a request is verified."""
    if piece.isalnum():
        return piece.decode("ascii")
    escaped = piece.replace(b"+", b" ").replace(b"\\", b"\\x5c").replace(b"%", b"\\x")
    try:
        plain = escaped.decode("unicode_escape").encode("latin-1")
        return _text(plain, charset) if charset else plain.decode("utf-8")
    except UnicodeError:
        raise Unmapped("not_form", "the form has a value that is not UTF-8 in URL encoding") from None


def _check_form(body: bytes) -> None:
    if len(body) > FORM_BYTES:
        raise Unmapped("inflates_too_far", f"the form is larger than {FORM_BYTES:,} bytes when decompressed")


def _text(body: bytes, charset: str) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = error.start
    try:
        if charset:
            return body.decode(charset)
    except UnicodeError:
        raise Unmapped("not_utf8", f"the body is neither UTF-8 nor {charset}") from None
    raise Unmapped("not_utf8", f"the body is not UTF-8 at byte {place}")


def _integer(written: str) -> int:
    # Python refuses to read integers of more than 4,300 digits. Those past 64 bits are left out of an event anyway.
    return int(written) if len(written) < _DIGITS else 10**_DIGITS


_DECODER = json.JSONDecoder(parse_int=_integer, strict=False)  # not strict: some senders leave line breaks in texts
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # without an end, too, so that each quote is searched once


def _too_many(text: str) -> str:
    """Return what ``text`` holds too many of, by its brackets and commas; empty if nothing."""
    if text.count("{") + text.count("[") > MOST_OBJECTS:
        return f"more than {MOST_OBJECTS:,} objects and lists"
    return f"more than {MOST_VALUES:,} values" if text.count(",") > MOST_VALUES else ""


def check_items(items: list[Any]) -> None:
    """Refuse more items than a body may hold objects: items may also be plain numbers.

    Raises
    ------
    Unmapped
        ``too_many_objects``.
    """
    if len(items) > MOST_OBJECTS:
        raise Unmapped("too_many_objects", f"the webhook holds more than {MOST_OBJECTS:,} items")


def _json(text: str) -> Any:
    # Counted before parsing, since a body has room for millions. Brackets inside a text do not count.
    if _too_many(text) and (excess := _too_many(_STRING.sub("", text))):
        raise Unmapped("too_many_objects", f"the body holds {excess}")
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise Unmapped("nested_too_deep", "the body is nested too deeply to be mapped") from None
    except json.JSONDecodeError as error:
        if (documents := _lines(text)) is not None:
            return documents
        where = f"line {error.lineno}, column {error.colno}"
        raise Unmapped("not_json", f"the body is not JSON: {error.msg} at {where}") from None


def _lines(text: str) -> list[Any] | None:
    """Return the objects of JSON lines (https://jsonlines.org; Auth0's log streams), ``None`` for any other text."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < 2 or not all(line.lstrip().startswith("{") for line in lines):
        return None
    try:
        return [_DECODER.decode(line) for line in lines]
    except (json.JSONDecodeError, RecursionError):
        return None


def _multipart(body: bytes, charset: str) -> list[tuple[str, str]]:
    from . import multipart

    _check_form(body)
    return [(_text(name, charset), _text(value, charset)) for name, value in multipart.fields(body, most=_FORM_FIELDS)]


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
