"""docs/answers.md, row by row: the delivery function against the stand-in, over a real socket."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from handler.delivery.klaviyo import Answer, Connection
from handler.messages import Message
from handler.pauses import PAUSES
from handler.secret import Key, Secret
from local.standin import DEVELOPMENT_KEY, Klaviyo, Limits, Server
from sim import lines
from sim.secrets import Secrets
from sim.time import Time
from tests.unit.support_delivery import event
from tests.unit.support_queue import Delivery, delivery

DOCUMENT = Path(__file__).parents[3] / "docs" / "answers.md"
WIDE = Limits(per_second=100_000, per_minute=100_000)
REPAIRED = 600.0  # seconds after which Klaviyo works again
READ_SECONDS = 1.0  # a busy machine may take tenths of a second for an answer that is meant to come
REFUSAL = {"errors": [{"id": "1", "code": "invalid", "title": "Invalid input.", "detail": "No."}]}
UNREADABLE = {"errors": [REFUSAL["errors"][0] | {"source": {"pointer": "/data"}}]}
ROW = "/data/attributes/events-bulk-create/data/"
HTML = "<!DOCTYPE html><html>"
GARBAGE = "\x00\x01garbage"
ALL = {f"{group}{number}" for group in "abc" for number in range(10)}


def rows() -> dict[str, str]:
    """The document's answers, and what it says that the relay does."""
    cells = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    outcomes = {cell[1].strip(): re.search(r"\*\*(\w+)\*\*", cell[2]) for cell in cells[1:]}
    return {answer: does[1] if does else "" for answer, does in outcomes.items()}


@dataclass
class Case:
    """How to bring an answer about: faults of the stand-in, or another address than its own.

    ``first`` are the least and the most seconds from the first request to the second.
    """

    faults: list[dict[str, Any]] = field(default_factory=list)
    address: Callable[[Server], str] | None = None
    first: tuple[float, float] = (0.0, 0.4)
    parked: frozenset[str] = frozenset()
    reason: str = "refused_by_klaviyo"
    repeats: int = 0


def answers(status: int, body: Any = "", **more: Any) -> list[dict[str, Any]]:
    return [{"status": status, "body": body, **more}]


def pointing(word: str, detail: str) -> list[dict[str, Any]]:
    return [{"point": True, "matching": word, "detail": detail}]


def unused_port(_: Server) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def in_two_minutes() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)


def throttled(**headers: str) -> list[dict[str, Any]]:
    return answers(429, headers={name.replace("_", "-"): value for name, value in headers.items()})


WAITS, CLOSES = (2.0, 4.0), (30.0, 75.0)
BAD = frozenset({"b3", "c7"})
NAMED = '"(b3|c7)@'


def about(*rows: int) -> dict[str, Any]:
    pointers = [f"{ROW}{row}/attributes/events/data/0/attributes/value" for row in rows]
    return {"errors": [{"title": "No.", "source": {"pointer": pointer}} for pointer in pointers]}


BEYOND = REFUSAL["errors"][0] | {"source": {"pointer": f"{ROW}99999"}}
CASES = {
    "202": Case(),
    "202 with garbage, or cut off": Case(
        [*answers(202, GARBAGE, store=True, times=1), *answers(202, GARBAGE, store=True, cut=True, times=1)]
    ),
    "200 with a web page": Case(answers(200, HTML), first=WAITS),
    "200, 201 or 204": Case(answers(204), first=CLOSES),
    "302, or any other status that the API does not have": Case(answers(302), first=CLOSES),
    "400 that points at profiles": Case(pointing(NAMED, "Invalid email."), parked=BAD),
    "400 that points at events": Case(
        [*answers(400, about(13, 27), times=1), *answers(400, about(0, 1), matching=NAMED)], parked=BAD
    ),
    "400 that points at events by mistake": Case(answers(400, about(13, 27), times=1)),
    "400 that points at repeats of a unique_id": Case(pointing(NAMED, "unique_id already exists"), parked=BAD),
    "400 that points at a row that does not exist": Case(answers(400, {"errors": [BEYOND]})),
    "400 that points at a row, for everything": Case([{"point": True, "detail": "Invalid email."}]),
    "400 without a pointer, for one event": Case(answers(400, REFUSAL, matching='"b3@'), parked=frozenset({"b3"})),
    "400 without a pointer, for everything": Case(answers(400, REFUSAL)),
    "400 that points at no row": Case(answers(400, UNREADABLE)),
    "400 with garbage, or cut off": Case(answers(400, GARBAGE, cut=True)),
    "401": Case(answers(401, REFUSAL), first=CLOSES),
    "403 in JSON": Case(answers(403, REFUSAL), first=CLOSES),
    "403 with a web page": Case(answers(403, HTML), first=WAITS),
    "404": Case(answers(404), first=CLOSES),
    "405": Case(answers(405), first=CLOSES),
    "409, for one event": Case(answers(409, REFUSAL, matching='"b3@'), parked=frozenset({"b3"})),
    "410": Case(answers(410), first=CLOSES),
    "413 for a job": Case(answers(413, times=3)),
    "413 for everything": Case(answers(413)),
    "413 for one event": Case(answers(413, matching='"b3@'), parked=frozenset({"b3"}), reason="too_large"),
    "415": Case(answers(415), first=CLOSES),
    "429 with Retry-After in seconds": Case(throttled(Retry_After="120"), first=(120.0, 140.0)),
    "429 with Retry-After as a date": Case(throttled(Retry_After="DATE"), first=WAITS),
    "429 with Retry-After 0": Case(throttled(Retry_After="0"), first=WAITS),
    "429 without Retry-After": Case(throttled(), first=WAITS),
    "429 with an absurd Retry-After": Case(throttled(Retry_After="86400"), first=CLOSES),
    **{str(status): Case(answers(status, HTML), first=WAITS) for status in (500, 502, 503, 504, 524)},
    "no answer in time, nothing stored": Case([{"drop": True, "delay": 2 * READ_SECONDS, "times": 1}], first=WAITS),
    "no answer in time, and yet stored": Case([{"delay": 2 * READ_SECONDS, "times": 1}], first=WAITS, repeats=30),
    "connection reset, nothing stored": Case([{"drop": True}], first=WAITS),
    "connection reset, and yet stored": Case([{"drop": True, "store": True, "times": 1}], first=WAITS, repeats=30),
    "connection refused": Case(address=unused_port, first=WAITS),
    "name not resolved": Case(address=lambda _: "http://klaviyo.invalid", first=WAITS),
    "TLS fails": Case(address=lambda server: server.url.replace("http:", "https:"), first=WAITS),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The stand-in, for all rows."""
    with Server(Klaviyo(WIDE)) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Wire(Connection):
    """Connections to ``address`` until Klaviyo works again, and to the stand-in from then on."""

    def __init__(self, clock: Time, address: str, server: Server) -> None:
        self.clock = clock
        self.server = server
        self.repaired_at = clock() + REPAIRED
        self._bad = Connection(address, "2026-10-15", pauses=replace(PAUSES, read=READ_SECONDS))
        self._good = Connection(server.url, "2026-10-15", pauses=replace(PAUSES, read=READ_SECONDS))
        self.tried: list[float] = []

    def _current(self) -> Connection:
        if self.clock() < self.repaired_at:
            return self._bad
        self.server.klaviyo.set_faults([], time.monotonic())
        return self._good

    def open(self) -> Answer | None:
        fault = self._current().open()
        if fault:
            self.tried.append(self.clock())
        return fault

    def post(self, body: bytes, key: str) -> Answer:
        self.tried.append(self.clock())
        return self._current().post(body, key)

    def close(self) -> None:
        self._bad.close()
        self._good.close()


@dataclass
class World:
    """One delivery in front of the stand-in."""

    delivery: Delivery
    wire: Wire
    secrets: Secrets
    server: Server
    log: io.StringIO

    def stored(self) -> set[str]:
        return {name for name, *_ in self.server.klaviyo.stored}

    def parked(self) -> dict[str, set[str]]:
        events: dict[str, set[str]] = {}
        for reason, message in self.delivery.parked():
            assert isinstance(message, Message)
            events.setdefault(reason, set()).update(event.unique_id for event in message.events)
        return events

    def closed_for(self) -> set[str]:
        """The dimension ``reason`` of the metric on which the alarms are."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines() if line.startswith("{")]
        return {line["reason"] for line in lines if "Closed" in line}


@contextlib.contextmanager
def world(server: Server, address: str = "", faults: list[dict[str, Any]] | None = None) -> Iterator[World]:
    server.klaviyo.clear(WIDE)
    server.klaviyo.key = DEVELOPMENT_KEY
    server.klaviyo.set_faults(faults or [], time.monotonic())
    log = io.StringIO()
    clock, secrets = Time(), Secrets({"klaviyo": {"api_key": DEVELOPMENT_KEY}})
    wire = Wire(clock, address or server.url, server)
    secret = Secret(cast("Any", secrets), "klaviyo", clock, kept=PAUSES.kept, reread=PAUSES.key_reread)
    with (
        delivery(clock=clock, poster=wire, key=Key(secret, clock, PAUSES)) as whole,
        lines.into(log),
        contextlib.redirect_stdout(log),
    ):
        yield World(whole, wire, secrets, server, log)
        wire.close()


def put(relay: World, groups: str = "abc", size: int = 10) -> None:
    for group in groups:
        relay.delivery.put(Message("shop", tuple(event(f"{group}{n}") for n in range(size)), 1_789_999_990.0))


def until(condition: Callable[[], bool]) -> None:
    """A request that nobody waits for any more may still be stored."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


def outcome(relay: World) -> str:
    """In the document's words."""
    if relay.parked():
        return "parks"
    reasons = relay.closed_for()
    if reasons:
        return "waits" if reasons <= {"outage", "throttled"} else "closes"
    return "waits" if any(later - sooner >= 2 for sooner, later in pairwise(relay.wire.tried)) else "delivers"


def test_every_row_of_the_document_has_its_test_and_every_test_its_row() -> None:
    assert set(rows()) == set(CASES)
    assert set(rows().values()) == {"delivers", "parks", "waits", "closes"}


@pytest.mark.parametrize("name", CASES)
def test_an_answer_has_the_outcome_that_the_document_says(name: str, server: Server) -> None:
    case = CASES[name]
    faults = json.loads(json.dumps(case.faults).replace("DATE", in_two_minutes()))
    with world(server, case.address(server) if case.address else "", faults) as relay:
        put(relay)
        relay.delivery.run()
        assert outcome(relay) == rows()[name]
        assert relay.parked() == ({case.reason: set(case.parked)} if case.parked else {})
        assert relay.stored() == ALL - case.parked
        until(lambda: server.klaviyo.counts["repeats"] == case.repeats)
        tried = relay.wire.tried
        if len(tried) > 1:
            assert case.first[0] <= tried[1] - tried[0] <= case.first[1] + 0.5
        if outcome(relay) in ("waits", "closes"):
            closed = [at for at in tried if tried[0] + 2.5 < at < relay.wire.repaired_at]
            assert all(sum(since <= at < since + 60 for at in closed) <= 2 for since in closed)
            # Deferred for ten minutes, events come back within as much; the relay itself is open again after half one.
            assert tried[-1] - relay.wire.repaired_at <= 700
        assert "mail.example" not in relay.log.getvalue()


@pytest.mark.parametrize(("pointers", "most"), [(True, 5), (False, math.ceil(2 * 7 * math.log2(1_000)))])
def test_seven_bad_among_a_thousand_are_parked_and_993_delivered(pointers: bool, most: int, server: Server) -> None:
    bad = {f"{group}{number}" for number, group in enumerate("abcdefg", 11)}
    rule = {"matching": f'"({"|".join(sorted(bad))})@'}
    how = {"point": True, "detail": "Invalid email."} if pointers else {"status": 400, "body": REFUSAL}
    with world(server, faults=[rule | how]) as relay:
        put(relay, "abcdefghij", 100)
        relay.delivery.run()
        assert relay.parked() == {"refused_by_klaviyo": bad}
        assert len(relay.stored()) == 993
        assert len(relay.wire.tried) <= most
        details = {kept.texts["detail"] for kept in relay.delivery.dead.messages.values()}
        assert all("Invalid" in detail for detail in details)


def test_a_refused_key_keeps_everything_until_it_is_replaced_and_the_new_one_is_used_within_a_minute(
    server: Server,
) -> None:
    with world(server) as relay:
        server.klaviyo.key = "pk_another"
        put(relay)
        clock = relay.delivery.clock
        relay.delivery.invoke()
        assert relay.closed_for() == {"configuration"}
        revoked_until = clock() + 86_400
        sender = 0
        while clock() < revoked_until:
            sender += 1
            relay.delivery.put(Message("shop", (event(f"new{sender}"),), clock()))
            clock.sleep(600)
            relay.delivery.invoke()
        assert relay.stored() == set()
        assert relay.parked() == {}
        relay.secrets.documents["klaviyo"] = {"api_key": "pk_another"}
        relay.delivery.put(Message("shop", (event("last"),), clock()))
        for _ in range(12):
            clock.sleep(5)
            relay.delivery.invoke()
        assert "last" in relay.stored()
        relay.delivery.run()
        assert relay.stored() == ALL | {"last"} | {f"new{number}" for number in range(1, sender + 1)}
        assert relay.parked() == {}


def test_a_klaviyo_that_works_again_finds_everything_in_order(server: Server) -> None:
    """An outage of ten minutes under way: what came in before and meanwhile arrives, each once."""
    with world(server, faults=answers(503)) as relay:
        put(relay, "a")
        relay.delivery.invoke()
        relay.delivery.clock.sleep(300)
        put(relay, "bc")
        relay.delivery.run()
        assert relay.stored() == ALL
        assert server.klaviyo.counts["repeats"] == 0
