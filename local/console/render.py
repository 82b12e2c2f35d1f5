"""What templates need: JSON as escaped, marked-up text, times, sizes, words.

Everything of a payload passes through ``markupsafe.escape``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from markupsafe import Markup, escape

SHOWN_CHARACTERS = 120_000
_TOKEN = re.compile(
    r"""(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>-?\d[\d.eE+-]*)|(?P<word>true|false|null)"""
)

_LEXEME = re.compile(r"""[\[\]{},:]|"(?:[^"\\]|\\.)*"|[^\s\[\]{},:"]+""")


def json_text(value: Any) -> Markup:
    """Return ``value`` as indented JSON, its names, texts and numbers marked up."""
    return marked(json.dumps(value, indent=2, ensure_ascii=False))


def body_text(body: bytes) -> Markup:
    """Return a request's body as text: JSON indented, other text unchanged, bytes as hexadecimal."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        dots = " …" if len(body) > 2_000 else ""
        return Markup("{}{}").format(body[:2_000].hex(" "), dots)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return escape(_short(text))
    return marked(indented(text))


def indented(text: str) -> str:
    """Return JSON text with other white space, every literal as it was written: ``19.90`` stays ``19.90``."""
    parts: list[str] = []
    depth = 0
    lexemes = _LEXEME.findall(text)
    for lexeme, following in zip(lexemes, [*lexemes[1:], ""], strict=True):
        if lexeme in "]}" and parts and parts[-1] not in ("[", "{"):
            parts.append(_line(depth := depth - 1))
        elif lexeme in "]}":
            depth -= 1
        parts.append(": " if lexeme == ":" else lexeme)
        if lexeme in "[{":
            depth += 1
        if (lexeme in "[{" and following not in "]}") or lexeme == ",":
            parts.append(_line(depth))
    return "".join(parts)


def _line(depth: int) -> str:
    return "\n" + "  " * min(depth, 40)


def _short(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]}\n… {len(text) - SHOWN_CHARACTERS:,} more characters"


def marked(text: str) -> Markup:
    """Return JSON text with a ``span`` around each lexeme; everything escaped."""
    return Markup("").join(_spans(_short(text)))


def _spans(text: str) -> Iterator[Markup]:
    end = 0
    for lexeme in _TOKEN.finditer(text):
        yield escape(text[end : lexeme.start()])
        yield Markup('<span class="j-{}">{}</span>').format(lexeme.lastgroup, lexeme[0])
        end = lexeme.end()
    yield escape(text[end:])


def clock(seconds: float) -> str:
    """Return the local time of day, to the millisecond."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S.%f")[:-3]


def when(stamp: str) -> str:
    """Return an ISO 8601 time as local time, with its day if it is not today; other text unchanged."""
    try:
        at = datetime.fromisoformat(stamp).astimezone()
    except ValueError:
        return stamp
    today = at.date() == datetime.now(at.tzinfo).date()
    return at.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def parted(text: str) -> Markup:
    """Return text that breaks after dots, slashes and underscores, not within words."""
    return Markup("<wbr>").join(re.split(r"(?<=[./_])(?=[^./_])", text))


def plain_number(value: float) -> str:
    """Return ``5.0`` as ``5``, ``2.5`` as it is."""
    return f"{value:g}"


def iso(seconds: float) -> str:
    """Return a time for ``<time datetime>``."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")


def size(count: float) -> str:
    """Return bytes as a person writes them."""
    return (
        f"{count:,.0f} B" if count < 1_000 else f"{count / 1_000:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"
    )


def duration(seconds: float) -> str:
    """Return seconds as a person writes them."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.0f} h"


def words(code: str) -> str:
    """Return ``signature_wrong`` as ``signature wrong``."""
    return code.replace("_", " ")


FILTERS: Mapping[str, Any] = {
    "json_text": json_text,
    "body_text": body_text,
    "clock": clock,
    "plain_number": plain_number,
    "when": when,
    "parted": parted,
    "iso": iso,
    "size": size,
    "duration": duration,
    "words": words,
}
