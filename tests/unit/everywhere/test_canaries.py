"""Recognisable people and keys go down every path of both functions; no log, metric, answer or attribute knows them.

Bodies of queue messages are the one place where they belong.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from botocore.exceptions import ClientError
from urllib3.exceptions import ReadTimeoutError

from handler import errors, messages
from handler.delivery.klaviyo import Answer, fault
from handler.errors import Crashed, SourceError
from handler.events import mapping, senders
from handler.messages import Message, Raw
from sim import lines
from sim.klaviyo import POINTER, Request
from sim.time import Time
from tests.unit import support_door
from tests.unit.support_delivery import DEAD, EVENTS, Known, event
from tests.unit.support_queue import Delivery, delivery
from tests.unit.support_senders import unmappable
from tools.senders import payload, sign
from tools.senders.payload import Payload

SAMPLES = Path(__file__).parents[3] / "events"
NAMES = [name for name in senders.names() if (SAMPLES / name).is_dir()]
SECRETS = sign.development_secrets(senders.names())["sources"]
KEY = "pk_zzcanarykey0123456789abcdef012345"
EMAIL, PHONE = "zzcanarymail@letters.example", "+12025550187"
# Each holds the word that is looked for; the kinds of field, by their names.
PERSONAL = {
    re.compile(r"phone|mobile|^(from|to|caller|called)$", re.I): PHONE,
    re.compile(r"(first|given|fore).?name$", re.I): "Zzcanaryfirst",
    re.compile(r"(last|family|sur).?name$", re.I): "Zzcanarylast",
    re.compile(r"(full|nick|display|user|customer|holder|real|contact).?name$|^name$", re.I): "Zzcanary Zzcanaryname",
    re.compile(r"street|^address.?\d?$|address_?line|^line_?[12]$", re.I): "12 Zzcanarystreet",
    re.compile(r"^city$|town", re.I): "Zzcanaryville",
    re.compile(r"token|secret|password|api_?key|card_?number|iban", re.I): "zzcanarytoken0123456789",
    re.compile(r"^(note|notes|message|comment|comments|text|body|answer|company|ip)$", re.I): "zzcanarytext",
}
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PHONE = re.compile(r"\+[1-9]\d{7,14}")
_SEEN = re.compile(r".{0,60}(?:zzcanary|202\D{0,2}555\D?0187).{0,20}", re.I)
HEADERS = {"x-forwarded-for": "zzcanary", "cookie": "session=zzcanary", "user-agent": "zzcanary/1"}


def planted(node: Any, name: str = "") -> Any:
    """``node`` with canaries for whatever says who somebody is."""
    if isinstance(node, dict):
        return {key: planted(value, key) for key, value in node.items()}
    if isinstance(node, list):
        return [planted(value, name) for value in node]
    if not isinstance(node, str) or not node:
        return node
    if node[0] in "{[":
        with contextlib.suppress(ValueError):
            return json.dumps(planted(json.loads(node)))
    if "@" not in node and not _PHONE.fullmatch(node):
        for kind, canary in PERSONAL.items():
            if kind.search(name):
                return canary
    return _PHONE.sub(PHONE, _EMAIL.sub(EMAIL, node))


def sample(path: Path) -> Payload:
    """A sample's request with canaries in its body, headers and URL."""
    sent = payload.request(path)
    kind = sent.headers["content-type"].partition(";")[0]
    text = sent.body.decode("utf-8", "replace")
    if kind == "application/x-www-form-urlencoded":
        pairs = [(name, planted(value, name.split("[")[-1].rstrip("]"))) for name, value in parse_qsl(text, True)]
        body = urlencode(pairs).encode()
    else:
        try:
            body = json.dumps(planted(json.loads(text)), ensure_ascii=False).encode()
        except ValueError:
            body = _EMAIL.sub(EMAIL, text).encode()
    return Payload(sent.method, sent.query | {"who": EMAIL}, sent.headers | HEADERS, body)


class Ear:
    """Record what the functions log, count, raise, answer and write into attributes of parked messages."""

    def __init__(self, patch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
        self.stream = stream
        plain = errors.RelayError.__init__

        def note(error: Exception, *arguments: Any) -> None:
            self.heard(arguments)
            plain(error, *arguments)

        patch.setattr(errors.RelayError, "__init__", note)

    def heard(self, what: object) -> None:
        self.stream.write(f"{what}\n")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        with contextlib.redirect_stdout(self.stream):  # metrics are printed
            yield

    def canaries(self) -> list[str]:
        """Where somebody was heard since the last look."""
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        secrets = [secret for listed in SECRETS.values() for secret in listed if secret in text]
        return [*(match[0] for match in _SEEN.finditer(text)), *secrets]


class Door:
    """``receive`` in ``sim``; everything of a message but its body is overheard.

    ``down`` names what fails, in the words of somebody who quotes: ``sqs``, ``secrets``.
    """

    def __init__(self, ear: Ear) -> None:
        self.ear = ear
        self.whole = support_door.Door(SECRETS)
        self.whole.sqs.before = self._overhears
        self.whole.secrets.before = self._refuses
        self.down: set[str] = set()

    def _overhears(self, operation: str, asked: Mapping[str, Any]) -> None:
        if "sqs" in self.down:
            raise ClientError({"Error": {"Code": "Down", "Message": EMAIL}}, operation)
        for entry in asked["Entries"]:
            self.ear.heard({name: value for name, value in entry.items() if name != "MessageBody"})

    def _refuses(self, operation: str) -> None:
        if "secrets" in self.down:
            raise ClientError({"Error": {"Code": KEY}}, operation)

    def as_new(self) -> None:
        """Everything answers, and nothing is queued."""
        self.down = set()
        self.whole.load = senders.load
        self.whole.hold(SECRETS)
        self.whole.empty()

    def post(self, source: str, sent: Payload, *, secret: str = "", age: float = 0, **headers: str) -> int:
        """The answer's status, after a request signed ``age`` seconds ago."""
        now = time.time() - age
        scheme = senders.load(source).schemes[0]
        url, signed = sign.sign(
            source,
            secret or sign.development_secret(source, scheme),
            body=(body := sign.fresh(source, sent.body, now)),
            headers=sent.headers,
            url=sent.at(f"https://relay.example/webhooks/{source}"),
            now=now,
            method=sent.method,
        )
        return self.ask(
            source, sent.method, url, signed | {name.replace("_", "-"): value for name, value in headers.items()}, body
        )

    def ask(self, source: str, method: str, url: str, headers: dict[str, str], body: bytes) -> int:
        parts = urlsplit(url)
        event = {
            "requestContext": {"http": {"method": method}, "requestId": "request", "domainName": "relay.example"},
            "rawPath": parts.path,
            "rawQueryString": parts.query,
            "queryStringParameters": dict(parse_qsl(parts.query)),
            "pathParameters": {"source": source},
            "headers": headers,
            "body": base64.b64encode(body).decode(),
            "isBase64Encoded": True,
        }
        with self.ear.listening():
            answer = self.whole.handler(event, None)
        if "error" in answer.get("body", "") or "accepted" in answer.get("body", ""):
            self.ear.heard(answer)  # what a handshake answers is the sender's own
        return int(answer["statusCode"])

    def taken(self, queue: str) -> list[Message | Raw]:
        return [messages.decode(body) for body in self.whole.bodies(queue)]


@pytest.fixture(scope="module")
def ear() -> Iterator[Ear]:
    with pytest.MonkeyPatch.context() as patch, lines.into(io.StringIO()) as stream:
        yield Ear(patch, stream)


@pytest.fixture(scope="module")
def opened(ear: Ear) -> Door:
    return Door(ear)


@pytest.fixture
def door(opened: Door, ear: Ear) -> Door:
    opened.as_new()
    ear.canaries()
    return opened


def samples(name: str) -> list[Payload]:
    return [sample(path) for path in sorted((SAMPLES / name).glob("*.json"))]


@pytest.mark.parametrize("name", NAMES)
def test_the_door_names_nobody_whatever_a_source_sends(door: Door, ear: Ear, name: str) -> None:
    for path in sorted((SAMPLES / name).glob("*.json")):
        status = door.post(name, sample(path))
        assert ear.canaries() == [], path.name
        assert status < 300, path.name
    bodies = "".join(
        event.entry for message in door.taken(EVENTS) if isinstance(message, Message) for event in message.events
    )
    assert not bodies or _SEEN.search(bodies), "the canaries are aboard"


@pytest.mark.parametrize("name", NAMES)
def test_refusals_name_nobody(door: Door, ear: Ear, name: str) -> None:
    sent = next(sent for sent in samples(name) if sent.method == "POST")
    token = senders.load(name).schemes[0].scheme == "token"
    other = "token:zzcanarywrong" if token else sign.development_secret("zzcanary", senders.load(name).schemes[0])
    if senders.load(name).schemes[0].scheme != "ecdsa":
        assert door.post(name, sent, secret=other) in (200, 401)  # an unsigned handshake asks for no secret
    door.post(name, sent, age=10_000)
    door.ask(name, "POST", f"https://relay.example/webhooks/{name}?token={KEY}", sent.headers, sent.body)
    header = next(iter(senders.load(name).schemes[0].header), "x-none")
    door.ask(name, "POST", "https://relay.example/", sent.headers | {header: "zzcanary=,;"}, sent.body)
    door.post(name, sent, klaviyo_signature="zzcanary")
    door.whole.hold({})
    door.post(name, sent)
    assert ear.canaries() == []


def crash(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError(EMAIL)


def out_of_order(*_: Any, **__: Any) -> Any:
    raise SourceError("custom.toml", 1, "expected something else")


UNREADABLE = [
    b'{"email":"' + EMAIL.encode() + b'"',
    b"\xff" + EMAIL.encode(),
    b"[" * 5_000 + EMAIL.encode(),
    b'"zzcanary"',
]


def test_what_fails_at_the_door_names_nobody(door: Door, ear: Ear) -> None:
    person = {"email": EMAIL, "first_name": "Zzcanaryfirst"}
    event = {"profile": person, "metric": "Visited", "unique_id": EMAIL, "properties": {EMAIL: EMAIL * 9_000}}
    sent = Payload("POST", {"token": KEY}, {"content-type": "application/json"}, json.dumps(event).encode())
    assert door.post("custom", sent) == 200
    for body in UNREADABLE:
        for kind in ("application/json", "application/x-www-form-urlencoded", f"multipart/form-data; boundary={EMAIL}"):
            door.post("custom", Payload("POST", {}, {"content-type": kind}, body))
            door.post("custom", Payload("POST", {}, {"content-type": kind, "content-encoding": "gzip"}, body))
    assert door.ask(EMAIL, "POST", f"https://relay.example/{EMAIL}", sent.headers, sent.body) == 404
    for error in (ZeroDivisionError(EMAIL), SourceError("custom.toml", 1, "expected something else")):
        door.whole.load = partial(unmappable, error=error)
        door.post("custom", sent)
    door.whole.load = senders.load
    door.down = {"sqs"}
    assert door.post("custom", sent) == 503
    door.down = {"sqs", "secrets"}
    door.whole.forget()
    assert door.post("custom", sent) == 503
    assert ear.canaries() == []


# ------------------------------------------------------------ the delivery
def entries(queued: list[Message | Raw]) -> dict[str, str]:
    return {
        event.unique_id: event.entry for message in queued if isinstance(message, Message) for event in message.events
    }


def quoted(entry: str) -> str:
    """Every text of an event in one complaint, as a talkative API might put it."""
    waiting, complaints = [json.loads(entry)["attributes"]], []
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list):
            waiting += node.values() if isinstance(node, dict) else node
        elif isinstance(node, str):
            complaints.append(f"'{node[:300]}' is not valid")
    return "; ".join(complaints)


@pytest.fixture(scope="module")
def gathered(opened: Door) -> list[Message | Raw]:
    """A message of events and a raw webhook of every source that has them."""
    messages: list[Message | Raw] = []
    for name in NAMES:
        opened.as_new()
        for sent in samples(name)[:8]:
            opened.post(name, sent)
        for queue in (EVENTS, DEAD):
            messages += opened.taken(queue)[:1]
    assert len(messages) > len(NAMES)
    return messages


@pytest.fixture
def queued(gathered: list[Message | Raw], ear: Ear) -> list[Message | Raw]:
    ear.canaries()
    return gathered


def answers(world: Delivery, text: dict[str, str]) -> dict[str, Callable[[Request], Answer | None]]:
    """Klaviyo's answers by name; each quotes what it was sent."""

    def complaints(names: list[str], *, pointing: bool) -> list[dict[str, Any]]:
        return [
            {"title": quoted(text[name]), "detail": quoted(text[name])}
            | ({"source": {"pointer": POINTER.format(index)}} if pointing else {})
            for index, name in enumerate(names)
        ]

    def says(status: int, **headers: str) -> Callable[[Request], Answer | None]:
        words = f"{KEY} may not, {EMAIL}, Zzcanaryfirst"
        return lambda _: world.klaviyo.answer(status, [{"title": words, "detail": words}], **headers)

    odd = set(list(text)[::3])
    return {
        "accepted": lambda _: None,
        "pointed": lambda job: world.klaviyo.answer(400, complaints(job.names, pointing=True)),
        "some": lambda job: (
            world.klaviyo.answer(400, complaints(job.names, pointing=False)) if odd & set(job.names) else None
        ),
        "all": lambda job: world.klaviyo.answer(400, complaints(job.names, pointing=False)),
        "too large": says(413),
        **{str(status): says(status) for status in (401, 403, 404, 410, 415, 429, 500)},
        "page": says(403, content_type=f"text/html; {EMAIL}"),
        "time-out": lambda _: fault(ReadTimeoutError(None, f"/{EMAIL}", EMAIL)),  # type: ignore[arg-type]
        "dropped": lambda _: fault(ConnectionResetError(EMAIL)),
    }


ANSWERS = ["accepted", "pointed", "some", "all", "too large", "401", "403", "404", "410", "415", "429", "500"]


@pytest.mark.parametrize("answer", [*ANSWERS, "page", "time-out", "dropped"])
def test_whatever_klaviyo_says_the_delivery_names_nobody(queued: list[Message | Raw], ear: Ear, answer: str) -> None:
    # Before all samples, for a late event goes without the names.
    with delivery(key=Known(KEY), clock=Time(1_600_000_000.0)) as world, ear.listening():
        world.klaviyo.told = answers(world, entries(queued))[answer]
        for message in queued:
            if isinstance(message, Message):
                world.put(message)
        for _ in range(6):
            world.clock.sleep(1_000)
            world.invoke()
        overhear(world, ear)
        assert "pk_" not in ear.stream.getvalue()
        assert ear.canaries() == []


def overhear(world: Delivery, ear: Ear) -> None:
    for queue in world.sqs.queues.values():
        for kept in queue.messages.values():
            ear.heard((kept.group, kept.attributes))


@pytest.mark.parametrize("broken", [None, crash, out_of_order], ids=["as before", "crash", "source file"])
def test_redrives_name_nobody(
    queued: list[Message | Raw], ear: Ear, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Any] | None
) -> None:
    with delivery() as world, ear.listening(), monkeypatch.context() as patch:
        if broken:
            patch.setattr(mapping, "understand", broken)
        for message in queued:
            world.put(message, reason="unknown_topic", detail="the source's file says nothing about this topic")
        world.run()
        overhear(world, ear)
        assert world.dead
        assert ear.canaries() == []


@pytest.mark.filterwarnings("ignore:No application metrics:UserWarning")  # nothing is settled in some invocations
def test_crashes_and_closings_name_nobody(queued: list[Message | Raw], ear: Ear) -> None:
    with delivery() as world, ear.listening():
        for number, message in enumerate(queued):
            world.put(message)
            kept = list(world.events.messages.values())[-1]
            kept.receives = number % 2
        bad = next(message.events[0] for message in queued if isinstance(message, Message))

        def crash_on(request: Request) -> None:
            if bad.unique_id in request.names:
                raise ValueError(f"{EMAIL} with {KEY} in {bad.entry}")

        world.klaviyo.told = crash_on
        world.events.put(f'{{"who":"{EMAIL}"}}')
        world.events.put(EMAIL)
        world.table_away = 1.0
        with contextlib.suppress(Crashed):
            world.invoke()
        world.table_away = 0.0
        # The message that raises is parked only while others are settled.
        for number in range(48):
            live = messages.encode(Message("shop", (event(f"live{number}"),), 1_789_999_990.0))
            world.events.put(live, "shop", delay=600 * number)
        while len(world.events):
            world.wait()
            with contextlib.suppress(Crashed):
                world.invoke()
        overhear(world, ear)
        reasons = {kept.texts["reason"] for kept in world.dead.messages.values()}
        assert reasons >= {"unreadable_message", "crashed"}
        assert ear.canaries() == []
