"""How senders' checks of the URL are answered, and what strangers get."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.door import signatures
from handler.errors import NotVerified, Unmapped
from handler.events import bodies, handshakes, senders
from handler.events.webhook import Webhook
from tests.unit.support_calls import calls

TABLES: dict[str, Any] = {
    "title": "Acme",
    "signature": {"header": "x-signature"},
    "webhook": {"topic": "type"},
    "handshake": [
        {"when": "body.type == 'challenge'", "answer": "body.challenge"},
        {
            "when": "body.type == 'validation'",
            "hmac": "body.plain",
            "answer": "{plain: body.plain, encrypted: _hmac}",
        },
        {
            "when": "method == 'GET' && query.mode == 'subscribe'",
            "token": "query.verify",
            "answer": 'query."hub.challenge"',
        },
        {"when": "keys(body) == ['webhook_id']", "signed": False},
    ],
}
ACME = senders.build("acme", TABLES)


def delivery(
    body: Any = None,
    method: str = "POST",
    *,
    headers: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
) -> Webhook:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Webhook(method, "https://relay.example/x", "/x", headers or {}, query or {}, raw)


def answered(sent: Webhook, *, signed: bool) -> Any:
    check = handshakes.find(ACME, sent, signed=signed)
    return handshakes.answer(*check, secret="secret") if check else None


def test_a_challenge_is_echoed_only_where_it_is_signed() -> None:
    sent = delivery({"type": "challenge", "challenge": "3eZbrw1a"})
    assert answered(sent, signed=True) == "3eZbrw1a"
    assert answered(sent, signed=False) is None


def test_a_validation_is_answered_with_the_hmac_of_its_text() -> None:
    answer = answered(delivery({"type": "validation", "plain": "qgg8vlvZRS6UYooatFL8Aw"}), signed=True)
    digest = hmac.new(b"secret", b"qgg8vlvZRS6UYooatFL8Aw", hashlib.sha256).hexdigest()
    assert answer == {"plain": "qgg8vlvZRS6UYooatFL8Aw", "encrypted": digest}


@pytest.mark.parametrize("body", [{"type": "challenge"}, {"type": "challenge", "challenge": 5}, {"type": "validation"}])
def test_a_check_without_its_challenge_has_no_answer(body: dict[str, Any]) -> None:
    with pytest.raises(Unmapped):
        answered(delivery(body), signed=True)


@pytest.mark.parametrize(
    ("secrets", "verify", "outcome"),
    [
        (["signing", "token:right"], "right", "ok"),
        (["token:old", "token:right"], "right", "ok"),
        (["token:right"], "wrong", "token_wrong"),
        (["token:right"], "", "token_missing"),
        (["right"], "right", "no_secret"),
        (["token:"], "", "no_secret"),
        ([], "right", "no_secret"),
    ],
)
def test_a_verify_token_must_be_one_of_the_secrets(secrets: list[str], verify: str, outcome: str) -> None:
    sent = delivery(b"", "GET", query={"mode": "subscribe", "verify": verify, "hub.challenge": "1158201444"})
    check = handshakes.find(ACME, sent, signed=False)
    assert check
    if outcome == "ok":
        signatures.check_token(*check, secrets)
        assert handshakes.answer(*check) == "1158201444"
        return
    with pytest.raises(NotVerified) as caught:
        signatures.check_token(*check, secrets)
    assert caught.value.reason == outcome


def test_a_message_in_the_url_is_no_check_of_it() -> None:
    sent = delivery(b"", "GET", query={"MessageSid": "SM1", "Body": "Is the blue one back?"})
    check = handshakes.find(senders.load("twilio"), sent, signed=False)
    assert check
    with pytest.raises(Unmapped):
        handshakes.answer(*check)
    assert handshakes.find(senders.load("twilio"), delivery(b"", "GET"), signed=False) is None


def test_before_anybody_proved_who_they_are_little_is_read() -> None:
    woocommerce = senders.load("woocommerce")
    assert handshakes.find(woocommerce, delivery(b"webhook_id=12"), signed=False)
    long = b"webhook_id=" + b"1" * handshakes.UNSIGNED_BYTES
    packed, part = gzip.compress(b"webhook_id=12"), b'--b\r\nContent-Disposition: form-data; name="webhook_id"\r\n\r\n'
    for body in (long, packed, part + b"12\r\n--b--\r\n", b"webhook_id=12&id=3"):
        assert handshakes.find(woocommerce, delivery(body), signed=False) is None


@pytest.mark.parametrize("name", ["meta_leads", "twilio", "jotform", "stripe"])
def test_a_body_is_read_before_verification_only_if_a_check_of_the_url_asks_for_it(name: str) -> None:
    with calls(bodies.parse) as read:
        assert handshakes.find(senders.load(name), delivery(b'{"id": 1}'), signed=False) is None
    assert read == []


@given(
    body=st.one_of(st.binary(max_size=60), st.dictionaries(st.sampled_from(["type", "plain", "challenge"]), st.text())),
    method=st.sampled_from(["GET", "POST", "HEAD"]),
    query=st.dictionaries(st.sampled_from(["mode", "verify", "hub.challenge"]), st.text(max_size=9)),
    signed=st.booleans(),
)
def test_whatever_is_sent_it_is_an_answer_or_has_a_reason(body: Any, method: str, query: Any, signed: bool) -> None:
    try:
        answer = answered(delivery(body, method, query=query), signed=signed)
    except Unmapped:
        return
    assert answer is None or isinstance(answer, str | dict)
