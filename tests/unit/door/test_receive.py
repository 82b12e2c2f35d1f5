"""The door, where AWS misbehaves in ways that no local stack can be told to."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from handler.events import senders
from tests.unit.support_delivery import DEAD, EVENTS
from tests.unit.support_door import SECRETS, Door
from tests.unit.support_senders import unmappable
from tools.senders import payload, sign
from tools.senders.preview import preview_request

NO_PERSON = "the event names no email, phone or other identifier that Klaviyo accepts"


@pytest.fixture
def door() -> Door:
    return Door()


def post(door: Door, source: str, body: bytes, **change: Any) -> tuple[int, dict[str, Any]]:
    secret = change.pop("secret", SECRETS[source][0])
    _, headers = sign.sign(
        source,
        secret,
        body=body,
        headers={"content-type": "application/json"},
        url="https://relay.example/webhooks/" + source,
        now=change.pop("now", time.time()),
    )
    event = {
        "requestContext": {"http": {"method": "POST"}, "requestId": "request", "domainName": "relay.example"},
        "rawPath": f"/webhooks/{source}",
        "pathParameters": {"source": source},
        "headers": headers | change.pop("headers", {}),
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    } | change
    answer = door.handler(event, None)
    return answer["statusCode"], json.loads(answer["body"])


def custom(*events: dict[str, Any]) -> bytes:
    return json.dumps(list(events)).encode()


def event(**change: Any) -> dict[str, Any]:
    return {"profile": {"email": "ada@mail.example"}, "metric": "Visited", "unique_id": "v1"} | change


def test_accepted_events_are_named_and_queued(door: Door) -> None:
    status, answer = post(door, "custom", custom(event(), event(unique_id="v2")))
    assert status == 200
    assert answer["accepted"] == 2
    assert len(set(answer["event_ids"])) == 2
    (body,) = door.bodies(EVENTS)
    assert [json.loads(line)["type"] for line in body.split("\n")[1:]] == ["event-bulk-create"] * 2


def test_a_refused_part_of_a_batch_alone_is_sent_again(door: Door) -> None:
    door.refuse = 2
    status, _ = post(door, "custom", custom(*[event(unique_id=f"v{n}") for n in range(250)]))
    assert status == 200
    heads = [json.loads(body.split("\n")[0]) for body in door.bodies(EVENTS)]
    assert sorted(uid for head in heads for uid, _ in head["events"]) == sorted(f"v{n}" for n in range(250))


@pytest.mark.parametrize(("refuse", "down"), [(1_000, set()), (0, {"sqs"})], ids=["refuse", "down"])
def test_a_queue_that_does_not_take_it_makes_the_sender_retry(door: Door, refuse: int, down: set[str]) -> None:
    door.refuse, door.down = refuse, down
    status, answer = post(door, "custom", custom(event()))
    assert status == 503
    assert answer["error"] in ("queue_refuses", "unavailable")


def test_unreadable_secrets_make_the_sender_retry(door: Door) -> None:
    door.down = {"secrets"}
    assert post(door, "custom", custom(event()))[0] == 503
    door.down = set()
    assert post(door, "custom", custom(event()))[0] == 200


def test_no_secret_configured_lets_nobody_in(door: Door) -> None:
    door.hold({})
    status, answer = post(door, "custom", custom(event()))
    assert (status, answer["error"]) == (401, "no_secret")
    assert not door.taken()


def test_a_rotated_secret_is_read_at_once_but_forgeries_do_not_read_it_again(door: Door) -> None:
    rotated = sign.development_secret("another", senders.load("custom").schemes[0])
    assert post(door, "custom", custom(event()))[0] == 200
    door.clock.sleep(61)
    door.hold({"custom": [rotated, *SECRETS["custom"]]})
    assert post(door, "custom", custom(event()), secret=rotated)[0] == 200
    before = door.secrets.reads
    forged = sign.development_secret("forged", senders.load("custom").schemes[0])
    assert all(post(door, "custom", custom(event()), secret=forged)[0] == 401 for _ in range(20))
    assert door.secrets.reads <= before + 21
    assert not [1 for body in door.bodies(EVENTS)[2:] if body]


def test_a_rotation_refuses_nothing_on_the_way(door: Door) -> None:
    old, new = SECRETS["custom"][0], sign.development_secret("another", senders.load("custom").schemes[0])
    passed: list[tuple[str, str]] = []
    for listed, sending in (([old], old), ([new, old], old), ([new, old], new), ([new], new)):
        door.hold({"custom": listed})
        for _ in range(12):  # through all ages that the cached document can have
            door.clock.sleep(61)
            status, _ = post(door, "custom", custom(event()), secret=sending)
            assert status == 200
            passed.append((listed[0], sending))
    assert post(door, "custom", custom(event()), secret=old)[0] == 401
    assert (new, old) in passed


def test_of_a_good_and_a_bad_event_only_the_bad_one_is_parked(door: Door) -> None:
    status, answer = post(door, "custom", custom(event(), event(profile={}), event(unique_id="v3")))
    assert status == 200
    assert answer["accepted"] == 2
    assert answer["parked"][0]["index"] == 1
    ((_, entry),) = door.taken(DEAD)
    assert entry.texts["reason"] == "no_identifier"
    assert json.loads(entry.body.split("\n")[0])["only"] == [1]


def test_a_fault_in_the_mapping_parks_what_is_authentic(door: Door, log: io.StringIO) -> None:
    door.load = partial(unmappable, error=ZeroDivisionError("ada@mail.example"))
    status, answer = post(door, "custom", custom(event()))
    assert status == 200
    assert answer["parked"][0]["reason"] == "mapping_crashed"
    assert "ada@mail.example" not in log.getvalue()
    assert len(door.bodies(DEAD)) == 1


@pytest.mark.parametrize(
    ("webhook", "outcome"),
    [
        ({"id": "evt_nobody", "type": "customer.created", "data": {"object": {"id": "cus_1"}}}, "parked"),
        ({"id": "evt_unheard", "type": "unheard.of", "data": {"object": {"id": "x_1"}}}, "ignored"),
    ],
)
def test_what_becomes_no_event_is_found_by_the_senders_id(
    door: Door, log: io.StringIO, webhook: dict[str, Any], outcome: str
) -> None:
    post(door, "stripe", json.dumps(webhook).encode())
    (line,) = [json.loads(text) for text in log.getvalue().splitlines()]
    assert (line["outcome"], line["sender_ids"]) == (outcome, [webhook["id"]])
    assert line["detail"] == {"parked": NO_PERSON, "ignored": senders.load("stripe").why_ignored("unheard.of")}[outcome]


def test_the_ids_of_a_delivery_are_logged_and_nothing_else_of_its_headers(door: Door, log: io.StringIO) -> None:
    headers = {
        "x-shopify-topic": "orders/create",
        "x-shopify-event-id": "98880550-7158",
        "x-shopify-webhook-id": "a@b.c",
    }
    post(door, "shopify", b'{"id": 1}', headers=headers)
    (line,) = [json.loads(text) for text in log.getvalue().splitlines()]
    assert line["delivery_ids"] == ["98880550-7158"]
    assert "a@b.c" not in log.getvalue()


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_webhook_of_millions_of_parts_is_parked_whole_in_time(door: Door, encoding: str) -> None:
    body = b"[" + b"{}," * (1_400_000 if encoding == "identity" else 6_000_000) + b"{}]"
    body = gzip.compress(body, 1) if encoding == "gzip" else body
    began = time.process_time()
    status, answer = post(door, "custom", body, headers={"content-encoding": encoding})
    assert time.process_time() - began < 2
    assert (status, answer["accepted"]) == (200, 0)
    assert [item["reason"] for item in answer["parked"]] == ["too_many_objects"]
    ((queue, kept),) = door.taken()
    assert queue == DEAD
    assert kept.texts["reason"] == "too_many_objects"


def test_brackets_in_a_text_are_no_objects(door: Door) -> None:
    log = "[info] {} \\ [" * 40_000
    status, answer = post(door, "custom", custom(event(unique_id="v1", properties={"Log": log})))
    assert (status, answer["accepted"]) == (200, 1)


def test_a_webhook_of_thousands_of_events_is_taken(door: Door) -> None:
    body = custom(*(event(unique_id=f"v{number}") for number in range(10_000)))
    assert post(door, "custom", body)[1]["accepted"] == 10_000


def test_unknown_sources_are_not_found(door: Door) -> None:
    status, answer = post(door, "custom", custom(event()), pathParameters={"source": "../custom"})
    assert (status, answer["error"]) == (404, "unknown_source")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_url_checks_of_senders_are_answered(door: Door, method: str) -> None:
    event = {
        "requestContext": {"http": {"method": method}, "requestId": "request"},
        "pathParameters": {"source": "custom"},
    }
    assert door.handler(event, None)["statusCode"] == 200


SCHEMES = {
    "title": "Acme",
    "signature": {"scheme": "token", "header": "authorization", "prefix": "Bearer "},
    "webhook": {"topic": "type", "key": "id"},
    "handshake": [
        {"when": "query.mode == 'subscribe'", "token": "query.verify", "answer": "query.challenge"},
        {"when": "body.type == 'validation'", "hmac": "body.plain", "answer": "{encrypted: _hmac}"},
    ],
    "event": [{"topic": "order", "metric": "Placed Order", "profile": {"email": "email"}}],
}
ORDER = {"type": "order", "id": "1", "email": "ada@mail.example"}


@pytest.fixture
def acme(door: Door) -> Door:
    """The door with a sender that signs nothing, checks its URL, and is called ``stripe``."""
    door.load = lambda name: senders.build(name, SCHEMES)
    door.hold({"stripe": ["hidden-secret", "token:hidden-token"]})
    return door


def ask(
    door: Door, body: Any = None, query: dict[str, str] | None = None, method: str = "POST", **headers: str
) -> tuple[int, str]:
    query = query or {}
    answer = door.handler(
        {
            "requestContext": {"http": {"method": method}, "requestId": "request", "domainName": "relay.example"},
            "rawPath": "/webhooks/stripe",
            "rawQueryString": "&".join(f"{name}={value}" for name, value in query.items()),
            "queryStringParameters": query,
            "pathParameters": {"source": "stripe"},
            "headers": {name.replace("_", "-"): value for name, value in headers.items()},
            "body": json.dumps(body) if body is not None else None,
        },
        None,
    )
    return answer["statusCode"], answer["body"]


def test_a_url_check_with_a_token_gets_its_challenge_and_a_stranger_does_not(acme: Door) -> None:
    query = {"mode": "subscribe", "verify": "hidden-token", "challenge": "1158201444"}
    assert ask(acme, query=query, method="GET") == (200, "1158201444")
    status, body = ask(acme, query=query | {"verify": "guess"}, method="GET")
    assert (status, json.loads(body)["error"]) == (401, "token_wrong")
    assert "1158201444" not in body
    assert ask(acme, method="HEAD") == (200, "ok")


def test_what_is_signed_in_an_answer_is_signed_for_the_sender_only(acme: Door) -> None:
    check = {"type": "validation", "plain": "text"}
    assert ask(acme, check)[0] == 401
    status, body = ask(acme, check, authorization="Bearer hidden-secret")
    assert status == 200
    assert len(json.loads(body)["encrypted"]) == 64


@pytest.mark.parametrize("token", ["hidden-secret", "a-wrong-token"])
@pytest.mark.parametrize("place", ["url", "header"])
def test_a_token_stays_out_of_the_log_and_the_queues(acme: Door, log: io.StringIO, token: str, place: str) -> None:
    if place == "url":
        status, body = ask(acme, ORDER, {"token": token})
    else:
        status, body = ask(acme, ORDER, authorization=f"Bearer {token}")
    assert status == (200 if token == "hidden-secret" else 401)
    ask(acme, ORDER | {"type": "unheard of"}, {"token": token})
    written = log.getvalue() + body + str(acme.taken())
    assert token not in written
    assert "hidden" not in written


def test_a_sender_that_acts_on_words_gets_an_empty_answer(acme: Door) -> None:
    quiet = SCHEMES | {"webhook": {"topic": "type", "key": "id", "silent": True}}
    acme.load = lambda name: senders.build(name, quiet)
    for query, method in (({"token": "hidden-secret"}, "POST"), ({}, "GET")):
        event = {
            "requestContext": {"http": {"method": method}, "requestId": "request"},
            "queryStringParameters": query,
            "pathParameters": {"source": "stripe"},
            "body": json.dumps(ORDER),
        }
        answer = acme.handler(event, None)
        assert (answer["statusCode"], answer.get("body")) == (204, None)
        assert "content-type" not in answer["headers"]
    assert ask(acme, ORDER, {"token": "wrong"})[0] == 401


def test_klaviyos_own_webhooks_do_not_loop(acme: Door) -> None:
    status, body = ask(acme, ORDER, {"token": "hidden-secret"}, klaviyo_signature="c2lnbmVk")
    assert (status, json.loads(body)["error"]) == (401, "klaviyo_webhook")
    assert not acme.taken()


def test_the_log_names_events_and_nobody(door: Door, log: io.StringIO) -> None:
    status, answer = post(
        door,
        "custom",
        custom(
            event(
                profile={"email": "ada@mail.example", "phone_number": "12", "first_name": "Adaline"},
                unique_id="ada@mail.example",
                properties={"ada@mail.example": "x" * 200_000},
            )
        ),
    )
    out = log.getvalue()
    assert status == 200
    assert answer["event_ids"][0] in out
    assert "invalid_phone: phone_number" in out
    assert "ada@mail" not in out
    assert "Adaline" not in out


def test_what_queries_ask_for_comes_before_the_ids(door: Door, log: io.StringIO) -> None:
    # Logs Insights discovers the first 200 fields of a JSON line (its guide, "Supported logs and discovered fields").
    status, _ = post(
        door, "custom", custom(*(event(unique_id=str(number)) for number in range(300)), event(profile={}))
    )
    assert status == 200
    (line,) = (json.loads(text) for text in log.getvalue().splitlines() if '"message":"webhook"' in text)
    assert list(line)[-1] == "event_ids"
    assert {"reason", "detail", "parked"} <= set(line)


SAMPLES = sorted((Path(__file__).parents[3] / "events").glob("*/*.json"))
SENDERS = sorted({path.parent.name for path in SAMPLES})


def request(source: str, sent: payload.Payload, now: float) -> dict[str, Any]:
    """A sample as API Gateway hands it over, signed as its sender would."""
    url = f"https://relay.example/webhooks/{source}"
    body = sign.fresh(source, sent.body, now)
    secret = sign.development_secrets([source])["sources"][source][0]
    url, headers = sign.sign(
        source, secret, body=body, headers=sent.headers, url=sent.at(url), now=now, method=sent.method
    )
    query = urlsplit(url).query
    return {
        "requestContext": {"http": {"method": sent.method}, "requestId": "request", "domainName": "relay.example"},
        "rawPath": f"/webhooks/{source}",
        "rawQueryString": query,
        "queryStringParameters": dict(parse_qsl(query)),
        "pathParameters": {"source": source},
        "headers": headers,
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


@pytest.mark.parametrize("source", SENDERS)
def test_every_sample_passes_the_door_and_a_changed_one_does_not(door: Door, source: str) -> None:
    door.hold(sign.development_secrets([source])["sources"])
    for path in (path for path in SAMPLES if path.parent.name == source):
        sent, now = payload.request(path), time.time()
        wanted = preview_request(source, sent, now)
        event = request(source, sent, now)
        answer = door.handler(event, None)
        silent = senders.load(source).silent
        accepted = 204 if silent else 200
        assert answer["statusCode"] == accepted, (path.name, answer)
        if wanted.get("handshake") and not silent:
            said = wanted["handshake"]
            assert answer["body"] == (said if isinstance(said, str) else json.dumps(said, ensure_ascii=False))
            continue
        stranger = event | {"headers": {name: "x" + value for name, value in event["headers"].items()}}
        assert door.handler(stranger | {"queryStringParameters": {"token": "guess"}}, None)["statusCode"] == 401


@pytest.mark.parametrize("source", SENDERS)
def test_a_forgery_of_any_bytes_is_refused_and_nothing_else(door: Door, source: str) -> None:
    door.hold(sign.development_secrets([source])["sources"])
    dice = random.Random(source)  # noqa: S311 (no secret)
    scheme = senders.load(source).schemes[0]
    names = ["content-type", "content-encoding", *scheme.header, *scheme.timestamp_header, *scheme.id_header]
    for _ in range(50):
        headers = {name: dice.randbytes(dice.randint(0, 40)).decode("latin-1") for name in names}
        body = base64.b64encode(dice.randbytes(dice.randint(0, 200))).decode()
        event = {
            "requestContext": {"http": {"method": "POST"}, "requestId": "request"},
            "rawQueryString": "%ff=%00",
            "pathParameters": {"source": source},
            "headers": headers,
            "body": body,
            "isBase64Encoded": True,
        }
        assert door.handler(event, None)["statusCode"] == 401
