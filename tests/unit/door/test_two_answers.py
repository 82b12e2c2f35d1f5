"""After a good signature there are two answers: 200 with what became of it, or 503 if the queue does not take it."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import time
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from handler import messages
from handler.door import function
from handler.errors import Unmapped
from handler.events import bodies, handshakes, senders
from handler.events.handshakes import UNSIGNED_BYTES
from handler.events.mapping import Outcome, UnmappedItem
from handler.events.parking import letters
from handler.events.senders import Handshake, Source
from handler.messages import MESSAGE_BYTES, Outgoing, Raw
from sim import environment, lines
from tests.unit import support_door
from tests.unit.door import test_receive
from tests.unit.door.test_receive import SAMPLES, ask, custom, event, post, request
from tests.unit.support_calls import calls
from tests.unit.support_delivery import DEAD
from tests.unit.support_door import Door
from tests.unit.support_queue import delivery
from tests.unit.support_senders import Does, raising, toml, unmappable
from tools.errors import CommandError
from tools.senders import payload, sign
from tools.senders.preview import preview_request

door = test_receive.door  # the fixture
NAMES = sorted(senders.names())
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"
NO_BODY = {"accepted": 0, "event_ids": []}


def became(shown: dict[str, Any]) -> str:
    """What the preview says of a sample, in the word of the log line."""
    if "handshake" in shown:
        return "handshake"
    return "accepted" if shown["events"] else "parked" if shown["unmapped"] else "ignored"


def answered(answer: dict[str, Any]) -> str:
    """What an answer's document says, in the same word."""
    document = json.loads(answer["body"]) if answer["headers"]["content-type"] == JSON else {}
    if document.get("event_ids"):
        return "accepted"
    return "parked" if document.get("parked") else "ignored" if document.get("ignored") else "handshake"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_sample_is_answered_200_whatever_became_of_it(door: Door, path: Path) -> None:
    # RevenueCat, for one, counts every other status as a failed delivery and sends the webhook again.
    source, sent, now = path.parent.name, payload.request(path), time.time()
    door.hold(sign.development_secrets([source])["sources"])
    answer = door.handler(request(source, sent, now), None)
    silent = senders.load(source).silent
    assert answer["statusCode"] == (204 if silent else 200)
    if not silent:
        assert answered(answer) == became(preview_request(source, sent, now))


# ------------------------------------------------- what nobody can read
def unreadable() -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Bodies that no sender's mapping can read, by name."""
    json_type, form_type = {"content-type": JSON}, {"content-type": FORM}
    yield "empty", b"", json_type
    yield "cut off", b'{"id": "evt_1", "type": "order', json_type
    yield "quotes in quotes", b'{"ticket_subject": "The "blue" one broke"}', json_type
    yield "latin-1", '{"name": "Zoë"}'.encode("latin-1"), json_type
    yield "NUL bytes", b"\x00" * 100, json_type
    yield "NUL in JSON", b'{"id": "\x00"}', json_type
    yield "not gzip", b"\x1f\x8b" + b'{"id": 1}', json_type
    yield "gzip cut off", gzip.compress(b'{"id": 1}')[:-9], json_type | {"content-encoding": "gzip"}
    yield "gzip bomb", gzip.compress(b"[" + b" " * bodies.INFLATED_BYTES, 1), json_type | {"content-encoding": "gzip"}
    yield "brotli", b"\x8b\x03\x80{}\x03", json_type | {"content-encoding": "br"}
    yield "too deep", b'{"a":' * 20_000 + b"1" + b"}" * 20_000, json_type
    yield "deep for a mapping", b"[" * 700 + b"]" * 700, json_type
    yield "too many objects", b"[" + b"{}," * 60_000 + b"{}]", json_type
    yield "numbers only", b"[" + b"1," * 400_000 + b"1]", json_type
    yield "millions of numbers", b"[" + b"1," * 2_000_000 + b"1]", json_type
    yield "a form for JSON", b"id=1&type=order", json_type
    yield "JSON for a form", b'{"id": 1, "type": "order"}', form_type
    yield "too many fields", b"&".join(b"a%d=1" % number for number in range(6_000)), form_type
    yield "latin-1 form", "name=Zoë".encode("latin-1"), form_type
    yield "no multipart", b'{"id": 1}', {"content-type": MULTIPART}
    yield "odd multipart", b"--x\r\nContent-Disposition: a; name*=b; name*0=c\r\n\r\n1", {"content-type": MULTIPART}
    yield "no boundary", b"--x\r\n\r\n1", {"content-type": "multipart/form-data"}
    yield "no content type", b"\xff\xfe\xfd", {}
    yield "half a pair", b'{"id": "\\ud800", "type": "\\ud800", "challenge": "\\ud800"}', json_type


UNREADABLE = {name: (body, headers) for name, body, headers in unreadable()}


def signed(source: str, body: bytes, headers: dict[str, str], method: str = "POST", **query: str) -> dict[str, Any]:
    """The request as API Gateway hands it over, signed by ``source`` wherever its scheme can sign such a body."""
    sent = payload.Payload(method, query, headers, body)
    secret, url = sign.development_secrets([source])["sources"][source][0], f"https://relay.example/webhooks/{source}"
    try:
        url, signed = sign.sign(
            source, secret, body=body, headers=headers, url=sent.at(url), now=time.time(), method=method
        )
    except CommandError:
        signed = headers | {senders.load(source).schemes[0].header[0]: "c2lnbmVk"}
    query = dict(parse_qsl(urlsplit(url).query))
    return {
        "requestContext": {"http": {"method": method}, "requestId": "request", "domainName": "relay.example"},
        "rawPath": f"/webhooks/{source}",
        "rawQueryString": urlsplit(url).query,
        "queryStringParameters": query,
        "pathParameters": {"source": source},
        "headers": signed,
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def cannot_be_signed(source: str, body: bytes) -> bool:
    """Whether the scheme itself is not defined over such a body: a form's fields, or text that a plain hash covers."""
    scheme = senders.load(source).schemes[0]
    if "{form}" in scheme.signed:
        try:
            return not bodies.plain_fields(body) and bool(body)
        except Unmapped:
            return True
    return scheme.scheme == "digest" and not is_utf8(body)


def is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("source", NAMES)
def test_what_cannot_be_read_is_parked_or_ignored_and_never_refused(log: io.StringIO, source: str) -> None:
    secrets = sign.development_secrets([source])["sources"]
    silent = senders.load(source).silent
    for name, (body, headers) in UNREADABLE.items():
        door = Door(secrets)  # of many refusals in a minute only some have a line
        log.truncate(log.seek(0))
        answer = door.handler(signed(source, body, headers), None)
        (line,) = [json.loads(text) for text in log.getvalue().splitlines()]
        if cannot_be_signed(source, body):
            assert (answer["statusCode"], line["reason"]) == (401, "signature_malformed"), name
            continue
        assert answer["statusCode"] == (204 if silent else 200), (name, answer)
        assert line["outcome"] in ("parked", "ignored", "handshake"), (name, line)
        assert line.get("reason") != "mapping_crashed", (name, line)
        kept = [(queue, messages.decode(entry.body)) for queue, entry in door.taken()]
        if line["outcome"] != "parked":
            assert not kept, name
            continue
        assert line["reason"], name
        assert line["detail"], name
        assert [(queue, message.body) for queue, message in kept if isinstance(message, Raw)] == [(DEAD, body)], name
        assert not any(message.headers.keys() & headers.keys() for _, message in kept if isinstance(message, Raw)), name
        if not silent:
            document = json.loads(answer["body"])
            assert document.items() >= NO_BODY.items(), name
            assert {(item["reason"], item["detail"]) for item in document["parked"]} == {
                (line["reason"], line["detail"])
            }


def test_the_log_line_is_written_whatever_an_id_holds(door: Door) -> None:
    with lines.into(io.TextIOWrapper(io.BytesIO(), "utf-8")) as stream:
        assert post(door, "stripe", b'{"id": "evt_\\ud800", "type": "unheard.of"}')[0] == 200
    stream.seek(0)
    (line,) = [json.loads(text) for text in stream]
    assert (line["outcome"], line["sender_ids"]) == ("ignored", ["evt_\ufffd"])


OF_JSON = {
    "empty": "not_json",
    "quotes in quotes": "not_json",
    "latin-1": "not_utf8",
    "not gzip": "not_gzip",
    "gzip cut off": "not_gzip",
    "gzip bomb": "inflates_too_far",
    "brotli": "not_utf8",
    "too deep": "nested_too_deep",
    "too many objects": "too_many_objects",
    "numbers only": "too_many_objects",
    "a form for JSON": "not_json",
}
REASONS = [
    *((source, name, reason) for source in ("custom", "sendgrid") for name, reason in OF_JSON.items()),
    ("gumroad", "JSON for a form", "not_form"),
    ("gumroad", "too many fields", "too_many_fields"),
    ("gumroad", "latin-1 form", "not_utf8"),
    ("jotform", "no multipart", "not_form"),
    ("jotform", "odd multipart", "not_form"),
    ("jotform", "no boundary", "not_form"),
]


@pytest.mark.parametrize(("source", "name", "reason"), REASONS)
def test_the_reason_says_what_could_not_be_read(door: Door, source: str, name: str, reason: str) -> None:
    door.hold(sign.development_secrets([source])["sources"])
    body, headers = UNREADABLE[name]
    answer = json.loads(door.handler(signed(source, body, headers), None)["body"])
    assert [(item["index"], item["reason"]) for item in answer["parked"]] == [(None, reason)]


def metrics(output: str) -> dict[str, Any]:
    """The values of one request's metrics."""
    return {name: value for line in output.splitlines() for name, value in json.loads(line).items() if name[0] != "_"}


def test_an_unreadable_webhook_counts_as_authentic_and_parked(
    door: Door, log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    post(door, "stripe", b"{")
    counted = metrics(capsys.readouterr().out)
    assert (counted["Authentic"], counted["Parked"]) == ([1.0], [1.0])
    assert not {"Refused", "NotParseable"} & set(counted)


def test_a_queue_that_does_not_take_what_is_parked_makes_the_sender_retry(door: Door) -> None:
    door.refuse = 1_000
    assert post(door, "stripe", b"{")[0] == 503
    door.refuse = 0
    assert post(door, "stripe", b"{")[0] == 200


FAULT = ZeroDivisionError("ada@mail.example")


def greeting(*, signed: bool) -> Handshake:
    """A check of the URL that fails where a request is compared with it."""
    return Handshake(raising(FAULT), None, signed=signed, token=None, hmac=None)


def faulty(name: str, **parts: Any) -> Source:
    """The source of that name, in which these parts raise ``FAULT``."""
    return replace(senders.load(name), **parts)


@pytest.mark.parametrize(
    ("load", "rate", "cause"),
    [
        (partial(faulty, handshakes=(greeting(signed=True),)), "150", "ZeroDivisionError at unit/support_senders.py:"),
        (partial(unmappable, error=FAULT), "150", "ZeroDivisionError at unit/support_senders.py:"),
        (senders.load, "0", "ZeroDivisionError at handler/messages.py:"),
    ],
    ids=["check of the URL", "mapping", "stagger"],
)
def test_a_fault_of_ours_after_the_signature_parks_the_whole_webhook(
    load: Callable[[str], Source], rate: str, cause: str
) -> None:
    door = Door(environment=support_door.ENVIRONMENT | {"REQUESTS_PER_MINUTE": rate})
    door.load = load
    body = custom(event(), event(profile={}))
    status, answer = post(door, "custom", body)
    assert (status, answer["accepted"]) == (200, 0)
    assert [(item["index"], item["reason"]) for item in answer["parked"]] == [(None, "mapping_crashed")]
    assert answer["parked"][0]["detail"].startswith(cause)
    ((queue, entry),) = door.taken()
    kept = messages.decode(entry.body)
    assert (queue, kept.body if isinstance(kept, Raw) else b"") == (DEAD, body)


class Unreadable(dict[str, str]):
    """Headers that cannot be read."""

    def items(self) -> Any:
        raise FAULT.with_traceback(None)


SCHEME = senders.load("custom").schemes[0]


@pytest.mark.parametrize(
    ("load", "change", "place"),
    [
        (senders.load, {"headers": Unreadable(host="relay.example")}, "door/test_two_answers.py:"),
        (partial(faulty, handshakes=(greeting(signed=False),)), {}, "unit/support_senders.py:"),
        (partial(faulty, schemes=(replace(SCHEME, timestamp_body=raising(FAULT)),)), {}, "unit/support_senders.py:"),
    ],
    ids=["request", "check of the URL", "signature"],
)
def test_a_fault_of_ours_before_the_signature_is_answered_logged_and_counted(
    door: Door,
    log: io.StringIO,
    capsys: pytest.CaptureFixture[str],
    load: Callable[[str], Source],
    change: dict[str, Any],
    place: str,
) -> None:
    door.load = load
    answered = door.handler(signed("custom", custom(event()), {"content-type": JSON}) | change, None)
    assert (answered["statusCode"], json.loads(answered["body"])["error"]) == (503, "unavailable")
    crash, line = [json.loads(text) for text in log.getvalue().splitlines()]
    assert (crash["message"], crash["cause"]) == ("receive crashed", "ZeroDivisionError")
    assert crash["place"].startswith(place)
    assert (line["outcome"], line["status"], line["reason"]) == ("refused", 503, "receive_crashed")
    assert "ada@" not in log.getvalue()
    counted = metrics(capsys.readouterr().out)
    assert (counted["Received"], counted["Refused"], counted["Unavailable"]) == ([1.0], [1.0], [1.0])
    assert door.taken() == []


class Worn:
    """A value that can be written only once."""

    written = False

    def __str__(self) -> str:
        if self.written:
            raise RecursionError
        self.written = True
        return "x"


def test_an_answer_that_cannot_be_written_is_one_of_ours_instead(door: Door) -> None:
    answers = Does(lambda: {"challenge": Worn()})
    check = Handshake(Does(lambda: True), answers, signed=False, token=None, hmac=None)
    door.load = lambda name: faulty(name, handshakes=(check,))
    assert ask(door, query={}, method="GET")[0] == 503


def test_nesting_that_only_the_mapping_finds_too_deep_has_the_same_reason(door: Door) -> None:
    door.load = partial(unmappable, error=RecursionError())
    assert post(door, "custom", b"{}")[1]["parked"][0]["reason"] == "nested_too_deep"


def several_readers(name: str) -> bool:
    """Whether a time or a check of the URL is read from the body, as well as its events."""
    source = senders.load(name)
    timed = any(scheme.timestamp_body for scheme in source.schemes)
    return timed or any(handshake.signed and handshake.reads_body for handshake in source.handshakes)


@pytest.mark.parametrize("path", [path for path in SAMPLES if several_readers(path.parent.name)], ids=lambda p: p.stem)
def test_a_body_is_parsed_once(door: Door, path: Path) -> None:
    source, now = path.parent.name, time.time()
    door.hold(sign.development_secrets([source])["sources"])
    sent = payload.request(path)
    asked = request(source, sent, now)
    with calls(bodies.parse) as read:
        assert door.handler(asked, None)["statusCode"] in (200, 204)
    # What is short is read before its signature, too, where a check of the URL needs no signature.
    early = any(not handshake.signed and handshake.reads_body for handshake in senders.load(source).handshakes)
    assert 1 <= len(read) <= 1 + (early and len(sent.body) <= UNSIGNED_BYTES)


# ------------------------------------------------- checks of the URL
CHECKED = {
    "title": "Acme",
    "signature": {"header": "stripe-signature", "layout": "pairs", "timestamp": "t", "signed": "{timestamp}.{body}"},
    "webhook": {"topic": "type", "key": "id"},
    "handshake": [
        {"when": "query.mode == 'subscribe'", "token": "query.verify", "answer": "query.challenge"},
        {"when": "method == 'GET' && query.message", "answer": "`null`", "signed": False},
        {"when": "body.type == 'check'", "answer": "body.challenge"},
        {"when": "body.type == 'hmac'", "hmac": "body.text", "answer": "{made: _hmac}"},
    ],
}


@pytest.fixture
def checked(door: Door) -> Door:
    """The door with a sender that checks its URL in every way, and is called ``stripe``."""
    door.load = lambda name: senders.build(name, CHECKED)
    door.hold({"stripe": [*support_door.SECRETS["stripe"], "token:hidden-token"]})
    return door


@pytest.mark.parametrize(
    "check",
    [{"type": "check"}, {"type": "check", "challenge": 1}, {"type": "hmac"}, {"type": "hmac", "text": ["x"]}],
)
def test_a_signed_check_without_its_challenge_is_parked(checked: Door, check: dict[str, Any]) -> None:
    status, answer = post(checked, "stripe", json.dumps(check).encode())
    assert (status, answer["parked"][0]["reason"]) == (200, "not_a_handshake")
    assert len(checked.bodies(DEAD)) == 1


def test_a_check_with_a_good_token_and_no_challenge_is_parked(checked: Door) -> None:
    status, body = ask(checked, query={"mode": "subscribe", "verify": "hidden-token"}, method="GET")
    assert (status, json.loads(body)["parked"][0]["reason"]) == (200, "not_a_handshake")
    assert ask(checked, query={"mode": "subscribe", "verify": "guess"}, method="GET")[0] == 401


def test_a_strangers_request_that_cannot_be_answered_is_refused(checked: Door) -> None:
    # Twilio's messages in a URL: a 204 would lose them, and nobody has proved to have sent them.
    status, body = ask(checked, query={"message": "SM1"}, method="GET")
    assert (status, json.loads(body)["error"]) == (400, "not_a_handshake")
    assert not checked.taken()


def test_an_answer_that_no_response_can_hold_is_made_one(checked: Door) -> None:
    headers = {"content-type": JSON}
    answer = checked.handler(signed("stripe", b'{"type": "check", "challenge": "a\\ud800b"}', headers), None)
    assert answer["statusCode"] == 200
    assert answer["body"].encode("utf-8") == b"a?b"


# ------------------------------------------------- the limits of a message
def dense(size: int) -> bytes:
    """JSON that no compression makes much smaller."""
    return custom(event(properties={"dense": random.Random(1).randbytes(size).hex()}))  # noqa: S311 (no secret)


def test_what_no_message_can_hold_is_refused_and_counted(
    door: Door, log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    status, answer = post(door, "custom", dense(1_200_000))
    assert (status, answer["error"]) == (413, "too_large")
    assert not door.taken()
    counted = metrics(capsys.readouterr().out)
    assert (counted["TooLarge"], counted["service"], counted["source"]) == ([1.0], "klaviyo-relay", "custom")


@pytest.mark.parametrize("size", [600_000, 660_000])
def test_what_a_message_can_hold_is_not_refused(door: Door, size: int) -> None:
    body = b'{"dense": "' + dense(size)  # cut off: it is parked whole
    assert post(door, "custom", body)[0] == 200
    ((_, entry),) = door.taken()
    assert MESSAGE_BYTES * 0.75 < len(entry.body) < MESSAGE_BYTES


def weight(outgoing: Outgoing) -> int:
    """As SQS counts: the body, and name, type and value of each attribute (its guide, "Amazon SQS message quotas")."""
    attributes = sum(len(f"{name}String{value}".encode()) for name, value in outgoing.attributes.items())
    return len(outgoing.body.encode()) + attributes


@pytest.mark.parametrize("header", ["application/json", '"' * 9_000, "\xe9" * 9_000, "\U0001f600" * 2_500])
@pytest.mark.parametrize("detail", ["x" * 2_000, "\U0001f600" * 2_000])
def test_the_largest_webhook_that_is_taken_fits_a_message_with_any_reason(header: str, detail: str) -> None:
    noise = random.Random(1).randbytes(800_000)  # noqa: S311 (incompressible bytes, no secret)

    def raw(size: int) -> Raw:
        return Raw("s" * 50, noise[:size], {"content-type": header}, 1.7e9, webhook_id="x" * 50)

    sizes = range(600_000, 800_000)
    largest = sizes[bisect(sizes, False, key=lambda size: not messages.holds(raw(size))) - 1]
    letter = messages.parked(raw(largest), reason="r" * 40, detail=detail, at="2026-11-30T00:00:00+00:00")
    assert MESSAGE_BYTES - 5_000 < weight(letter) <= MESSAGE_BYTES
    assert messages.fits(letter)


def many(count: int, size: int) -> bytes:
    """A webhook of one good event, ``count`` of which nothing can be made, and ``size`` bytes that do not shrink."""
    filler = random.Random(1).randbytes(size // 2).hex()  # noqa: S311 (no secret)
    return custom(event(properties={"filler": filler}), *([{"a": 1}] * count))


def test_a_list_of_places_that_does_not_fit_is_left_out(door: Door) -> None:
    status, answer = post(door, "custom", many(45_000, 1_250_000))
    assert (status, answer["accepted"], len(answer["parked"])) == (200, 1, 100)
    (kept,) = door.bodies(DEAD)
    assert len(kept) < MESSAGE_BYTES
    assert "only" not in json.loads(kept.split("\n")[0])


def test_a_list_of_places_that_fits_stays(door: Door) -> None:
    post(door, "custom", many(3, 1_250_000))
    (kept,) = door.bodies(DEAD)
    assert json.loads(kept.split("\n")[0])["only"] == [1, 2, 3]


def test_places_are_kept_for_each_reason_and_from_the_redrive_before() -> None:
    raw = Raw("stripe", b"{}", {}, 1.0, only=(4, 7))
    parked = [
        UnmappedItem(4, "no_metric", "a"),
        UnmappedItem(7, "no_identifier", "b"),
        UnmappedItem(None, "not_json", "c"),
    ]
    parcels = letters(raw, Outcome(parked=parked), at="now")
    parts = {part.attributes["reason"]: messages.decode(part.body) for part in parcels}
    assert {reason: part.only for reason, part in parts.items() if isinstance(part, Raw)} == {
        "no_metric": (4,),
        "no_identifier": (7,),
        "not_json": (4, 7),
    }


@pytest.mark.parametrize(("letter", "named"), [("x", 7_000), ("\N{GRINNING FACE}", 3_000)], ids=["1 byte", "4 bytes"])
def test_an_answer_names_no_more_events_than_a_response_can_hold(
    door: Door, log: io.StringIO, letter: str, named: int
) -> None:
    rule = {"topic": "order", "metric": "Placed Order", "profile": {"email": "email"}}
    door.load = lambda name: senders.build(name, CHECKED | {"event": [rule]})
    orders = [{"type": "order", "id": f"{letter * 145}{n}", "email": "kim@letters.example"} for n in range(7_000)]
    status, answer = post(door, "stripe", json.dumps(orders, ensure_ascii=False).encode())
    assert (status, answer["accepted"], len(answer["event_ids"])) == (200, 7_000, named)
    assert sum(len(json.loads(text)["event_ids"]) for text in log.getvalue().splitlines()) == 7_000


def test_a_list_of_an_items_own_is_no_longer_than_a_webhook_may_be(door: Door) -> None:
    rule = {"topic": "order", "metric": "Ordered Product", "each": "lines", "profile": {"email": "_root.email"}}
    door.load = lambda name: senders.build(name, CHECKED | {"event": [rule]})
    order = {"type": "order", "id": "1", "email": "kim@letters.example", "lines": [1] * 60_000}
    status, answer = post(door, "stripe", json.dumps(order).encode())
    assert (status, answer["accepted"], answer["parked"][0]["reason"]) == (200, 0, "too_many_objects")


def test_what_only_looks_like_too_many_values_is_read(door: Door) -> None:
    text = "a, b, " * 600_000
    assert post(door, "custom", custom(event(properties={"Text": text})))[1]["accepted"] == 1


def test_a_challenge_that_no_answer_can_hold_is_parked(checked: Door) -> None:
    longest = "x" * (handshakes.ANSWER_CHARACTERS - 2)
    for challenge, kept in ((longest, 0), (longest + "x", 1), ({"a": longest}, 2)):
        check = json.dumps({"type": "check", "challenge": challenge}).encode()
        assert checked.handler(signed("stripe", check, {}), None)["statusCode"] == 200
        assert len(checked.bodies(DEAD)) == kept


SLOWEST = 2 * (1 + 3)  # seconds of a request that times out twice


def test_lambda_does_not_end_the_function_over_the_slowest_request() -> None:
    assert environment.properties("ReceiveFunction")["Timeout"] > function.SEND_SECONDS + SLOWEST


@pytest.mark.parametrize(
    ("read", "requests", "status"), [(0, 2, 200), (0, 3, 503), (30, 1, 200), (30, 2, 503)], ids=str
)
def test_slow_queue_ends_in_a_503_although_reading_took_long(
    door: Door, log: io.StringIO, read: float, requests: int, status: int
) -> None:
    def load(name: str) -> senders.Source:
        door.late += read
        return senders.load(name)

    def take(*_: object) -> None:
        door.late += SLOWEST

    door.load, door.sqs.before = load, take
    events = (event(unique_id=f"v{number}") for number in range(1_000 * requests))
    assert post(door, "custom", custom(*events))[0] == status
    assert (len(door.taken()), "queue_refuses" in log.getvalue()) == (10 * (requests - (status == 503)), status == 503)


# ------------------------------------------------- after a redrive
def parked_by(door: Door, source: str, body: bytes, headers: dict[str, str]) -> Raw:
    """What ``receive`` parks of a webhook."""
    door.hold(sign.development_secrets([source])["sources"])
    door.empty()
    assert door.handler(signed(source, body, headers), None)["statusCode"] == 200
    ((_, entry),) = door.taken()
    kept = messages.decode(entry.body)
    assert isinstance(kept, Raw)
    return kept


def redriven(*raws: Raw) -> tuple[list[str], list[tuple[str, Any]]]:
    """What came of raw webhooks that a redrive brought back: events that Klaviyo has, and what is parked again."""
    with delivery() as world:
        for raw in raws:
            world.put(raw, reason="not_json", detail="as it was")
        world.run()
        return world.klaviyo.stored, world.parked()


@pytest.mark.parametrize(("source", "name", "reason"), REASONS)
def test_what_still_cannot_be_read_is_parked_again_with_its_reason(
    door: Door, source: str, name: str, reason: str
) -> None:
    raw = parked_by(door, source, *UNREADABLE[name])
    assert redriven(raw) == ([], [(reason, raw)])


TICKET = """{"type": "ticket.created", "triggered_event": "{ticket_action:created}", "ticket_id": "4411",
 "ticket_subject": "The "blue" one broke", "requester_email": "kim@letters.example"}"""


def test_a_freshdesk_subject_with_quotes_is_parked_and_delivered_once_it_can_be_read(door: Door) -> None:
    raw = parked_by(door, "freshdesk", TICKET.encode(), {"content-type": JSON})
    (again,) = redriven(raw)[1]
    assert again == ("not_json", raw)
    stored, parked = redriven(raw._replace(body=raw.body.replace(b'"blue"', b"blue")))
    assert ([name.rpartition(":")[0] for name in stored], parked) == (["freshdesk:opened-support-ticket"], [])


def test_a_webhook_that_an_older_version_parked_with_its_labels_is_read_without_them() -> None:
    labels = {"content-type": FORM, "content-encoding": "br"}
    stored, parked = redriven(Raw("freshdesk", TICKET.replace('"blue"', "blue").encode(), labels, 1.7e9))
    assert ([name.rpartition(":")[0] for name in stored], parked) == (["freshdesk:opened-support-ticket"], [])


def test_a_check_without_its_challenge_is_parked_again_until_its_file_takes_it_for_a_webhook(
    custom_senders: Path,
) -> None:
    file = custom_senders / "stripe.toml"
    file.write_text(toml(CHECKED))
    raw = Raw("stripe", b'{"type": "check", "id": "1", "email": "kim@letters.example"}', {"content-type": JSON}, 1.7e9)
    assert redriven(raw) == ([], [("not_a_handshake", raw)])
    answered = raw._replace(body=b'{"type": "check", "challenge": "1"}')
    assert redriven(answered) == ([], [])
    rule = {"topic": "check", "metric": "Checked", "profile": {"email": "email"}}
    fixed = CHECKED | {"handshake": [], "event": [rule]}
    file.write_text(toml(fixed))
    senders.load.cache_clear()
    assert redriven(raw) == (["stripe:checked:1"], [])


def test_a_list_of_places_that_does_not_fit_is_left_out_after_a_redrive_too() -> None:
    raw = Raw("custom", many(45_000, 1_250_000), {"content-type": JSON}, 1.7e9)
    stored, parked = redriven(raw)
    assert stored == ["v1"]
    assert parked == [("no_metric", raw)]


def test_a_source_that_is_gone_is_parked_with_the_reason_that_the_runbook_has() -> None:
    ((reason, _),) = redriven(Raw("no_such_source", b"{}", {}, 1.7e9))[1]
    assert reason == "source_file"
