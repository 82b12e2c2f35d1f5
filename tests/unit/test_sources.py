"""Every source and every sample, found by themselves."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from handler import mapping, signatures, sources
from handler.errors import NotVerified
from handler.expressions import Expression
from local import payload, sign
from local.klaviyo_checks import problems
from local.preview import preview

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "events").glob("*/*.json"))
NAMES = sources.names()


def expressions(name: str) -> list[Expression]:
    source = sources.load(name)
    found: list[object] = [source.items, source.root, source.topic]
    for rule in source.rules:
        found += [rule.metric_from, rule.when, rule.agrees, rule.each, rule.key, rule.time, rule.value, rule.currency]
        found += [rule.properties_from, *rule.properties.values(), *rule.profile.attributes.values()]
        found += [*rule.profile.location.values(), *rule.profile.properties.values()]
    return [one for one in found if isinstance(one, Expression)]


@pytest.mark.parametrize("name", NAMES)
def test_every_expression_compiles_and_leaves_money_exact(name: str) -> None:
    for expression in expressions(name):
        assert "to_number" not in expression.text
        mapping.holds(expression, {})
    for rule in sources.load(name).rules:
        if rule.value:
            assert any(
                word in rule.value.text for word in ("money(", "minor(", "add(", "subtract(", "multiply(", "absolute(")
            )
        if sources.load(name).topic_header:
            assert rule.agrees, f"{rule.topics} needs an agrees: its topic is not signed"


def refusals(found: dict[str, Any]) -> list[Any]:
    """What the strict stand-in would refuse of a job of these events."""
    attributes = {"events-bulk-create": {"data": found["events"]}}
    return list(problems({"data": {"type": "event-bulk-create-job", "attributes": attributes}}, datetime.now(UTC)))


def unique_ids(found: dict[str, Any]) -> list[str]:
    events = [event for entry in found["events"] for event in entry["attributes"]["events"]["data"]]
    return [event["attributes"]["unique_id"] for event in events]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_sample_becomes_valid_events_with_stable_ids(path: Path) -> None:
    headers, body = payload.read(path)
    first = preview(path.parent.name, headers, body, 1_795_500_000)
    again = preview(path.parent.name, headers, body, 1_795_500_900)
    assert [name for name, found in first.items() if found], "a sample shows an outcome"
    assert not first["events"] or refusals(first) == []
    ids = [unique_ids(found) for found in (first, again)]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(ids[0])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "custom"])
def test_every_source_has_a_sample(name: str) -> None:
    assert [path for path in SAMPLES if path.parent.name == name]


def verified(name: str, secret: str, body: bytes, headers: dict[str, str], now: float) -> bool:
    delivery = signatures.Delivery("POST", "https://relay.example/webhooks/x", "/webhooks/x", headers, {}, body)
    try:
        signatures.verify(sources.load(name).schemes, delivery, [secret], now=now)
    except NotVerified:
        return False
    return True


@pytest.mark.parametrize("name", [name for name in NAMES if sources.load(name).schemes[0].scheme == "hmac"])
def test_a_signature_breaks_on_any_changed_byte(name: str) -> None:
    scheme = sources.load(name).schemes[0]
    form = "{form}" in scheme.signed
    body, given = (b"id=1&name=Zo%C3%AB", {"content-type": signatures.FORM}) if form else (b'{"name":"Zo\xc3\xab"}', {})
    secret, now = sign.development_secret(name, scheme), time.time()
    url = "https://relay.example/webhooks/x"
    _, headers = sign.sign(name, secret, body=body, headers=given, url=url, now=now)
    assert verified(name, secret, body, headers, now)
    for place in range(len(body)):
        changed = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        assert not verified(name, secret, changed, headers, now)
    for header, value in headers.items():
        for place in range(len(value)):
            changed_value = value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :]
            assert not verified(name, secret, body, headers | {header: changed_value}, now)
    for place in range(len(secret)):
        other = secret[:place] + chr(ord(secret[place]) ^ 1) + secret[place + 1 :]
        assert not verified(name, other, body, headers, now)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_mutated_samples_never_crash_and_never_send_what_klaviyo_refuses(path: Path) -> None:
    headers, body = payload.read(path)
    try:
        document = json.loads(body)
    except ValueError:
        return
    for wrong in (None, 0, -1, "", "x", "\ud800", [], {}, [None], {"a": [1]}, 10**30, True, "9" * 2000):
        for name in list(document) if isinstance(document, dict) else []:
            changed = json.dumps(document | {name: wrong}).encode()
            found = preview(path.parent.name, headers, changed, 1_795_500_000)
            assert not found["events"] or refusals(found) == []
