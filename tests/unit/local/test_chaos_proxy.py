"""The proxy does to a request what its fault says, and to others nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import urllib3

from local.chaos.proxy import STEP, Proxy
from local.chaos.schedule import Fault
from tests.integration.support import until

INVOKE = "/2015-03-31/functions/relay-DeliverFunction-1/invocations"
SEND = {"X-Amz-Target": "AmazonSQS.SendMessageBatch"}


class Upstream:
    """Takes everything and answers with what it was sent as ``Successful``."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Quiet."""

            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                upstream.bodies.append(document)
                answer = json.dumps({"Successful": document.get("Entries", [])}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def between() -> Iterator[tuple[Upstream, Proxy]]:
    upstream = Upstream()
    with Proxy(1) as proxy:
        proxy.target = f"http://127.0.0.1:{upstream.server.server_address[1]}"
        proxy.deliver = "DeliverFunction"
        yield upstream, proxy
    upstream.server.shutdown()
    upstream.server.server_close()


def post(proxy: Proxy, path: str, document: Any, headers: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
    return urllib3.request("POST", proxy.url + path, json=document, headers=headers, retries=False, timeout=60)


ENTRIES = {"Entries": [{"Id": str(number)} for number in range(8)]}


def test_without_a_fault_everything_passes(between: tuple[Upstream, Proxy]) -> None:
    upstream, proxy = between
    proxy.faults = {"table away": Fault(("UpdateItem",), "dropped", chance=1.0)}
    assert post(proxy, "/", ENTRIES, SEND).json() == {"Successful": ENTRIES["Entries"]}
    assert upstream.bodies == [ENTRIES]
    assert not proxy.happened


def test_a_refusal_is_one_that_aws_would_give(between: tuple[Upstream, Proxy]) -> None:
    upstream, proxy = between
    proxy.faults = {"refuses": Fault(("SendMessageBatch",), "refuse", chance=1.0)}
    answer = post(proxy, "/", ENTRIES, SEND)
    assert (answer.status, answer.json()["__type"]) == (503, "ServiceUnavailable")
    assert upstream.bodies == []
    assert proxy.happened == {"refuses": 1}


def test_some_entries_are_listed_as_failed_and_only_the_others_go(between: tuple[Upstream, Proxy]) -> None:
    upstream, proxy = between
    proxy.faults = {"failed": Fault(("SendMessageBatch",), "failed", chance=1.0)}
    answer = post(proxy, "/", ENTRIES, SEND).json()
    gone = {entry["Id"] for body in upstream.bodies for entry in body["Entries"]}
    failed = {entry["Id"] for entry in answer["Failed"]}
    assert failed
    assert not gone & failed
    assert gone | failed == {entry["Id"] for entry in ENTRIES["Entries"]}
    assert {entry["Id"] for entry in answer["Successful"]} == gone


@pytest.mark.parametrize(("does", "done"), [("unheard", 1), ("dropped", 0)])
def test_an_answer_is_lost_after_or_before_it_was_done(between: tuple[Upstream, Proxy], does: str, done: int) -> None:
    upstream, proxy = between
    proxy.faults = {"lost": Fault(("SendMessageBatch",), does, chance=1.0)}
    with pytest.raises(urllib3.exceptions.HTTPError):
        post(proxy, "/", ENTRIES, SEND)
    assert len(upstream.bodies) == done


@pytest.mark.parametrize("does", ["twice", "later"])
def test_a_batch_is_handed_over_once_more(between: tuple[Upstream, Proxy], does: str) -> None:
    upstream, proxy = between
    proxy.faults = {"again": Fault(("Invoke deliver",), does, chance=1.0, seconds=0.3 if does == "later" else 0.0)}
    batch = {"Records": [{"messageId": "m"}]}
    assert post(proxy, INVOKE, batch).status == 200
    until(lambda: len(upstream.bodies) == 2, "the second time")
    assert upstream.bodies == [batch, batch]
    until(lambda: proxy.under_way == 0, "the end of both")


def test_records_come_in_another_order(between: tuple[Upstream, Proxy]) -> None:
    upstream, proxy = between
    proxy.faults = {"order": Fault(("Invoke deliver",), "shuffle", chance=1.0)}
    records = [{"messageId": str(number)} for number in range(30)]
    assert post(proxy, INVOKE, {"Records": records}).status == 200
    (body,) = upstream.bodies
    assert body["Records"] != records
    assert sorted(body["Records"], key=records.index) == records


def test_a_slow_answer_comes(between: tuple[Upstream, Proxy]) -> None:
    _, proxy = between
    proxy.faults = {"slow": Fault(("SendMessageBatch",), "slow", chance=1.0, seconds=0.3)}
    began = time.monotonic()
    assert post(proxy, "/", ENTRIES, SEND).status == 200
    assert time.monotonic() - began >= 0.3


def test_a_step_is_told_whether_to_die(between: tuple[Upstream, Proxy]) -> None:
    _, proxy = between
    proxy.faults = {"killed": Fault(("deliver posted",), "kill", chance=1.0)}
    path = f"{proxy.url}{STEP}deliver/"
    assert urllib3.request("GET", path + "posted").json() == {"does": "kill", "seconds": 0.0}
    assert urllib3.request("GET", path + "posting").json() == {}
