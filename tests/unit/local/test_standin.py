"""The Klaviyo stand-in: as strict as Klaviyo's documents, and failing as it is set to."""

from __future__ import annotations

import copy
import gzip
import http.client
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import klaviyo_checks as checks
from local import standin
from local.standin import ADMIN, PATH, Client, Klaviyo, Limits, Server, Sliding, Window

NOW = datetime(2026, 11, 24, tzinfo=UTC)
HEADERS = {
    "Authorization": f"Klaviyo-API-Key {standin.DEVELOPMENT_KEY}",
    "Content-Type": "application/vnd.api+json",
    "revision": "2026-10-15",
}
WIDE = Limits(per_second=10_000, per_minute=10_000)
AT = "/data/attributes/events-bulk-create/data"


def row(number: int = 0, **attributes: Any) -> dict[str, Any]:
    event = {
        "metric": {"data": {"type": "metric", "attributes": {"name": "Placed Order"}}},
        "properties": {"OrderId": str(number)},
        "time": "2026-11-01T10:00:00Z",
        "value": 9.99,
        "value_currency": "EUR",
        "unique_id": f"order-{number}",
    } | attributes
    profile = {"type": "profile", "attributes": {"email": f"person{number}@mail.example"}}
    return {
        "type": "event-bulk-create",
        "attributes": {"profile": {"data": profile}, "events": {"data": [{"type": "event", "attributes": event}]}},
    }


def job(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"type": "event-bulk-create-job", "attributes": {"events-bulk-create": {"data": list(rows)}}}}


def profile_of(entry: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = entry["attributes"]["profile"]["data"]
    return data


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def pointers(document: Any) -> list[str]:
    return [problem.as_error()["source"]["pointer"] for problem in checks.problems(document, NOW)]


# ------------------------------------------------------------------ what it refuses


def test_a_whole_event_is_taken() -> None:
    entry = row()
    profile_of(entry)["attributes"] |= {
        "phone_number": "+447911123456",
        "external_id": "c1",
        "location": {"city": "London", "latitude": "51.5", "longitude": -0.12},
        "properties": {"plan": "pro", "tags": ["a"]},
    }
    profile_of(entry)["meta"] = {
        "patch_properties": {"append": {"a": 1}, "unappend": {"b": 2}, "unset": ["c"]},
        "patch_identifiers": {"append": {"email": ["b@mail.example"]}},
    }
    entry["attributes"]["backfill"] = True
    assert pointers(job(entry, row(1))) == []


@pytest.mark.parametrize(
    "change",
    [
        {"time": 1_700_000_000},
        {"time": "1700000000"},
        {"time": "yesterday"},
        {"time": "1989-12-31T00:00:00Z"},
        {"time": "2028-01-01T00:00:00Z"},
        {"value": "9.99"},
        {"value": float("inf")},
        {"value_currency": "euro"},
        {"unique_id": ""},
        {"unique_id": "x" * 256},
        {"unique_id": 7},
        {"properties": None},
        {"properties": {str(n): n for n in range(401)}},
        {"properties": {"long": "é" * 50_001}},
        {"properties": {"list": [0] * 4_001}},
        {"properties": {"big": 2**63}},
        {"properties": {"deep": nested(10)}},
        {"metric": {"data": {"type": "metric", "attributes": {"name": "m" * 128}}}},
        {"metric": {"data": {"type": "metric", "attributes": {}}}},
        {"metric": "Placed Order"},
        {"surprise": 1},
    ],
)
def test_a_bad_event_is_pointed_at(change: dict[str, Any]) -> None:
    places = pointers(job(row(0), row(1, **change), row(2)))
    assert places
    assert all(pointer.startswith(f"{AT}/1/attributes/events/data/0/attributes") for pointer in places)


@pytest.mark.parametrize(
    "change",
    [
        {"properties": {str(n): n for n in range(400)}},
        {"properties": {"long": "é" * 50_000}},
        {"properties": {"list": [0] * 4_000}},
        {"properties": {"big": 2**63 - 1, "small": -(2**63)}},
        {"properties": {"deep": nested(9)}},
        {"unique_id": "x" * 255},
        {"metric": {"data": {"type": "metric", "attributes": {"name": "m" * 127}}}},
        {"time": "2026-11-01T10:00:00.123+02:00"},
    ],
)
def test_the_limits_themselves_are_allowed(change: dict[str, Any]) -> None:
    assert pointers(job(row(0, **change))) == []


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"email": ""},
        {"email": None, "first_name": "Ada"},
        {"email": "no-address"},
        {"email": "a" * 90 + "@mail.example"},
        {"phone_number": "020 7946 0000"},
        {"email": "a@mail.example", "phone_number": "+44"},
        {"external_id": "x" * 256},
        {"email": "a@mail.example", "consent": True},
        {"email": "a@mail.example", "properties": {str(n): "x" * 1_000 for n in range(100)}},
    ],
)
def test_a_bad_profile_is_pointed_at(attributes: dict[str, Any]) -> None:
    entry = row(1)
    profile_of(entry)["attributes"] = attributes
    assert all(pointer.startswith(f"{AT}/1/attributes/profile") for pointer in pointers(job(row(0), entry)))
    assert pointers(job(row(0), entry))


def test_a_profile_with_only_an_id_is_enough() -> None:
    entry = row()
    profile_of(entry).update(id="01ABC", attributes={})
    assert pointers(job(entry)) == []


def test_the_same_unique_id_twice_in_a_request_is_refused_at_the_second() -> None:
    assert pointers(job(row(0), row(1), row(0))) == [f"{AT}/2/attributes/events/data/0/attributes/unique_id"]


def test_a_thousand_events_are_allowed_and_no_more() -> None:
    assert pointers(job(*(row(n) for n in range(1_000)))) == []
    assert pointers(job(*(row(n) for n in range(1_001)))) == [AT]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_whatever_json_comes_is_judged(document: Any) -> None:
    assert pointers(document)
    assert pointers(job(document))


# ----------------------------------------------------------------------- the rate


@given(st.floats(0, 1), st.lists(st.floats(0, 5), max_size=60))
def test_a_fixed_window_lets_in_what_is_allowed(phase: float, arrivals: list[float]) -> None:
    window = Window(3, 1.0, phase)
    taken: dict[int, int] = {}
    for now in sorted(arrivals):
        left, rest = window.look(now)
        assert 0 <= rest <= 1.0 + 1e-6
        if left:
            window.used += 1
            taken[window.number] = taken.get(window.number, 0) + 1
    assert all(number <= 3 for number in taken.values())


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_the_worst_second_is_that_of_any_phase(arrivals: list[float]) -> None:
    sliding = Sliding(1.0)
    for now in sorted(arrivals):
        sliding.add(now)
    assert sliding.worst == max(
        sum(1 for other in arrivals if begin <= other and other - begin < 1.0) for begin in arrivals
    )


# ------------------------------------------------------------------ over the wire


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(Klaviyo(WIDE, seed=1)) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield started
        started.shutdown()
        thread.join()


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.url)


def call(
    server: Server,
    document: Any = None,
    *,
    method: str = "POST",
    path: str = PATH,
    raw: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of the answer; a header given as ``""`` is left out."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.url).port or 0, timeout=60)
    body = raw if raw is not None else json.dumps(document).encode()
    changed = {name: value for name, value in (HEADERS | (headers or {})).items() if value}
    try:
        connection.request(method, path, body, changed)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    returned = {name.lower(): value for name, value in answer.getheaders()}
    return answer.status, returned, json.loads(text) if text.startswith(b"{") else text.decode()


def test_accepted_events_are_answered_202_without_a_body_and_kept(server: Server, client: Client) -> None:
    status, headers, body = call(server, job(row(0), row(1)))
    assert (status, body) == (202, "")
    assert headers["ratelimit-limit"] == "10000"
    assert headers["ratelimit-remaining"] == "9999"
    assert [event["unique_id"] for event in client.events()] == ["order-0", "order-1"]
    assert client.events()[0]["entry"] == row(0)
    stats = client.stats()
    assert (stats["jobs"], stats["stored"], stats["requests"], stats["worst_second"]) == (1, 2, 1, 1)


def test_a_path_with_a_slash_at_its_end_is_the_same(server: Server) -> None:
    assert call(server, job(row(0)), path=PATH + "/")[0] == 202


def test_one_bad_row_and_nothing_is_taken(server: Server, client: Client) -> None:
    status, _, body = call(server, job(row(0), row(1, time=5)))
    assert status == 400
    assert body["errors"][0]["source"]["pointer"].startswith(f"{AT}/1/")
    assert client.stats()["stored"] == 0


def test_repeats_are_accepted_and_discarded(server: Server, client: Client) -> None:
    other = row(0)
    profile_of(other)["attributes"]["email"] = "other@mail.example"
    for document in (job(row(0)), job(row(0), row(1)), job(other)):
        assert call(server, document)[0] == 202
    stats = client.stats()
    assert (stats["received"], stats["stored"], stats["repeats"]) == (4, 3, 1)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Klaviyo-API-Key pk_unknown"}, 401),
        ({"Authorization": f"Bearer {standin.DEVELOPMENT_KEY}"}, 401),
        ({"Content-Type": "text/plain"}, 415),
        ({"revision": ""}, 400),
        ({"revision": "new"}, 400),
        ({"revision": "2030-01-01"}, 400),
        ({"revision": "2024-01-15", "X-Klaviyo-Revision-Fall-Forward-Opt-Out": "1"}, 410),
        ({"revision": "2024-01-15"}, 202),
    ],
)
def test_required_headers(server: Server, headers: dict[str, str], status: int) -> None:
    answered, _, body = call(server, job(row(0)), headers=headers)
    assert answered == status
    assert answered == 202 or body["errors"][0]["status"] == status


def test_other_paths_and_methods(server: Server) -> None:
    assert call(server, job(row(0)), path="/api/events")[0] == 404
    assert call(server, method="GET")[0] == 405


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff{}", b'{"data": NaN}', b"[" * 100_000])
def test_what_is_not_json_is_refused(server: Server, raw: bytes) -> None:
    assert call(server, raw=raw)[0] == 400


def test_five_megabytes_are_the_most_compressed_or_not(server: Server) -> None:
    document = job(*(row(n, properties={str(k): "x" * 9_850 for k in range(5)}) for n in range(100)))
    exact = json.dumps(document).encode()
    exact += b" " * (5_000_000 - len(exact))
    assert call(server, raw=exact)[0] == 202
    assert call(server, raw=exact + b" ")[0] == 413
    assert call(server, raw=gzip.compress(exact), headers={"Content-Encoding": "gzip"})[0] == 202
    assert call(server, raw=gzip.compress(exact + b" "), headers={"Content-Encoding": "gzip"})[0] == 413
    assert call(server, raw=b"no gzip", headers={"Content-Encoding": "gzip"})[0] == 400


def test_a_full_window_answers_429_and_says_for_how_long(server: Server, client: Client) -> None:
    client.limits(per_second=100, per_minute=3, minute=60)
    answers = [call(server, job(row(n))) for n in range(5)]
    statuses = [status for status, _, _ in answers]
    # The window's phase is random: it may begin again between two requests, once.
    assert statuses.count(429) in (0, 1, 2)
    assert client.stats()["limited"] == statuses.count(429)
    for status, headers, _ in answers:
        assert ("retry-after" in headers) == (status == 429)
        assert ("ratelimit-reset" in headers) == (status != 429)
    waits = [int(headers["retry-after"]) for status, headers, _ in answers if status == 429]
    assert all(1 <= wait <= 60 for wait in waits)


def test_a_new_key_replaces_the_old_one(server: Server, client: Client) -> None:
    client.key("pk_new")
    assert call(server, job(row(0)))[0] == 401
    assert call(server, job(row(0)), headers={"Authorization": "Klaviyo-API-Key pk_new"})[0] == 202


# --------------------------------------------------------------------------- faults


def test_a_fault_answers_as_set_and_as_often_as_set(server: Server, client: Client) -> None:
    client.faults({"status": 503, "headers": {"Retry-After": "7"}, "body": {"errors": []}, "times": 2})
    answers = [call(server, job(row(0))) for _ in range(3)]
    assert [status for status, _, _ in answers] == [503, 503, 202]
    assert answers[0][1]["retry-after"] == "7"
    assert client.stats()["statuses"] == {"202": 1, "503": 2}


def test_an_html_page_looks_like_one(server: Server, client: Client) -> None:
    client.faults({"status": 403, "headers": {"cf-mitigated": "challenge"}, "body": "<html>wait</html>"})
    status, headers, body = call(server, job(row(0)))
    assert (status, headers["content-type"], headers["cf-mitigated"], body) == (
        403,
        "text/html",
        "challenge",
        "<html>wait</html>",
    )


@pytest.mark.parametrize("store", [False, True])
def test_a_connection_is_dropped_before_or_after_storing(server: Server, client: Client, store: bool) -> None:
    client.faults({"drop": True, "store": store, "times": 1})
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        call(server, job(row(0)))
    assert client.stats()["stored"] == int(store)
    assert client.stats()["statuses"] == {"0": 1}
    assert call(server, job(row(0)))[0] == 202
    assert client.stats()["stored"] == 1


def test_an_answer_is_cut_in_its_middle(server: Server, client: Client) -> None:
    client.faults({"cut": True, "status": 202, "store": True, "body": "garbage"})
    with pytest.raises(http.client.IncompleteRead):
        call(server, job(row(0)))
    assert client.stats()["stored"] == 1


def test_rows_are_refused_with_pointers_until_they_are_gone(server: Server, client: Client) -> None:
    client.faults({"point": True, "matching": "order-[13]", "detail": "No such person."})
    status, _, body = call(server, job(*(row(n) for n in range(5))))
    assert status == 400
    assert [error["source"]["pointer"].split("/")[5] for error in body["errors"]] == ["1", "3"]
    assert body["errors"][0]["detail"] == "No such person."
    assert call(server, job(row(0), row(2), row(4)))[0] == 202
    assert client.stats()["stored"] == 3


def test_a_delay_comes_before_the_answer(server: Server, client: Client) -> None:
    client.faults({"delay": 0.2, "times": 1})
    started = time.monotonic()
    assert call(server, job(row(0)))[0] == 202
    assert time.monotonic() - started >= 0.2


def test_faults_can_skip_and_wait_for_their_time(server: Server, client: Client) -> None:
    client.faults({"status": 500, "skip": 1, "times": 1}, {"status": 502, "after": 3600}, {"status": 504, "until": 0})
    assert [call(server, job(row(n)))[0] for n in range(3)] == [202, 500, 202]


def test_an_unknown_field_of_a_fault_is_an_error(server: Server) -> None:
    status, _, body = call(server, [{"sometimes": True}], path=f"{ADMIN}faults")
    assert status == 400
    assert "sometimes" in body["error"]


def test_reset_forgets_everything(server: Server, client: Client) -> None:
    client.faults({"status": 500})
    call(server, job(row(0)))
    client.reset()
    assert call(server, job(row(0)))[0] == 202
    assert client.stats()["requests"] == 1


def test_a_long_ledger_comes_in_pages(server: Server) -> None:
    call(server, job(*(row(n) for n in range(20))))
    client = Client(server.url, page=7)
    assert [event["unique_id"] for event in client.events()] == [f"order-{n}" for n in range(20)]
    assert len(client.requests()) == 1


def test_fifty_at_once_are_all_counted(server: Server, client: Client) -> None:
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda n=n: statuses.append(call(server, job(row(n)))[0])) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [202] * 50
    assert client.stats()["stored"] == 50


def test_addresses_that_klaviyo_drops_are_counted(server: Server, client: Client) -> None:
    entry = copy.deepcopy(row(0))
    profile_of(entry)["attributes"]["email"] = "someone@example.com"
    call(server, job(entry, row(1)))
    assert client.stats()["reserved_addresses"] == 1
