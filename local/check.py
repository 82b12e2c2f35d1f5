"""Check every source's TOML file and its samples: ``python -m local.check``.

Each mistake is one line, ``file:line: what was expected``. ``--metrics`` prints
docs/metrics.md instead, ``--retries`` docs/retries.md; ``--expected`` writes what
the samples become to tests/unit/expected, to be read before it is committed.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from handler import zones
from handler.errors import Refused, SourceError, Unmapped
from handler.events import bodies, entry, expressions, mapping, senders, values
from handler.events.mapping import Defaults, Outcome
from handler.events.senders import Rule, Scheme, Source

from . import payload, retries, secret_forms
from .preview import preview_request
from .terminal import say

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "events"
EXPECTED = ROOT / "tests/unit/expected"
RECEIVED = 1_795_500_000.0  # a fixed time of receipt: the samples' outcome is the same on every day

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
_AMOUNTS = {"money", "minor", "add", "subtract", "multiply", "absolute"}
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TEXTS = ("prefix", "separator", "value", "timestamp", "signed", "key_prefix")
# A parked webhook is kept with its headers: none that proves who sent it may be among them.
_PROOFS = {"authorization", "proxy-authorization", "cookie"}
_SIGNED = {"body", "timestamp", "id", "url", "method", "uri", "form"}
# What a token, which is compared as it stands, can be told; and an ECDSA signature, whose form is fixed.
_TOKEN = {"scheme", "header", "prefix", "encoding"}
_ECDSA = {item.name for item in fields(Scheme)} - {"digest", "encoding", "key", "key_prefix"}

# What tomllib says, and what it mostly means.
_TOML = {
    "Illegal character '\\n'": "the text is not closed",
    "Invalid value": "the value is missing, or a text without quotes",
    "Cannot overwrite a value": "the key stands there twice",
}

NO_SAMPLE = "no_sample"  # the code of a mistake that wants a sample, and no change to the file

Place = tuple[str | int, ...]


def lines(text: str) -> dict[Place, int]:
    """Where each table and key of a TOML text stands; ``("event", 0, "value")`` is line 12, say."""
    found: dict[Place, int] = {}
    counts: dict[str, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if head := re.match(r"\s*\[\[(\w+)\]\]", line):
            counts[head[1]] = counts.get(head[1], -1) + 1
            table = (head[1], counts[head[1]])
        elif head := re.match(r"\s*\[([\w.]+)\]", line):
            first, *rest = head[1].split(".")
            table = (first, *([counts[first]] if first in counts else []), *rest)
        elif pair := re.match(r"""\s*(?:"([^"]+)"|'([^']+)'|([\w-]+))\s*=""", line):
            found.setdefault((*table, pair[1] or pair[2] or pair[3]), number)
            continue
        found.setdefault(table, number)
    return found


@dataclass(frozen=True)
class Checked:
    """One file: its own tables, those with what it extends, and where everything stands."""

    path: Path
    own: dict[str, Any]
    whole: dict[str, Any]
    where: dict[Place, int]

    def problem(self, place: Place, message: str, code: str = "") -> SourceError:
        """A mistake at ``place``, or at the nearest table around it."""
        around = next((place[:end] for end in range(len(place), 0, -1) if place[:end] in self.where), ())
        return SourceError(shown(self.path), self.where.get(around), message, code)


def shown(path: Path) -> str:
    """``path`` as seen from the project's folder."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def problems(name: str, samples: Path = SAMPLES) -> list[SourceError]:
    """Every mistake in a source's file and samples; empty if all is well."""
    found, checked = mistakes(name)
    if found or checked is None:
        return found
    return [checked.problem(place, text, NO_SAMPLE) for place, text in _unseen(name, checked, samples)]


def mistakes(name: str) -> tuple[list[SourceError], Checked | None]:
    """Every mistake in a source's file alone, and the file's tables if they can be read at all."""
    path = senders.path_of(name)
    text = path.read_text("utf-8")
    try:
        checked = Checked(path, tomllib.loads(text), senders.document(name), lines(text))
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"line (\d+)", str(error))
        return [SourceError(shown(path), int(at[1]) if at else None, f"expected TOML: {_toml(str(error))}")], None
    except (SourceError, Refused) as error:
        return [SourceError(shown(path), None, f"expected a source to extend: {error}")], None
    found = [*_tables(checked), *_signature(checked), *_webhook(checked), *_profiles(checked), *_events(checked)]
    return [*found, *_retries(checked, text), *_secret(checked)], checked


def _toml(text: str) -> str:
    """What the parser says, for a person: the line is told beside it."""
    text = re.sub(r"\(at line \d+, (column \d+)\)", r"(\1)", text)
    for start, meaning in _TOML.items():
        if text.startswith(start):
            return text.replace(start, meaning, 1)
    return text


def _meant(name: str, known: Iterable[str]) -> str:
    """The known name that it resembles, else all of them."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(known))}"


def _unknown(checked: Checked, place: Place, table: Any, known: set[str] | frozenset[str]) -> Iterator[SourceError]:
    if not isinstance(table, dict):
        yield checked.problem(place, f"expected {place[-1]} to be a table")
        return
    for name in table:
        if name not in known:
            yield checked.problem((*place, name), f"unknown {name!r}: {_meant(name, known)}")


def _tables(checked: Checked) -> Iterator[SourceError]:
    yield from _unknown(checked, (), checked.own, _TOP)
    for name in ("title", "signature"):
        if not checked.whole.get(name):
            yield checked.problem((), f"expected {name!r}")
    for name in ("ignore", "no_identifier", "metrics"):
        for key, text in checked.own.get(name, {}).items():
            if not isinstance(text, str) or not text.strip():
                yield checked.problem((name, key), "expected a text")
    relayed = {topic for event in checked.whole.get("event", []) for topic in _listed(event.get("topic", []))}
    for topic in relayed.intersection(checked.own.get("ignore", {})):
        yield checked.problem(("ignore", topic), "expected no topic that an [[event]] reads: that goes before")
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
            yield checked.problem((*place, "id_header"), "expected no id_header beside another [[signature]]")


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
        for header in _listed(table.get(name, [])):
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
    """What makes a signature worthless, or impossible, by what it is said to cover."""
    parts = set(re.findall(r"\{(\w*)\}", str(scheme.get("signed", "{body}"))))
    if parts - _SIGNED:
        yield checked.problem(place, f"expected only {', '.join(sorted(_SIGNED))} in braces")
    if not parts & {"body", "form"}:
        yield checked.problem(place, "expected {body} or {form}: else a signature fits any other body too")
    headers = {"timestamp": scheme.get("timestamp") or scheme.get("timestamp_header"), "id": scheme.get("id_header")}
    for part, header in headers.items():
        if part in parts and not header:
            yield checked.problem(place, f"expected to be told in which header the {part} stands")
        if header and part not in parts:
            yield checked.problem(place, f"expected {{{part}}}: what is not signed may be anybody's")


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
        for header in _listed(table.get(name, [])):
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
    listed = isinstance(kinds, list)
    if any(kind not in bodies.KINDS for kind in _listed(kinds)) or (listed and not 1 < len(set(kinds)) == len(kinds)):
        yield checked.problem(place, "expected 'json', 'form' or 'multipart', or a list of two or three of them")
    elif listed and bodies.FORM in kinds and not _names(form):
        yield checked.problem(place, "expected 'form' too: a list of the only fields that a form of this sender holds")
    if form is not None and not (listed and bodies.FORM in kinds):
        yield checked.problem(
            ("webhook", "form"), "expected body to be a list with 'form' in it: else any field may come"
        )
    if kinds != bodies.FORM and any("{form}" in str(one.get("signed")) for one in _schemes(checked)):
        yield checked.problem(place, 'expected body = "form": this sender signs form fields')
    if set(_listed(kinds)) != {bodies.JSON} and any("{id}" in str(one.get("signed")) for one in _schemes(checked)):
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
    return [one for one in _listed(checked.whole.get("signature", {})) if isinstance(one, dict)]


def _zone(checked: Checked, table: Mapping[str, Any]) -> Iterator[SourceError]:
    try:
        zones.load(table.get("zone") or "UTC")
    except (ValueError, TypeError):
        yield checked.problem(("webhook", "zone"), "expected an IANA time zone, such as Europe/Paris")


def _kept_proofs(whole: Mapping[str, Any]) -> set[str]:
    signature, kept = whole.get("signature", {}), whole.get("webhook", {}).get("keep_headers", [])
    proofs = _PROOFS | {str(name).lower() for one in _listed(signature) for name in _listed(one.get("header", []))}
    return proofs & {str(name).lower() for name in _listed(kept)}


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
        topics = _listed(event.get("topic", []))
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
        if "value" in event and _wrong(event["value"]) is None and not _is_amount(event["value"]):
            yield checked.problem((*place, "value"), f"expected an amount: {', '.join(sorted(_AMOUNTS))}")
        if ("when" in event or "each" in event) and not explained.intersection(topics) and not event.get("otherwise"):
            yield checked.problem(place, "expected 'otherwise': why nothing is sent if the condition does not hold")
        explained.update(topics)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _formulas(
    checked: Checked, place: Place, table: Mapping[str, Any], names: set[str] | None
) -> Iterator[SourceError]:
    for name, text in table.items():
        if names is None or name in names:
            wrong = _wrong(text)
            if wrong:
                yield checked.problem((*place, name), wrong)


def _wrong(text: Any) -> str | None:
    """What is wrong with an expression."""
    if not isinstance(text, str):
        return "expected an expression, which is a text"
    try:
        tree = jmespath.compile(text).parsed
    except JMESPathError as error:
        return f"expected a JMESPath expression: {_jmespath(error)}"
    if _negates_a_part(tree):
        return "!a.b is read as (!a).b: expected !(a.b)"
    known = expressions.arities()
    for name, count in _calls(tree):
        if name == "to_number":
            return "to_number loses digits: expected money()"
        if name not in known:
            return f"unknown function {name}(): {_meant(name, set(known) - {'to_number'})}"
        least, most = known[name]
        if count < least or (most is not None and count > most):
            return f"expected {least}{'' if most == least else ' or more'} arguments of {name}(), found {count}"
    return None


def _jmespath(error: JMESPathError) -> str:
    text = str(error).splitlines()[0].partition(": Parse error at")[0]
    return re.sub(r"^(Bad|Invalid) \w+ expression: ", "", text).rstrip(":")


def _calls(tree: Any) -> Iterator[tuple[str, int]]:
    if tree["type"] == "function_expression":
        yield tree["value"], len(tree["children"])
    for child in tree["children"]:
        if isinstance(child, dict):
            yield from _calls(child)


def _negates_a_part(tree: Any) -> bool:
    """Whether a "!" binds to less than it seems to stand before."""
    inner = [child for child in tree["children"] if isinstance(child, dict)]
    parted = tree["type"] in ("subexpression", "comparator", "index_expression", "projection", "flatten")
    return (parted and bool(inner) and inner[0]["type"] == "not_expression") or any(map(_negates_a_part, inner))


def _is_amount(text: Any) -> bool:
    """Whether every branch of the expression ends in a function that keeps an amount's digits."""
    return isinstance(text, str) and _wrong(text) is None and _ends_in_amount(jmespath.compile(text).parsed)


def _ends_in_amount(tree: Any) -> bool:
    if tree["type"] == "or_expression":
        return all(_ends_in_amount(child) for child in tree["children"])
    if tree["type"] == "and_expression":
        return _ends_in_amount(tree["children"][1])
    return tree["type"] == "function_expression" and tree["value"] in _AMOUNTS


def understood(name: str, path: Path) -> Outcome:
    """What becomes of a sample; a handshake, or a sample that cannot be read, makes nothing."""
    sent = payload.request(path)
    if "handshake" in preview_request(name, sent, RECEIVED):
        return Outcome()
    try:
        return mapping.understand(
            senders.load(name), headers=sent.headers, body=sent.body, received=RECEIVED, defaults=Defaults()
        )
    except Unmapped:
        return Outcome()


def _unseen(name: str, checked: Checked, samples: Path) -> Iterator[tuple[Place, str]]:
    """Events of a file that no sample shows."""
    outcomes = [understood(name, path) for path in sorted((samples / name).glob("*.json"))]
    where = f"a sample in {shown(samples / name)}"
    source = senders.load(name)
    if source.klaviyo_format and "extends" not in checked.own and not any(outcome.events for outcome in outcomes):
        yield (), f"expected {where}"
    for index, event in enumerate(checked.own.get("event", [])):
        metric = source.metrics.get(event.get("metric", ""), event.get("metric", ""))
        made = [topic for one in outcomes for topic in one.topics if not metric or metric in one.metrics]
        seen = [topic for one in outcomes if one.events for topic in one.topics]
        for topic in _listed(event["topic"]):
            if not any(fnmatchcase(one, topic) for one in seen):
                yield ("event", index, "topic"), f"expected {where} for the topic {topic}"
        elsewise = any(fnmatchcase(one, topic) for one in seen for topic in _listed(event["topic"]))
        if elsewise and not any(fnmatchcase(one, topic) for one in made for topic in _listed(event["topic"])):
            yield ("event", index, "metric"), f"expected {where} that becomes {metric or 'this event'}"


def metrics_table() -> str:
    """docs/metrics.md: every shipped source with how it signs; every metric, who sends it, and its properties."""
    listed = [(source.title, f"`{source.name}`", _proof(source)) for source in map(senders.load, _shipped())]
    return "\n".join(
        [
            "# Senders and metrics",
            "",
            "Written by `python -m local.check --metrics` from `src/handler/sources/`. Each file says at its top where",
            "the sender's documentation is, and under `[ignore]` what is not relayed, and why.",
            "",
            "| sender | source | how it proves itself |",
            "|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in sorted(listed, key=lambda row: row[0].lower())),
            "",
            "What each sender's topics become. The same business event has the same metric and the same property names",
            "from every sender.",
            "",
            "| metric | sender | topics | value | properties |",
            "|---|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in sorted(_rows(), key=lambda row: row[:3])),
            "",
        ]
    )


def _proof(source: Source) -> str:
    """How a sender proves itself, and what its secret is where that is not plain."""
    proofs = []
    for scheme in source.schemes:
        header = " or ".join(f"`{name}`" for name in scheme.header)
        if scheme.encoding == "basic":
            proofs.append(f"user and password in {header}")
        elif scheme.scheme == "token":
            beside = ", a secret written as `token:…`" if len(source.schemes) > 1 else ""
            proofs.append(f"a token, as `?token=` in the URL{f' or in {header}' if header else ''}{beside}")
        elif scheme.scheme == "ecdsa":
            proofs.append(f"{header}, ECDSA; the secret is its public key")
        else:
            proofs.append(f"{header}, {'' if scheme.scheme == 'digest' else 'HMAC-'}{scheme.digest.upper()}")
    if any(scheme.batches and scheme.scheme != "token" for scheme in source.schemes):
        proofs.append("batches: a second secret `token:…` as `?token=` in the URL")
    if any(handshake.token for handshake in source.handshakes):
        proofs.append("a second secret `token:…` for its check of the URL")
    return "; ".join(proofs)


def _shipped() -> list[str]:
    return sorted(path.stem for path in senders.SHIPPED.glob("*.toml"))


def _rows() -> Iterator[tuple[str, ...]]:
    for source in map(senders.load, _shipped()):
        for rule in source.rules:
            yield _row(source, rule)


def _row(source: Source, rule: Rule) -> tuple[str, ...]:
    names = ", ".join(rule.properties)
    if rule.properties_from:
        names = f"what the sender gives{', ' if names else ''}{names}"
    topics = ", ".join(f"`{topic}`" for topic in rule.topics)
    return rule.metric or "(the sender's name for it)", source.title, topics, "yes" if rule.value else "", names


def expected_of(path: Path) -> str:
    """What a sample becomes, as tests/unit/expected keeps it."""
    found = preview_request(path.parent.name, payload.request(path), RECEIVED)
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def write_expected() -> None:
    """Write what every sample becomes; the difference is for a person to read."""
    for path in sorted(SAMPLES.glob("*/*.json")):
        target = EXPECTED / path.relative_to(SAMPLES)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(expected_of(path), "utf-8")


def main(arguments: list[str]) -> int:
    """Print what is wrong, one of the tables, or nothing; 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m local.check", description=__doc__)
    parser.add_argument("--metrics", action="store_true", help="print docs/metrics.md")
    parser.add_argument("--retries", action="store_true", help="print docs/retries.md")
    parser.add_argument("--expected", action="store_true", help="write what the samples become")
    options = parser.parse_args(arguments)
    if options.metrics:
        say(*metrics_table().splitlines())
        return 0
    if options.retries:
        say(*retries.page().splitlines())
        return 0
    if options.expected:
        write_expected()
        return 0
    found = [problem for name in senders.names() for problem in problems(name)]
    for problem in found:
        say(problem, error=True)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
