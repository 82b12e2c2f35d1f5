"""The name of an event: the key that its sender's file names, or a stand-in where the sender leaves it out.

A name is made of signed bytes only (docs/decisions/0001), is the same for every
retry, and is in log lines and answers. So a key that identifies a person becomes
a digest: one that holds an address, one that is made of a field of that kind
(``contact.phone``), and one that equals a value of the event's profile.
Digits alone do not identify a person: Shopify's ids have thirteen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ..errors import Unmapped
from . import values
from .expressions import Expression, ExpressionFailed

_LENGTH = 150
# Trees whose lists the file makes. A list at a plain path is the sender's (a form field that is given twice).
_LISTING = {
    *("multi_select_list", "projection", "value_projection", "filter_projection", "flatten", "slice"),
    "function_expression",
}
_LEADING = {
    *("field", "subexpression", "index_expression", "projection", "value_projection", "filter_projection", "pipe"),
}
_CONDITIONS = {"comparator", "not_expression", "literal", "expref"}

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_GENERIC = {"value", "values", "text", "raw", "item", "number", "full", "formatted", "national", "international"}
# "uri" is not among them: Calendly's ids are addresses of its own API.
_PERSONAL = {
    *("email", "emails", "mail", "phone", "phones", "telephone", "tel", "mobile", "cell", "msisdn", "whatsapp"),
    *("firstname", "lastname", "fullname", "surname", "nickname", "username", "address", "addresses", "street"),
    *("url", "urls", "link", "href", "website", "ip", "addr", "fname", "lname"),
}
_RUN_ON = ("phone", "email", "address")  # in joined words: "phonenumber", "emailaddress"
_WHOLE = {"from", "to", "caller", "called", "recipient", "line1", "line2", "zip", "postcode"}
_NAMES = {
    *("first", "last", "full", "given", "family", "middle", "display", "legal", "real"),
    *("user", "customer", "contact", "person", "member", "subscriber", "recipient", "sender", "attendee", "invitee"),
    *("guest", "participant", "registrant", "client", "buyer", "billing", "shipping", "holder", "profile", "lead"),
    *("owner", "requester", "your"),
}
_OF_A_NAME = {"first", "last", "given", "family", "middle"}
_LOOKING_UP = {"find", "like"}  # functions whose argument is a text to look for
_OF_A_THING = {"id", "ids", "uuid", "guid", "key", "hash", "at", "date", "time", "type", "status", "count"}
_PHONE = re.compile(r"[\d\s+()./\u2010-\u2015\u2212-]{7,40}")
_PHONE_DIGITS = 7
_SHORT = 4  # characters; a shorter name also occurs in ids that are not made of it


def name(key: Expression, value: Any, node: Any, profile: Mapping[str, Any]) -> str:
    """Return the key ``found`` in ``node`` as one text, empty if a part of it is missing.

    It becomes a digest if it is long or identifies a person. ``profile`` has the
    event's loose attributes.

    Raises
    ------
    Unmapped
        ``no_key``: a part is a list.
    """
    listed, paths = _reading(key.text)
    parts = value if isinstance(value, list) and listed else [value]
    if any(isinstance(part, list) and part for part in parts):
        raise Unmapped("no_key", "a part of the event's key is a list, such as a form field that is given twice")
    texts = [values.text(part) for part in parts]
    if not texts or None in texts:
        return ""
    written = [text for text in texts if text]
    joined = ":".join(written)
    if "@" in joined or len(joined) > _LENGTH or _names_somebody(written, paths, node, profile):
        return values.digest(joined)
    return joined


def stand_in(node: Mapping[str, Any], place: tuple[int, ...], around: str) -> str:
    """Return the name of an event whose key is missing: a digest of its ``node`` and of where that is in the webhook.

    ``place`` is empty where the node is the whole body. Otherwise it has the number of
    the item, and of the entry in it. ``around`` (see ``surroundings``) distinguishes an
    entry from an equal one in another webhook.
    """
    if not place:
        return values.digest(node)
    if not around:
        return values.digest(place, node)
    entry = {member: value for member, value in node.items() if member not in ("_webhook", "_root")}
    return values.digest(place, around, entry)


def surroundings(*objects: Mapping[str, Any]) -> str:
    """Return a digest of the plain members of ``objects``, without the lists and objects in them.

    So an order that is sent again with one more refund does not change the names of the others.
    """
    plain = [
        {member: value for member, value in item.items() if not isinstance(value, list | dict)} for item in objects
    ]
    return values.digest(*plain)


@cache
def _reading(key: str) -> tuple[bool, tuple[Expression, ...]]:
    """Return whether the file makes the lists in a key, and the key's paths to values that identify a person."""
    tree = Expression(key).tree
    return _lists(tree), tuple(Expression(key, path) for path in _paths(tree) if _leads_to_a_person(path))


def _lists(tree: Any) -> bool:
    if tree["type"] in _LISTING:
        return True
    inner = tree["children"] if tree["type"].startswith(("or_", "and_")) else tree["children"][-1:]
    return any(_lists(child) for child in inner if isinstance(child, dict))


def _paths(tree: Any) -> Iterator[Any]:
    """Yield the parts of an expression that lead to a value of the document."""
    kind = tree["type"]
    if kind in _LEADING or (kind == "function_expression" and tree["value"] in _LOOKING_UP):
        yield tree
    elif kind not in _CONDITIONS and not (kind == "function_expression" and tree["value"] == "digest"):
        for child in tree["children"]:
            if isinstance(child, dict):
                yield from _paths(child)


def _leads_to_a_person(path: Any) -> bool:
    """Return whether ``path`` ends at a personal field, or at a value that is looked up under such a name."""
    fields = _fields(path)
    looked_up = path["type"] == "function_expression" or (fields and fields[-1].lower() in _GENERIC)
    return _is_personal(fields) or bool(looked_up and any(_is_personal([text]) for text in _texts(path)))


def _fields(tree: Any) -> list[str]:
    """Return the fields on a path, except those that only a filter's condition reads."""
    own = [tree["value"]] if tree["type"] == "field" else []
    children = tree["children"][: 2 if tree["type"] == "filter_projection" else None]
    return own + [name for child in children if isinstance(child, dict) for name in _fields(child)]


def _texts(tree: Any) -> Iterator[str]:
    if tree["type"] == "literal" and isinstance(tree["value"], str):
        yield tree["value"]
    for child in tree["children"]:
        if isinstance(child, dict):
            yield from _texts(child)


def _words(field: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(field)]


def _is_personal(fields: list[str]) -> bool:
    """Return whether the last of a path's ``fields`` names an address, a phone or a person."""
    said = [field for field in fields if field.lower() not in _GENERIC]
    if not said:
        return False
    words, before = _words(said[-1]), {word.removesuffix("s") for field in said[-2:-1] for word in _words(field)}
    if not words or words[-1] in _OF_A_THING:  # "email_id" names a message
        return False
    if said[-1].lower() in _WHOLE or not _PERSONAL.isdisjoint(words) or _is_run_on(words[-1]):
        return True
    if "name" in before and words[-1] in _OF_A_NAME:
        return True
    if "name" not in words:
        return False
    # "customer_name", "customer.name" and a name alone, but not "plan.name".
    return said == ["name"] or not _NAMES.isdisjoint(words if len(words) > 1 else before)


def _is_run_on(word: str) -> bool:
    """Return whether joined words ("customername", "phonenumber") name a person or an address."""
    if word.endswith("name"):
        return word.removesuffix("name") in _NAMES
    return any(part in word for part in _RUN_ON) and not word.endswith(tuple(_OF_A_THING))


def _names_somebody(parts: list[str], paths: tuple[Expression, ...], node: Any, profile: Mapping[str, Any]) -> bool:
    if paths and any(_holds(part, person) for person in _people(paths, node) for part in parts):
        return True
    first, last = (_letters(values.text(profile.get(member)) or "") for member in ("first_name", "last_name"))
    known = {first, last, first + last, last + first} - {""}
    if any(_letters(part) in known for part in parts):
        return True
    digits = [number for part in parts if len(number := _digits(part)) >= _PHONE_DIGITS]
    return bool(digits) and any(_is_one_of(_digits(phone), digits) for phone in _listed(profile.get("phone_number")))


def _people(paths: tuple[Expression, ...], node: Any) -> Iterator[str]:
    for path in paths:
        try:
            persons = path.of(node)
        except ExpressionFailed:
            continue
        yield from _listed(persons)


def _listed(value: Any) -> list[str]:
    """Return the first texts in ``found``: a profile's expressions may give a list of candidates."""
    return [text for member in (value if isinstance(value, list) else [value])[:10] if (text := values.text(member))]


def _holds(part: str, person: str) -> bool:
    """Return whether ``part`` holds a text that identifies a person; a short text must be a word of it."""
    folded = _folded(person)
    if len(folded) < _SHORT:
        return folded in (_folded(part), *re.split(r"\W+", part.casefold()))
    return folded in _folded(part)


def _folded(text: str) -> str:
    return "".join(text.split()).casefold()


def _letters(text: str) -> str:
    """Return ``text`` without what separates its words: "Park, Kim" and "park.kim" become equal."""
    return re.sub(r"[\W_]+", "", text).casefold()


def _digits(text: str) -> str:
    """Return the digits of a possible phone number, without leading zeros; empty for other texts."""
    return "".join(filter(str.isdigit, text)).lstrip("0") if _PHONE.fullmatch(text) else ""


def _is_one_of(number: str, listed: list[str]) -> bool:
    """Return whether a phone number is among those listed, with or without its country code."""
    known = len(number) >= _PHONE_DIGITS
    return known and any(number.endswith(other[-9:]) or other.endswith(number[-9:]) for other in listed)
