"""Which headers a parked webhook keeps."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handler import messages
from handler.door import kept
from handler.events import senders
from handler.messages import MESSAGE_BYTES, Raw
from tests.unit.door.test_receive import custom, event, post
from tests.unit.support_delivery import DEAD, EVENTS
from tests.unit.support_door import Door
from tools.senders import sign

NAMES = senders.names()
PROOFS = sorted({name for source in NAMES for scheme in senders.load(source).schemes for name in scheme.header})
SECRETS = [
    *("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "apikey", "x-auth-token"),
    *("x-acme-signature", "x-acme-sig", "x-hmac-sha256", "x-goog-channel-token", "x-session-id", "x-csrf"),
    *("paypal-transmission-sig", "paypal-cert-url", "x-hook-secret", "klaviyo-signature", "x-jwt-assertion", "x-otp"),
    *("x-password", "x-secret"),
]
TRANSPORT = [
    *("host", "content-type", "content-length", "content-encoding", "user-agent", "accept", "accept-encoding", "via"),
    *("connection", "x-forwarded-for", "x-forwarded-proto", "forwarded", "x-real-ip", "true-client-ip", "cf-ray"),
    *("cf-connecting-ip", "x-amzn-trace-id", "x-amz-cf-id", "traceparent", "referer", "origin", "te", "if-match"),
]
USEFUL = [
    *("x-acme-topic", "x-event-name", "x-github-hook-id", "x-shopify-shop-domain", "x-cal-webhook-version"),
    *("x-amz-sns-message-type", "x-tip", "x-shipping-zone", "x-github-delivery", "x-idempotent-id", "x-description"),
]


def acme(**webhook: str) -> senders.Source:
    return senders.build(
        "acme",
        {
            "title": "Acme",
            "signature": {"header": "x-acme-check", "id_header": "webhook-id"},
            "webhook": {"topic": "type", "key": "id"} | webhook,
        },
    )


@pytest.mark.parametrize("name", [*SECRETS, *TRANSPORT, *PROOFS, "x-acme-check"])
def test_a_header_with_a_secret_or_of_the_transport_is_not_kept(name: str) -> None:
    assert kept.headers(acme(), {name: "1", "x-acme-topic": "order"}) == {"x-acme-topic": "order"}


@pytest.mark.parametrize("name", USEFUL)
def test_a_header_that_a_corrected_file_may_need_is_kept(name: str) -> None:
    assert kept.headers(acme(), {name: "1"}) == {name: "1"}


@pytest.mark.parametrize("value", ["Bearer abcdefgh", "basic dXNlcjpwdw==", " Token abc", "sha256=00ff", "v1=00ff"])
def test_a_value_in_the_form_of_a_proof_is_not_kept_under_any_name(value: str) -> None:
    assert kept.headers(acme(), {"x-relay": value}) == {}


@pytest.mark.parametrize("source", NAMES)
def test_no_header_that_a_source_verifies_with_is_kept(source: str) -> None:
    proofs = {name for scheme in senders.load(source).schemes for name in scheme.header}
    assert not kept.headers(senders.load(source), dict.fromkeys(proofs, "1")).keys() & proofs


def test_what_the_file_reads_comes_before_what_it_may_read_one_day() -> None:
    source = acme(topic_header="X-Acme-Topic")
    came = {"x-long": "x" * 7_900, "x-more": "y" * 500, "x-acme-topic": "order", "webhook-id": "1" * 40, "x-last": "z"}
    assert list(kept.headers(source, came)) == ["webhook-id", "x-acme-topic", "x-long", "x-last"]


@given(st.dictionaries(st.text(max_size=40), st.text(st.characters(), max_size=3_000), max_size=12))
def test_headers_have_a_bound_whatever_they_hold(came: dict[str, str]) -> None:
    held = kept.headers(acme(), came)
    assert sum(len((name + value).encode("utf-8", "replace")) for name, value in held.items()) <= kept.MOST_BYTES
    assert held.items() <= came.items()
    raw = Raw("acme", b"{}", held, 1.7e9)
    assert messages.decode(messages.encode(raw)) == raw


@example({f"x-{number}": "\U0001f600" * 100 for number in range(20)}, 100)
@example({"\U0001f600" * number: "" for number in range(100)}, 100)
@given(
    st.dictionaries(st.text(max_size=60), st.text(st.characters(), max_size=500), max_size=20),
    st.integers(0, 2_000),
)
def test_what_is_said_to_fit_a_message_fits_with_all_its_headers(came: dict[str, str], more: int) -> None:
    noise = random.Random(1).randbytes(MESSAGE_BYTES * 3 // 4 - 20_000 + more * 10)  # noqa: S311 (no secret)
    raw = Raw("acme", noise, came, 1.7e9, webhook_id="w")
    letter = messages.parked(raw, reason="r" * 40, detail="\U0001f600" * 1_000, at="2026-11-30T00:00:00+00:00")
    assert messages.fits(letter) or not messages.holds(raw)


@pytest.fixture
def door() -> Door:
    return Door(sign.development_secrets(["stripe", "custom"])["sources"])


def test_headers_that_nothing_reads_do_not_cost_a_webhook_near_the_limit(door: Door) -> None:
    filler = random.Random(1)  # noqa: S311 (no secret)
    sizes = [filler.randbytes(half).hex() for half in range(668_000, 692_000, 2_000)]
    more = {"x-one": "\xe9" * 1_900, "x-two": "\xe9" * 1_900}
    without, with_more = (
        [post(door, "custom", custom(event(properties={"filler": text})), headers=extra)[0] for text in sizes]
        for extra in ({}, more)
    )
    assert with_more == without
    assert set(without) == {200, 413}


def test_a_parked_webhook_keeps_the_headers_and_the_log_does_not(
    door: Door, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    secrets = {"cookie": "zzcanary", "authorization": "zzcanary"}
    refund = {"id": "evt_1", "type": "charge.refunded", "data": {"object": {"id": "ch_1"}}}
    post(door, "stripe", json.dumps(refund).encode(), headers={"x-acme-tenant": "zzkept"} | secrets)
    (body,) = door.bodies(DEAD)
    assert json.loads(body.split("\n")[0])["headers"] == {"x-acme-tenant": "zzkept"}
    assert "zzcanary" not in body
    texts = capsys.readouterr().out + "".join(str(vars(record)) for record in caplog.records)
    assert "charge.refunded" in texts
    assert "zzkept" not in texts


def test_an_event_that_is_queued_carries_no_headers(door: Door) -> None:
    post(door, "custom", custom(event()), headers={"x-acme-tenant": "zzkept"})
    (body,) = door.bodies(EVENTS)
    assert "zzkept" not in body
