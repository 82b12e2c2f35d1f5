"""The pacing table's client over a real socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from handler import aws
from handler.delivery.pacing_table import DynamoTable
from handler.errors import TableUnavailable
from handler.pauses import PAUSES
from tests.unit.delivery.test_klaviyo import whole_request

ITEM = json.dumps({"Item": {"id": {"S": "one"}, "next": {"N": "5"}}}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n\r\n%s" % (
    len(ITEM),
    ITEM,
)


@contextmanager
def server(*connections: int) -> Iterator[str]:
    """Answers so many requests on each connection, and hangs up on the next one unanswered."""
    current: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)

        def run() -> None:
            for answers in connections:
                connection, _ = listening.accept()
                with connection, suppress(OSError):  # the client ends when it has its answer
                    current.append(connection)
                    connection.settimeout(60)
                    for _ in range(answers):
                        whole_request(connection)
                        connection.sendall(ANSWER)
                    whole_request(connection)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        with suppress(OSError):
            current[-1].shutdown(socket.SHUT_RDWR)
        thread.join(60)


def table(url: str, monkeypatch: pytest.MonkeyPatch) -> DynamoTable:
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = aws.client("dynamodb", connect=30, read=60, attempts=1)
    return DynamoTable(client, "t", "a", clock=lambda: 0.0, pauses=PAUSES)


def test_a_connection_that_died_while_the_function_was_frozen_costs_no_deferral(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with server(1, 1) as url:
        dynamo = table(url, monkeypatch)
        assert dynamo.read()["next"] == 5
        assert dynamo.read()["next"] == 5


def test_a_table_that_hangs_up_again_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(1, 0) as url:
        dynamo = table(url, monkeypatch)
        dynamo.read()
        with pytest.raises(TableUnavailable):
            dynamo.read()
