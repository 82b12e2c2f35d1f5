"""A strict Klaviyo on 127.0.0.1: the bulk event endpoint, its limits, and faults on demand.

``POST /api/event-bulk-create-jobs`` answers as Klaviyo documents it: 202, 400
with pointers, 401, 404, 405, 410, 413, 415, 429 with Retry-After. Both rate
windows are fixed ones of a random phase. What was stored, every request, and
the worst sliding second and minute are in a ledger in memory.

``/_standin/`` is for tests and tools, in JSON: GET ``stats``, ``events`` and
``requests`` (``?offset=&limit=``), ``found`` (``?unique_id=``); POST ``faults`` (a list of ``Fault``s; it
replaces those before), ``limits``, ``key`` and ``reset``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import re
import signal
import socket
import threading
import time
import urllib.request
import zlib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tools.terminal import say

from . import klaviyo_checks as checks

PATH = "/api/event-bulk-create-jobs"
ADMIN = "/_standin/"
DEVELOPMENT_KEY = "pk_development"
NEWEST_REVISION = date(2026, 10, 15)
REVISION_DAYS = 731
KEPT_BYTES = 64_000_000
PAGE = 10_000
MEDIA_TYPE = "application/vnd.api+json"


@dataclass(frozen=True, slots=True)
class Limits:
    """Klaviyo's two fixed windows: requests allowed, and the windows' lengths in seconds."""

    per_second: int = 10
    per_minute: int = 150
    second: float = 1.0
    minute: float = 60.0


class Window:
    """A fixed window of ``length`` seconds that begins at an unknown ``phase``."""

    def __init__(self, allowed: int, length: float, phase: float) -> None:
        self.allowed = allowed
        self.length = length
        self.phase = phase
        self.number = -1
        self.used = 0

    def look(self, now: float) -> tuple[int, float]:
        """Return how many requests are left at ``now``, and the seconds until the window ends."""
        number = math.floor((now + self.phase) / self.length)
        if number != self.number:
            self.number, self.used = number, 0
        return self.allowed - self.used, (number + 1) * self.length - self.phase - now


class Sliding:
    """The most arrivals in any ``length`` seconds, wherever they begin."""

    def __init__(self, length: float) -> None:
        self.length = length
        self.recent: deque[float] = deque()
        self.worst = 0

    def add(self, now: float) -> None:
        """Count an arrival at ``now``."""
        self.recent.append(now)
        while now - self.recent[0] >= self.length:
            self.recent.popleft()
        self.worst = max(self.worst, len(self.recent))


@dataclass(slots=True)
class Fault:
    """A way in which some requests fail. The first fault that applies to a request is the one that happens.

    Attributes
    ----------
    times : int or None
        How many requests it fails; without it, all. ``skip`` passes that many first.
    chance : float
        Share of the requests that it fails.
    after, until : float
        Seconds since the fault was set between which it applies.
    matching : str
        Regular expression; only requests with a row whose JSON text it finds.
    delay : float
        Seconds to wait before anything else.
    store : bool
        The events are taken all the same.
    drop : bool
        The connection closes without an answer; ``cut``: in the middle of it.
    status, headers, body
        The answer; a ``str`` body goes as it is, anything else as JSON. Without
        a ``status`` the request goes on as usual after the delay.
    point : bool
        Answer 400, with an error that points at each row that ``matching`` finds.
    """

    times: int | None = None
    skip: int = 0
    chance: float = 1.0
    after: float = 0.0
    until: float | None = None
    matching: str | None = None
    delay: float = 0.0
    store: bool = False
    drop: bool = False
    cut: bool = False
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = ""
    point: bool = False
    detail: str = "Invalid input."
    happened: int = 0
    since: float = 0.0

    def applies(self, now: float, chance: float) -> bool:
        """Return whether it fails a request at ``now``; count it if so."""
        age = now - self.since
        if age < self.after or (self.until is not None and age >= self.until) or chance >= self.chance:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None and self.happened >= self.times:
            return False
        self.happened += 1
        return True

    def finds(self, document: Any) -> list[int]:
        """Return the indices of the rows that ``matching`` finds; all of them without it."""
        entries = document["data"]["attributes"]["events-bulk-create"]["data"]
        if self.matching is None:
            return list(range(len(entries)))
        return [i for i, row in enumerate(entries) if re.search(self.matching, json.dumps(row, ensure_ascii=False))]


@dataclass(slots=True)
class Answer:
    """The answer to a request; ``cut``: half of it, then the connection closes."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False
    events: int = 0


class Drop(Exception):
    """The connection closes without an answer."""


def _refusal(status: int, errors: list[dict[str, Any]], **headers: str) -> Answer:
    body = json.dumps({"errors": errors}).encode()
    return Answer(status, {"Content-Type": MEDIA_TYPE} | headers, body)


def _simple(status: int, code: str, detail: str, **headers: str) -> Answer:
    return _refusal(status, [checks.error(status, code, detail, detail)], **headers)


class Klaviyo:
    """The stand-in's state. All times are seconds; ``clock`` counts those of the windows."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        key: str = DEVELOPMENT_KEY,
        seed: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.Lock()
        self.clock = clock
        self.random = random.Random(seed)  # noqa: S311 (phases and chances, no secrets)
        self.key = key
        self.clear(limits or Limits())

    def clear(self, limits: Limits) -> None:
        """Forget everything that was stored or set, but the key; the windows get a new phase."""
        self.faults: list[Fault] = []
        self.requests: list[dict[str, Any]] = []
        self.stored: list[tuple[str, str, str | None, str | None, int]] = []
        self.entries: list[dict[str, Any]] = []
        self.kept_bytes = 0
        self.keys: set[bytes] = set()
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.second = Sliding(1.0)
        self.minute = Sliding(60.0)
        self.set_limits(limits)

    def set_limits(self, limits: Limits) -> None:
        """Change the windows; both begin at a new random phase."""
        self.limits = limits
        self.windows = (
            Window(limits.per_second, limits.second, self.random.uniform(0, limits.second)),
            Window(limits.per_minute, limits.minute, self.random.uniform(0, limits.minute)),
        )

    def set_faults(self, rules: list[dict[str, Any]], now: float) -> None:
        """Replace the faults; ``TypeError`` for a field that a ``Fault`` does not have."""
        self.faults = [Fault(**rule, since=now) for rule in rules]

    def arrive(self) -> tuple[float, float | None]:
        """Count a request that arrives now: the time, and the seconds to wait if a window is full."""
        with self.lock:
            now = self.clock()
            self.second.add(now)
            self.minute.add(now)
            looks = [window.look(now) for window in self.windows]
            wait = max((rest for left, rest in looks if left <= 0), default=None)
            if wait is not None:
                self.counts["limited"] += 1
                return now, wait
            for window in self.windows:
                window.used += 1
            return now, None

    def rate_headers(self, now: float) -> dict[str, str]:
        """Return RateLimit-* of the minute window, as every answer but 429 carries them."""
        with self.lock:
            left, rest = self.windows[1].look(now)
        return {
            "RateLimit-Limit": str(self.limits.per_minute),
            "RateLimit-Remaining": str(max(0, left)),
            "RateLimit-Reset": str(math.ceil(rest)),
        }

    def fault(self, document: Any, now: float) -> Fault | None:
        """Return the fault that this request meets, if any."""
        with self.lock:
            for fault in self.faults:
                if fault.matching is not None and not fault.finds(document):
                    continue
                if fault.applies(now, self.random.random()):
                    self.counts["faults"] += 1
                    return fault
        return None

    def store(self, document: Any) -> int:
        """Store the events, each (profile, metric, unique_id) once; return how many the request held."""
        with self.lock:
            held = 0
            self.counts["jobs"] += 1
            for row in checks.rows(document):
                for event in checks.events(row):
                    held += 1
                    self._store_one(row, event)
            self.counts["received"] += held
            return held

    def _store_one(self, row: dict[str, Any], event: dict[str, Any]) -> None:
        profile = row["attributes"]["profile"]["data"]
        whose = identity(profile)
        metric = event["metric"]["data"]["attributes"]["name"]
        unique_id = event.get("unique_id")
        # Without a unique_id, one event per profile, metric and second survives.
        name = unique_id if unique_id is not None else (event.get("time") or "")[:19]
        key = blake2b(f"{whose}\0{metric}\0{name}".encode(), digest_size=16).digest()
        self.counts["without_unique_id"] += unique_id is None
        if key in self.keys:
            self.counts["repeats"] += 1
            return
        self.keys.add(key)
        self.counts["reserved_addresses"] += bool(checks.RESERVED_ADDRESS.search(whose))
        self.stored.append((str(name), metric, whose, event.get("time"), self.counts["jobs"]))
        if self.kept_bytes < KEPT_BYTES:
            self.kept_bytes += len(json.dumps(row))
            self.entries.append(row)

    def record(self, at: float, status: int, events: int, size: int, seconds: float) -> None:
        """Keep one request; ``status`` 0 is a dropped connection, ``at`` epoch seconds."""
        with self.lock:
            self.statuses[status] += 1
            self.requests.append(
                {"at": round(at, 4), "status": status, "events": events, "bytes": size, "seconds": round(seconds, 4)}
            )

    def stats(self) -> dict[str, Any]:
        """Return totals since the last reset."""
        with self.lock:
            counts = {name: self.counts[name] for name in COUNTS}
            return counts | {
                "requests": len(self.requests),
                "stored": len(self.stored),
                "statuses": {str(status): number for status, number in sorted(self.statuses.items())},
                "worst_second": self.second.worst,
                "worst_minute": self.minute.worst,
                "limits": asdict(self.limits),
            }

    def page(self, what: str, offset: int, limit: int) -> dict[str, Any]:
        """Return a page of ``events`` or ``requests``.

        Events come with their entry as long as all fit into 64 MB.
        """
        end = offset + limit
        with self.lock:
            total = len(self.requests if what == "requests" else self.stored)
            if what == "requests":
                items = self.requests[offset:end]
            else:
                items = [self._event(place) for place in range(offset, min(end, total))]
        return {what: items, "total": total, "next": end if end < total else None}

    def find(self, unique_id: str) -> dict[str, Any]:
        """Return the stored events of that ``unique_id``, the latest first: one for each profile and metric."""
        with self.lock:
            places = [place for place, values in enumerate(self.stored) if values[0] == unique_id]
            return {"events": [self._event(place) for place in reversed(places)]}

    def _event(self, place: int) -> dict[str, Any]:
        names = ("unique_id", "metric", "profile", "time", "job")
        event: dict[str, Any] = dict(zip(names, self.stored[place], strict=True))
        return event | ({"entry": self.entries[place]} if place < len(self.entries) else {})


COUNTS = ("jobs", "received", "repeats", "limited", "faults", "without_unique_id", "reserved_addresses", "fell_forward")


def identity(profile: Mapping[str, Any]) -> str:
    """Return what a profile is found by."""
    attributes = profile["attributes"]
    identifier = profile.get("id") or next((attributes[n] for n in checks.IDENTIFIERS if attributes.get(n)), "")
    return str(identifier).lower()


def answer(klaviyo: Klaviyo, method: str, path: str, headers: dict[str, str], body: bytes, now: float) -> Answer:
    """Return Klaviyo's answer to a request within the rate; ``headers`` have lower-case names.

    Raises
    ------
    Drop
        The connection is to close without an answer.
    """
    reply = _refused_by_head(klaviyo, method, path, headers) or _take(klaviyo, headers, body, now)
    reply.headers = klaviyo.rate_headers(now) | reply.headers
    return reply


def throttled(wait: float) -> Answer:
    """Return a 429; ``wait`` is in seconds."""
    seconds = str(max(1, math.ceil(wait)))
    text = f"Request was throttled. Expected available in {seconds} seconds."
    return _simple(429, "throttled", text, **{"Retry-After": seconds})


def _refused_by_head(klaviyo: Klaviyo, method: str, path: str, headers: dict[str, str]) -> Answer | None:
    if path.rstrip("/") != PATH:
        return _simple(404, "not_found", "No such endpoint.")
    if method != "POST":
        return _simple(405, "method_not_allowed", "Only POST is allowed.", Allow="POST")
    if headers.get("authorization") != f"Klaviyo-API-Key {klaviyo.key}":
        return _simple(401, "not_authenticated", "Missing or invalid private key.")
    if headers.get("content-type", "").partition(";")[0].strip() != MEDIA_TYPE:
        return _simple(415, "unsupported_media_type", f"The Content-Type must be {MEDIA_TYPE}.")
    try:
        revision = date.fromisoformat(headers.get("revision", ""))
    except ValueError:
        return _simple(400, "invalid", "The revision header is missing or not a date.")
    if revision > NEWEST_REVISION:
        return _simple(400, "invalid", "No such revision.")
    if (NEWEST_REVISION - revision).days > REVISION_DAYS:
        if headers.get("x-klaviyo-revision-fall-forward-opt-out") == "1":
            return _simple(410, "gone", "This revision is retired.")
        klaviyo.counts["fell_forward"] += 1
    return None


def _plain(headers: dict[str, str], body: bytes) -> bytes | None:
    """Return the decompressed body, ``None`` if it is over the limit."""
    if headers.get("content-encoding") == "gzip":
        unzip = zlib.decompressobj(wbits=31)
        try:
            body = unzip.decompress(body, checks.MAX_BODY + 1)
        except zlib.error as mistake:
            raise checks.Problem(("data",), "The body is not gzip.") from mistake
    return body if len(body) <= checks.MAX_BODY else None


def _take(klaviyo: Klaviyo, headers: dict[str, str], body: bytes, now: float) -> Answer:
    try:
        plain = _plain(headers, body)
        if plain is None:
            return _simple(413, "payload_too_large", f"A request holds at most {checks.MAX_BODY} bytes.")
        document = checks.parse(plain)
    except checks.Problem as problem:
        return _refusal(400, [problem.as_error()])
    bad = checks.problems(document, datetime.now(UTC))
    if bad:
        return _refusal(400, [problem.as_error() for problem in bad])
    fault = klaviyo.fault(document, now)
    if fault is None:
        return Answer(202, events=klaviyo.store(document))
    return _fail(klaviyo, fault, document)


def _fail(klaviyo: Klaviyo, fault: Fault, document: Any) -> Answer:
    time.sleep(fault.delay)
    goes_on = fault.status is None and not (fault.drop or fault.cut or fault.point)
    held = klaviyo.store(document) if fault.store or goes_on else 0
    if fault.drop:
        raise Drop
    if goes_on:
        return Answer(202, events=held)
    if fault.point:
        problems = [checks.Problem((*checks.ROWS, row, "attributes"), fault.detail) for row in fault.finds(document)]
        return _refusal(400, [problem.as_error() for problem in problems])
    text = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
    kind = {"Content-Type": "text/html" if text.startswith("<") else MEDIA_TYPE}
    return Answer(fault.status or 202, kind | fault.headers, text.encode(), fault.cut, held)


class Server(ThreadingHTTPServer):
    """The stand-in behind a socket of 127.0.0.1; ``port`` 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, klaviyo: Klaviyo, port: int = 0) -> None:
        self.klaviyo = klaviyo
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        """The address of the server, without a path."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    """Bytes in, bytes out; ``answer`` says what they mean."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 300

    def log_message(self, *_: object) -> None:
        """Write no access log: the ledger has every request."""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _handle(self) -> None:
        if urlsplit(self.path).path.startswith(ADMIN):
            self._admin()
            return
        # A request arrives with its head, however long its body takes.
        at, (arrived, wait) = time.time(), self.server.klaviyo.arrive()
        body = self._body()
        try:
            reply = throttled(wait) if wait is not None else self._answered(body, arrived)
        except Drop:
            reply = None
        # Recorded before it is sent: anyone who has the answer finds it in the ledger.
        status, events = (reply.status, reply.events) if reply else (0, 0)
        self.server.klaviyo.record(at, status, events, len(body), time.monotonic() - arrived)
        if reply:
            self._send(reply)
        else:
            self._hang_up()

    def _answered(self, body: bytes, arrived: float) -> Answer:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return answer(self.server.klaviyo, self.command, urlsplit(self.path).path, headers, body, arrived)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _handle  # noqa: N815 (the names that http.server calls)

    def _send(self, reply: Answer) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if reply.cut:
            self.wfile.write(reply.body[: len(reply.body) // 2])
            self._hang_up()
        elif self.command != "HEAD":
            self.wfile.write(reply.body)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _admin(self) -> None:
        parts = urlsplit(self.path)
        what, body = parts.path.removeprefix(ADMIN), self._body()
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            document = self._admin_post(what, body) if self.command == "POST" else self._admin_get(what, query)
            status = 200
        except (KeyError, TypeError, ValueError) as mistake:
            status, document = 400, {"error": f"{type(mistake).__name__}: {mistake}"}
        self._send(Answer(status, {"Content-Type": "application/json"}, json.dumps(document).encode()))

    def _admin_get(self, what: str, query: dict[str, str]) -> dict[str, Any]:
        if what in ("events", "requests"):
            return self.server.klaviyo.page(what, int(query.get("offset", 0)), int(query.get("limit", PAGE)))
        if what == "found":
            return self.server.klaviyo.find(query["unique_id"])
        if what != "stats":
            raise ValueError(f"no {what} here")
        return self.server.klaviyo.stats()

    def _admin_post(self, what: str, body: bytes) -> dict[str, Any]:
        klaviyo = self.server.klaviyo
        document = json.loads(body or b"{}")
        with klaviyo.lock:
            if what == "faults":
                klaviyo.set_faults(document, time.monotonic())
            elif what == "limits":
                klaviyo.set_limits(Limits(**document))
            elif what == "reset":
                klaviyo.clear(Limits(**document) if document else klaviyo.limits)
            elif what == "key":
                klaviyo.key = str(document["api_key"])
            else:
                raise ValueError(f"no {what} here")
        return {}


class Client:
    """The stand-in's admin interface, for tests and tools; it reads ``page`` entries at a time."""

    def __init__(self, url: str, page: int = PAGE) -> None:
        self.url = url
        self._page = page

    def _call(self, what: str, document: Any = None) -> Any:
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self.url + ADMIN + what, data, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 (our own address)
            return json.load(reply)

    def stats(self) -> dict[str, Any]:
        """Return totals since the last reset."""
        counts: dict[str, Any] = self._call("stats")
        return counts

    def events(self) -> list[dict[str, Any]]:
        """Return every event stored, in order."""
        return self._all("events")

    def requests(self) -> list[dict[str, Any]]:
        """Return every request, in order of its answer."""
        return self._all("requests")

    def _all(self, what: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        offset: int | None = 0
        while offset is not None:
            page = self._call(f"{what}?offset={offset}&limit={self._page}")
            items += page[what]
            offset = page["next"]
        return items

    def faults(self, *rules: dict[str, Any]) -> None:
        """Replace the faults: each rule has the fields of ``Fault``."""
        self._call("faults", list(rules))

    def limits(self, **limits: float) -> None:
        """Change the windows: the fields of ``Limits``."""
        self._call("limits", limits)

    def key(self, api_key: str) -> None:
        """Accept only this private key from now on."""
        self._call("key", {"api_key": api_key})

    def reset(self) -> None:
        """Forget requests, events and faults; the windows get a new phase."""
        self._call("reset", {})


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where to listen on 127.0.0.1; a free port if 0")
    parser.add_argument("--key", default=DEVELOPMENT_KEY, help="the private key that is accepted")
    parser.add_argument("--limits", type=json.loads, default={}, help="JSON with the fields of Limits")
    asked = parser.parse_args()
    server = Server(Klaviyo(Limits(**asked.limits), key=asked.key), asked.port)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    say(server.url)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=0.1)
    server.server_close()


if __name__ == "__main__":
    main()
