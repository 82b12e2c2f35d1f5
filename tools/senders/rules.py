"""The rules of a sender's TOML file: which tables and keys there are, and what each may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from handler import zones
from handler.errors import Refused, SourceError
from handler.events import bodies, entry, senders, values
from handler.events.senders import Scheme
from tools.paths import shown

from . import formulas, retries, secret_forms
from .places import Checked, Place, lines, listed

_TOP = {"title", "extends", "format", "only", "signature", "webhook", "profile", "shared", "event", "handshake"}
_TOP |= {"ignore", "no_identifier", "metrics", "retries", "secret"}
_WEBHOOK_EXPRESSIONS = {"topic", "root", "key", "time", "items", "when"}
_WEBHOOK = (
    _WEBHOOK_EXPRESSIONS
    | {"topic_header", "zone", "region", "keep_headers", "backfill", "silent"}
    | {"currency", "otherwise", "body", "form", "charset"}
)
_EVENT_EXPRESSIONS = {"metric_from", "when", "agrees", "each", "whose", "key", "time", "value", "currency"}
_EVENT_EXPRESSIONS |= {"properties_from"}
_EVENT = _EVENT_EXPRESSIONS | {"topic", "metric", "otherwise", "shared", "profile", "properties", "backfill"}
_HANDSHAKE_EXPRESSIONS = {"when", "answer", "token", "hmac"}
_HANDSHAKE = _HANDSHAKE_EXPRESSIONS | {"signed"}
_PROFILE = (entry.PROFILE_FIELDS - {"id", "meta"}) | {"full_name", "customer_id"}
_CHOICES = {
    "scheme": ("hmac", "token", "digest", "ecdsa"),
    "digest": ("sha256", "sha1", "sha512"),
    "encoding": ("hex", "base64", "basic"),
    "layout": ("plain", "pairs", "list"),
    "timestamp_format": ("s", "ms", "iso"),
    "key": ("text", "base64"),
    "batches": ("token",),
}
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TEXTS = ("prefix", "separator", "value", "timestamp", "signed", "key_prefix")
# A parked webhook is kept with its headers: none that proves who sent it may be among them.
_PROOFS = {"authorization", "proxy-authorization", "cookie"}
_SIGNED = {"body", "timestamp", "id", "url", "method", "uri", "form"}
# The settings of a token, which is compared unchanged; and an ECDSA signature, whose form is fixed.
_TOKEN = {"scheme", "header", "prefix", "encoding"}
_ECDSA = {item.name for item in fields(Scheme)} - {"digest", "encoding", "key", "key_prefix"}


def mistakes(name: str) -> tuple[list[SourceError], Checked | None]:
    """Return every mistake in a source's file alone, and the file's tables if they can be read at all."""
    path = senders.path_of(name)
    content = path.read_bytes()
    try:
        own = senders.parsed(shown(path), content)
    except SourceError as error:
        return [error], None
    text = content.decode()
    try:
        checked = Checked(path, own, senders.document(name), lines(text))
    except (SourceError, Refused) as error:
        return [SourceError(shown(path), None, f"expected a source to extend: {error}")], None
    problems = [*_tables(checked), *_signature(checked), *_webhook(checked), *_profiles(checked), *_events(checked)]
    return [*problems, *_retries(checked, text), *_secret(checked)], checked


def _unknown(checked: Checked, place: Place, table: Any, known: set[str] | frozenset[str]) -> Iterator[SourceError]:
    if not isinstance(table, dict):
        yield checked.problem(place, f"expected {place[-1]} to be a table")
        return
    for name in table:
        if name not in known:
            yield checked.problem((*place, name), f"unknown {name!r}: {formulas.meant(name, known)}")


def _tables(checked: Checked) -> Iterator[SourceError]:
    yield from _unknown(checked, (), checked.own, _TOP)
    for name in ("title", "signature"):
        if not checked.whole.get(name):
            yield checked.problem((), f"expected {name!r}")
    for name in ("ignore", "no_identifier", "metrics"):
        for key, text in checked.own.get(name, {}).items():
            if not isinstance(text, str) or not text.strip():
                yield checked.problem((name, key), "expected a text")
    relayed = {topic for event in checked.whole.get("event", []) for topic in listed(event.get("topic", []))}
    for topic in relayed.intersection(checked.own.get("ignore", {})):
        yield checked.problem(("ignore", topic), "expected no topic that an [[event]] reads: the event has priority")
    only = checked.own.get("only", [])
    if not isinstance(only, list) or not all(isinstance(topic, str) for topic in only):
        yield checked.problem(("only",), "expected a list of topics")
    if checked.own.get("format", "klaviyo") != "klaviyo":
        yield checked.problem(("format",), "expected 'klaviyo'")
    for index, table in enumerate(checked.own.get("handshake", [])):
        yield from _handshake(checked, ("handshake", index), table)


def _handshake(checked: Checked, place: Place, table: Mapping[str, Any]) -> Iterator[SourceError]:
    yield from _unknown(checked, place, table, _HANDSHAKE)
    yield from _formulas(checked, place, table, _HANDSHAKE_EXPRESSIONS)
    yield from _flags(checked, place, table, ("signed",))
    if "when" not in table:
        yield checked.problem(place, "expected 'when'")
    if "token" in table and table.get("signed"):
        yield checked.problem((*place, "token"), "expected no token: what is signed needs none")
    if "hmac" in table and (table.get("signed") is False or "token" in table):
        yield checked.problem((*place, "hmac"), "expected a signed handshake: strangers could have anything signed")


def _signature(checked: Checked) -> Iterator[SourceError]:
    own, whole = checked.own.get("signature", {}), checked.whole.get("signature", {})
    several = isinstance(own, list)
    for index, table in enumerate(own if several else [own]):
        place: Place = ("signature", index) if several else ("signature",)
        yield from _scheme(checked, place, table, {**whole, **table} if isinstance(whole, dict) else table)
        if several and "id_header" in table:
            yield checked.problem((*place, "id_header"), "expected no id_header together with another [[signature]]")


def _scheme(
    checked: Checked, place: Place, table: Mapping[str, Any], scheme: Mapping[str, Any]
) -> Iterator[SourceError]:
    kind = scheme.get("scheme")
    known = _TOKEN if kind == "token" else _ECDSA if kind == "ecdsa" else {item.name for item in fields(Scheme)}
    yield from _unknown(checked, place, table, known)
    for name, choices in _CHOICES.items():
        if name in table and table[name] not in choices:
            yield checked.problem((*place, name), f"expected {' or '.join(map(repr, choices))}")
    for name in ("header", "timestamp_header", "id_header"):
        for header in listed(table.get(name, [])):
            yield from _header(checked, (*place, name), header)
    if not scheme.get("header") and (kind != "token" or scheme.get("encoding") == "basic"):
        yield checked.problem(place, "expected 'header', or scheme = \"token\"")
    if scheme.get("encoding") == "basic" and kind != "token":
        yield checked.problem((*place, "encoding"), 'expected scheme = "token" with encoding = "basic"')
    yield from _formulas(checked, place, table, {"timestamp_body"})
    for name in _TEXTS:
        if not isinstance(table.get(name, ""), str) or (name in ("separator", "value") and table.get(name) == ""):
            yield checked.problem((*place, name), "expected a text")
    if kind != "token":
        yield from _signed(checked, (*place, "signed"), scheme)
    tolerance = table.get("tolerance", 300)
    if isinstance(tolerance, bool) or not isinstance(tolerance, int) or tolerance < 0:
        yield checked.problem((*place, "tolerance"), "expected whole seconds, 0 or more")


def _signed(checked: Checked, place: Place, scheme: Mapping[str, Any]) -> Iterator[SourceError]:
    """Yield what makes a signature worthless, or impossible, by what it is said to cover."""
    parts = set(re.findall(r"\{(\w*)\}", str(scheme.get("signed", "{body}"))))
    if parts - _SIGNED:
        yield checked.problem(place, f"expected only {', '.join(sorted(_SIGNED))} in braces")
    if not parts & {"body", "form"}:
        yield checked.problem(place, "expected {body} or {form}: otherwise a signature fits any other body too")
    headers = {"timestamp": scheme.get("timestamp") or scheme.get("timestamp_header"), "id": scheme.get("id_header")}
    for part, header in headers.items():
        if part in parts and not header:
            yield checked.problem(place, f"expected the name of the header with the {part}")
        if header and part not in parts:
            yield checked.problem(place, f"expected {{{part}}}: anyone can change what is not signed")


def _retries(checked: Checked, text: str) -> Iterator[SourceError]:
    shipped = checked.path.parent == senders.SHIPPED
    yield from _unknown(checked, ("retries",), checked.own.get("retries", {}), retries.FIELDS)
    for place, expected in retries.mistakes(checked.own, checked.whole, shipped=shipped):
        yield checked.problem(place, expected)
    for place, expected in retries.uncommented(checked.where, text.splitlines()) if shipped else ():
        yield checked.problem(place, expected)


def _secret(checked: Checked) -> Iterator[SourceError]:
    table = checked.own.get("secret", {})
    yield from _unknown(checked, ("secret",), table, secret_forms.FIELDS)
    for place, expected in secret_forms.mistakes(table):
        yield checked.problem(place, expected)


def _webhook(checked: Checked) -> Iterator[SourceError]:
    table = checked.own.get("webhook", {})
    yield from _unknown(checked, ("webhook",), table, _WEBHOOK)
    yield from _formulas(checked, ("webhook",), table, _WEBHOOK_EXPRESSIONS)
    for name in ("topic_header", "keep_headers"):
        for header in listed(table.get(name, [])):
            yield from _header(checked, ("webhook", name), header)
    if not isinstance(table.get("keep_headers", []), list) or _kept_proofs(checked.whole):
        yield checked.problem(
            ("webhook", "keep_headers"), "expected a list of headers, and no signature or token in it"
        )
    yield from _flags(checked, ("webhook",), table, ("backfill", "silent"))
    yield from _zone(checked, table)
    yield from _body(checked, table)
    if table.get("region") and not re.fullmatch(r"[A-Z]{2}", str(table["region"])):
        yield checked.problem(("webhook", "region"), "expected a country code of two capitals")
    if table.get("currency") and values.currency(table["currency"]) != table["currency"]:
        yield checked.problem(("webhook", "currency"), "expected an ISO 4217 code of three capitals")
    if "when" in table and not table.get("otherwise"):
        yield checked.problem(("webhook", "when"), "expected 'otherwise': why nothing is sent if it does not hold")
    whole = checked.whole.get("webhook", {})
    if checked.whole.get("format") != "klaviyo" and not (whole.get("topic") or whole.get("topic_header")):
        yield checked.problem(("webhook",), "expected 'topic' or 'topic_header'")


def _body(checked: Checked, table: Mapping[str, Any]) -> Iterator[SourceError]:
    whole = checked.whole.get("webhook", {})
    kinds, form = whole.get("body", bodies.JSON), whole.get("form")
    place: Place = ("webhook", "body")
    several = isinstance(kinds, list)
    if any(kind not in bodies.KINDS for kind in listed(kinds)) or (several and not 1 < len(set(kinds)) == len(kinds)):
        yield checked.problem(place, "expected 'json', 'form' or 'multipart', or a list of two or three of them")
    elif several and bodies.FORM in kinds and not _names(form):
        yield checked.problem(place, "expected 'form' too: a list of the only fields that a form of this sender holds")
    if form is not None and not (several and bodies.FORM in kinds):
        yield checked.problem(
            ("webhook", "form"), "expected body to be a list with 'form' in it: otherwise any field may come"
        )
    if kinds != bodies.FORM and any("{form}" in str(scheme.get("signed")) for scheme in _schemes(checked)):
        yield checked.problem(place, 'expected body = "form": this sender signs form fields')
    if kinds != bodies.JSON and any("{id}" in str(scheme.get("signed")) for scheme in _schemes(checked)):
        yield checked.problem(place, "expected 'json': text of a form could stand for the end of the signed {id}")
    if "charset" in table and not _charset(table["charset"]):
        yield checked.problem(
            ("webhook", "charset"),
            "expected a character set with ASCII in it, such as windows-1252: that of bytes that are not UTF-8",
        )


def _names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)


def _charset(name: Any) -> bool:
    ascii_bytes = bytes(range(128))
    try:
        return isinstance(name, str) and ascii_bytes.decode(name) == ascii_bytes.decode("ascii")
    except (LookupError, ValueError):
        return False


def _schemes(checked: Checked) -> list[Mapping[str, Any]]:
    return [scheme for scheme in listed(checked.whole.get("signature", {})) if isinstance(scheme, dict)]


def _zone(checked: Checked, table: Mapping[str, Any]) -> Iterator[SourceError]:
    try:
        zones.load(table.get("zone") or "UTC")
    except (ValueError, TypeError):
        yield checked.problem(("webhook", "zone"), "expected an IANA time zone, such as Europe/Paris")


def _kept_proofs(whole: Mapping[str, Any]) -> set[str]:
    signature, kept = whole.get("signature", {}), whole.get("webhook", {}).get("keep_headers", [])
    proofs = _PROOFS | {str(name).lower() for scheme in listed(signature) for name in listed(scheme.get("header", []))}
    return proofs & {str(name).lower() for name in listed(kept)}


def _flags(checked: Checked, place: Place, table: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[SourceError]:
    for name in names:
        if not isinstance(table.get(name, False), bool):
            yield checked.problem((*place, name), "expected true or false, without quotes")


def _header(checked: Checked, place: Place, header: Any) -> Iterator[SourceError]:
    if not isinstance(header, str) or not _HEADER.fullmatch(header):
        yield checked.problem(place, "expected the name of an HTTP header")


def _profiles(checked: Checked) -> Iterator[SourceError]:
    yield from _profile(checked, ("profile",), checked.own.get("profile", {}))
    for name, table in checked.own.get("shared", {}).items():
        yield from _formulas(checked, ("shared", name), table, set(table))


def _profile(checked: Checked, place: Place, table: Any) -> Iterator[SourceError]:
    yield from _unknown(checked, place, table, _PROFILE)
    location, properties = table.get("location", {}), table.get("properties", {})
    yield from _unknown(checked, (*place, "location"), location, entry.LOCATION_FIELDS)
    yield from _formulas(checked, place, table, set(table) - {"location", "properties"})
    yield from _formulas(checked, (*place, "location"), location, set(location))
    yield from _formulas(checked, (*place, "properties"), properties, set(properties))


def _events(checked: Checked) -> Iterator[SourceError]:
    webhook, shared = checked.whole.get("webhook", {}), checked.whole.get("shared", {})
    explained: set[str] = set()
    for index, event in enumerate(checked.own.get("event", [])):
        place: Place = ("event", index)
        yield from _unknown(checked, place, event, _EVENT)
        yield from _formulas(checked, place, event, _EVENT_EXPRESSIONS)
        yield from _formulas(checked, (*place, "properties"), event.get("properties", {}), None)
        yield from _profile(checked, (*place, "profile"), event.get("profile", {}))
        yield from _flags(checked, place, event, ("backfill",))
        topics = listed(event.get("topic", []))
        if not topics or not all(isinstance(topic, str) and topic for topic in topics):
            yield checked.problem((*place, "topic"), "expected 'topic': a text or a list of texts")
        if not event.get("metric") and not event.get("metric_from"):
            yield checked.problem(place, "expected 'metric' or 'metric_from'")
        if not event.get("key") and not webhook.get("key"):
            yield checked.problem(place, "expected 'key', here or in [webhook]")
        if webhook.get("topic_header") and not event.get("agrees"):
            yield checked.problem(place, "expected 'agrees': the topic's header is not signed")
        if event.get("shared", "") not in {"", *shared}:
            yield checked.problem((*place, "shared"), f"expected one of the [shared] tables: {', '.join(shared)}")
        if "value" in event and formulas.wrong(event["value"]) is None and not formulas.is_amount(event["value"]):
            yield checked.problem((*place, "value"), f"expected an amount: {', '.join(sorted(formulas.AMOUNTS))}")
        if ("when" in event or "each" in event) and not explained.intersection(topics) and not event.get("otherwise"):
            yield checked.problem(place, "expected 'otherwise': why nothing is sent if the condition does not hold")
        explained.update(topics)


def _formulas(
    checked: Checked, place: Place, table: Mapping[str, Any], names: set[str] | None
) -> Iterator[SourceError]:
    for name, text in table.items():
        if names is None or name in names:
            wrong = formulas.wrong(text)
            if wrong:
                yield checked.problem((*place, name), wrong)
