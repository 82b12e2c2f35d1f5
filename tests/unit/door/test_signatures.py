"""Who sent it: signatures made here by other means than the relay's, and every way to get one wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.door import signatures
from handler.errors import NotVerified
from handler.events import senders
from handler.events.expressions import Expression
from handler.events.senders import Scheme
from handler.events.webhook import Webhook

NOW = 1_795_500_000
BODY = '{"name":"Zoë","id":1}'.encode()
HMACS = [name for name in senders.names() if senders.load(name).schemes[0].scheme == "hmac"]


def delivery(headers: dict[str, str], body: bytes = BODY, query: dict[str, str] | None = None) -> Webhook:
    return Webhook("POST", "https://relay.example/webhooks/x", "/webhooks/x", headers, query or {}, body)


def verify(name: str, sent: Webhook, *secrets: str, now: float = NOW) -> str:
    """``"verified"``, or the reason of the refusal."""
    try:
        signatures.verify(senders.load(name).schemes, sent, secrets, now=now)
    except NotVerified as error:
        return error.reason
    return "verified"


def stripe(secret: str, stamp: int = NOW, body: bytes = BODY) -> dict[str, str]:
    signature = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={stamp},v1={signature}"}


def standard(key: bytes, stamp: int = NOW, prefix: str = "webhook") -> dict[str, str]:
    signature = base64.b64encode(hmac.new(key, f"msg_1.{stamp}.".encode() + BODY, hashlib.sha256).digest()).decode()
    return {
        f"{prefix}-id": "msg_1",
        f"{prefix}-timestamp": str(stamp),
        f"{prefix}-signature": f"v1a,x v1,AAAA v1,{signature}",
    }


def shopify(secret: str) -> dict[str, str]:
    signature = hmac.new(secret.encode(), BODY, hashlib.sha256).digest()
    return {"x-shopify-hmac-sha256": base64.b64encode(signature).decode()}


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


@pytest.mark.parametrize("secret", ["whsec_*", "whsec_", "whsec_a", "ä", " ", "whsec_ = "])
def test_a_secret_that_decodes_to_nothing_is_not_a_key(secret: str) -> None:
    assert verify("standard_webhooks", delivery(standard(b"")), secret) == "signature_wrong"


RAW = b"\xfb\xef\xff" + bytes(range(29))  # 32 bytes: one "=" of padding; "+" and "/" are in the text
CANONICAL = base64.b64encode(RAW).decode()


@pytest.mark.parametrize(
    "secret",
    [
        f"whsec_{CANONICAL}",
        CANONICAL,
        f"whsec_{CANONICAL.rstrip('=')}",
        CANONICAL.rstrip("="),
        f"  whsec_{CANONICAL}\n",
        f"whsec_{CANONICAL[:20]}\r\n{CANONICAL[20:]}",
        f"whsec_{CANONICAL}==",
        f"whsec_{CANONICAL[:-2]}{chr(ord(CANONICAL[-2]) + 1)}=",  # spare bits that are not zero
    ],
    ids=["canonical", "no prefix", "no padding", "neither", "white space", "two lines", "more padding", "spare bits"],
)
def test_a_base64_secret_is_read_as_the_vendors_libraries_read_it(secret: str) -> None:
    """standardwebhooks for Python: ``b64decode(secret + "==")`` after the prefix; each spelling here gives its key."""
    assert {"+", "/"} <= set(CANONICAL)
    assert verify("standard_webhooks", delivery(standard(RAW)), secret) == "verified"
    assert verify("standard_webhooks", delivery(standard(RAW[:-1])), secret) == "signature_wrong"


@given(st.text("ABab01+/=-_ \n*whsec", max_size=60))
def test_any_text_is_the_key_that_the_reference_library_makes_of_it(secret: str) -> None:
    """As ``standardwebhooks.Webhook.__init__`` decodes it; padding in the midst, which ends it there, is skipped."""
    try:
        key = base64.b64decode(secret.strip().removeprefix("whsec_").replace("=", "") + "==")
    except ValueError:
        key = b""
    outcome = verify("standard_webhooks", delivery(standard(key)), secret)
    assert outcome == ("verified" if key else "no_secret" if not secret else "signature_wrong")


@pytest.mark.parametrize(
    ("tolerance", "age", "outcome"),
    [
        (3_600, 3_600, "verified"),
        (3_600, 3_601, "timestamp_stale"),
        (3_600, -300, "verified"),
        (3_600, -301, "timestamp_future"),
        (60, -60, "verified"),
        (60, -61, "timestamp_future"),
        (60, 61, "timestamp_stale"),
        (0, 31_536_000, "verified"),
        (0, -31_536_000, "verified"),
    ],
)
def test_a_wide_tolerance_is_one_of_the_past_only(tolerance: int, age: int, outcome: str) -> None:
    scheme = Scheme(header=("x",), timestamp_header=("at",), signed="{timestamp}{body}", tolerance=tolerance)
    stamp = str(NOW - age)
    signature = hmac.new(b"s", stamp.encode() + BODY, hashlib.sha256).hexdigest()
    assert refusal(scheme, delivery({"x": signature, "at": stamp}), "s") == outcome


def test_a_refusal_of_the_time_gives_the_age_and_the_limit() -> None:
    for stamp, words in (
        (NOW - 400, "the signature timestamp is 400 s old; the limit is 300 s"),
        (NOW + 3_600, "the signature timestamp is 3600 s in the future; the limit is 300 s"),
    ):
        with pytest.raises(NotVerified) as caught:
            signatures.verify(senders.load("stripe").schemes, delivery(stripe("s", stamp)), ["s"], now=NOW)
        assert caught.value.detail == words


def test_a_batch_of_segment_needs_the_token_as_well() -> None:
    batch = b'  [{"type":"track"},{"type":"track"}]'
    first = hmac.new(b"s", b'{"type":"track"}', hashlib.sha1).hexdigest()
    headers = {"x-signature": first}
    assert verify("segment", delivery(headers, batch), "s") == "signature_wrong"
    assert verify("segment", delivery(headers, batch), "s", "token:t") == "token_missing"
    assert verify("segment", delivery(headers, batch, {"token": "x"}), "s", "token:t") == "token_wrong"
    assert verify("segment", delivery(headers, batch, {"token": "t"}), "s", "token:t") == "verified"


def test_a_url_token_does_not_replace_a_signature() -> None:
    assert verify("segment", delivery({}, BODY, {"token": "t"}), "s", "token:t") == "signature_missing"
    assert verify("segment", delivery({}, BODY, {"token": "t"}), "token:t") == "no_secret"


HEADERS = sorted(
    {
        name
        for known in HMACS
        for name in (
            *senders.load(known).schemes[0].header,
            *senders.load(known).schemes[0].timestamp_header,
            *senders.load(known).schemes[0].id_header,
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
        signatures.verify(senders.load("stripe").schemes, delivery(sent), ["hidden-secret"], now=NOW)
    assert "hidden-secret" not in str(caught.value)
    assert sent["stripe-signature"][-20:] not in str(caught.value)


def refusal(schemes: Scheme | list[Scheme], sent: Webhook, *secrets: str, now: float = NOW) -> str:
    """``"verified"``, or the reason of the refusal, under schemes that no shipped sender need have."""
    try:
        signatures.verify(schemes if isinstance(schemes, list) else [schemes], sent, secrets, now=now)
    except NotVerified as error:
        return error.reason
    return "verified"


def test_a_token_may_be_in_the_url_or_in_a_header() -> None:
    bearer = Scheme(scheme="token", header=("authorization",), prefix="Bearer ")
    for good in ({"authorization": "Bearer t"}, {"authorization": "bearer t"}):
        assert refusal(bearer, delivery(good), "t") == "verified"
    assert refusal(bearer, delivery({}, BODY, {"token": "t"}), "t") == "verified"
    for bad in ("t", "Bearer", "Bearer ", "Bearer t ", "Bearer T", "Basic t", "Bearer  t", "Bearer \ud800"):
        assert refusal(bearer, delivery({"authorization": bad}), "t") == "token_wrong"
    assert refusal(bearer, delivery({}), "t") == "token_missing"
    assert refusal(bearer, delivery({"authorization": "Bearer "}), "") == "no_secret"


def test_user_and_password_are_compared_as_the_header_says_them() -> None:
    basic = Scheme(scheme="token", header=("authorization",), encoding="basic")
    good = "Basic " + base64.b64encode("kim:pässword:1".encode()).decode()
    assert refusal(basic, delivery({"authorization": good}), "other:1", "kim:pässword:1") == "verified"
    for bad in (good + "=", good.replace("Basic", "Bearer"), "Basic kim:pässword:1", "Basic", good.lower()):
        assert refusal(basic, delivery({"authorization": bad}), "kim:pässword:1") == "token_wrong"


def test_a_digest_is_the_hash_of_secret_and_body() -> None:
    plain = Scheme(scheme="digest", header=("x-digest",))
    signature = hashlib.sha256(b"s" + BODY).hexdigest()
    assert refusal(plain, delivery({"x-digest": signature}), "s") == "verified"
    assert refusal(plain, delivery({"x-digest": signature}, BODY + b" "), "s") == "signature_wrong"
    assert refusal(plain, delivery({"x-digest": hashlib.sha256(BODY + b"s").hexdigest()}), "s") == "signature_wrong"


def test_a_digest_does_not_vouch_for_what_was_appended_to_a_body() -> None:
    """Of a plain hash anybody can make that of the same content, its padding, and what they like behind."""
    plain = Scheme(scheme="digest", header=("x-digest",))
    longer = BODY + b"\x80" + bytes(30) + (8 * len(BODY)).to_bytes(8, "big") + b"forged"
    signature = hashlib.sha256(b"s" + longer).hexdigest()
    assert refusal(plain, delivery({"x-digest": signature}, longer), "s") == "signature_malformed"


def test_what_hubspot_signs_in_one_version_is_no_body_of_another() -> None:
    body = b'[{"subscriptionType":"contact.creation"}]'
    second = hashlib.sha256(b"s" + b"POST" + b"https://relay.example/webhooks/x" + body).hexdigest()
    assert verify("hubspot", delivery({"x-hubspot-signature": second}, body), "s") == "verified"
    crossed = b"POST" + b"https://relay.example/webhooks/x" + body
    assert verify("hubspot", delivery({"x-hubspot-signature": second}, crossed), "s") == "signature_malformed"
    first = hashlib.sha256(b"s" + body).hexdigest()
    assert verify("hubspot", delivery({"x-hubspot-signature": first}, body), "s") == "verified"


def test_the_longest_hash_is_known() -> None:
    scheme = Scheme(header=("x-signature",), digest="sha512", prefix="sha512=")
    signature = hmac.new(b"s", BODY, hashlib.sha512).hexdigest()
    assert refusal(scheme, delivery({"x-signature": f"sha512={signature}"}), "s") == "verified"


@pytest.mark.parametrize(
    ("header", "secret", "outcome"),
    [
        ("new", "s", "verified"),
        ("old", "s", "verified"),
        ("none", "s", "signature_missing"),
        ("token", "s", "no_secret"),
        ("token", "token:t", "verified"),
        ("old", "token:t", "no_secret"),
    ],
)
def test_of_several_schemes_the_one_whose_header_is_there_decides(header: str, secret: str, outcome: str) -> None:
    several = [Scheme(header=("new",)), Scheme(header=("old",), scheme="digest"), Scheme(scheme="token")]
    signatures = {
        "new": hmac.new(b"s", BODY, hashlib.sha256).hexdigest(),
        "old": hashlib.sha256(b"s" + BODY).hexdigest(),
    }
    query = {"token": secret.removeprefix("token:")} if header == "token" else {}
    sent = delivery({header: signatures[header]} if header in signatures else {}, BODY, query)
    assert refusal(several, sent, secret) == outcome


def test_schemes_under_one_header_are_tried_in_turn() -> None:
    several = [Scheme(header=("signed",), scheme="digest", signed="{method}{body}"), Scheme(header=("signed",))]
    signatures = [hashlib.sha256(b"sPOST" + BODY).hexdigest(), hmac.new(b"s", BODY, hashlib.sha256).hexdigest()]
    assert [refusal(several, delivery({"signed": signature}), "s") for signature in signatures] == [
        "verified",
        "verified",
    ]
    assert refusal(several, delivery({"signed": "wrong"}), "s") == "signature_wrong"
    assert refusal(several, delivery({"signed": signatures[0]}, BODY + b" "), "s") == "signature_wrong"


def test_the_refusal_is_that_of_the_first_scheme_that_was_tried() -> None:
    several = [Scheme(header=("new",), timestamp_header=("at",)), Scheme(header=("old",))]
    assert refusal(several, delivery({"new": "x", "old": "y"}), "s") == "timestamp_missing"


def test_form_fields_are_signed_sorted_whatever_their_order() -> None:
    scheme = Scheme(header=("x-signature",), digest="sha1", encoding="base64", signed="{url}{form}")
    content = b"https://relay.example/webhooks/x" + b"BodyHi & loFrom+1415"
    signature = base64.b64encode(hmac.new(b"s", content, hashlib.sha1).digest()).decode()
    signed = {"x-signature": signature}
    for body in (b"From=%2B1415&Body=Hi+%26+lo", b"Body=Hi%20%26%20lo&From=%2B1415"):
        assert refusal(scheme, delivery(signed, body), "s") == "verified"
    assert refusal(scheme, delivery(signed, b"From=%2B1416&Body=Hi+%26+lo"), "s") == "signature_wrong"


def test_one_signature_over_fields_fits_one_form_only() -> None:
    sent = twilio("auth", "HMAC_SHA1", "MessageSid=SM1&SmsStatus=received&Body=hi&From=%2B14155550123")
    assert verify("twilio", sent, "auth") == "verified"
    for more in (
        b"&MessageSid=SM1",
        b"&SmsStatus=received&SmsStatus=received",
        b"&Body=hi",
        b"&Body=",
        b"&Body%5B%5D=hi",
    ):
        assert verify("twilio", replace(sent, body=sent.body + more), "auth") == "signature_malformed"
    # The same text, cut where a name would hold what is in no name of Twilio's.
    cut = sent.body.replace(b"Body=hi&From=%2B1", b"Body=h&iFrom%2B1=")
    assert verify("twilio", replace(sent, body=cut), "auth") == "signature_malformed"


def twilio(secret: str, algorithm: str, body: str) -> Webhook:
    """As Twilio signs: twilio-python 9.13.0, ``RequestValidator.compute_signature``, written out."""
    fields = dict(pair.split("=") for pair in body.replace("%2B", "+").split("&"))
    text = "https://relay.example/webhooks/x" + "".join(name + fields[name] for name in sorted(fields))
    digest = hmac.new(
        secret.encode(), text.encode(), {"HMAC_SHA1": hashlib.sha1, "HMAC_SHA256": hashlib.sha256}[algorithm]
    )
    signed = {"x-twilio-signature": base64.b64encode(digest.digest()).decode()}
    settings = {"x-twilio-webhooks-signature-settings": f"key=webhooks_sharedkey_1,algorithm={algorithm}"}
    return delivery(signed | settings, body.encode())


@pytest.mark.parametrize("algorithm", ["HMAC_SHA1", "HMAC_SHA256"])
def test_a_webhook_under_twilios_shared_key_verifies(algorithm: str) -> None:
    sent = twilio("shared", algorithm, "From=%2B14158675309&MessageSid=SM1&SmsStatus=received")
    assert verify("twilio", sent, "shared") == "verified"
    assert verify("twilio", sent, "auth-token", "shared") == "verified"
    assert verify("twilio", sent, "auth-token") == "signature_wrong"
    assert verify("twilio", replace(sent, body=sent.body.replace(b"SM1", b"SM2")), "shared") == "signature_wrong"
    assert verify("twilio", replace(sent, url=sent.url + "?x"), "shared") == "signature_wrong"


def test_twilios_unsigned_settings_choose_nothing() -> None:
    body = "MessageSid=SM1&SmsStatus=received"
    good, bad = twilio("shared", "HMAC_SHA256", body), twilio("other", "HMAC_SHA1", body)
    for settings in ("", "key=x,algorithm=HMAC_SHA1", "algorithm=none", "algorithm=", "algorithm=HMAC_SHA512"):
        header = {"x-twilio-webhooks-signature-settings": settings}
        assert verify("twilio", replace(good, headers={**good.headers, **header}), "shared") == "verified"
        assert verify("twilio", replace(bad, headers={**bad.headers, **header}), "shared") == "signature_wrong"
        assert verify("twilio", replace(bad, headers={**bad.headers, **header})) == "no_secret"


def test_what_is_no_form_cannot_pass_as_an_empty_one() -> None:
    scheme = Scheme(header=("x-signature",), signed="{form}")
    signed = {"x-signature": hmac.new(b"s", b"", hashlib.sha256).hexdigest()}
    assert refusal(scheme, delivery(signed, b""), "s") == "verified"
    for body in (b'{"id":1}', b"\xff", b"no pairs", b"=", b"%00=", b'--b\r\nContent-Disposition: form-data; name="a"'):
        assert refusal(scheme, delivery(signed, body), "s") == "signature_malformed"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"sentAt":1795500000000}', "verified"),
        (b'{"sentAt":1795499699000}', "timestamp_stale"),
        (b'{"sentAt":1795500301000}', "timestamp_future"),
        (b'{"sentAt":"soon"}', "verified"),
        (b'{"sentAt":{}}', "verified"),
        (b'{"sentAt":""}', "verified"),
        (b'{"sentAt":null}', "verified"),
        (b"[" * 100_000, "verified"),
        (b"[]", "verified"),
    ],
)
def test_a_time_in_the_signed_body_counts_and_what_is_none_costs_no_webhook(body: bytes, outcome: str) -> None:
    scheme = Scheme(header=("x-signature",), timestamp_body=Expression("sentAt"), timestamp_format="ms")
    signed = {"x-signature": hmac.new(b"s", body, hashlib.sha256).hexdigest()}
    assert refusal(scheme, delivery(signed, body), "s") == outcome
    assert refusal(scheme, delivery({"x-signature": "0" * 64}, body), "s") == "signature_wrong"


def test_the_secret_that_fits_is_named_to_the_caller() -> None:
    assert signatures.verify(senders.load("stripe").schemes, delivery(stripe("b")), ["a", "b"], now=NOW) == "b"
