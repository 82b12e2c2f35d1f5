"""A fuzzer at the door: whatever comes in, no 5xx, no exception, nothing unauthentic in a queue."""

from __future__ import annotations

import base64
import contextlib
import gc
import gzip
import io
import json
import logging
import re
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, reject
from hypothesis import settings as profile
from hypothesis import strategies as st

from handler import messages, telemetry
from handler.errors import MessageError
from handler.events import senders
from handler.messages import Raw
from sim import lines
from tests.unit.support_door import Door
from tools.errors import CommandError
from tools.senders import payload, sign

NAMES = sorted(senders.names())
SECRETS = sign.development_secrets(NAMES)["sources"]
SAMPLES = sorted((Path(__file__).parents[3] / "events").glob("*/*.json"))
HEADER_NAMES = sorted(
    {
        name
        for source in NAMES
        for name in (
            *senders.load(source).kept_headers,
            *(h for scheme in senders.load(source).schemes for h in scheme.header),
        )
    }
    | {"content-type", "content-encoding", "content-length", "host", "cookie"}
)
KINDS = ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""]
# Lambda hands over any text that JSON can hold, lone surrogates included.
ANYTHING = st.text(st.characters(), max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANYTHING,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANYTHING, inner, max_size=4),
    max_leaves=15,
)


@contextlib.contextmanager
def at_the_door() -> Iterator[Door]:
    with lines.into(io.StringIO()):
        yield Door(SECRETS)


def answered(module: Door, event: dict[str, Any], *statuses: int) -> tuple[int, Any]:
    """The answer, in the form that API Gateway takes; its status must be one of ``statuses``, and one line says so."""
    handler: Any = telemetry.logger.registered_handler
    log = handler.stream
    log.truncate(log.seek(0))
    answer = module.handler(event, None)
    (line,) = [json.loads(text) for text in log.getvalue().splitlines()]
    assert (line["message"], line["status"]) == (
        "webhook",
        answer["statusCode"] if answer["statusCode"] != 204 else 200,
    )
    assert json.dumps(answer)
    assert answer["statusCode"] in statuses
    assert isinstance(answer.get("body", ""), str)
    kind = answer["headers"].get("content-type", "")
    return answer["statusCode"], json.loads(answer["body"]) if kind == "application/json" else answer.get("body")


def request(source: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "requestContext": {"http": {"method": "POST"}, "requestId": "request", "domainName": "relay.example"},
        "rawPath": f"/webhooks/{source}",
        "rawQueryString": "",
        "pathParameters": {"source": source},
        "headers": headers,
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


# In every sender's form, and nobody's.
SIGNATURES = st.sampled_from(
    [form.format(made="ab" * 32) for form in ("{made}", "sha256={made}", "v1,{made}", "v1={made}")]
    + [
        f"t={int(time.time())},v1={'ab' * 32}",
        f"Bearer {'ab' * 32}",
        str(int(time.time())),
        str(time.time_ns() // 10**6),
    ]
)


def own_headers(source: str) -> list[str]:
    """The headers in which ``source`` signs."""
    if source not in NAMES:
        return []
    schemes = senders.load(source).schemes
    return [name for scheme in schemes for name in (*scheme.header, *scheme.timestamp_header, *scheme.id_header)]


@profile(max_examples=400)
@given(data=st.data())
def test_what_is_not_signed_gets_nowhere(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(NAMES) | ANYTHING)
    headers = data.draw(st.dictionaries(st.sampled_from(HEADER_NAMES) | ANYTHING, ANYTHING, max_size=6))
    event = request(source, b"", {})
    event |= {
        "headers": headers | {name: data.draw(ANYTHING | SIGNATURES) for name in own_headers(source)},
        "body": data.draw(
            st.none()
            | ANYTHING
            | JSON.map(json.dumps)
            | st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode())
        ),
        "isBase64Encoded": data.draw(st.booleans()),
        "rawPath": data.draw(ANYTHING),
        "rawQueryString": data.draw(ANYTHING),
        "queryStringParameters": data.draw(
            st.none() | st.dictionaries(st.just("token") | ANYTHING, ANYTHING, max_size=3)
        ),
    }
    event["requestContext"]["http"]["method"] = data.draw(st.sampled_from(["POST", "POST", "GET", "HEAD"]) | ANYTHING)
    if data.draw(st.booleans()):
        del event["pathParameters"]
    with at_the_door() as module:
        answered(module, event, 200, 204, 400, 401, 404)
        assert module.taken() == []


@profile(max_examples=300)
@example(event=None)
@example(event={"requestContext": None})
@example(event=request("stripe", b"", {}) | {"body": 1})
@given(
    event=JSON
    | st.builds(
        lambda name, value: request("stripe", b"{}", {}) | {name: value},
        st.sampled_from([*request("stripe", b"", {}), "queryStringParameters"]),
        JSON,
    )
)
def test_an_event_of_no_http_api_is_answered_too(event: Any) -> None:
    with at_the_door() as module:
        handler: Any = telemetry.logger.registered_handler
        assert 200 <= module.handler(event, None)["statusCode"] <= 503
        assert json.loads(handler.stream.getvalue().splitlines()[-1])["message"] == "webhook"
        assert module.taken() == []


PART = st.sampled_from(
    [
        b"",
        b"; name=a",
        b'; name="rawRequest"',
        b"; filename*=a\x00b''x",
        b"; name*=a; name*0=b",
        b"; name*0*=utf-99''x",
        b";" * 3_000,
    ]
).map(lambda head: b"--x\r\nContent-Disposition: form-data" + head + b"\r\n\r\n1\r\n--x--\r\n")
FORMS = st.lists(st.tuples(st.sampled_from(["webhook_id", "payload", "command", "a[b]", ""]) | ANYTHING, ANYTHING)).map(
    lambda pairs: urlencode(pairs, errors="replace").encode()
)
BODIES = st.one_of(
    st.binary(max_size=60), JSON.map(lambda document: json.dumps(document).encode()), FORMS, PART
).flatmap(
    lambda raw: st.sampled_from([raw, gzip.compress(raw), gzip.compress(raw)[:-3], b"\xef\xbb\xbf" + raw, raw * 2])
)


@profile(max_examples=500)
@example(
    source="woocommerce", body=b"--x\r\nContent-Disposition: form-data; filename*=a\x00b''x\r\n\r\n1", kind=KINDS[2]
)
@given(source=st.sampled_from(NAMES), body=BODIES, kind=st.sampled_from(KINDS))
def test_a_body_in_any_form_is_answered_before_and_after_verification(source: str, body: bytes, kind: str) -> None:
    headers = {"content-type": kind}
    with at_the_door() as module:
        answered(module, request(source, body, headers), 200, 204, 400, 401)
        assert module.taken() == []
        status, answer = answered(module, signed(source, body, headers), 200, 204)
        assert queued(module, status, answer) == said(status, answer)


def signed(source: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """The request as ``source`` would sign it."""
    address = f"https://relay.example/webhooks/{source}"
    try:
        url, labels = sign.sign(source, SECRETS[source][0], body=body, headers=headers, url=address, now=time.time())
    except CommandError:
        reject()  # this sender could not sign such a body
    query = url.partition("?")[2]
    parameters = dict(pair.split("=", 1) for pair in query.split("&")) if query else {}
    return request(source, body, labels) | {"rawQueryString": query, "queryStringParameters": parameters}


def queued(module: Door, status: int, answer: Any) -> tuple[int, bool]:
    """Return how many events are in a queue, and whether a raw webhook is; each message is readable."""
    kept = [messages.decode(entry.body) for _, entry in module.taken()]
    events = sum(len(message.events) for message in kept if not isinstance(message, Raw))
    return (0, False) if status == 204 else (events, any(isinstance(message, Raw) for message in kept))


def said(status: int, answer: Any) -> tuple[int, bool]:
    """Return what the answer says of that; a 204 says nothing. No mapping crashed."""
    document = answer if status != 204 and isinstance(answer, dict) else {}
    parked = document.get("parked", [])
    assert not [item for item in parked if item["reason"] == "mapping_crashed"]
    return document.get("accepted", 0), bool(parked)


@profile(max_examples=300)
@given(source=st.sampled_from(NAMES), body=st.binary(max_size=200), kind=st.sampled_from(KINDS), more=st.data())
def test_signed_bytes_of_any_kind_are_answered(source: str, body: bytes, kind: str, more: st.DataObject) -> None:
    headers = {"content-type": kind}
    if more.draw(st.booleans()):
        headers["content-encoding"] = more.draw(st.sampled_from(["gzip", "br", "identity", "x" * 50]))
    with at_the_door() as module:
        status, answer = answered(module, signed(source, body, headers), 200, 204)
        assert queued(module, status, answer) == said(status, answer)


@profile(max_examples=300)
@given(source=st.sampled_from(NAMES), document=JSON)
def test_signed_documents_of_any_shape_are_answered(source: str, document: Any) -> None:
    body = json.dumps(document).encode("utf-8", "surrogatepass")
    with at_the_door() as module:
        status, answer = answered(module, signed(source, body, {"content-type": "application/json"}), 200, 204)
        assert queued(module, status, answer) == said(status, answer)


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in ``document``."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [at, *(place for key, value in inner for place in places(value, (*at, key)))]


def put(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    """``document`` with ``value`` at a place."""
    if not at:
        return value
    inner = document
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return document


@profile(max_examples=400)
@given(path=st.sampled_from(SAMPLES), value=JSON, data=st.data())
def test_no_value_at_any_place_of_a_sample_crashes_its_mapping(path: Path, value: Any, data: st.DataObject) -> None:
    source = path.parent.name
    headers, raw = payload.read(path)
    body = raw = sign.fresh(source, raw, time.time())
    with contextlib.suppress(ValueError):  # forms, lines of JSON and empty bodies go as they are
        document = json.loads(raw)
        place = data.draw(st.sampled_from(places(document)))
        body = json.dumps(put(document, place, value)).encode("utf-8", "surrogatepass")
    with at_the_door() as module:
        # The time of signing may be what was replaced.
        stale = (401,) if senders.load(source).schemes[0].timestamp_body else ()
        status, answer = answered(module, signed(source, body, headers), 200, 204, *stale)
        assert queued(module, status, answer) == said(status, answer)


@profile(max_examples=300)
@given(text=ANYTHING | JSON.map(json.dumps), rest=ANYTHING)
def test_any_text_is_a_message_or_an_error_of_ours(text: str, rest: str) -> None:
    for body in (text, f"{text}\n{rest}"):
        try:
            decoded = messages.decode(body)
        except MessageError:
            continue
        assert isinstance(decoded, messages.Message | messages.Raw)


FIELDS = (
    "v",
    "kind",
    "source",
    "received",
    "events",
    "headers",
    "only",
    "deferred",
    "refused_at",
    "suspect",
    "backfill",
)


@profile(max_examples=500)
@example(change={"events": [["u", float("inf")]]}, raw=False)
@example(change={"source": ""}, raw=False)
@given(change=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), raw=st.booleans())
def test_a_header_with_any_values_is_a_message_that_can_be_sent_again_or_our_error(
    change: dict[str, Any], raw: bool
) -> None:
    like = messages.Message("shop", (messages.Event("u", 1, "{}"),), 1.0)
    body = messages.encode(Raw("shop", b"{}", {}, 1.0) if raw else like)
    first, rest = body.split("\n", 1)
    try:
        message = messages.decode(json.dumps(json.loads(first) | change) + "\n" + rest)
    except MessageError:
        return
    assert messages.decode(messages.encode(message)) == message
    assert re.fullmatch(r"[\x21-\x7e]{1,128}", messages.group(message))
    assert isinstance(message, Raw) or min(message.deferred, message.refused_at) >= 0


def test_ever_new_forgeries_leave_nothing_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    """Names, headers, bodies and tokens that were never seen before: nothing of them is kept."""
    caplog.set_level(logging.CRITICAL + 1, logger=telemetry.SERVICE)  # pytest would keep every line
    with at_the_door() as module:

        def forge(start: int, end: int) -> None:
            for number in range(start, end):
                headers = {"content-type": "application/json", "stripe-signature": f"t={number},v1={number:064x}"}
                for source in (f"nobody-{number}", "stripe", "custom", "segment"):
                    event = request(source, f'{{"id": {number}}}'.encode(), headers)
                    event |= {"queryStringParameters": {"token": str(number)}, "rawQueryString": f"token={number}"}
                    module.handler(event, None)

        forge(0, 50)
        gc.collect()
        tracemalloc.start()
        try:
            forge(50, 100)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            forge(100, 300)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < 40_000  # 50 bytes for each forgery
        assert module.taken() == []
