"""Log lines as `make logs` shows them, and which it picks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from sim.logs import Logs
from sim.queue import Queue, Sqs
from sim.time import Time
from tools import commands
from tools.operate import logs
from tools.operate.logs import Reader
from tools.operate.target import Relay

WEBHOOK = {
    "timestamp": "2026-11-24T18:00:01.123+00:00",
    "level": "INFO",
    "location": "_record:199",
    "service": "relay",
    "version": "0.1.0",
    "xray_trace_id": "1-65a1b2c3-0123456789abcdef01234567",
    "message": "webhook",
    "source": "stripe",
    "outcome": "accepted",
    "status": 200,
    "event_ids": [f"stripe:placed-order:evt_{n}" for n in range(5)],
    "parked": {"no_identifier": 2},
}
JOB = WEBHOOK | {
    "message": "job",
    "outcome": "delivered",
    "status": 202,
    "sources": ["stripe"],
    "probe": False,
    "reason": "",
}
PARKED = {"message": "parked", "sources": ["shopify"], "reason": "refused_by_klaviyo", "detail": "Invalid input."}
del JOB["parked"], JOB["source"]


def test_a_line_is_read_from_what_happened_to_the_details() -> None:
    text = logs.readable(WEBHOOK)
    assert text.startswith("18:00:01.123  webhook  stripe accepted 200 2 parked  ")
    assert "evt_2,… 2 more" in text
    assert "parked=no_identifier:2" in text
    assert not [word for word in ("relay", "_record", "INFO", "xray") if word in text]
    assert "probe" not in logs.readable(JOB)
    assert "slot_wait_ms=0" in logs.readable(JOB | {"slot_wait_ms": 0})


def test_mixed_reasons_are_shown_as_counts() -> None:
    line = WEBHOOK | {"parked": {"no_identifier": 2, "no_metric": 1}, "reason": "no_metric", "detail": "names none"}
    text = logs.readable(line)
    assert "200 3 parked" in text
    assert "parked=no_identifier:2,no_metric:1" in text
    assert "names none" not in text


def test_lines_are_picked_by_source_and_by_what_was_parked() -> None:
    lines: list[dict[str, Any]] = [WEBHOOK, JOB, PARKED]
    assert list(logs.chosen(lines)) == lines
    assert list(logs.chosen(lines, source="stripe")) == [WEBHOOK, JOB]
    assert list(logs.chosen(lines, parked=True)) == [WEBHOOK, PARKED]
    assert list(logs.chosen(lines, source="shopify", parked=True)) == [PARKED]


Asked = list[dict[str, Any]]


def unfiltered(groups: dict[str, list[str]]) -> tuple[Logs, Asked]:
    """Logs that filter no lines, so that the command must, and what they are asked."""
    asked: Asked = []
    return Logs(groups, filters=False, before=lambda _, options: asked.append(dict(options))), asked


def reader(receive: list[str], deliver: list[str]) -> Reader:
    """A relay with these log events and empty queues."""
    queues = ("EventsQueueUrl", "DeadLetterQueueUrl")
    client, _ = unfiltered({"r-group": receive, "d-group": deliver})
    services = {"logs": client, "sqs": Sqs({name: Queue(name, Time()) for name in queues})}
    outputs = {name: name for name in queues} | {"ReceiveLogGroup": "r-group", "DeliverLogGroup": "d-group"}
    return Reader(Relay(services.__getitem__, outputs, {}))


def test_lines_of_both_groups_come_in_order_and_metrics_stay_out() -> None:
    client, asked = unfiltered(
        {
            "receive": [
                '{"message":"webhook","timestamp":"2","id":"a.b"}',
                "START RequestId",
                '{"_aws":{},"id":"a.b"}',
            ],
            "deliver": ['{"message":"job","timestamp":"1","id":"a.b"}', '{"message":"job","timestamp":"3","id":"acb"}'],
        }
    )
    lines = logs.matching(client, ["receive", "deliver"], "a.b", since=2.5)
    assert [line["message"] for line in lines] == ["job", "webhook"]
    assert asked[0] == {"logGroupName": "receive", "startTime": 2500, "filterPattern": '"a.b"'}


@pytest.mark.parametrize("name", ["Zo\u00eb-17", 'a"b', "a\\b", "-NabC"])
def test_an_id_is_looked_for_as_a_line_writes_it(name: str) -> None:
    text = json.dumps({"message": "job", "event_ids": [name]}, ensure_ascii=False)
    client, asked = unfiltered({"deliver": [text]})
    assert len(logs.matching(client, ["deliver"], name)) == 1
    pattern = json.loads(asked[0]["filterPattern"])
    assert pattern in text
    assert asked[0]["filterPattern"].isascii() == name.isascii()


def test_an_event_of_ones_own_is_found_by_its_unique_id() -> None:
    name = "sha256:" + hashlib.sha256(b"order-17").hexdigest()[:32]
    text = json.dumps({"message": "job", "timestamp": "2", "outcome": "delivered", "event_ids": [name]})
    printed = list(logs.by_id(reader([], [text]), "order-17"))
    assert printed[-1].startswith(f"{name}: delivered")


def test_lines_of_one_kind_are_those_and_no_others() -> None:
    lines = ['{"message":"job","timestamp":"1","detail":"deferred"}', '{"message":"deferred","timestamp":"2"}']
    client, asked = unfiltered({"deliver": lines})
    assert [line["timestamp"] for line in logs.matching(client, ["deliver"], kind="deferred")] == ["2"]
    assert asked[0]["filterPattern"] == '{ $.message = "deferred" }'


REQUEST = "8f507cfc-0000-4697-b07a-ac58fc914c95"
ROUTINE = [
    f"START RequestId: {REQUEST} Version: $LATEST\n",
    f"END RequestId: {REQUEST}\n",
    f"REPORT RequestId: {REQUEST}\tDuration: 15.74 ms\tBilled Duration: 147 ms\tMemory Size: 128 MB\n",
    "INIT_START Runtime Version: python:3.13.v1\n",
    "\n",
    json.dumps({"type": "platform.report", "record": {"requestId": REQUEST, "status": "success"}}),
    json.dumps({"type": "platform.start", "record": {"requestId": REQUEST}}),
    json.dumps({"_aws": {}, "Jobs": 1}),
]
FAILURES = {
    f"2026-11-24T18:00:01.123Z {REQUEST} Task timed out after 30.00 seconds\n\n": "Task timed out after 30.00 seconds",
    f"RequestId: {REQUEST} Error: Runtime exited with error: signal: killed\nRuntime.ExitError\n": "signal: killed",
    f"[ERROR] Crashed: KeyError at batch.py:9\nTraceback (most recent call last):\n {REQUEST}": "at batch.py:9",
    f"REPORT RequestId: {REQUEST}\tDuration: 30000.00 ms\tStatus: timeout\n": "Status: timeout",
    json.dumps(
        {"type": "platform.report", "record": {"requestId": REQUEST, "status": "timeout"}}
    ): "platform.report timeout",
    json.dumps({"errorType": "Crashed", "errorMessage": "KeyError", "requestId": REQUEST}): "Crashed: KeyError",
    f"{{not JSON {REQUEST}": "{not JSON",
}


def printed(relay: Reader, *arguments: str) -> Iterator[str]:
    return logs.answers(relay, commands.parser("logs")[0].parse_args(arguments))


@pytest.mark.parametrize(("text", "words"), FAILURES.items())
def test_failure_that_lambda_reports_is_shown_with_time_and_function(text: str, words: str) -> None:
    (line,) = printed(reader([*ROUTINE], [*ROUTINE, text]))
    assert line.startswith("18:00:01.123  lambda  deliver ")
    assert words in line
    assert "\n" not in line


def test_routine_lines_of_lambda_are_not_shown() -> None:
    assert list(printed(reader(ROUTINE, ROUTINE))) == ["No log line matches."]


def test_failure_is_shown_with_any_source_but_not_as_parked() -> None:
    crashed = reader([next(iter(FAILURES))], [json.dumps(PARKED | {"timestamp": "2026-11-24T18:00:00.000+00:00"})])
    assert [line.split("  ")[1] for line in printed(crashed, "--source", "shopify")] == ["parked", "lambda"]
    assert [line.split("  ")[1] for line in printed(crashed, "--source", "stripe")] == ["lambda"]
    assert [line.split("  ")[1] for line in printed(crashed, "--parked")] == ["parked"]


def test_failure_of_an_events_invocation_is_shown_with_its_id() -> None:
    job = json.dumps(JOB | {"request_id": REQUEST, "timestamp": "2026-11-24T18:00:01.000+00:00"})
    other = f"2026-11-24T18:00:09.000Z {REQUEST[:-1]}6 Task timed out after 30.00 seconds"
    lines = list(printed(reader([], [job, next(iter(FAILURES)), other]), "--id", "evt_1"))
    assert [line.split("  ")[1] for line in lines[:2]] == ["job", "lambda"]
    assert len([line for line in lines if "timed out" in line]) == 1


def test_failure_is_found_by_the_id_of_its_invocation() -> None:
    assert "timed out" in next(printed(reader([next(iter(FAILURES))], []), "--id", REQUEST))
