"""A sender as data: the TOML files in ``sources/`` and ``sources/custom/``.

``load`` reads only one sender's file. docs/adding-a-sender.md describes the form of
the files. Every file is checked at build time, so that this module only reads.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import tzinfo
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from .. import zones
from ..errors import SourceError, UnknownSource
from .bodies import JSON, Body
from .expressions import Expression

SHIPPED = Path(__file__).parents[1] / "sources"
CUSTOM = SHIPPED / "custom"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
_LINT = "`make lint` names the line"
AHEAD_SECONDS = 300
_LISTS = ("header", "timestamp_header", "id_header")

Expressions = Mapping[str, Expression]


@dataclass(frozen=True, slots=True)
class Scheme:
    """A sender's way to sign; the fields are the vocabulary of ``handler.door.signatures``."""

    scheme: str = "hmac"
    digest: str = "sha256"
    encoding: str = "hex"
    header: tuple[str, ...] = ()
    layout: str = "plain"
    prefix: str = ""
    separator: str = ","
    value: str = "v1"
    timestamp: str = ""
    timestamp_header: tuple[str, ...] = ()
    timestamp_body: Expression | None = None
    timestamp_format: str = "s"
    id_header: tuple[str, ...] = ()
    signed: str = "{body}"
    key: str = "text"
    key_prefix: str = ""
    tolerance: int = 300
    batches: str = ""

    @property
    def ahead(self) -> int:
        """Seconds by which a signature may be in the future; a long tolerance is for late retries only."""
        return min(self.tolerance, AHEAD_SECONDS)


@dataclass(frozen=True, slots=True)
class Profile:
    """Expressions for an event's profile; ``customer_id`` and ``full_name`` are the relay's own."""

    attributes: Expressions = field(default_factory=dict)
    location: Expressions = field(default_factory=dict)
    properties: Expressions = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``[[event]]``: which topics it reads and what it makes of them."""

    topics: tuple[str, ...]
    metric: str
    metric_from: Expression | None
    when: Expression | None
    otherwise: str
    agrees: Expression | None
    each: Expression | None
    whose: Expression | None
    key: Expression
    time: Expression | None
    value: Expression | None
    currency: Expression | None
    profile: Profile
    properties: Expressions
    properties_from: Expression | None
    backfill: bool

    @property
    def expressions(self) -> int:
        """The number of expressions that are evaluated for an event."""
        profile = self.profile
        return 8 + sum(map(len, (profile.attributes, profile.location, profile.properties, self.properties)))


@dataclass(frozen=True, slots=True)
class Handshake:
    """One ``[[handshake]]``: how to recognise and answer a sender's check of its URL."""

    when: Expression
    answer: Expression | None
    signed: bool
    token: Expression | None
    hmac: Expression | None

    @property
    def reads_body(self) -> bool:
        """Whether one of its expressions reads the body."""
        return any(
            "body" in expression.text for expression in (self.when, self.answer, self.token, self.hmac) if expression
        )


@dataclass(frozen=True, slots=True)
class Source:
    """One sender: how it signs, where its values are, and what becomes of its topics."""

    name: str
    title: str
    schemes: tuple[Scheme, ...]
    body: Body
    klaviyo_format: bool
    items: Expression | None
    root: Expression | None
    topic: Expression | None
    topic_header: str
    key: Expression | None
    zone: tzinfo | None
    region: str
    currency: str
    when: Expression | None
    otherwise: str
    silent: bool
    kept_headers: tuple[str, ...]
    delivery_headers: tuple[str, ...]
    rules: tuple[Rule, ...]
    ignored: Mapping[str, str]
    nobody: Mapping[str, str]
    handshakes: tuple[Handshake, ...]
    metrics: Mapping[str, str]
    only: tuple[str, ...]

    @property
    def id_headers(self) -> tuple[str, ...]:
        """Headers that hold the delivery's id and are signed."""
        return tuple(name for scheme in self.schemes for name in scheme.id_header)

    @property
    def items_digest(self) -> str:
        """Digest of the expression that selects a webhook's items: their places mean something only under this one."""
        selects = "klaviyo" if self.klaviyo_format else f"items:{self.items.text if self.items else ''}"
        return hashlib.sha256(selects.encode()).hexdigest()[:16]

    def rules_for(self, topic: str) -> list[Rule]:
        """Return the events that ``topic`` becomes: those that name it, otherwise those whose pattern fits.

        A topic that ``[ignore]`` or ``[no_identifier]`` names more closely than a pattern is not an event.
        """
        exact = [rule for rule in self.rules if topic in rule.topics]
        if exact:
            return exact
        fitting = [(rule, _closeness(rule.topics, topic)) for rule in self.rules]
        closest = max(_closeness(self.ignored, topic), _closeness(self.nobody, topic))
        return [rule for rule, close in fitting if close and close >= closest]

    def takes(self, topic: str) -> bool:
        """Return whether ``topic`` is among those that the source is limited to, if it is limited."""
        return not self.only or any(fnmatchcase(topic, glob) for glob in self.only)

    def why_ignored(self, topic: str) -> str | None:
        """Return why ``topic`` is not relayed, or ``None``."""
        return _why(self.ignored, topic)

    def why_nobody(self, topic: str) -> str | None:
        """Return what to subscribe to instead of ``topic``, whose body identifies no profile, or ``None``."""
        return _why(self.nobody, topic)


def _closeness(globs: Iterable[str], topic: str) -> int:
    """Return the length of the longest of the patterns that fit; 0 if none does."""
    return max((len(glob) for glob in globs if fnmatchcase(topic, glob)), default=0)


def _why(reasons: Mapping[str, str], topic: str) -> str | None:
    if topic in reasons:
        return reasons[topic]
    return next((why for glob, why in reasons.items() if fnmatchcase(topic, glob)), None)


def names() -> list[str]:
    """Return the names of all sources, including the user's own, in alphabetical order."""
    return sorted({path.stem for folder in (SHIPPED, CUSTOM) for path in folder.glob("*.toml")})


def path_of(name: str) -> Path:
    """Return the file of a source; one in ``custom/`` goes first.

    Raises
    ------
    UnknownSource
        No file of that name.
    """
    if _NAME.fullmatch(name):
        for folder in (CUSTOM, SHIPPED):
            path = folder / f"{name}.toml"
            if path.is_file():
                return path
    raise UnknownSource("unknown_source", "no source with this name is configured")


@cache
def load(name: str) -> Source:
    """Return the source of that name.

    Raises
    ------
    UnknownSource
        No file of that name.
    SourceError
        The file is not in the form of a source.
    """
    try:
        return build(name, document(name))
    except zones.UnknownZone as error:
        raise SourceError(f"{name}.toml", None, str(error)) from None
    except KeyError as error:
        raise SourceError(f"{name}.toml", None, f"the key {error} is missing. {_LINT}") from None
    except (TypeError, AttributeError, ValueError):
        raise SourceError(f"{name}.toml", None, f"a value is not in the form of a source. {_LINT}") from None


def document(name: str, *, depth: int = 0) -> dict[str, Any]:
    """Return the tables of a source's file, over those of the source that it extends."""
    path = path_of(name)
    own = parsed(path.name, path.read_bytes())
    base = own.pop("extends", None)
    if base is None:
        return own
    if depth > 3:
        raise SourceError(path.name, None, "extends more than three others in a row")
    return merge(document(base, depth=depth + 1), own)


def parsed(file: str, content: bytes) -> dict[str, Any]:
    """Return the tables of a TOML file; raise ``SourceError`` with its name and line if it is not one."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        raise SourceError(file, line, "expected text in UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        from .toml_errors import not_toml

        raise not_toml(file, text, error) from None


def merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return ``own`` over ``base``: tables join, an event replaces those of the base with its topic and metric."""
    merged = dict(base)
    for name, value in own.items():
        if name == "event":
            ours = {(topic, rule.get("metric")) for rule in value for topic in _topics(rule)}
            kept = [
                rule for rule in base.get("event", []) if not ours & {(t, rule.get("metric")) for t in _topics(rule)}
            ]
            merged["event"] = kept + value
        elif isinstance(value, dict) and isinstance(base.get(name), dict):
            merged[name] = merge(base[name], value)
        else:
            merged[name] = value
    return merged


def _topics(rule: Mapping[str, Any]) -> list[str]:
    return [rule["topic"]] if isinstance(rule["topic"], str) else list(rule["topic"])


def build(name: str, tables: Mapping[str, Any]) -> Source:
    """Build a source from its tables; raise ``KeyError`` or ``TypeError`` for gaps, ``ValueError`` for a wrong zone."""
    webhook = tables.get("webhook", {})
    common = tables.get("profile", {})
    topic_header = webhook.get("topic_header", "").lower()
    signature = tables["signature"]
    schemes = tuple(_scheme(table) for table in (signature if isinstance(signature, list) else [signature]))
    id_headers = [header for scheme in schemes for header in scheme.id_header]
    read = {topic_header, *id_headers}
    delivery = tuple(header.lower() for header in webhook.get("keep_headers", []))
    read |= set(delivery)
    return Source(
        name=name,
        title=tables["title"],
        schemes=schemes,
        body=_body(webhook, schemes),
        klaviyo_format=tables.get("format") == "klaviyo",
        items=_optional(webhook, "items"),
        root=_optional(webhook, "root"),
        topic=_optional(webhook, "topic"),
        topic_header=topic_header,
        key=_optional(webhook, "key"),
        zone=zones.load(webhook["zone"]) if webhook.get("zone") else None,
        region=webhook.get("region", ""),
        currency=webhook.get("currency", ""),
        when=_optional(webhook, "when"),
        otherwise=webhook.get("otherwise", "the source's condition does not hold"),
        silent=bool(webhook.get("silent", False)),
        kept_headers=tuple(sorted(read - {""})),
        delivery_headers=delivery,
        rules=tuple(_rule(event, webhook, common, tables.get("shared", {})) for event in tables.get("event", [])),
        ignored=tables.get("ignore", {}),
        nobody=tables.get("no_identifier", {}),
        handshakes=tuple(_handshake(table) for table in tables.get("handshake", [])),
        metrics=tables.get("metrics", {}),
        only=tuple(tables.get("only", [])),
    )


def _body(webhook: Mapping[str, Any], schemes: Iterable[Scheme]) -> Body:
    kinds = webhook.get("body", JSON)
    return Body(
        (kinds,) if isinstance(kinds, str) else tuple(kinds),
        tuple(webhook.get("form", ())),
        webhook.get("charset", ""),
        once=any("{form}" in scheme.signed for scheme in schemes),
    )


def _scheme(table: Mapping[str, Any]) -> Scheme:
    known = {item.name for item in fields(Scheme)}
    settings = {name: value for name, value in table.items() if name in known}
    for name in _LISTS:
        if name in settings:
            listed = [settings[name]] if isinstance(settings[name], str) else settings[name]
            settings[name] = tuple(header.lower() for header in listed)
    if "timestamp_body" in settings:
        settings["timestamp_body"] = Expression(settings["timestamp_body"])
    return Scheme(**settings)


def _optional(table: Mapping[str, Any], name: str) -> Expression | None:
    return Expression(table[name]) if name in table else None


def _expressions(table: Mapping[str, Any]) -> Expressions:
    return {name: Expression(text) for name, text in table.items() if isinstance(text, str)}


def _rule(
    event: Mapping[str, Any], webhook: Mapping[str, Any], common: Mapping[str, Any], shared: Mapping[str, Any]
) -> Rule:
    properties = {**(shared[event["shared"]] if "shared" in event else {}), **event.get("properties", {})}
    key = event.get("key", webhook.get("key"))
    if key is None:
        raise KeyError("key")
    return Rule(
        topics=tuple(_topics(event)),
        metric=event.get("metric", ""),
        metric_from=_optional(event, "metric_from"),
        when=_optional(event, "when"),
        otherwise=event.get("otherwise", "its condition does not hold"),
        agrees=_optional(event, "agrees"),
        each=_optional(event, "each"),
        whose=_optional(event, "whose"),
        key=Expression(key),
        time=_optional(event, "time") or _optional(webhook, "time"),
        value=_optional(event, "value"),
        currency=_optional(event, "currency"),
        profile=_profile(merge(dict(common), event.get("profile", {}))),
        properties=_expressions(properties),
        properties_from=_optional(event, "properties_from"),
        backfill=bool(event.get("backfill", webhook.get("backfill", False))),
    )


def _profile(table: Mapping[str, Any]) -> Profile:
    return Profile(
        _expressions(table), _expressions(table.get("location", {})), _expressions(table.get("properties", {}))
    )


def _handshake(table: Mapping[str, Any]) -> Handshake:
    token = _optional(table, "token")
    return Handshake(
        when=Expression(table["when"]),
        answer=_optional(table, "answer"),
        signed=bool(table.get("signed", token is None)),
        token=token,
        hmac=_optional(table, "hmac"),
    )
