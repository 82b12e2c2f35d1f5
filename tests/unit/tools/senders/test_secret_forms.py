"""What ``make secrets`` takes for a sender's secret, and what it refuses with a word of what it expects."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from handler.door import ecdsa
from handler.events import senders
from tools.senders import secret_forms, sign

SHIPPED = sorted(path.stem for path in senders.SHIPPED.glob("*.toml"))
PUBLIC = sign.development_secret("sendgrid", senders.load("sendgrid").schemes[0])
RAW = base64.b64decode(PUBLIC)
OFF_CURVE = base64.b64encode(RAW[:-1] + bytes([RAW[-1] ^ 1])).decode()
PEM = "-----BEGIN PUBLIC KEY-----"


@pytest.mark.parametrize(
    ("name", "secret", "expected"),
    [
        ("stripe", "sk_live_51Qrelay", "whsec_…; not an API key"),
        ("stripe", "whsec_two words", "whsec_…; not an API key"),
        ("clerk", "sk_test_Qrelay", "not an API key"),
        ("clerk", "whsec_", "read as base64; expected the endpoint's signing secret"),
        ("resend", "re_Qrelay", "not an API key"),
        ("standard_webhooks", "whsec_*", "read as base64; expected base64, such as whsec_…"),
        ("custom", "==", "read as base64"),
        ("github", "ghp_Qrelay", "not an access token"),
        ("slack", "xoxb-1-Qrelay", "not a token"),
        ("shopify", "shpat_Qrelay", "not an access token"),
        ("paddle", "pdl_live_apikey_Qrelay", "not an API key"),
        ("twilio", "AC" + "0" * 32, "not an account SID"),
        ("hubspot", "pat-eu1-Qrelay", "not an access token"),
        ("linear", "lin_api_Qrelay", "not an API key"),
        ("polar", "polar_oat_Qrelay", "not an access token"),
        ("woocommerce", "ck_" + "0" * 40, "not a key of the REST API"),
        ("square", "EAAA" + "Q" * 60, "not an access token"),
        ("typeform", "tfp_Qrelay", "not a personal token"),
        ("calendly", "eyJhbGciOi.J9", "not an access token"),
        ("meta_leads", "EAAQrelay", "not an access token"),
        ("sendgrid", "SG.Qrelay.x", "not an ECDSA public key; expected the verification key"),
        ("sendgrid", PEM, "not an ECDSA public key"),
        ("sendgrid", PUBLIC[:-8], "not an ECDSA public key"),
        ("sendgrid", OFF_CURVE, "not an ECDSA public key"),
        ("chargebee", "Qrelay-alone", "no colon; expected user:password"),
        ("freshdesk", "", "no colon"),
        ("stripe", "token:t", "verified by their signature alone"),
        ("mailchimp", "token: ", "nothing after it"),
    ],
)
def test_what_cannot_be_a_senders_secret_is_refused(name: str, secret: str, expected: str) -> None:
    said = secret_forms.wrong(name, secret) or ""
    assert expected in said
    if len(secret) > 7:
        assert secret not in said


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("stripe", "whsec_Qrelay"),
        ("shopify", "0" * 64),
        ("shopify", "shpss_Qrelay"),
        ("github", "It's a Secret to Everybody"),
        ("slack", "8f742231b10e8888abcd99yyyzzz85a5"),
        ("twilio", "0123456789abcdef" * 2),
        ("clerk", " C2FVsBQIhrscChlQIMV+b5sSYspob7o "),
        ("standard_webhooks", "whsec_Qm9-_w"),
        ("polar", "polar_whs_Qrelay"),
        ("polar", "anything"),
        ("hmac", "geheimnis-ä-🔑 "),
        ("square", "EAAAnotatoken"),
        ("woocommerce", "ck_mine"),
        ("freshdesk", "kim:"),
        ("freshdesk", ":pass word:1"),
        ("freshdesk", "token:t"),
        ("mailchimp", "t"),
        ("mailchimp", "token:t"),
        ("segment", "token:t"),
        ("revenuecat", "token:Bearer sk_Qrelay"),
        ("meta_leads", "token:verify"),
        ("sendgrid", PUBLIC),
    ],
)
def test_what_works_is_taken_however_unusual(name: str, secret: str) -> None:
    assert secret_forms.wrong(name, secret) is None


def test_the_points_of_these_tests_are_what_they_are_said_to_be() -> None:
    assert ecdsa.public_point(PUBLIC) is not None
    assert ecdsa.public_point(OFF_CURVE) is None


@pytest.mark.parametrize("name", [name for name in SHIPPED if "form" not in senders.document(name).get("secret", {})])
def test_a_secret_in_a_schemes_form_is_taken(name: str) -> None:
    assert secret_forms.wrong(name, sign.development_secret(name, senders.load(name).schemes[0])) is None


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"form": ".+"}, "expected 'hint'"),
        ({"hint": ""}, "expected a text"),
        ({"form": "(", "hint": "x"}, "expected a regular expression"),
        ({"form": 5, "hint": "x"}, "expected a text"),
    ],
)
def test_a_mistake_in_the_table_is_named(table: dict[str, object], expected: str) -> None:
    assert any(expected in text for _, text in secret_forms.mistakes(table))


def test_a_store_has_the_form_of_the_sender_that_it_extends(custom_senders: Path) -> None:
    (custom_senders / "shop_de.toml").write_text('extends = "stripe"\ntitle = "Shop DE"\n')
    assert "whsec_" in (secret_forms.wrong("shop_de", "sk_live_1") or "")
    assert secret_forms.wrong("shop_de", "whsec_1") is None


def test_sources_that_share_a_secret_are_named_and_others_are_not() -> None:
    document = {"a": ["one", "two"], "b": "two", "c": ["three"], "d": ["three", "three"], "e": [], "f": {"odd": 1}}
    assert list(secret_forms.shared(document)) == [("a", "b"), ("c", "d")]
