"""A forged request costs little more than reading and hashing its bytes: nothing is done first that is not needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from handler.events import bodies, handshakes, senders
from tests.unit.door.test_door_fuzz import NAMES, at_the_door, own_headers, request
from tests.unit.support_calls import calls
from tests.unit.support_door import Door
from tools.senders import sign

TIMES = 5  # as much as a forged webhook of Stripe, whose bytes are read and hashed and no more
SHAPES: dict[str, Callable[[int], bytes]] = {
    "plain": lambda size: b"0" * size,
    "brackets": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "objects": lambda size: b"[" + b"{}," * ((size - 4) // 3) + b"{}]",
    "pairs": lambda size: b"{" + b",".join(b'"%d":1' % number for number in range(size // 9)) + b"}",
    "numbers": lambda size: b"[" + b"1e9," * ((size - 3) // 4) + b"1]",
    "escapes": lambda size: b'"' + b"\\u00e9" * ((size - 2) // 6) + b'"',
    "escaped value": lambda size: b"webhook_id=" + b"%41" * ((size - 11) // 3),
    "empty fields": lambda size: b"&" * size,
    "fields": lambda size: b"&".join(b"a%d=%%41" % number for number in range(size // 9)),
    "signed fields": lambda size: b"&".join(b"a%d=" % place + b"%41" * max(1, size // 450 - 2) for place in range(149)),
    "header of a part": lambda size: b"--b\r\nContent-Disposition: form-data" + b";" * size,
}
SIZES = (100, handshakes.UNSIGNED_BYTES - 10, 100_000, 1_000_000)


def forged(source: str, body: bytes) -> dict[str, Any]:
    """A request with headers in the sender's form, as far as a stranger can make them."""
    stamp = str(int(time.time()))
    headers = {name: stamp if "time" in name else "ab" * 32 for name in own_headers(source)}
    return request(
        source, body, headers | ({"stripe-signature": f"t={stamp},v1={'ab' * 32}"} if source == "stripe" else {})
    )


def cost(module: Door, event: dict[str, Any], size: int) -> float:
    """CPU seconds of one call: the least of several, for what else runs here only adds."""
    calls, best = max(1, 30_000 // size), 1e9
    for _ in range(5):
        began = time.process_time()
        for _ in range(calls):
            status = module.handler(event, None)["statusCode"]
        best = min(best, (time.process_time() - began) / calls)
    assert status in (200, 401)  # 200 is the answer to WooCommerce's first ping, which says only that it came
    return best


def reads_first(name: str) -> bool:
    source = senders.load(name)
    return any(not handshake.signed and handshake.reads_body for handshake in source.handshakes) or source.body.once


READ_FIRST = [name for name in NAMES if reads_first(name)]


def test_only_these_senders_bodies_are_read_before_they_are_verified() -> None:
    assert READ_FIRST == ["twilio", "woocommerce"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", READ_FIRST)
def test_a_forgery_costs_a_few_times_what_reading_and_hashing_it_costs(name: str, size: int) -> None:
    with at_the_door() as module:
        for shape, make in SHAPES.items():
            body = make(size)
            least = cost(module, forged("stripe", body), size)
            assert cost(module, forged(name, body), size) < TIMES * least, (shape, least)


@pytest.mark.parametrize("size", SIZES)
def test_a_forgery_by_another_key_pair_costs_a_few_times_as_much_as_well(size: int) -> None:
    body = SHAPES["plain"](size)
    event = forged("sendgrid", body)
    event["headers"]["x-twilio-email-event-webhook-signature"] = sign.ecdsa_signature("nobody's", body)
    with at_the_door() as module:
        assert cost(module, event, size) < 8 * cost(module, forged("stripe", body), size)  # measured: 5 at 100 bytes


@pytest.mark.parametrize("name", [name for name in NAMES if name not in READ_FIRST])
def test_what_nobody_has_signed_is_not_read(name: str) -> None:
    with at_the_door() as module, calls(bodies.parse, bodies.fields, bodies.plain_fields, bodies.unpack) as read:
        for make in SHAPES.values():
            assert module.handler(forged(name, make(1_000)), None)["statusCode"] == 401
    assert read == []
