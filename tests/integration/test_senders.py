"""Senders misbehave: many times at once, in bursts, slowly, forged, replayed."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from local.stack import Stack
from tests.integration.support import arrived, custom, event, until
from tools.senders import sign

JSON = {"content-type": "application/json"}
AT_ONCE = 10  # more would mean so many processes of `receive` on this machine, half a second of start each


def signed(stack: Stack, source: str, body: bytes, **headers: str) -> dict[str, str]:
    secret = stack.secrets["sources"][source][0]
    unsigned = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    return sign.sign(source, secret, body=body, headers=unsigned, url=stack.url(source), now=time.time())[1]


def customer(name: str) -> bytes:
    data = {"object": {"object": "customer", "id": f"cus_{name}", "email": f"{name}@letters.example"}}
    return json.dumps(
        {"id": f"evt_{name}", "type": "customer.created", "created": int(time.time()), "data": data}
    ).encode()


def test_the_same_webhook_fifty_times_is_one_event(stack: Stack) -> None:
    body = customer("many")
    headers = signed(stack, "stripe", body)
    with ThreadPoolExecutor(AT_ONCE) as senders:
        answers = list(senders.map(lambda _: stack.post(stack.url("stripe"), body, headers), range(50)))
    assert {status for status, _ in answers} == {200}
    assert len({tuple(answer["event_ids"]) for _, answer in answers}) == 1
    until(lambda: stack.waiting() == 0 and arrived(stack), "the event")
    assert len(stack.arrived()) == 1
    assert stack.parked() == []


def test_a_retry_with_other_headers_is_the_same_event(stack: Stack) -> None:
    body = customer("retried")
    for number in range(3):
        headers = signed(stack, "stripe", body, user_agent=f"attempt {number}", x_request_id=str(number))
        assert stack.post(stack.url("stripe"), body, headers)[0] == 200
    own = json.dumps([event("own")]).encode()
    for number in range(3):
        headers = signed(stack, "custom", own, webhook_id=f"msg_{number}")
        assert stack.post(stack.url("custom"), own, headers)[0] == 200
    until(lambda: stack.waiting() == 0 and len(arrived(stack)) == 2, "both events")
    assert len(stack.arrived()) == 2


def test_a_burst_is_taken_whole(stack: Stack) -> None:
    """Some 100 requests a second is what this door carries; a thousand in one is counted with AWS's quotas."""
    bodies = [json.dumps([event(f"burst-{number}")]).encode() for number in range(200)]
    sent = [(body, signed(stack, "custom", body)) for body in bodies]
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as senders:
        answers = list(senders.map(lambda request: stack.post(stack.url("custom"), *request), sent))
    assert {status for status, _ in answers} == {200}
    until(lambda: len(arrived(stack)) == 200, "every event")
    # Five pollers hand over a batch each in a window of five seconds: on a busy machine the burst lasts for several.
    assert stack.standin("stats")["jobs"] <= 10 + time.monotonic() - began


def test_forged_and_replayed_in_bulk_leave_nothing(stack: Stack) -> None:
    body, other = customer("replayed"), customer("altered")
    headers = signed(stack, "stripe", body)
    stale = sign.sign(
        "stripe",
        stack.secrets["sources"]["stripe"][0],
        body=other,
        headers=JSON,
        url=stack.url("stripe"),
        now=time.time() - 3_600,
    )[1]
    forgeries: list[tuple[bytes, dict[str, str]]] = [
        (other, headers),
        (other, stale),
        (other, JSON),
        (other, JSON | {"stripe-signature": "t=1,v1=" + "0" * 64}),
        (b"x" * 100_000, headers),
    ]
    with ThreadPoolExecutor(AT_ONCE) as senders:
        answers = list(senders.map(lambda request: stack.post(stack.url("stripe"), *request), forgeries * 20))
        replays = list(senders.map(lambda _: stack.post(stack.url("stripe"), body, headers), range(40)))
    assert {status for status, _ in answers} == {401}
    assert {status for status, _ in replays} == {200}
    until(lambda: stack.waiting() == 0 and arrived(stack), "the one event that was replayed")
    assert [event["unique_id"] for event in stack.arrived()] == [replays[0][1]["event_ids"][0]]
    assert stack.parked() == []


def slowly(stack: Stack, source: str, body: bytes, parts: int, until: Event) -> int:
    """Post ``body`` in ``parts``, the last of them once ``until`` is set; the answer's status."""
    address = urlsplit(stack.url(source))
    headers = signed(stack, source, body) | {"Content-Length": str(len(body)), "Host": "relay", "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=60) as line:
        line.sendall(f"POST {address.path} HTTP/1.1\r\n{head}\r\n".encode())
        step = -(-len(body) // parts)
        for start in range(0, len(body), step):
            if start + step >= len(body):
                assert until.wait(60)
            line.sendall(body[start : start + step])
        return int(line.makefile("rb").readline().split()[1])


def test_slow_bodies_at_the_size_limit_hold_up_nobody(stack: Stack) -> None:
    events: list[dict[str, Any]] = [event(f"slow-{n}", properties={"note": "x" * 90_000}) for n in range(40)]
    body = json.dumps(events).encode()  # 3.6 MB: the 4.5 MB of Lambda's 6 MB that base64 leaves
    answered = Event()
    with ThreadPoolExecutor(4) as senders:
        slow = [senders.submit(slowly, stack, "custom", body, 15, answered) for _ in range(3)]
        try:
            assert custom(stack, event("quick"))[0] == 200
        finally:
            answered.set()
        assert [answer.result() for answer in slow] == [200] * 3
    until(lambda: len(arrived(stack)) == 41, "every event")
