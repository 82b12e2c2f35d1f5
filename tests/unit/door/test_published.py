"""The examples that senders publish of their own signatures, with what they say is right."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from handler.door import signatures
from handler.errors import NotVerified
from handler.events import handshakes, senders
from handler.events.webhook import Webhook

FORM = {"content-type": "application/x-www-form-urlencoded"}
HUBSPOT = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy"
SLACK = (
    "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    "&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    "%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121"
    ".803a0bc887a14d10d2c447fce8b6703c"
)
TWILIO = "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212"
# source, secret, body, headers, address, time; the comment has where it is published
PUBLISHED = [
    (  # https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
        "github",
        "It's a Secret to Everybody",
        "Hello, World!",
        {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
        "",
        0,
    ),
    (  # https://docs.svix.com/receiving/verifying-payloads/how-manual
        "standard_webhooks",
        "whsec_plJ3nmyCDGBKInavdOK15jsl",
        '{"event_type":"ping","data":{"success":true}}',
        {
            "svix-id": "msg_loFOjxBNrRLzqYUf",
            "svix-timestamp": "1731705121",
            "svix-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        },
        "",
        1_731_705_121,
    ),
    (  # https://api.slack.com/authentication/verifying-requests-from-slack
        "slack",
        "8f742231b10e8888abcd99yyyzzz85a5",
        SLACK,
        FORM
        | {
            "x-slack-request-timestamp": "1531420618",
            "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        },
        "",
        1_531_420_618,
    ),
    (  # https://www.twilio.com/docs/usage/security
        "twilio",
        "12345",
        TWILIO,
        FORM | {"x-twilio-signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="},
        "https://mycompany.com/myapp.php?foo=1&bar=2",
        0,
    ),
    (  # https://github.com/square/square-python-sdk, its tests
        "square",
        "signature-key",
        '{"data":{"type":"webhooks","id":">id<"}}',
        {"x-square-hmacsha256-signature": "Cxt7+aTi4rKgcA0bC4g9EHdVtLSDWdqccmL5MvihU4U="},
        "https://webhook.site/webhooks",
        0,
    ),
    (  # https://github.com/PaddleHQ/paddle-python-sdk, its tests: two signatures while a secret is rotated
        "paddle",
        "pdl_ntf_01hbpjmytsa32fhr36nqgc3kgb_WvRO0eL4Bj9rgYYIBZY6wZhG4EHy9jzh",
        "hello-world",
        {
            "paddle-signature": (
                "ts=1696195954;h1=dummy;h1=d96299976a6eb066f484d7fde011ac56fc32b38fc9940bc419d6e537fdc6ef02"
            )
        },
        "",
        1_696_195_954,
    ),
    *(  # https://github.com/HubSpot/hubspot-api-python, its tests
        ("hubspot", HUBSPOT, "{'example_field':'example_value'}", headers, "https://www.example.com/webhook_uri", at)
        for headers, at in (
            (
                {
                    "x-hubspot-signature-v3": "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y=",
                    "x-hubspot-request-timestamp": "1693657560000",
                },
                1_693_657_560,
            ),
            ({"x-hubspot-signature": "4fe4e3a7d3cf09db53be39d0a58130e2aaba074ec123a9e355b876a689a1c383"}, 0),
            ({"x-hubspot-signature": "69fc6631a867edd4f9e9e627fc5c1148e3fbdd8b21837b6d2b8901c1fa57f750"}, 0),
        )
    ),
]


def accepted(source: str, secret: str, delivery: Webhook, now: float) -> bool:
    try:
        return signatures.verify(senders.load(source).schemes, delivery, [secret], now=now) == secret
    except NotVerified:
        return False


@pytest.mark.parametrize(("source", "secret", "body", "headers", "url", "now"), PUBLISHED)
def test_a_published_signature_verifies_and_over_nothing_else(
    source: str, secret: str, body: str, headers: dict[str, str], url: str, now: float
) -> None:
    parts = urlsplit(url)
    uri = parts.path + (f"?{parts.query}" if parts.query else "")
    raw = body.encode()
    assert accepted(source, secret, Webhook("POST", url, uri, headers, {}, raw), now)
    assert not accepted(source, secret + "x", Webhook("POST", url, uri, headers, {}, raw), now)
    for place in range(len(raw)):
        other = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        assert not accepted(source, secret, Webhook("POST", url, uri, headers, {}, other), now)


def test_zooms_published_validation_is_answered_as_it_says() -> None:
    body = b'{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}'
    check = handshakes.find(senders.load("zoom"), Webhook("POST", "", "", {}, {}, body), signed=True)
    assert check
    assert handshakes.answer(*check, secret="secretValueTest") == {
        "plainToken": "qgg8vlvZRS6UYooatFL8Aw",
        "encryptedToken": "70c1f2e2e6ca2d39297490d1f9142c7d701415ea8e6151f6562a08fa657a40ff",
    }
