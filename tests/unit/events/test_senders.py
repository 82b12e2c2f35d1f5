"""Every source and every sample, found automatically."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from handler.door import signatures
from handler.errors import NotVerified
from handler.events import senders
from handler.events.expressions import Expression, holds
from handler.events.webhook import Webhook
from local.klaviyo_checks import problems
from tools.senders import payload, sign
from tools.senders.payload import Payload
from tools.senders.preview import preview_request

ROOT = Path(__file__).parents[3]
SAMPLES = sorted((ROOT / "events").glob("*/*.json"))
NAMES = senders.names()
RECEIVED = 1_795_500_000


def expressions(name: str) -> list[Expression]:
    source = senders.load(name)
    expressions: list[object] = [source.items, source.root, source.topic]
    for rule in source.rules:
        expressions += [
            rule.metric_from,
            rule.when,
            rule.agrees,
            rule.each,
            rule.key,
            rule.time,
            rule.value,
            rule.currency,
        ]
        expressions += [rule.properties_from, *rule.properties.values(), *rule.profile.attributes.values()]
        expressions += [*rule.profile.location.values(), *rule.profile.properties.values()]
    return [expression for expression in expressions if isinstance(expression, Expression)]


@pytest.mark.parametrize("name", NAMES)
def test_every_expression_compiles_and_leaves_money_exact(name: str) -> None:
    for expression in expressions(name):
        assert "to_number" not in expression.text
        holds(expression, {})
    for rule in senders.load(name).rules:
        if rule.value:
            assert any(
                word in rule.value.text for word in ("money(", "minor(", "add(", "subtract(", "multiply(", "absolute(")
            )
        if senders.load(name).topic_header:
            assert rule.agrees, f"{rule.topics} needs an agrees: its topic is not signed"


def refusals(shown: dict[str, Any]) -> list[Any]:
    """What the strict stand-in would refuse of a job of these events."""
    attributes = {"events-bulk-create": {"data": shown["events"]}}
    return list(problems({"data": {"type": "event-bulk-create-job", "attributes": attributes}}, datetime.now(UTC)))


def unique_ids(shown: dict[str, Any]) -> list[str]:
    events = [event for entry in shown["events"] for event in entry["attributes"]["events"]["data"]]
    return [event["attributes"]["unique_id"] for event in events]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_sample_shows_an_outcome_and_its_events_are_valid_with_stable_ids(path: Path) -> None:
    sent = payload.request(path)
    first = preview_request(path.parent.name, sent, 1_795_500_000)
    again = preview_request(path.parent.name, sent, 1_795_500_900)
    assert [name for name, shown in first.items() if shown], "a sample shows an outcome"
    assert not first["events"] or refusals(first) == []
    ids = [unique_ids(shown) for shown in (first, again)]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(ids[0])


def unsigned(name: str, headers: dict[str, str]) -> list[str]:
    """Headers of a request that no signature covers and that say no topic."""
    source = senders.load(name)
    covered = {header for scheme in source.schemes for header in (*scheme.header, *source.id_headers)}
    covered |= {header for scheme in source.schemes for header in headers if header in scheme.signed}
    return [header for header in {*headers, *source.kept_headers} if header not in covered | {source.topic_header}]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_replay_with_other_unsigned_headers_is_no_new_event(path: Path) -> None:
    name, sent = path.parent.name, payload.request(path)
    first = unique_ids(preview_request(name, sent, RECEIVED))
    for header in unsigned(name, sent.headers):
        for value in ({header: "replayed"}, {}):
            kept = {other: text for other, text in sent.headers.items() if other != header}
            replayed = Payload(sent.method, sent.query, kept | value, sent.body)
            again = unique_ids(preview_request(name, replayed, RECEIVED + 3_600))
            assert set(again) <= set(first), header


@pytest.mark.parametrize("name", [name for name in NAMES if name != "custom"])
def test_every_source_has_a_sample(name: str) -> None:
    assert [path for path in SAMPLES if path.parent.name == name]


SIGNED = [name for name in NAMES if senders.load(name).schemes[0].scheme != "token"]
URL = "https://relay.example/webhooks/x"


def verified(name: str, secret: str, body: bytes, headers: dict[str, str], now: float) -> bool:
    delivery = Webhook("POST", URL, "/webhooks/x", headers, {}, body)
    try:
        signatures.verify(senders.load(name).schemes, delivery, [secret], now=now)
    except NotVerified:
        return False
    return True


def changed(text: str) -> list[str]:
    """``text`` with each character in turn another one."""
    return [text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :] for place in range(len(text))]


@pytest.mark.parametrize("name", SIGNED)
def test_a_signature_breaks_on_any_changed_byte(name: str) -> None:
    scheme, now = senders.load(name).schemes[0], time.time()
    secret, form = sign.development_secret(name, scheme), "{form}" in scheme.signed
    body = b"id=1&name=Zo%C3%AB" if form else sign.fresh(name, b'{"id":1,"name":"Zo\xc3\xab"}', now)
    _, signed = sign.sign(name, secret, body=body, headers={}, url=URL, now=now)
    assert verified(name, secret, body, signed, now)
    for place in range(len(body)):
        other = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        assert not verified(name, secret, other, signed, now)
    for header in signed:
        for value in changed(signed[header]):
            assert not verified(name, secret, body, signed | {header: value}, now)
    assert not any(verified(name, other_secret, body, signed, now) for other_secret in changed(secret))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SIGNED])
def test_a_token_passes_as_it_is_and_no_other(name: str) -> None:
    secret = sign.development_secret(name, senders.load(name).schemes[0])

    def passes(sent: str) -> bool:
        url, headers = sign.sign(name, sent, body=b"{}", headers={}, url=URL, now=0)
        query = dict(parse_qsl(urlsplit(url).query))
        delivery = Webhook("POST", url, "/webhooks/x", headers, query, b"{}")
        try:
            return bool(signatures.verify(senders.load(name).schemes, delivery, [secret], now=0))
        except NotVerified:
            return False

    assert passes(secret)
    assert not any(passes(other) for other in ["", *changed(secret)])
