"""Forms in multipart/form-data. Few senders post them, so only this module loads the parser."""

from __future__ import annotations

import re

from multipart import MultipartError, ParserLimitReached, PushMultipartParser

from ..errors import Unmapped

# RFC 2046, 5.1.1: a boundary has 1 to 70 of these characters. The body starts with it.
_FIRST_LINE = re.compile(rb"--([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])[ \t]*\r\n")
_HEADER_BYTES = 1_000  # of one line: the name of a field
_HEADERS = 8  # of one part: a browser writes two
_FILE = re.compile(r";\s*filename\*\s*=", re.IGNORECASE)  # RFC 7578, 4.2 forbids it, and some senders write it


def fields(body: bytes, *, most: int) -> list[tuple[bytes, bytes]]:
    """Return names and values of at most ``most`` parts, without files; the boundary is that of the first line.

    Raises
    ------
    Unmapped
        ``not_form`` or ``too_many_fields``.
    """
    first = _FIRST_LINE.match(body)
    if first is None:
        raise Unmapped("not_form", "the body does not start with the boundary of a multipart form")
    try:
        return _fields(body, first[1], most)
    except ParserLimitReached:
        detail = f"the form has more than {most:,} parts, or a part more than {_HEADERS} headers or a long one"
        raise Unmapped("too_many_fields", detail) from None
    except MultipartError:
        raise Unmapped("not_form", "the body is not valid multipart/form-data") from None


def _fields(body: bytes, boundary: bytes, most: int) -> list[tuple[bytes, bytes]]:
    # Strict: continued header lines, which it refuses, cost their number times their length.
    # Latin-1 keeps each byte of a name, since only the caller knows its charset.
    parser = PushMultipartParser(
        boundary,
        max_segment_count=most,
        max_header_size=_HEADER_BYTES,
        max_header_count=_HEADERS,
        header_charset="latin-1",
        strict=True,
    )
    fields: list[tuple[bytes, bytes]] = []
    name, value, is_file = "", b"", False
    with parser:
        for part in parser.parse(body):
            if part is None:
                fields += [] if is_file else [(name.encode("latin-1"), value)]
            elif isinstance(part, bytes | bytearray):
                value = bytes(part)  # once for each part, since the parser has the whole body
            else:
                name, value = part.name or "", b""
                is_file = bool(part.filename or _FILE.search(part.header("Content-Disposition", "")))
    return fields
