"""Klaviyo's words without what they quote of an event.

A refusal may quote any part of the event, in any spelling. So each of its words that
is in the event, in a value or in the name of a property, is hidden, unless it is
Klaviyo's own. Time is linear in both texts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

MOST = 2_000  # characters of Klaviyo's words that are kept; a parked reason has 1,000
HIDDEN = "[…]"
_ROUNDS = 5  # how often a text may be escaped on top of another escape

_WORD = re.compile(r"\w+")
_PART = re.compile(r"[^\W_]+")
# Klaviyo's names of fields: nobody is called so, and they stay.
SCHEMA = frozenset(
    _WORD.findall(
        "address1 address2 anonymous_id attributes backfill bulk city country create data email event events"
        " external_id first_name id image ip _kx last_name latitude locale location longitude meta metric name"
        " organization phone_number profile properties property region service time timezone title type unique_id value"
        " value_currency zip"
    )
)
# Words of its messages, except those that are also names of people (field, key, long, may, will). They stay
# unless one of them is a whole value: there are people called An or In.
COMMON = SCHEMA | frozenset(
    _WORD.findall(
        "a an and any are as at be been by can cannot could for from has have if in into is it its must no not of on"
        " one only or should than that the these this those to too was were when which with without you your"
        " address after allowed api array before between blank boolean character characters choice code contain"
        " contains currency date datetime depth does empty error errors exceed exceeds expected failed false float"
        " following format future given greater header included input integer internal invalid iso items json klaviyo"
        " least length less limit list match maximum minimum missing more most nested null number object option"
        " parameter parse past payload permitted phone provided received refused request required schema server size"
        " string strings supported timestamp true unexpected unknown unsupported utc valid validation within word"
        " com developers docs https reference see"
    )
)
_ALONE = re.compile(r'"\s*(\w+)\s*"(?!\s*:)')  # the whole of a JSON text that is a value
_CHUNK = re.compile(r"""[^\s"'<>(),;]+""")
_TOKEN = re.compile(r"[\w+=-]{24,}")  # tokens, digests
_NUMBER = re.compile(r"\+?\d[\d\s().-]{5,}\d")  # phone, card, other long numbers
_KEY = re.compile(r"\b(?:pk|sk|rk|whsec|shpat|shpss|Bearer|Klaviyo-API-Key)[\s_:-]\S+", re.IGNORECASE)
_RUN = re.compile(r"\[…\](?:[\s@./:+-]{0,2}\[…\])+")
_ALIKE = re.compile(rb"(x+)|-+")
# Each begins with the letter that marks may follow, unless 100 characters have none of ASCII.
_PIECE = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]{1,100}")
# As JSON and Python write them.
_BACKSLASH = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|U00(0[0-9a-fA-F]{5}|10[0-9a-fA-F]{4})|([bfnrt])|(.))"
)
# html.unescape alone raises ValueError at a reference of more than 4,300 digits.
_REFERENCE = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|\w{2,32});", re.ASCII)


def scrub(words: str, *entries: str | bytes) -> str:
    """Return ``words`` in one line, without what they quote of ``entries`` (JSON texts) and what looks personal.

    Escapes are resolved first (JSON, HTML, percent-encoding), so that no spelling hides a value. ``MOST`` characters
    are read. The word at the cut is left out.
    """
    if len(words) > MOST:
        words = " ".join(words[:MOST].split()[:-1])
    *_, words = _unfolded(words)
    mask = bytearray(b"-" * len(words))
    for start, end in _spans(words, _private(words, entries)):
        mask[start:end] = b"x" * (end - start)
    parts = (HIDDEN if part[1] else words[part.start() : part.end()] for part in _ALIKE.finditer(mask))
    return "".join(char if char.isprintable() else " " for char in _RUN.sub(HIDDEN, "".join(parts)))


def _spans(words: str, private: set[str]) -> Iterator[tuple[int, int]]:
    """Yield the spans to hide: words of the event, and what looks like an address, a number, a key or a token."""
    yield from (match.span() for match in _WORD.finditer(words) if _parts(match[0]) & private)
    yield from (match.span() for match in _CHUNK.finditer(words) if "@" in match[0])
    yield from (match.span() for match in _TOKEN.finditer(words) if re.search(r"\d", match[0]))
    yield from (match.span() for pattern in (_NUMBER, _KEY) for match in pattern.finditer(words))


def _private(words: str, entries: tuple[str | bytes, ...]) -> set[str]:
    """Return the parts of ``words`` that are in ``entries``, except Klaviyo's own."""
    said = {part for word in _WORD.findall(words) for part in _parts(word)}
    names: set[str] = set()
    for entry in entries:
        for text in _unfolded(entry.decode("utf-8", "replace") if isinstance(entry, bytes) else entry):
            plain = text.casefold()
            names |= (said - COMMON).intersection(_PART.findall(plain)) | said.intersection(_ALONE.findall(plain))
    return names


def _parts(word: str) -> set[str]:
    """Return ``word`` and its parts between underscores, in lower case, without Klaviyo's fields and short parts."""
    word = word.casefold()
    parts = set() if word in SCHEMA else {word, *word.split("_")}
    return {part for part in parts if len(part) > (2 if part.isdecimal() else 1 if part.isascii() else 0)}


def _unfolded(text: str) -> Iterator[str]:
    """Yield ``text``, then ``text`` with one level of escapes after the other resolved, each in one Unicode form."""
    for _ in range(_ROUNDS):
        yield _composed(text)
        before = text
        if "\\" in text:
            text = _BACKSLASH.sub(_unescaped, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if "&" in text:
            text = _REFERENCE.sub(_referred, text)
        text = unquote(text, errors="replace")
        if text == before:
            return
    yield _composed(text)


def _composed(text: str) -> str:
    """Return ``text`` in Unicode's form NFC, piece by piece: sorting n marks on one letter takes n² steps."""
    return text if text.isascii() else _PIECE.sub(lambda piece: unicodedata.normalize("NFC", piece[0]), text)


def _unescaped(match: re.Match[str]) -> str:
    if digits := match[1] or match[2] or match[3]:
        return chr(int(digits, 16))
    return " " if match[4] else match[5]


def _referred(match: re.Match[str]) -> str:
    import html  # its table of names takes 2 ms, which a start without refusals saves

    return html.unescape(match[0])
