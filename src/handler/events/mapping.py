"""From an authentic webhook to Klaviyo's events, by the sender's TOML file.

Pure: bytes and headers in, an ``Outcome`` out. The same bytes always give the
same ``unique_id``s, which are made of signed bytes only (docs/decisions/0001).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from functools import cache, partial
from typing import Any, NamedTuple

from .. import cleaning
from ..errors import Unmapped
from ..messages import Event
from ..work import CHARACTERS, bounded, spend
from . import bodies, entry, identity, values
from .entry import Draft, Note
from .expressions import Expression, ExpressionFailed, times_in
from .senders import Expressions, Profile, Rule, Source
from .webhook import Webhook

_ITEM_UNITS, _NODE_UNITS, _EXPRESSION_UNITS = 20, 5, 2  # of work, regardless of their size
_SENDER_IDS = 20  # the most that a log line names
_SLUGGED = 1_000  # characters of a metric's name; Klaviyo accepts 127
_NO_SLUG = re.compile(r"[^a-z0-9]+")
# Klaviyo gives some properties a meaning ($value, $flow). "$ 5 and more" may be a question in a form.
_RESERVED = re.compile(rf"\s*(?:\$\w|{entry.MARK}\s*$)")
_TOPIC = re.compile(r"[\w ./:-]{1,100}")
_DELIVERIES = ("webhook-id", "svix-id")  # header names of Standard Webhooks


@dataclass(frozen=True, slots=True)
class Defaults:
    """The stack's defaults: a country code for phone numbers, and a zone for times without one."""

    phone_region: str = ""
    time_zone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class UnmappedItem:
    """An item of the body that became no event; ``index`` is ``None`` for the whole body."""

    index: int | None
    reason: str
    detail: str


@dataclass(slots=True)
class Outcome:
    """The result of one webhook.

    ``ignored`` is the reason if the whole webhook is deliberately not relayed.
    ``items`` is the digest under which the places in ``parked`` mean something.
    ``notes`` has what was left out of the events (codes and paths, no values),
    ``sender_ids`` the sender's ids of the items that became no event.
    ``private_ids``: see ``telemetry.event_id``.
    """

    topics: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    ignored: str | None = None
    parked: list[UnmappedItem] = field(default_factory=list)
    items: str = ""
    notes: list[Note] = field(default_factory=list)
    sender_ids: list[str] = field(default_factory=list)
    private_ids: bool = False
    backfill: bool = False


@dataclass(frozen=True, slots=True)
class _Reading:
    """A webhook while it is mapped: what is known of it, and the ``outcome`` that grows."""

    source: Source
    headers: Mapping[str, str]
    received: float
    region: str
    zone: tzinfo
    outcome: Outcome = field(default_factory=Outcome)


def understand(
    source: Source,
    webhook: Webhook,
    *,
    received: float,
    defaults: Defaults,
    only: Collection[int] | None = None,
    items: str = "",
) -> Outcome:
    """Normalise one webhook.

    Parameters
    ----------
    webhook : Webhook
        Only its document and the headers of its topic and its signed id are read.
    received : float
        Epoch seconds; replaces a missing or implausible time.
    only : collection of int, optional
        Places of the items to read (a redrive of what was parked). All are read if it is
        ``None``, if a place does not exist, or if another expression selects the items now.
    items : str
        The source's ``items_digest`` when ``only`` was made, empty if it is not known: then all are read.

    Raises
    ------
    Unmapped
        It cannot be read, none of it can become an event, or it would be ``too_much_work``.
    """
    reading = _Reading(
        source, webhook.headers, received, source.region or defaults.phone_region, source.zone or defaults.time_zone
    )
    if items != source.items_digest:
        only = None
    document, weight = webhook.document(source.body)
    with bounded(weight), times_in(reading.zone):
        if source.klaviyo_format:
            _read_drafts(reading, document, only)
        else:
            _read_items(reading, document, only)
    if reading.outcome.parked:
        reading.outcome.items = source.items_digest
    return reading.outcome


def _read_drafts(reading: _Reading, document: Any, only: Collection[int] | None) -> None:
    """Add the events of a sender that uses Klaviyo's own format."""
    from . import custom_source

    outcome = reading.outcome
    outcome.topics, outcome.private_ids = ["events"], True
    live = False
    delivery = _signed_id(reading, _DELIVERIES)
    count, drafts = custom_source.read(document, delivery=delivery, received=reading.received, local=reading.zone)
    chosen = _chosen(only, count)
    for index, draft in enumerate(drafts):
        live = live or (isinstance(draft, Draft) and not draft.backfill)
        if index in chosen:
            _add(reading, draft, index)
    outcome.backfill = bool(outcome.events) and not live


def _read_items(reading: _Reading, document: Any, only: Collection[int] | None) -> None:
    """Add what the rules of the sender's file make of each item."""
    outcome = reading.outcome
    reasons: list[str] = []
    items = _items(reading.source, document)
    chosen = _chosen(only, len(items))
    for index, item in items:
        if index not in chosen:
            continue
        try:
            ignored = _item(reading, item, () if item is document else (index,))
        except Unmapped as error:
            outcome.parked.append(UnmappedItem(index if len(items) > 1 else None, error.reason, error.detail))
        else:
            if not ignored:
                continue
            reasons.append(ignored)
        if len(outcome.sender_ids) < _SENDER_IDS:
            outcome.sender_ids += _sender_ids(reading, item)
    if not outcome.events and not outcome.parked:
        outcome.ignored = reasons[0] if reasons else "the webhook holds no events"
    outcome.topics = list(dict.fromkeys(outcome.topics))


def _chosen(only: Collection[int] | None, count: int) -> Collection[int]:
    """Return the places of the items to read, of which there are ``count``: all if one in ``only`` does not exist."""
    every = range(count)
    return frozenset(only) if only and all(place in every for place in only) else every


def _items(source: Source, document: Any) -> list[tuple[int, Any]]:
    """Return the webhook's items with their place in it: the body itself, or the entries of an array in it."""
    items = _value(source.items, document, "items") if source.items else document
    if not isinstance(items, list):
        return [(0, items)]
    bodies.check_items(items)
    return list(enumerate(items))


def _item(reading: _Reading, item: Any, place: tuple[int, ...]) -> str | None:
    """Add the events of one item; return the reason if it is ignored.

    ``place`` is its place in the webhook, empty if it is the whole webhook.
    """
    spend(_ITEM_UNITS)
    source, outcome = reading.source, reading.outcome
    if not isinstance(item, dict):
        raise Unmapped("not_an_object", "expected a JSON object or a form")
    topic = _topic(reading, item)
    outcome.private_ids |= _is_private(topic)  # a metric may be named after it
    outcome.topics.append(topic if _TOPIC.fullmatch(topic) else "(unprintable)")
    if not source.takes(topic):
        return "not among the topics that this source relays"
    if source.when and not _truth(source.when, item):
        return source.otherwise
    spend((1 + (len(topic) >> CHARACTERS)) * len(source.rules))
    rules = source.rules_for(topic)
    if not rules:
        if (instead := source.why_nobody(topic)) is not None:
            raise Unmapped("no_identifier", instead)
        why = source.why_ignored(topic)
        if why is None:
            raise Unmapped("unknown_topic", "the source's file says nothing about this topic")
        return why
    item = _with_id(reading, item)
    if any(rule.agrees and not _truth(rule.agrees, item) for rule in rules):
        raise Unmapped("topic_contradicted", "the body does not match the (unsigned) topic header")
    ignored: list[str] = []
    failed: Unmapped | None = None
    for rule in rules:
        try:
            ignored += _apply(reading, rule, item, place)
        except Unmapped as error:
            failed = failed or error
    if failed:
        raise failed
    return ignored[0] if ignored and len(ignored) == len(rules) else None


def _with_id(reading: _Reading, item: dict[str, Any]) -> dict[str, Any]:
    """Return ``item`` with the delivery's id as ``_id``, if the sender signs one in a header."""
    signed_id = _signed_id(reading, reading.source.id_headers)
    return {**item, "_id": signed_id} if signed_id else item


def _signed_id(reading: _Reading, among: Collection[str]) -> str:
    """Return the delivery's id from the first signed header in the file's order that is present, otherwise ``""``."""
    name = next((name for name in reading.source.id_headers if reading.headers.get(name)), "")
    return reading.headers[name] if name in among else ""


def _sender_ids(reading: _Reading, item: Any) -> list[str]:
    """Return the name in the log of an item that became no event: its key, if its file has one and so has the item."""
    source = reading.source
    try:
        rules = source.rules_for(_topic(reading, item)) if isinstance(item, dict) else []
        key = rules[0].key if rules else source.key
        if key is None or not isinstance(item, dict):
            return []
        whole = _with_id(reading, item)
        root = _value(source.root, whole, "root") if source.root else whole
        node = {**(root if isinstance(root, dict) else {}), "_webhook": whole}
        person = _value(rules[0].whose, node, "whose") if rules and rules[0].whose else node
        profile = _profile(source, rules[0].profile, person, [])[0] if rules else {}
        named = identity.name(key, _value(key, node, "key"), node, profile)
    except Unmapped:
        return []
    return [named] if named else []


def _topic(reading: _Reading, item: dict[str, Any]) -> str:
    source = reading.source
    topic = reading.headers.get(source.topic_header) if source.topic_header else None
    if source.topic and not topic:
        topic = values.text(_value(source.topic, item, "topic"))
    if not topic:
        places = [place for place in (source.topic_header, "the body" if source.topic else "") if place]
        raise Unmapped("no_topic", f"no topic found; this sender names it in {' or '.join(places)}")
    return topic


def _apply(reading: _Reading, rule: Rule, item: dict[str, Any], place: tuple[int, ...]) -> list[str]:
    """Add what ``rule`` makes of ``item``; return a list with the reason if it deliberately makes nothing.

    Raises ``Unmapped`` after the last entry if some of the rule's entries could not become events.
    """
    count = 0
    units = _EXPRESSION_UNITS * rule.expressions
    failed: Unmapped | None = None  # the first: each would keep its node in memory
    for node in _nodes(reading.source, rule, item, place):
        spend(_NODE_UNITS)
        try:
            if rule.when and not _truth(rule.when, node.fields):
                continue
            spend(units)
            _build(reading, _draft(reading, rule, node))
        except Unmapped as error:
            failed = failed or error
            continue
        count += 1
        reading.outcome.backfill = reading.outcome.backfill or rule.backfill
    if failed:
        raise failed
    return [] if count else [rule.otherwise]


class _Node(NamedTuple):
    """The fields of one event; ``around`` distinguishes a list's entry from an equal one in another webhook."""

    fields: dict[str, Any]
    place: tuple[int, ...]
    around: Callable[[], str]
    common: dict[str, Any] | None = None  # properties that are the same for all entries of the list


def _nodes(source: Source, rule: Rule, item: dict[str, Any], place: tuple[int, ...]) -> Iterator[_Node]:
    root = _value(source.root, item, "root") if source.root else item
    if not isinstance(root, dict):
        raise Unmapped("no_root", "the object that this sender's webhooks are about is missing")
    node = root if root is item else {**root, "_webhook": item}
    if rule.each is None:
        yield _Node(node, place, str)
        return
    lines = _value(rule.each, node, "each")
    if lines is not None and not isinstance(lines, list):
        raise Unmapped("mapping_failed", "the expression for each did not give a list")
    bodies.check_items(lines or [])
    around = cache(partial(identity.surroundings, item, root))
    common: dict[str, Any] = {}
    for index, line in enumerate(lines or []):
        fields = {**(line if isinstance(line, dict) else {"item": line}), "_webhook": item, "_root": root}
        yield _Node(fields, (*place, index), around, common)


def _draft(reading: _Reading, rule: Rule, at: _Node) -> Draft:
    notes: list[Note] = []
    source, node = reading.source, at.fields
    metric = rule.metric
    if rule.metric_from:
        metric = values.text(_quiet(rule.metric_from, node, "metric", notes)) or metric
    metric = source.metrics.get(metric, metric)
    person = _value(rule.whose, node, "whose") if rule.whose else node
    profile, fallback = _profile(source, rule.profile, person, notes)
    properties = _quiet(rule.properties_from, node, "properties", notes) if rule.properties_from else None
    return Draft(
        profile=profile,
        metric=metric,
        unique_id=_unique_id(source, metric, rule.key, at, profile),
        time=_time(reading, rule, node, notes),
        properties={
            **_free(properties, notes),
            **{name: _tidy(value) for name, value in _all(rule.properties, at, notes).items()},
        },
        service=source.title,
        value=values.money(_quiet(rule.value, node, "value", notes)) if rule.value else None,
        currency=(values.currency(_quiet(rule.currency, node, "currency", notes)) if rule.currency else None)
        or source.currency
        or None,
        backfill=rule.backfill,
        fallback_id=f"{source.name}:{fallback}" if fallback else None,
        notes=notes,
    )


def _free(loose: Any, notes: list[Note]) -> dict[str, Any]:
    """Return properties whose names the sender or its visitors chose, without the names of Klaviyo and the relay."""
    properties = loose if isinstance(loose, dict) else {}
    spend(len(properties))
    reserved = {name for name in properties if _RESERVED.match(name[: entry.NAME_LENGTH])}
    notes += [Note("reserved_name", f"properties.{name}") for name in sorted(reserved)]
    return {name: value for name, value in properties.items() if name not in reserved} if reserved else properties


def _tidy(value: Any) -> Any:
    """Return a list of objects, like an order's items, without their empty members."""
    if not isinstance(value, list):
        return value
    spend(len(value))
    return [
        {name: member for name, member in item.items() if member or isinstance(member, values.NUMBERS)}
        if isinstance(item, dict)
        else item
        for item in value
    ]


def _profile(
    source: Source, wanted: Profile, node: dict[str, Any], notes: list[Note]
) -> tuple[dict[str, Any], str | None]:
    """Return Klaviyo's profile attributes, and the sender's id of the customer."""
    profile = _values(wanted.attributes, node, "", notes)
    customer = values.text(profile.pop("customer_id", None))
    first, last = values.names(profile.pop("full_name", None))
    if not profile.get("first_name") and not profile.get("last_name"):
        profile |= {"first_name": first, "last_name": last}
    profile["location"] = _values(wanted.location, node, "location.", notes)
    properties = _values(wanted.properties, node, "profile.properties.", notes)
    if customer:
        properties = {f"{source.title} Customer ID": customer, **properties}
    profile["properties"] = properties
    return profile, customer


def _unique_id(source: Source, metric: str, key: Expression, at: _Node, profile: Mapping[str, Any]) -> str:
    """Return an id such as ``stripe:placed-order:evt_1``: the same for every retry, another for every event.

    Where a part of the key is missing, a digest of the node and its place in the
    webhook is used, so that two events never collapse into one. If only a form's
    fields are signed this is not possible: anyone who repeats it may change the bytes.
    """
    named = identity.name(key, _value(key, at.fields, "key"), at.fields, profile)
    if not named and source.body.once:
        raise Unmapped("no_key", "a part of the event's key is missing")
    slug = _NO_SLUG.sub("-", metric[:_SLUGGED].lower()).strip("-")[:50]
    return f"{source.name}:{slug}:{named or identity.stand_in(at.fields, at.place, at.around())}"


def _time(reading: _Reading, rule: Rule, node: dict[str, Any], notes: list[Note]) -> float:
    if rule.time is None:
        return reading.received
    seconds = values.time(_quiet(rule.time, node, "time", notes), reading.zone)
    if seconds is not None and values.plausible(seconds, reading.received):
        return seconds
    notes.append(Note("time_of_receipt", "time"))
    return reading.received


def _add(reading: _Reading, draft: Draft | Unmapped, index: int) -> None:
    try:
        if isinstance(draft, Unmapped):
            raise draft
        _build(reading, draft)
    except Unmapped as error:
        reading.outcome.parked.append(UnmappedItem(index, error.reason, error.detail))


def _build(reading: _Reading, draft: Draft) -> None:
    outcome = reading.outcome
    event, notes = entry.build(draft, phone_region=reading.region)
    phones = draft.profile.get("phone_number")
    named = cleaning.is_private(event.unique_id, phones if isinstance(phones, list) else [phones])
    # A visitor may have chosen the metric's name, which is part of the id.
    outcome.private_ids |= named or _is_private(draft.metric)
    outcome.events.append(event)
    outcome.metrics.append(draft.metric)
    outcome.notes += notes


def _is_private(name: str) -> bool:
    """Return whether the name of a topic or a metric holds personal data, such as a phone number."""
    return cleaning.clean(name, hide_numbers=True) != name


def _value(expression: Expression, node: Any, where: str) -> Any:
    """Return the value of an expression that an event needs."""
    try:
        return expression.of(node)
    except ExpressionFailed as error:
        raise Unmapped("mapping_failed", f"the expression for {where} failed on this payload ({error})") from None


def _truth(expression: Expression, node: Any) -> bool:
    return bool(_value(expression, node, "a condition"))


def _quiet(expression: Expression, node: Any, where: str, notes: list[Note]) -> Any:
    """Return the value of an optional expression; ``None``, with a note, if it fails."""
    try:
        return expression.of(node)
    except ExpressionFailed:
        notes.append(Note("mapping_failed", where))
        return None


def _all(wanted: Expressions, at: _Node, notes: list[Note]) -> dict[str, Any]:
    """Return a rule's properties; evaluate those that read nothing of a list's entry once for the list."""
    if at.common is None:
        return _values(wanted, at.fields, "properties.", notes)
    if not at.common:
        common = {name: expression for name, expression in wanted.items() if expression.is_common}
        at.common.update(_values(common, at.fields, "", []))
    own = {name: expression for name, expression in wanted.items() if name not in at.common}
    merged = at.common | _values(own, at.fields, "properties.", notes)
    return {name: merged[name] for name in wanted if name in merged}


def _values(wanted: Expressions, node: Any, prefix: str, notes: list[Note]) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, expression in wanted.items():
        try:
            results[name] = expression.of(node)
        except ExpressionFailed:
            notes.append(Note("mapping_failed", prefix + name))
    return results
