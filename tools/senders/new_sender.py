"""``make new-sender``: a first TOML file and a sample event, guessed from one delivery.

The guesses are meant to be read: each line of the file that is one says so.
What was kept of the delivery is its body and the headers that are read.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from handler.errors import Unmapped
from handler.events import bodies, expressions, senders, values
from tools import paths
from tools.errors import CommandError
from tools.paths import shown
from tools.terminal import say

from . import payload

# Words that names of fields hold, in the order of preference.
_TOPIC = ("type", "event_type", "eventtype", "event", "event_name", "topic", "action", "trigger", "kind")
_KEY = ("event_id", "eventid", "webhook_id", "id", "uuid", "guid")
_TIME = ("created", "occurred", "timestamp", "submitted", "time", "date", "updated", "_at", "when")
_OTHERS = (
    "support",
    "merchant",
    "shop",
    "store",
    "seller",
    "sender",
    "admin",
    "agent",
    "owner",
    "staff",
    "host",
    "billed_by",
)
_PEOPLE = (
    "customer",
    "user",
    "contact",
    "buyer",
    "person",
    "invitee",
    "subscriber",
    "member",
    "client",
    "profile",
    "lead",
)
_AMOUNTS = (
    "total_price",
    "grand_total",
    "order_total",
    "amount_total",
    "total_amount",
    "total",
    "amount",
    "price",
    "value",
)
_ITEMS = ("line_items", "lineitems", "items", "products", "lines", "positions")
_MEMBERS = {
    "ProductID": ("product_id", "productid", "id"),
    "VariantID": ("variant_id", "variantid"),
    "SKU": ("sku",),
    "ProductName": ("product_name", "productname", "title", "name"),
    "VariantName": ("variant_name", "variant_title", "variant"),
    "Quantity": ("quantity", "qty", "count"),
    "ItemPrice": ("unit_price", "unitprice", "item_price", "price"),
    "RowTotal": ("row_total", "line_total", "total", "subtotal"),
    "ProductURL": ("product_url", "url", "link"),
    "ImageURL": ("image_url", "imageurl", "image", "picture"),
    "Brand": ("brand", "vendor"),
}
_PROFILE = {
    "first_name": ("first_name", "firstname", "given_name", "forename"),
    "last_name": ("last_name", "lastname", "family_name", "surname"),
    "full_name": ("full_name", "fullname", "customer_name", "name"),
    "organization": ("company", "organization", "organisation"),
    "locale": ("locale", "language"),
    "customer_id": ("customer_id", "customerid", "user_id", "userid", "contact_id", "id"),
}
_LOCATION = {
    "city": ("city", "town"),
    "region": ("state", "region", "province"),
    "zip": ("postal_code", "postalcode", "postcode", "zip"),
    "country": ("country_code", "countrycode", "country"),
}
_PROPERTIES = 20
_UNSIGNED_TOPIC = "# The topic's header is not signed: name here what only a body of this topic has."
_WESTERN = "windows-1252"  # ISO-8859-1, and what senders of ISO-8859-1 write besides

Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Leaf:
    """A single value of the delivery and its place."""

    path: Path_
    value: Any

    @property
    def name(self) -> str:
        return self.path[-1].lower()

    @property
    def where(self) -> str:
        """The expression that reads it."""
        return ".".join(_step(step) for step in self.path)

    def under(self, words: tuple[str, ...]) -> bool:
        """Return whether one of ``words`` is in its path."""
        return any(word in step.lower() for step in self.path for word in words)


@dataclass
class Guess:
    """The content of the file to be written: expressions by name, ``None`` or empty where nothing fits."""

    read: bodies.Body = bodies.ANY_JSON
    topic: str = ""
    topic_header: str = ""
    topic_place: str = ""
    agrees: str = ""
    key: str = ""
    time: str = ""
    profile: dict[str, str] = field(default_factory=dict)
    location: dict[str, str] = field(default_factory=dict)
    value: str = ""
    currency: str = ""
    properties: dict[str, str] = field(default_factory=dict)


def _step(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else json.dumps(name)


def leaves(document: Any, path: Path_ = ()) -> Iterator[Leaf]:
    """Yield every text, number and truth value that is in objects only, the outer ones first."""
    inner: list[tuple[Path_, Any]] = []
    for name, value in document.items() if isinstance(document, dict) else ():
        if isinstance(value, dict):
            inner.append(((*path, name), value))
        elif isinstance(value, str | int | float) and name and len(path) < 6:
            yield Leaf((*path, name), value)
    for place, value in inner:
        yield from leaves(value, place)


def guess(document: dict[str, Any], headers: dict[str, str], read: bodies.Body = bodies.ANY_JSON) -> Guess:
    """Guess what the fields of a delivery are; ``read`` is what its body was read as.

    Raises
    ------
    CommandError
        Nothing in it says whose event it is.
    """
    fields = list(leaves(document))
    draft = Guess(read)
    _what_kind(draft, fields, headers)
    ids = [leaf for leaf in fields if values.text(leaf.value) and not isinstance(leaf.value, bool)]
    draft.key = _key(draft.topic, fields, _first(_named(ids, _KEY, outermost=True)))
    draft.time = _first(leaf for leaf in _named(fields, _TIME) if _is_time(leaf.value))
    person = _who(draft, fields)
    if not draft.profile:
        raise CommandError("nothing in the sample says whose event it is: no email, no phone, no customer's id")
    _how_much(draft, fields)
    draft.properties = _items(document) | _properties(draft, fields, person)
    return draft


def _named(fields: list[Leaf], words: tuple[str, ...], *, outermost: bool = False) -> Iterator[Leaf]:
    """Yield the leaves whose name is one of ``words``, then those whose name holds one, by preference."""
    if outermost:
        shallow = min((len(leaf.path) for leaf in fields if leaf.name in words), default=0)
        fields = [leaf for leaf in fields if len(leaf.path) <= shallow]
    for same in (True, False):
        for word in words:
            yield from (leaf for leaf in fields if (leaf.name == word if same else word in leaf.name))


def _first(fields: Iterator[Leaf]) -> str:
    leaf = next(fields, None)
    return leaf.where if leaf else ""


def _key(topic: str, fields: list[Leaf], identity: str) -> str:
    """Return the expression of the event's key; what is updated comes more than once under its id."""
    if not identity or not re.search(r"updat|chang|edit", topic.lower()) or "event" in identity:
        return identity or "digest(@)"
    updated = _first(leaf for leaf in _named(fields, ("updated", "modified")) if _is_time(leaf.value))
    return f"[{identity}, {updated}]" if updated else "digest(@)"


def _is_time(value: Any) -> bool:
    seconds = values.time(value)
    return seconds is not None and values.plausible(seconds, time.time())


def _what_kind(draft: Guess, fields: list[Leaf], headers: dict[str, str]) -> None:
    header = next((name for name in headers if re.search(r"(?:topic|event)(?!.*(?:id|signature))", name)), "")
    texts = [leaf for leaf in fields if isinstance(leaf.value, str) and re.fullmatch(r"[\w ./:-]{1,100}", leaf.value)]
    leaf = next((field for field in _named(texts, _TOPIC) if field.name in _TOPIC and len(field.path) <= 2), None)
    if same := next(
        (field for field in texts if header and field.name in _TOPIC and field.value == headers[header]), None
    ):
        draft.topic, draft.topic_place = str(same.value), same.where  # signed, which the header is not
    elif header:
        draft.topic, draft.topic_header = headers[header], header
        draft.agrees = " && ".join(dict.fromkeys(_step(leaf.path[0]) for leaf in fields if leaf.value)) or "@"
        draft.agrees = " && ".join(draft.agrees.split(" && ")[:3])
    elif leaf:
        draft.topic, draft.topic_place = str(leaf.value), leaf.where
    else:
        draft.topic, draft.topic_place = "received", "'received'"


def _who(draft: Guess, fields: list[Leaf]) -> Path_:
    """Fill in the profile; return the place of the person."""
    ours = [leaf for leaf in fields if not leaf.under(_OTHERS)]
    ours.sort(key=lambda leaf: not leaf.under(_PEOPLE))
    emails = [leaf for leaf in ours if values.email(leaf.value)]
    emails.sort(key=lambda leaf: "mail" not in leaf.name)
    phones = [leaf for leaf in ours if re.search("phone|mobile|tel$|whatsapp", leaf.name) and _is_phone(leaf.value)]
    ids = [leaf for leaf in ours if leaf.name in _PROFILE["customer_id"][:-1]]
    best = next(iter([*emails, *phones, *ids]), None)
    person = best.path[:-1] if best else ()
    if emails:
        draft.profile["email"] = emails[0].where
    if theirs := [leaf for leaf in phones if _same_person(leaf, person)]:
        draft.profile["phone_number"] = theirs[0].where
    near = [leaf for leaf in ours if leaf.path[: len(person)] == person and len(leaf.path) <= len(person) + 1]
    for name, words in _PROFILE.items():
        # Where the object is not plainly a person, a bare name or id may be the order's, say.
        usual = words if _is_person(person) else words[:-1]
        if where := _first(leaf for leaf in _named(near, usual) if leaf.name in usual and values.text(leaf.value)):
            draft.profile[name] = where
    if "first_name" in draft.profile:
        draft.profile.pop("full_name", None)
    if best is not None and best in ids:
        draft.profile["customer_id"] = best.where
    around = [leaf for leaf in fields if leaf.path[: len(person)] == person or leaf.under(("billing",))]
    for name, words in _LOCATION.items():
        if where := _first(leaf for leaf in _named(around, words) if leaf.name in words and values.text(leaf.value)):
            draft.location[name] = where
    if set(draft.profile) <= {"first_name", "last_name", "full_name", "organization", "locale"}:
        draft.profile.clear()
    return person


def _same_person(leaf: Leaf, person: Path_) -> bool:
    """Return whether ``leaf`` belongs to the person.

    It does if it is in the person's object, around it or in a bill, and not in another person's.
    """
    place = leaf.path[:-1]
    shorter = min(len(place), len(person))
    return place[:shorter] == person[:shorter] or leaf.under(("billing",))


def _is_person(place: Path_) -> bool:
    return bool(place) and any(word in place[-1].lower() for word in (*_PEOPLE, "billing", "address"))


def _is_phone(value: Any) -> bool:
    return re.fullmatch(r"\+?[\d ()./-]{6,25}", str(value)) is not None


def _how_much(draft: Guess, fields: list[Leaf]) -> None:
    amounts = [leaf for leaf in fields if values.money(leaf.value) is not None and not isinstance(leaf.value, bool)]
    amount = next((leaf for leaf in _named(amounts, _AMOUNTS) if not leaf.under(("discount", "tax", "count"))), None)
    currencies = [leaf for leaf in fields if "currency" in leaf.name and values.currency(leaf.value)]
    draft.currency = _first(iter(currencies))
    if amount is None:
        return
    cents = draft.currency and re.search("cents|minor|pence", amount.name)
    draft.value = f"minor({amount.where}, {draft.currency})" if cents else f"money({amount.where})"


def _items(document: Any, path: Path_ = ()) -> dict[str, str]:
    """Return ``ItemNames`` and ``Items`` of the first list of objects that looks like an order's."""
    inner = document.items() if isinstance(document, dict) else ()
    for name, value in inner:
        if name.lower() in _ITEMS and isinstance(value, list) and value and isinstance(value[0], dict):
            members = {
                wanted: _step(member)
                for wanted, words in _MEMBERS.items()
                if (member := next((own for word in words for own in value[0] if own.lower() == word), None))
            }
            for wanted in members.keys() & {"ItemPrice", "RowTotal"}:
                members[wanted] = f"money({members[wanted]})"
            where = ".".join(_step(step) for step in (*path, name))
            listed = ", ".join(f"{wanted}: {member}" for wanted, member in members.items())
            names = {"ItemNames": f"{where}[].{members['ProductName']}"} if "ProductName" in members else {}
            return names | ({"Items": f"{where}[].{{{listed}}}"} if members else {})
    for name, value in inner:
        if isinstance(value, dict) and len(path) < 4 and (items := _items(value, (*path, name))):
            return items
    return {}


def _properties(draft: Guess, fields: list[Leaf], person: Path_) -> dict[str, str]:
    """Return the flat values that are left, under names in CamelCase."""
    used = {draft.topic_place, draft.time, *draft.profile.values(), *draft.location.values()}
    flat: dict[str, str] = {}
    for leaf in fields:
        about_person = _is_person(person) and leaf.path[: len(person)] == person
        if leaf.where in used or about_person or leaf.value in ("", None) or len(flat) >= _PROPERTIES:
            continue
        if (
            expressions.is_secret(leaf.path[-1])
            or leaf.under(_OTHERS)
            or re.search(r"(^|_)(ip($|_)|card)|e?mail|phone|mobile", leaf.name)
        ):
            continue
        steps = leaf.path[-2:] if leaf.name in ("id", "name", "status", "type") else leaf.path[-1:]
        flat.setdefault(_camel(steps) or "Value", leaf.where)
    return flat


def _camel(steps: tuple[str, ...]) -> str:
    words = [word for step in steps for word in re.findall(r"[A-Za-z][a-z0-9]*|[0-9]+", step)]
    return "".join(word[:1].upper() + word[1:] for word in words)[:60]


def signature(name: str, headers: dict[str, str]) -> list[str]:
    """Return the lines of ``[signature]``, from the header that looks like one."""
    header = next((header for header in headers if re.search("signature|hmac|digest", header)), "")
    written = headers.get(header, "")
    if not header:
        header, written = f"x-{name.replace('_', '-')}-signature", "0" * 64
    lines = [f"header = {json.dumps(header)}"]
    if re.search(r"\bt=\d+,", written):
        return [*lines, 'layout = "pairs"', 'timestamp = "t"', 'signed = "{timestamp}.{body}"']
    if re.fullmatch(r"(v1,\S+ ?)+", written):
        return [*lines, 'layout = "list"', 'encoding = "base64"']
    prefix, digits = re.fullmatch(r"((?:sha\d+|v\d)=)?(.*)", written, re.DOTALL).groups("")  # type: ignore[union-attr]
    if prefix:
        lines.append(f"prefix = {json.dumps(prefix)}")
    in_hex = re.fullmatch(r"[0-9a-f]+", digits) is not None
    size = len(digits) // 2 if in_hex else len(digits.rstrip("=")) * 3 // 4
    if digest := {20: "sha1", 64: "sha512"}.get(size):
        lines.append(f"digest = {json.dumps(digest)}")
    if not in_hex:
        lines.append('encoding = "base64"')
    if clock := next((header for header in headers if re.search("timestamp|request-time", header)), ""):
        lines += [
            "# If the time is signed too, as this header makes likely (the documentation says how the two are joined):",
            f"# timestamp_header = {json.dumps(clock)}",
            '# signed = "{timestamp}.{body}"',
        ]
    return lines


def written(name: str, draft: Guess, headers: dict[str, str]) -> str:
    """Return the TOML file."""
    title = _camel((name,)) if "_" not in name else " ".join(word.capitalize() for word in name.split("_"))
    topic = draft.topic_place or "null"
    lines = [
        f"# Guessed from one delivery of {title}: read every line; correct what its documentation says otherwise.",
        "# docs/adding-a-sender.md explains each.",
        f"title = {json.dumps(title)}",
        "",
        '# How it signs. If it signs nothing: scheme = "token", and ?token=… at the end of the URL that it gets.',
        "[signature]",
        *signature(name, headers),
        "",
        "[webhook]",
        *([f"body = {json.dumps(draft.read.kinds[0])}"] if draft.read.kinds != bodies.ANY_JSON.kinds else []),
        *([f"charset = {json.dumps(draft.read.charset)}"] if draft.read.charset else []),
        *([f"topic_header = {json.dumps(draft.topic_header)}"] if draft.topic_header else [_line("topic", topic)]),
        "# The same for every retry, another for every event. Of an object that changes: [id, updated_at].",
        _line("key", draft.key),
        *([_line("time", draft.time)] if draft.time else ["# time = the field that says when it happened"]),
        '# zone = "Europe/Paris"   of times that name none',
        "",
        "# Whose event it is, under the names of Klaviyo's profile. full_name is split into first and last name.",
        "[profile]",
        *(_line(*pair) for pair in draft.profile.items()),
        *(["", "[profile.location]"] if draft.location else []),
        *(_line(*pair) for pair in draft.location.items()),
        "",
        "# What becomes of this topic. Add an [[event]] for each of the others.",
        "[[event]]",
        f"topic = {json.dumps(draft.topic)}",
        f"metric = {json.dumps(values_title(draft.topic))}",
        *([_UNSIGNED_TOPIC] if draft.agrees else []),
        *([_line("agrees", draft.agrees)] if draft.agrees else []),
        *(["# If it is in cents: minor(amount, currency)"] if draft.value.startswith("money") else []),
        *([_line("value", draft.value)] if draft.value else []),
        *([_line("currency", draft.currency)] if draft.currency and draft.value else []),
        "[event.properties]",
        *(_line(*pair) for pair in draft.properties.items()),
        "",
        "# Topics that are not named here are parked. To let some go:",
        "# [ignore]",
        '# "*" = "not useful for messaging customers"',
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, expression: str) -> str:
    return f"{name} = {json.dumps(expression, ensure_ascii=False)}"


def values_title(topic: str) -> str:
    """Return a metric's name from a topic: ``order.created`` is ``Order Created``."""
    return " ".join(word[:1].upper() + word[1:] for word in re.split(r"[\W_]+", topic) if word) or "Received"


def read(body: bytes) -> tuple[bodies.Body, Any]:
    """Return what a delivery's body is by its bytes, and the document in it; raise ``Unmapped``.

    Text that is not UTF-8 is read as Windows-1252, as browsers read ISO-8859-1
    (https://encoding.spec.whatwg.org/#names-and-labels).
    """
    kind = bodies.looks(body)
    if kind == bodies.FORM and b"=" not in body:
        kind = bodies.JSON
    plain = bodies.Body((kind,))
    try:
        if kind == bodies.FORM:
            unquote_to_bytes(body).decode()
        return plain, bodies.parse(body, plain)
    except UnicodeDecodeError:
        pass
    except Unmapped as error:
        if error.reason != "not_utf8":
            raise
    western = bodies.Body((kind,), charset=_WESTERN)
    return western, bodies.parse(body, western)


def create(name: str, sent: payload.Payload, folder: Path, samples: Path) -> tuple[Path, Path]:
    """Write the TOML file and the sample; return where they are.

    Raises
    ------
    CommandError
        The name is taken or not valid, the body is not an object, or it identifies no profile.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name):
        raise CommandError(
            f"{name!r} is not a valid source name. Use lower-case letters, digits and underscores, a letter first"
        )
    if name in senders.names():
        raise CommandError(f"Source {name} exists already: {shown(senders.path_of(name))}")
    try:
        read_as, whole = read(sent.body)
    except Unmapped as error:
        raise CommandError(error.detail) from None
    document = whole[0] if isinstance(whole, list) and whole else whole
    if not isinstance(document, dict):
        raise CommandError("The sample's body is neither a JSON object nor a form")
    draft = guess(document, sent.headers, read_as)
    kept = {name: sent.headers[name] for name in ("content-type", draft.topic_header) if name}
    body: Any = whole if read_as.kinds == bodies.ANY_JSON.kinds else _text(sent.body, read_as.charset)
    toml, sample = folder / f"{name}.toml", samples / name / f"{_file(draft.topic)}.json"
    for path, text in (
        (toml, written(name, draft, sent.headers)),
        (sample, json.dumps({"headers": kept, "body": body}, indent=2, ensure_ascii=False) + "\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return toml, sample


def _text(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset or "utf-8")
    except UnicodeDecodeError:
        raise CommandError(
            "The sample's body contains bytes that are not text, such as a file: take them out"
        ) from None


def _file(topic: str) -> str:
    return re.sub(r"[^\w.-]+", ".", topic).strip(".") or "received"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``make new-sender``."""
    parser.add_argument("name", help="the new sender's name: lower-case letters, digits and underscores")
    parser.add_argument("file", help=payload.FILE_HELP)
    parser.add_argument("headers", nargs="?", help=payload.HEADERS_HELP)


def run(asked: argparse.Namespace) -> int:
    """Write both files and say what to do next."""
    payload.check_given("name", asked.name, asked.file)
    if not asked.name:
        raise CommandError("No name given. Set NAME= to the new sender's name, such as NAME=acme")
    sent = payload.request(asked.file, asked.headers or None)
    toml, sample = create(asked.name, sent, senders.CUSTOM, paths.SAMPLES)
    say(f"Wrote {shown(toml)}. Every line is a guess: review it.")
    say(f"Wrote {shown(sample)}. Replace personal data in it before you share or commit it.")
    say(f"Next: make preview SOURCE={asked.name} FILE={shown(sample)}, and make lint")
    return 0
