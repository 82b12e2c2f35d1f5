"""One POST to Klaviyo, and what its answer means.

``sort_answer`` is pure. Shapes and statuses: Klaviyo API reference, "Bulk
Create Events", and the guide "Rate limits, status codes, and errors". Answers
that the guides leave open are read so that nothing is lost: a fault that may pass
is transient, and one that a person must fix closes the relay.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Literal
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from ..pauses import Pauses
from ..version import USER_AGENT

PATH = "/api/event-bulk-create-jobs"
IDLE_SECONDS = 10.0  # a connection that was idle for longer may be dead, above all if the function was frozen
ANSWER_BYTES = 2_000_000
_FAULTS = (OSError, HTTPException, HTTPError)
_FAULT_REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (NameResolutionError, "name_not_resolved"),
    (NewConnectionError, "connection_failed"),  # in urllib3 every failure to connect is a time-out, too
    ((TimeoutError, HTTPTimeoutError), "timed_out"),
)

Kind = Literal[
    "delivered",  # Klaviyo accepted every event
    "rows",  # it accepted none, and named the rows at fault
    "refused",  # it accepted none, and named no row
    "too_large",  # the body is over its limit
    "throttled",  # 429
    "configuration",  # nothing is accepted until a person acts
    "transient",  # an outage, a challenge, a dropped connection
]

_POINTER = re.compile(r"/data/attributes/events-bulk-create/data/(\d{1,6})(?:/(.*))?", re.ASCII)
_REQUEST_IDS = ("x-klaviyo-request-id", "x-request-id", "request-id", "x-amzn-requestid", "cf-ray")
_MEANINGS: Mapping[int, tuple[Kind, str, str]] = {
    202: ("delivered", "delivered", ""),  # the only success that this endpoint documents
    401: ("configuration", "key_refused", "Klaviyo rejected the private key; check the Klaviyo secret"),
    403: ("configuration", "key_refused", "the private key lacks the scope events:write; check the Klaviyo secret"),
    404: ("configuration", "wrong_url", "Klaviyo has nothing at this address; check the parameter KlaviyoUrl"),
    405: ("configuration", "wrong_url", "this address does not accept POST; check the parameter KlaviyoUrl"),
    410: (
        "configuration",
        "revision_retired",
        "Klaviyo has retired the API revision; check the parameter KlaviyoRevision",
    ),
    413: ("too_large", "too_large", "the request is over Klaviyo's size limit"),
    415: ("configuration", "media_type", "Klaviyo rejected the media type; the relay needs an update"),
    429: ("throttled", "throttled", "Klaviyo asked to wait"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one POST.

    ``status`` is ``None`` if no answer came. ``reason`` is a snake_case code,
    ``detail`` a sentence for people or Klaviyo's title, which like its ``words`` may
    quote a payload. ``rows`` has Klaviyo's words about each row of the request that it
    named, by the row's index. ``retry_after`` is in seconds.
    """

    kind: Kind
    status: int | None
    reason: str
    detail: str = ""
    words: str = ""
    rows: Mapping[int, str] = field(default_factory=dict)
    retry_after: float | None = None
    request_id: str = ""

    @property
    def accepted(self) -> bool:
        """Whether Klaviyo accepted every event. Nothing else proves that it accepts what the relay sends."""
        return self.kind == "delivered"


def sort_answer(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Sort Klaviyo's answer. This returns for any bytes and raises nothing."""
    named = {name.lower(): value for name, value in headers.items()}
    errors = _errors(body)
    kind, reason, detail = _kind(status, named, body, errors)
    # Of two complaints about a row the first counts. The indices may be of rows that do not exist.
    rows = dict(_complaints(reversed(errors))) if kind == "refused" else {}
    wait = named.get("retry-after", "").strip()  # Klaviyo sends whole seconds
    return Answer(
        kind="rows" if rows else kind,
        status=status,
        reason=reason,
        detail=detail,
        words=_words(errors[0]) if errors else "",
        rows=rows,
        retry_after=float(wait) if re.fullmatch(r"\d{1,9}", wait, re.ASCII) else None,
        request_id=next((named[name][:100] for name in _REQUEST_IDS if name in named), ""),
    )


def _kind(status: int, headers: Mapping[str, str], body: bytes, errors: list[dict[str, Any]]) -> tuple[Kind, str, str]:
    is_html = "html" in headers.get("content-type", "").lower() or body[:200].lstrip()[:1] == b"<"
    if ("cf-mitigated" in headers or is_html) and (status < 400 or status == 403):
        return "transient", "challenged", "a web page or a challenge came instead of Klaviyo's answer"
    if status in (400, 409, 422):
        title = str(errors[0].get("title") or errors[0].get("code") or "") if errors else ""
        return "refused", "refused_by_klaviyo", title
    if status in (408, 425) or status >= 500:
        return "transient", f"status_{status}", "Klaviyo returned a server error"
    return _MEANINGS.get(
        status,
        ("configuration", f"status_{status}", "unexpected status for this API; check the parameter KlaviyoUrl"),
    )


def _errors(body: bytes) -> list[dict[str, Any]]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return []
    listed = document.get("errors") if isinstance(document, dict) else None
    return [error for error in listed if isinstance(error, dict)] if isinstance(listed, list) else []


def _words(error: Mapping[str, Any]) -> str:
    parts = [str(error[name]) for name in ("title", "detail") if error.get(name)]
    return " ".join(dict.fromkeys(parts)) or str(error.get("code") or "Klaviyo gave no reason")


def _complaints(errors: Iterable[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    for error in errors:
        source = error.get("source")
        pointer = str(source.get("pointer")) if isinstance(source, dict) else ""
        if place := _POINTER.fullmatch(pointer):
            # Not the row's number: rows with the same complaint are parked together.
            yield int(place[1]), f"{_words(error)} ({place[2]})" if place[2] else _words(error)


def fault(error: Exception) -> Answer:
    """Return an ``Answer`` for a request without one; whether Klaviyo accepted the events is then unknown."""
    reason = next((reason for kinds, reason in _FAULT_REASONS if isinstance(error, kinds)), "connection_failed")
    return Answer("transient", None, reason, type(error).__name__)


def _cut(connected: socket.socket | None) -> None:
    if connected is not None:
        with contextlib.suppress(OSError):  # it has just ended
            # Not SSLSocket's own shutdown, which ends the encryption under the thread that reads.
            socket.socket.shutdown(connected, socket.SHUT_RDWR)


class Connection:
    """A kept-open connection to Klaviyo that makes one attempt at a time.

    urllib3's pool opens connections when it sends; this one is opened before
    the slot, so that a TLS handshake does not delay the request past it.
    """

    def __init__(
        self,
        url: str,
        revision: str,
        *,
        pauses: Pauses,
        clock: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(url)
        self._path = parts.path.rstrip("/") + PATH
        self._pauses = pauses
        self._clock = clock
        self._used = -math.inf
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=pauses.connect)
        self._headers = {
            "revision": revision,
            # So that a retired revision answers 410 instead of acting as a later one.
            "X-Klaviyo-Revision-Fall-Forward-Opt-Out": "1",
            "Content-Type": "application/vnd.api+json",
            "Accept": "application/vnd.api+json",
            "User-Agent": USER_AGENT,
        }

    def open(self) -> Answer | None:
        """Connect unless connected; return the fault if that fails."""
        # By the wall clock: the monotonic one stands still while Lambda freezes the function (observed).
        if self._connection.is_connected and 0 <= self._clock() - self._used < IDLE_SECONDS:
            return None
        self.close()
        self._connection.timeout = self._pauses.connect
        try:
            self._connection.connect()
        except _FAULTS as error:
            self.close()
            return fault(error)
        self._used = self._clock()
        return None

    def close(self) -> None:
        """Close; the next ``open`` connects again."""
        self._connection.close()

    def post(self, body: bytes, key: str) -> Answer:
        """Send one request with the private ``key``; every fault is an ``Answer``, too.

        A socket's time-out starts again with each byte, so a slow peer could outlast
        the function. So the connection is cut when the request has taken a fifth
        longer than that in all.
        """
        end = threading.Timer(1.2 * self._pauses.read, _cut, [self._connection.sock])
        end.daemon = True
        end.start()
        try:
            return self._exchange(body, key)
        finally:
            end.cancel()

    def _exchange(self, body: bytes, key: str) -> Answer:
        try:
            self._connection.timeout = self._pauses.read
            if self._connection.sock is not None:
                self._connection.sock.settimeout(self._pauses.read)
            self._connection.request(
                "POST",
                self._path,
                body=body,
                headers=self._headers | {"Authorization": f"Klaviyo-API-Key {key}"},
                preload_content=False,
            )
            response = self._connection.getresponse()
            text, whole = b"", False
            with contextlib.suppress(*_FAULTS):  # the status has come, and it counts
                while len(text) < ANSWER_BYTES and not whole:
                    part = response.read1(65_536)
                    text, whole = text + part, not part
            answer = sort_answer(response.status, response.headers, text)
            if not whole:
                response.close()  # it holds the socket, too
                self.close()
        except _FAULTS as error:
            self.close()
            return fault(error)
        self._used = self._clock()
        return answer
