"""Who may ask the console, and what of a request it keeps; no browser needed."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from local.console import same_origin
from local.console.exchanges import Exchanges

PORT = 8123
OWN = {"Host": "127.0.0.1:8123"}
FORM = OWN | {"Origin": "http://127.0.0.1:8123"}


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", OWN),
        ("GET", {"host": "localhost:8123"}),
        ("GET", OWN | {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}),
        ("GET", OWN | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}),
        ("POST", FORM),
        ("POST", FORM | {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"}),
    ],
)
def test_its_own_pages_may_ask(method: str, headers: Mapping[str, str]) -> None:
    assert same_origin.refusal(method, headers, PORT) is None


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {}),
        ("GET", {"Host": "relay.attacker.example:8123"}),
        ("GET", {"Host": "127.0.0.1:9999"}),
        ("GET", {"Host": "127.0.0.1"}),
        ("GET", OWN | {"Origin": "https://attacker.example"}),
        ("GET", OWN | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}),
        ("POST", OWN),
        ("POST", OWN | {"Origin": "null"}),
        ("POST", OWN | {"Origin": "http://attacker.example"}),
        ("POST", OWN | {"Origin": "http://127.0.0.1:9999"}),
        ("POST", OWN | {"Origin": "http://localhost:8123"}),
        ("POST", OWN | {"Origin": "https://127.0.0.1:8123"}),
        ("POST", {"Host": "attacker.example", "Origin": "http://attacker.example"}),
        ("DELETE", OWN),
    ],
)
def test_nobody_else_may(method: str, headers: Mapping[str, str]) -> None:
    assert same_origin.refusal(method, headers, PORT)


def test_nothing_runs_or_frames_but_what_is_its_own() -> None:
    policy = same_origin.HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def _add(exchanges: Exchanges, target: str = "/webhooks/stripe", body: bytes = b"{}", **headers: str) -> None:
    exchanges.add(
        at=0.0,
        method="POST",
        target=target,
        headers=headers,
        body=body,
        status=401,
        answer=json.dumps({"error": "signature_wrong", "detail": "no"}).encode(),
        milliseconds=1.0,
    )


def test_tokens_and_credentials_are_not_kept() -> None:
    exchanges = Exchanges()
    _add(exchanges, "/webhooks/stripe?token=secret-1&topic=orders", Authorization="Basic secret-2", Cookie="secret-3")
    (kept,) = exchanges.newest_first()
    assert kept.path == "/webhooks/stripe?token=masked&topic=orders"
    assert kept.headers == {"authorization": "Basic masked", "cookie": "masked"}


def test_what_is_kept_is_bounded_by_number_and_by_bytes() -> None:
    exchanges = Exchanges(most=10, most_bytes=5_000)
    for number in range(30):
        _add(exchanges, body=b"x" * (10 if number < 20 else 1_000))
    assert [exchange.number for exchange in exchanges.newest_first()] == [30, 29, 28, 27]
    assert exchanges.total == 30
    assert exchanges.find(30) is not None
    assert exchanges.find(26) is None
    assert exchanges.find(31) is None
