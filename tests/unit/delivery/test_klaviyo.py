"""What each of Klaviyo's answers means, and one POST over a real socket."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.delivery.klaviyo import Connection, sort_answer
from handler.pauses import PAUSES

ROW = "/data/attributes/events-bulk-create/data/"
NOW = 1_790_000_000.0


def errors(*pointed: tuple[str, str]) -> bytes:
    listed = [
        {"id": "1", "code": "invalid", "title": "Invalid input.", "detail": detail, "source": {"pointer": pointer}}
        for pointer, detail in pointed
    ]
    return json.dumps({"errors": listed}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind"),
    [
        (202, {}, b"", "delivered"),
        (202, {"Content-Type": "text/html"}, b"<html>", "transient"),
        (200, {}, b"{}", "configuration"),
        (200, {"Content-Type": "text/html"}, b"<html>", "transient"),
        (201, {}, b"{}", "configuration"),
        (204, {}, b"", "configuration"),
        (302, {"Location": "/"}, b"", "configuration"),
        (400, {}, errors((ROW + "3/attributes/profile", "no email")), "rows"),
        (400, {}, errors(("/data/type", "wrong type")), "refused"),
        (400, {}, errors((ROW + "x/attributes", "odd")), "refused"),
        (400, {}, b"\x00garbage", "refused"),
        (400, {}, b'{"errors": [{"detail"', "refused"),
        (400, {}, b'{"errors": [null, 3], "x": 1}', "refused"),
        (401, {}, b"{}", "configuration"),
        (403, {"Content-Type": "application/json"}, b"{}", "configuration"),
        (403, {"Content-Type": "text/html; charset=UTF-8"}, b"<!DOCTYPE html>", "transient"),
        (403, {"CF-Mitigated": "challenge"}, b"{}", "transient"),
        (404, {}, b"", "configuration"),
        (405, {}, b"", "configuration"),
        (408, {}, b"", "transient"),
        (409, {}, b"", "refused"),
        (410, {}, b"", "configuration"),
        (413, {}, b"", "too_large"),
        (415, {}, b"", "configuration"),
        (422, {}, b"", "refused"),
        (429, {}, b"", "throttled"),
        (500, {}, b"<html>", "transient"),
        (502, {}, b"", "transient"),
        (503, {}, b"", "transient"),
        (504, {}, b"", "transient"),
        (524, {}, b"", "transient"),
    ],
)
def test_every_status_has_its_meaning(status: int, headers: dict[str, str], body: bytes, kind: str) -> None:
    assert sort_answer(status, headers, body).kind == kind


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, "refused", "refused_by_klaviyo"),
        (401, "configuration", "key_refused"),
        (403, "transient", "challenged"),
        (404, "configuration", "wrong_url"),
        (413, "too_large", "too_large"),
        (429, "throttled", "throttled"),
        (500, "transient", "status_500"),
        (503, "transient", "status_503"),
    ],
)
def test_web_page_is_a_challenge_only_where_the_status_says_nothing_else(status: int, kind: str, reason: str) -> None:
    answer = sort_answer(status, {"Content-Type": "text/html", "Retry-After": "7"}, b"<!DOCTYPE html>")
    assert (answer.kind, answer.reason, answer.retry_after) == (kind, reason, 7.0)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "configuration"), (404, "configuration"), (413, "too_large"), (429, "throttled"), (500, "transient")],
)
def test_answer_that_is_not_about_rows_names_none_although_it_has_pointers(status: int, kind: str) -> None:
    answer = sort_answer(status, {}, errors((ROW + "0/attributes", "No."), (ROW + "1", "No.")))
    assert (answer.kind, answer.rows) == (kind, {})


def test_pointers_become_rows_with_klaviyos_words() -> None:
    body = errors((ROW + "3/attributes/profile/email", "Bad email"), (ROW + "7", "Bad row"), ("/data", "and more"))
    rows = sort_answer(400, {}, body).rows
    assert rows.keys() == {3, 7}
    assert "Bad email" in rows[3]
    assert "profile/email" in rows[3]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"Retry-After": "99999999"}, 99_999_999.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert sort_answer(429, headers, b"").retry_after == seconds


def test_request_id_is_read_and_rate_limit_headers_change_nothing() -> None:
    headers = {"RateLimit-Limit": "150", "RateLimit-Remaining": "0", "RateLimit-Reset": "34"}
    answer = sort_answer(202, headers | {"X-Request-Id": "abc"}, b"")
    assert answer.request_id == "abc"
    assert replace(answer, request_id="") == sort_answer(202, {}, b"")


@given(st.integers(100, 999), st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4), st.binary())
def test_no_answer_is_too_odd_and_only_a_202_accepts(status: int, headers: dict[str, str], body: bytes) -> None:
    answer = sort_answer(status, headers, body)
    assert answer.status == status
    assert answer.accepted <= (status == 202)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(ROW + "1"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["errors", "source", "pointer", "detail", "code", "title"]), inner, max_size=4
            )
        ),
    )
)
def test_no_error_document_is_too_odd(document: Any) -> None:
    for body in (document, {"errors": document}, {"errors": [document]}):
        assert sort_answer(400, {}, json.dumps(body).encode()).kind in ("refused", "rows")


def whole_request(connection: socket.socket) -> bytes:
    """Head and body, which may come in packets of their own."""
    got = b""
    while b"\r\n\r\n" not in got:
        if not (part := connection.recv(65_536)):
            raise ConnectionResetError("the client hung up")
        got += part
    head, _, body = got.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


@contextmanager
def server(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answers connections one after the other with raw bytes; ``b""`` hangs up after the request."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)

        def run() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(60)
                    requests.append(whole_request(connection))
                    connection.sendall(answer)
                    if answer.endswith(b"HANG"):
                        connection.recv(1)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", requests
        thread.join(60)


def posted(answer: bytes, *, read_seconds: float = 5.0) -> tuple[str, str]:
    with server(answer) as (url, _):
        connection = Connection(url, "2026-10-15", pauses=replace(PAUSES, connect=2.0, read=read_seconds))
        assert connection.open() is None
        reply = connection.post(b"{}", "pk_test")
        connection.close()
    return reply.kind, reply.reason


def test_a_request_says_all_that_klaviyo_asks_for() -> None:
    with server(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n") as (url, requests):
        connection = Connection(url, "2026-10-15", pauses=PAUSES)
        assert connection.open() is None
        assert connection.post(b'{"data":1}', "pk_test").kind == "delivered"
        connection.close()
    head = requests[0].decode()
    assert head.startswith("POST /api/event-bulk-create-jobs HTTP/1.1")
    for line in (
        "Authorization: Klaviyo-API-Key pk_test",
        "revision: 2026-10-15",
        "Content-Type: application/vnd.api+json",
        "Accept: application/vnd.api+json",
        "X-Klaviyo-Revision-Fall-Forward-Opt-Out: 1",
        "Content-Length: 10",
    ):
        assert f"{line}\r\n" in head


@pytest.mark.parametrize(("frozen", "connections"), [(5, 1), (60, 2), (-60, 2)])
def test_a_connection_that_froze_with_the_function_is_not_used_again(frozen: float, connections: int) -> None:
    """Only the wall clock goes on meanwhile, or is set right."""
    now = [NOW]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        connection = Connection(
            f"http://127.0.0.1:{listening.getsockname()[1]}", "2026-10-15", pauses=PAUSES, clock=lambda: now[0]
        )
        assert connection.open() is None
        now[0] += frozen
        assert connection.open() is None
        accepted = 0
        with suppress(TimeoutError):
            while True:
                listening.accept()[0].close()
                accepted += 1
        connection.close()
    assert accepted == connections


def test_faults_of_the_connection_are_transient() -> None:
    assert posted(b"") == ("transient", "connection_failed")
    assert posted(b"nonsense\r\n\r\n") == ("transient", "connection_failed")
    assert posted(b"HTTP/1.1 202 Accepted\r\nHANG", read_seconds=0.3) == ("transient", "timed_out")


@contextmanager
def dripping(answer: bytes) -> Iterator[str]:
    """A server that sends ``answer`` byte by byte, with pauses that no time-out of a socket notices."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.settimeout(60)
                whole_request(connection)
                for byte in answer:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.1)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(60)


def test_an_answer_by_drips_does_not_outlast_the_function() -> None:
    with dripping(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n") as url:
        connection = Connection(url, "2026-10-15", pauses=replace(PAUSES, read=0.5))
        assert connection.open() is None
        assert connection.post(b"{}", "pk_test").kind == "transient"  # all of the answer would be a delivery
        connection.close()


def test_a_cut_body_still_says_its_status() -> None:
    assert posted(b'HTTP/1.1 400 Bad\r\nContent-Length: 500\r\n\r\n{"errors"')[0] == "refused"
    assert posted(b"HTTP/1.1 202 Accepted\r\nContent-Length: 500\r\n\r\n")[0] == "delivered"


def test_nobody_listens_or_no_such_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    refused = Connection(f"http://127.0.0.1:{port}", "2026-10-15", pauses=PAUSES).open()
    assert refused is not None
    assert (refused.kind, refused.reason) == ("transient", "connection_failed")  # not a time-out
    unknown = Connection("http://klaviyo.invalid", "2026-10-15", pauses=PAUSES).open()
    assert unknown is not None
    assert unknown.reason == "name_not_resolved"


# Made for these tests and signed by itself: nobody vouches for it, and it is good for 127.0.0.1 otherwise.
SELF_SIGNED = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgoJdLuREOULiVeAr6
bQY+dWHrtigp9SDUgSbi7FuPPXShRANCAASSva5Cfg9LqnjTzckJxrTp0wKklZ3v
xnwJoul/inVMJRcltxmOdx779Ct34mcYm5DHW0P56+nhiT5Jprr3byHg
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUFC7p/GGV5b+ZuT+q6OkOrgryr4AwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNDIwMTA0NVoYDzIxMjYxMDMx
MjAxMDQ1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASSva5Cfg9LqnjTzckJxrTp0wKklZ3vxnwJoul/inVMJRcltxmOdx77
9Ct34mcYm5DHW0P56+nhiT5Jprr3byHgo28wbTAdBgNVHQ4EFgQUw7gsu9q25Sxq
uhlTZ8VZ7TvZjIcwHwYDVR0jBBgwFoAUw7gsu9q25SxquhlTZ8VZ7TvZjIcwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARhwR/AAABgglsb2NhbGhvc3QwCgYIKoZI
zj0EAwIDSAAwRQIhAMPFH1YrSOKbfqSDiGkQsdnBTugDNqMYRBZKGvCWVzHtAiAB
w/1ocbZMOUm92/YMQ+V4iF2Oqc90uJpLyrpEvKjlMg==
-----END CERTIFICATE-----
"""


@contextmanager
def behind_tls(certificate: Path) -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server with that certificate, and what is sent to it once TLS stands."""
    received: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            plain, _ = listening.accept()
            with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                received.append(b"connected")
                received.append(secured.recv(65_536))

        thread = threading.Thread(target=run)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}", received
        thread.join(60)


def test_tls_is_verified(tmp_path: Path) -> None:
    certificate = tmp_path / "self-signed.pem"
    certificate.write_text(SELF_SIGNED)
    with behind_tls(certificate) as (url, received):
        connection = Connection(url, "2026-10-15", pauses=PAUSES)
        refused = connection.open()
        answer = connection.post(b"{}", "pk_one") if refused is None else refused
        connection.close()
    assert answer.kind == "transient"
    assert b"pk_one" not in b"".join(received)
    assert refused is not None, "a certificate that nobody vouches for must not be taken"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 202 Accepted\r\nContent-Length: 500\r\n\r\n<html>", "transient"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 500\r\n\r\n<html>", "transient"),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 500\r\n\r\n" + errors((ROW + "3", "Bad")), "rows"),
    ],
)
def test_a_cut_body_counts_as_far_as_it_came(answer: bytes, kind: str) -> None:
    assert posted(answer)[0] == kind
