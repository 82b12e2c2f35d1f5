"""A person in every string of every sample, one string at a time: none is named outside the queues' bodies.

A phone number, an email address and a URL take the place of each text in turn, and of the name of a property beside
it, whatever the text is there for. ``receive`` answers each; what became of it goes through ``deliver``, accepted,
refused in Klaviyo's words, and parked and redriven.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from handler import messages
from handler.delivery.klaviyo import Answer
from handler.events import senders
from handler.messages import Message, Raw
from sim.klaviyo import POINTER, Klaviyo, Request
from sim.time import Time
from tests.unit.everywhere import test_canaries
from tests.unit.everywhere.test_canaries import NAMES, SAMPLES, Door, Ear, overhear, quoted
from tests.unit.support_delivery import DEAD, EVENTS, event
from tests.unit.support_queue import delivery
from tools.errors import CommandError
from tools.senders import payload, sign
from tools.senders.payload import Payload

ear, opened = test_canaries.ear, test_canaries.opened  # the fixtures
CANARIES = ("+12025550187", "zzcanarymail@letters.example", "https://zzcanary.example/reset?code=zzcanary")
SPELLINGS = ("(202) 555-0187", "12025550187")  # of a number where there is one: in other places it may be an id
_PHONE = re.compile(r"\+[1-9][\d ().-]{6,18}")
_CANARY = re.compile(r"zzcanary|202\D{0,2}555\D?0187", re.IGNORECASE)
TAKEN = "taken-by-klaviyo"
MOST_RAW = 100  # raw webhooks of a source that are redriven


class Text:
    """A document that a sender writes into one of its texts."""

    def __init__(self, document: Any) -> None:
        self.document = document


def opened_texts(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: opened_texts(member) for name, member in node.items()}
    if isinstance(node, list):
        return [opened_texts(item) for item in node]
    if isinstance(node, str) and node[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            return Text(opened_texts(json.loads(node)))
    return node


def dumped(node: Any) -> str:
    return json.dumps(node, default=lambda text: dumped(text.document))


def plain(node: Any) -> str:
    return dumped(node.document) if isinstance(node, Text) else str(node)


class Place:
    """A text of a body, or room for one more name among an object's, to be taken by a canary."""

    def __init__(self, holder: Any, key: Any) -> None:
        self._holder, self._key = holder, key
        self._text = None if key is None else holder[key]
        self.is_phone = isinstance(self._text, str) and bool(_PHONE.fullmatch(self._text))

    @contextlib.contextmanager
    def holding(self, canary: str) -> Iterator[None]:
        if self._key is not None:
            self._holder[self._key] = canary
        else:
            self._holder[canary] = 10**30  # more than Klaviyo takes, so that it is among what is left out
        yield
        if self._key is not None:
            self._holder[self._key] = self._text
        else:
            del self._holder[canary]


class Body:
    """A sample's body as a document whose texts can be replaced, and the way back to bytes."""

    def __init__(self, sent: Payload) -> None:
        text, kind = sent.body.decode(), sent.headers["content-type"]
        self._write: Callable[[Any], str] = dumped
        if kind.startswith("application/x-www-form-urlencoded"):
            document: Any = [list(pair) for pair in parse_qsl(text, True)]
            self._write = lambda pairs: urlencode([(name, plain(value)) for name, value in pairs])
        elif kind.startswith("multipart/"):
            mark = text.partition("\n")[0].rstrip()
            document = [part.partition("\r\n\r\n") for part in text.split(mark)]
            document = [[head, between, value.removesuffix("\r\n")] for head, between, value in document]
            self._write = lambda parts: mark.join(f"{a}{b}{plain(value)}" + "\r\n" * bool(b) for a, b, value in parts)
        else:
            try:
                document = json.loads(text)
            except ValueError:
                document = [json.loads(line) for line in text.splitlines()]
                self._write = lambda lines: "\n".join(map(dumped, lines))
        self._document = opened_texts(document)
        self.places = list(_places(self._document))

    def bytes(self) -> bytes:
        return self._write(self._document).encode()


def _places(node: Any) -> Iterator[Place]:
    if isinstance(node, Text):
        yield from _places(node.document)
    elif isinstance(node, dict | list):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            if isinstance(node[key], Text) or (isinstance(node[key], str) and node[key]):
                yield Place(node, key)
            yield from _places(node[key])
        if isinstance(node, dict):
            yield Place(node, None)


class Sender:
    """Signs for one source as it would, without the detours that single requests afford."""

    def __init__(self, door: Door, name: str) -> None:
        self._door, self._name = door, name
        self._secret = sign.development_secret(name, senders.load(name).schemes[0])

    def post(self, sent: Payload, body: bytes) -> int:
        now = time.time()
        body = sign.fresh(self._name, body, now)
        address = sent.at(f"https://relay.example/webhooks/{self._name}")
        try:
            url, headers = sign.sign(
                self._name, self._secret, body=body, headers=sent.headers, url=address, now=now, method=sent.method
            )
        except CommandError:  # Twilio signs no form in which a field's name is a person's
            url, headers = address, {**sent.headers, senders.load(self._name).schemes[0].header[0]: "none"}
        return self._door.ask(self._name, sent.method, url, headers, body)


class Heard:
    """What left since the last look."""

    def __init__(self, ear: Ear) -> None:
        self._stream = ear.stream
        self.text()

    def text(self) -> str:
        text = self._stream.getvalue()
        self._stream.seek(0)
        self._stream.truncate()
        return text


def somebody(text: str) -> list[str]:
    """Where somebody is named in ``text``, with some of the text before."""
    return [text[max(0, match.start() - 300) : match.end() + 50] for match in _CANARY.finditer(text)]


# What an unchanged line and answer have in common with those of the sample as it is.
_SAID = re.compile(
    r'"(?:outcome|reason|detail|topics|sender_ids|metrics|event_ids|parked)":(?:\[[^]]*\]|\{[^}]*\}|"[^"]*")'
)


def alike(text: str) -> list[str]:
    return _SAID.findall(text)


class Attack:
    """What ``receive`` made of one source's samples, with somebody in each of their texts."""

    def __init__(self, door: Door, ear: Ear, name: str) -> None:
        self._sender, self._heard = Sender(door, name), Heard(ear)
        self.named: list[str] = []
        for path in sorted((SAMPLES / name).glob("*.json")):
            sent = payload.request(path)
            if sent.body:
                self._sample(sent, Body(sent))
        self.queued = door.taken(EVENTS) + door.taken(DEAD)

    def _sample(self, sent: Payload, body: Body) -> None:
        usual = alike(self._told(sent, body))
        count = len(body.places)
        for number, place in enumerate(body.places):
            # Three at a time, a third of the body apart. None hides another while all that is said is as always.
            three = [body.places[(number + shift * count // 3) % count] for shift in range(3)]
            planted = list(zip(three, CANARIES, strict=True))
            with contextlib.ExitStack() as stack:
                for room, canary in planted:
                    stack.enter_context(room.holding(canary))
                said = alike(self._told(sent, body))
            for room, canary in planted if said != usual or count < len(planted) else ():
                self._alone(sent, body, room, canary)
            for canary in SPELLINGS if place.is_phone else ():
                self._alone(sent, body, place, canary)

    def _alone(self, sent: Payload, body: Body, place: Place, canary: str) -> None:
        with place.holding(canary):
            self._told(sent, body)

    def _told(self, sent: Payload, body: Body) -> str:
        self._sender.post(sent, body.bytes())
        text = self._heard.text()
        self.named += somebody(text)
        return text


@pytest.fixture(scope="module", params=NAMES)
def attack(request: pytest.FixtureRequest, opened: Door, ear: Ear) -> Attack:
    opened.as_new()
    return Attack(opened, ear, request.param)


def test_receive_names_nobody_in_any_string_of_a_sample(attack: Attack) -> None:
    assert attack.named[:5] == []


def test_deliver_names_nobody_in_any_string_of_a_sample(attack: Attack, ear: Ear) -> None:
    """Klaviyo refuses each event and quotes it; a redrive brings all back, and now it takes them."""
    heard = Heard(ear)
    # Before all samples, for a late event goes without the names.
    with delivery(clock=Time(1_600_000_000.0)) as world, ear.listening():
        for message in chosen(attack.queued):
            world.put(message)
        for minute in range(300):  # if it took none, it might be refusing everything: all would wait for days
            taken = Message("shop", (event(f"{TAKEN}{minute}"),), 1_600_000_000.0)
            world.events.put(messages.encode(taken), group="shop", delay=60 * minute)
        world.klaviyo.told = lambda request: refused(world.klaviyo, request)
        world.run()
        overhear(world, ear)
        assert world.redrive() or not attack.queued
        world.klaviyo.told = lambda _: None
        world.run()
        overhear(world, ear)
    assert somebody(heard.text())[:5] == []


def chosen(queued: list[Message | Raw]) -> Iterator[Message | Raw]:
    """Each event once; of the raw webhooks, which are mapped as ``receive`` did it, some from all over."""
    events = {message.events[0].entry: message for message in queued if isinstance(message, Message)}
    raw = [message for message in queued if isinstance(message, Raw)]
    return itertools.chain(events.values(), raw[:: -(-len(raw) // MOST_RAW) or 1])


def refused(klaviyo: Klaviyo, request: Request) -> Answer | None:
    """Complain about each row but those that are taken, and quote all of its texts."""
    complaints = [
        {"title": "Invalid input.", "detail": quoted(row), "source": {"pointer": POINTER.format(index)}}
        for index, row in enumerate(map(json.dumps, request.rows))
        if TAKEN not in row
    ]
    return klaviyo.answer(400, complaints) if complaints else None
