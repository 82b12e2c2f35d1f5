"""Cleaning of texts that leave the functions: log lines, answers, metric dimensions, message attributes.

They hold senders' texts as ids, topics and names of metrics, and anyone may have
chosen those. Cleaning hides everything that looks like an email address, a phone
number with its country code, a URL, a token or a key, and each character on which
a terminal or an editor would act. Digits alone stay, since ids are made of them.
Time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from .work import spend

HIDDEN = "[…]"
MOST = 1_000  # characters of one text
IDS = frozenset({"webhook_id", "event_ids", "sender_ids", "delivery_ids"})  # fields of lines and answers
_SEARCHED = 4  # a unit of work is 2 ** 4 characters that are searched for a shape
_WORD_UNITS = 3  # of work for each word of a text with an address in it
_PHONE_DIGITS = 7  # of a phone number without its codes of country and area

# Each sign also as JSON, HTML and percent-encoding write it.
_URL = r"(?:https?|ftp)(?::|%3a)(?:\\?/|%2f){2}[^\s\"'<>]*|\bwww\.[^\s\"'<>]+"
# Also the wide forms of + and @, and digits with invisible characters between them (by then replacement characters).
_PLUS = r"(?:[+\ufe62\uff0b]|%(?:25)?2b|\\(?:u00|x)2b|&(?:#43|#x2b|plus);)"
_GAP = r"[\s()./_\ufffd\u2010-\u2015\u2212-]"
_PHONE = rf"{_PLUS}[\s\ufffd]?\d(?:{_GAP}{{0,3}}\d){{6,14}}(?!\d)|\(\d{{2,5}}\)(?:{_GAP}?\d){{5,12}}(?!\d)"
_KEY = (
    r"\b(?:[prs]k_|whsec_|shp(?:at|ss|ca|pa)_|gh[opsu]_|xox[abp]-)[\w+/=-]{8,}"
    r"|\b(?:bearer|klaviyo-api-key)\s+[\w.+/=~-]{8,}|\bakia[0-9a-z]{16}\b"
)
# A run without a dot matches too, so that it is read once and not from each "eyj" in it.
_TOKEN = re.compile(r"\beyj[\w-]{8,}+(?:\.[\w.-]+)?", re.IGNORECASE)
# Each of these shapes has one of the signs. Most texts have none, so that this check is their only cost.
_SHAPES = tuple(
    (signs, re.compile(shape, re.IGNORECASE))
    for signs, shape in (
        (("//", "\\/", "%2f", "www."), _URL),
        (("+", "\ufe62", "\uff0b", "(", "%", "&", "\\"), _PHONE),
        (("k_", "whsec_", "shp", "gh", "xox", "bearer", "klaviyo-", "akia"), _KEY),
    )
)
_RESOURCE = re.compile(r"https://[\w.-]+(?:/[\w.-]+)*", re.ASCII)
# With the quoted name that an address may begin with, and with the semicolon of a reference.
_ADDRESS = re.compile(r"""(?:"[^"]{1,64}"(?=[@\ufe6b\uff20%&\\]))?(?:&#?\w{1,6};|[^\s"'<>(),;])+""")
_AT = ("@", "\ufe6b", "\uff20", "%40", "%2540", "&#64;", "&#x40;", "&commat;", "\\u0040", "\\x40")
_NUMBER = re.compile(rf"\d(?:{_GAP}{{0,2}}\d){{6,}}")


def clean(text: str, *, hide_numbers: bool = False, resources: bool = False) -> str:
    """Return ``text`` as it may leave, of at most ``MOST`` characters.

    ``hide_numbers``, for texts that are not ids, also hides numbers of seven digits and
    more. With ``resources`` a URL without a query stays, since some senders' ids are such URLs.
    """
    text = text[: 2 * MOST]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)
    if any(sign in text for sign in _AT):
        text = _ADDRESS.sub(_without_address, text)
    plain = text.lower()
    for signs, shape in _SHAPES:
        if any(sign in plain for sign in signs):
            spend(len(text) >> _SEARCHED)
            text = shape.sub(_resource if resources else HIDDEN, text)
    if "eyj" in plain:
        spend(len(text) >> _SEARCHED)
        text = _TOKEN.sub(_without_token, text)
    if hide_numbers:
        text = _NUMBER.sub(HIDDEN, text)
    return text if len(text) <= MOST else text[: MOST - 1] + "…"


def _without_address(match: re.Match[str]) -> str:
    spend(_WORD_UNITS)
    return HIDDEN if any(sign in match[0] for sign in _AT) else match[0]


def _without_token(match: re.Match[str]) -> str:
    return HIDDEN if "." in match[0] else match[0]


def _resource(match: re.Match[str]) -> str:
    return match[0] if _RESOURCE.fullmatch(match[0]) else HIDDEN


_name = lru_cache(maxsize=500)(clean)  # most lines have the same few names


def cleaned(node: Any, *, resources: bool = False) -> Any:
    """Return ``node``, a JSON value, with each text in it cleaned; fields named in ``IDS`` hold ids."""
    if isinstance(node, str):
        return clean(node, resources=resources)
    if isinstance(node, dict):
        return {_name(str(name)): cleaned(member, resources=name in IDS) for name, member in node.items()}
    if isinstance(node, list | tuple):
        return [cleaned(item, resources=resources) for item in node]
    return node if node is None or isinstance(node, bool | int | float) else clean(str(node))


def is_private(unique_id: str, phones: Iterable[Any] = ()) -> bool:
    """Return whether an id must not leave unchanged, or holds one of ``phones`` in any notation."""
    if clean(unique_id, resources=True) != unique_id:
        return True
    known = [digits for digits in map(_digits, phones) if len(digits) >= _PHONE_DIGITS]
    written = [_digits(match[0]) for match in _NUMBER.finditer(unique_id)] if known else []
    # By the last nine digits, so that a country code, a zero or other numbers around it make no difference.
    return any(other[-9:] in number or other.endswith(number) for number in written for other in known)


def _digits(value: Any) -> str:
    return "".join(re.findall(r"[0-9]", str(value)[:60])) if isinstance(value, str | int) else ""
