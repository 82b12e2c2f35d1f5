"""Who sent it: signatures made here by other means than the relay's, and every way to get one wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import signatures, sources
from handler.errors import NotVerified
from handler.signatures import Delivery

NOW = 1_795_500_000
BODY = '{"name":"Zoë","id":1}'.encode()
HMACS = [name for name in sources.names() if sources.load(name).scheme.scheme == "hmac"]


def delivery(headers: dict[str, str], body: bytes = BODY, query: dict[str, str] | None = None) -> Delivery:
    return Delivery("POST", "https://relay.example/webhooks/x", "/webhooks/x", headers, query or {}, body)


def verify(name: str, sent: Delivery, *secrets: str, now: float = NOW) -> str:
    """``"verified"``, or the reason of the refusal."""
    try:
        signatures.verify(sources.load(name).scheme, sent, secrets, now=now)
    except NotVerified as error:
        return error.reason
    return "verified"


def stripe(secret: str, stamp: int = NOW, body: bytes = BODY) -> dict[str, str]:
    made = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={stamp},v1={made}"}


def standard(key: bytes, stamp: int = NOW, prefix: str = "webhook") -> dict[str, str]:
    made = base64.b64encode(hmac.new(key, f"msg_1.{stamp}.".encode() + BODY, hashlib.sha256).digest()).decode()
    return {
        f"{prefix}-id": "msg_1",
        f"{prefix}-timestamp": str(stamp),
        f"{prefix}-signature": f"v1a,x v1,AAAA v1,{made}",
    }


def shopify(secret: str) -> dict[str, str]:
    made = hmac.new(secret.encode(), BODY, hashlib.sha256).digest()
    return {"x-shopify-hmac-sha256": base64.b64encode(made).decode()}


@pytest.mark.parametrize("prefix", ["webhook", "svix"])
def test_a_standard_webhook_is_verified_among_other_signatures(prefix: str) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    assert verify("standard_webhooks", delivery(standard(b"k" * 24, prefix=prefix)), secret) == "verified"


@pytest.mark.parametrize("secret", ["whsec_plain", "geheimnis-ä-🔑"])
def test_secrets_of_any_text_verify(secret: str) -> None:
    assert verify("stripe", delivery(stripe(secret)), secret) == "verified"
    assert verify("shopify", delivery(shopify(secret)), secret) == "verified"


def test_either_of_two_secrets_verifies_while_they_are_rotated() -> None:
    for secret in ("new", "old"):
        assert verify("stripe", delivery(stripe(secret)), "new", "old") == "verified"
    assert verify("stripe", delivery(stripe("older")), "new", "old") == "signature_wrong"


@pytest.mark.parametrize("secrets", [(), ("",)])
@pytest.mark.parametrize("name", HMACS)
def test_without_a_secret_nothing_verifies(name: str, secrets: tuple[str, ...]) -> None:
    assert verify(name, delivery(stripe("") | shopify("") | standard(b"")), *secrets) == "no_secret"


@pytest.mark.parametrize(
    ("age", "outcome"),
    [(300, "verified"), (301, "timestamp_stale"), (-300, "verified"), (-301, "timestamp_future")],
)
def test_a_timestamp_counts_five_minutes_both_ways(age: int, outcome: str) -> None:
    assert verify("stripe", delivery(stripe("s", NOW - age)), "s") == outcome


def test_a_year_ahead_is_refused() -> None:
    assert verify("stripe", delivery(stripe("s", NOW + 31_536_000)), "s") == "timestamp_future"


def test_a_body_that_is_not_utf8_verifies_by_its_bytes() -> None:
    assert verify("stripe", delivery(stripe("s", body=b"\xff\xfe\x00"), b"\xff\xfe\x00"), "s") == "verified"


def test_a_second_spelling_of_a_signature_is_refused() -> None:
    good = shopify("s")["x-shopify-hmac-sha256"]
    for other in (good + "\n", " " + good, good.rstrip("="), good.replace("=", "%3D"), good.lower()):
        assert verify("shopify", delivery({"x-shopify-hmac-sha256": other}), "s") == "signature_wrong"
    head = stripe("s")["stripe-signature"]
    assert verify("stripe", delivery({"stripe-signature": head.upper()}), "s") != "verified"


def test_a_secret_that_is_not_base64_refuses_and_does_not_crash() -> None:
    for secret in ("whsec_*", "whsec_", "whsec_a", "ä", "whsec_QQ=", "whsec_QR=="):
        assert verify("standard_webhooks", delivery(standard(b"A")), secret) == "signature_wrong"


def test_a_batch_of_segment_needs_the_token_besides() -> None:
    batch = b'  [{"type":"track"},{"type":"track"}]'
    first = hmac.new(b"s", b'{"type":"track"}', hashlib.sha1).hexdigest()
    headers = {"x-signature": first}
    assert verify("segment", delivery(headers, batch), "s") == "signature_wrong"
    assert verify("segment", delivery(headers, batch), "s", "token:t") == "token_missing"
    assert verify("segment", delivery(headers, batch, {"token": "x"}), "s", "token:t") == "token_wrong"
    assert verify("segment", delivery(headers, batch, {"token": "t"}), "s", "token:t") == "verified"


def test_a_url_token_does_not_stand_in_for_a_signature() -> None:
    assert verify("segment", delivery({}, BODY, {"token": "t"}), "s", "token:t") == "signature_missing"
    assert verify("segment", delivery({}, BODY, {"token": "t"}), "token:t") == "no_secret"


HEADERS = sorted(
    {
        name
        for known in HMACS
        for name in (
            *sources.load(known).scheme.header,
            *sources.load(known).scheme.timestamp_header,
            *sources.load(known).scheme.id_header,
        )
    }
)
WRITTEN = st.one_of(
    st.text(max_size=200),
    st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")),
    st.text("tv10=,. sha256hA/+\ud800\x00", max_size=60),
)


@pytest.mark.parametrize("name", HMACS)
@given(headers=st.dictionaries(st.sampled_from(HEADERS), WRITTEN), body=st.binary(max_size=80))
def test_whatever_the_bytes_it_is_a_refusal(name: str, headers: dict[str, str], body: bytes) -> None:
    secret = "whsec_" + base64.b64encode(b"unguessable" * 2).decode()
    assert verify(name, delivery(headers, body), secret) not in ("verified", "no_secret")


def test_a_refusal_names_neither_secret_nor_signature() -> None:
    sent = stripe("other")
    with pytest.raises(NotVerified) as caught:
        signatures.verify(sources.load("stripe").scheme, delivery(sent), ["hidden-secret"], now=NOW)
    assert "hidden-secret" not in str(caught.value)
    assert sent["stripe-signature"][-20:] not in str(caught.value)
