"""Dollars for a million events, by part: a small model of what AWS bills, on measured sizes and durations.

Prices are inputs with a date (``prices.toml``). What cannot be measured without
AWS is a named assumption: how long SQS, the table and Klaviyo take to answer,
and that a Lambda gets ``memory / 1,769 MB`` of a processor (Lambda developer
guide, "Configure Lambda function memory").
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handler import messages

from .measure import table

MILLION = 1_000_000
FULL_PROCESSOR_MB = 1_769
CHUNK = 65_536
_FILE = tomllib.loads((Path(__file__).parent / "prices.toml").read_text("utf-8"))
AS_OF: str = _FILE["as_of"]
PRICES: dict[str, float] = _FILE["dollars"]
PARTS = ("HTTP API", "receive", "SQS", "deliver", "DynamoDB", "logs", "data out")


@dataclass(frozen=True, slots=True)
class Measured:
    """Sizes in bytes, CPU times in seconds of a whole processor.

    ``receive_cpu`` is a webhook's with one event and ``receive_cpu_event`` what
    each further one adds; the same for an invocation of ``deliver`` and the logs.
    ``receive_start`` and ``deliver_start`` are cold starts.
    """

    event_bytes: float
    receive_cpu: float
    receive_cpu_event: float
    receive_log: float
    deliver_cpu: float
    deliver_cpu_event: float
    deliver_log: float
    deliver_log_event: float
    receive_start: float
    deliver_start: float


@dataclass(frozen=True, slots=True)
class Setup:
    """What the template sets, and what is assumed of AWS and Klaviyo (seconds)."""

    receive_mb: int = 512
    deliver_mb: int = 1_024
    window: float = 5.0
    sqs_answer: float = 0.010
    table_answer: float = 0.005
    slot_lead: float = 0.05
    klaviyo_answer: float = 0.3
    secret_answer: float = 0.02
    access_log: float = 330.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """``a_second`` events a second, ``webhook`` events in each webhook; ``received`` messages in one SQS receive."""

    name: str
    a_second: float
    webhook: int
    received: int


MEMORIES = (256, 512, 1_024, 1_769)  # a full batch alone takes deliver 100 MB
WINDOWS = (1.0, 2.0, 5.0)  # who signs up should not wait longer for a welcome
SECOND = 1.0  # what a setting must keep, or it is cheap at somebody's expense: see ``waits``


def waits(measured: Measured, setup: Setup) -> tuple[float, float]:
    """Return the seconds until a sender has its answer, and from the window's end until a lone event is at Klaviyo.

    Either function had to be started for it, which is when it is slowest.
    """
    door = (measured.receive_start + measured.receive_cpu) * _stretch(setup.receive_mb)
    deliver = (measured.deliver_start + measured.deliver_cpu) * _stretch(setup.deliver_mb)
    answers = setup.secret_answer + setup.slot_lead + 2 * setup.table_answer + setup.klaviyo_answer
    return door + setup.secret_answer + setup.sqs_answer, deliver + answers


def cheapest(traffic: Traffic, measured: Measured) -> Setup | None:
    """Return the cheapest of ``MEMORIES`` and ``WINDOWS`` whose waits stay within a second, or ``None``."""
    setups = [
        Setup(receive_mb=receive, deliver_mb=deliver, window=window)
        for receive in MEMORIES
        for deliver in MEMORIES
        for window in WINDOWS
    ]
    kept = [setup for setup in setups if max(waits(measured, setup)) <= SECOND]
    return min(kept, key=lambda setup: sum(dollars(traffic, measured, setup).values()), default=None)


def _stretch(memory: int) -> float:
    """Return how much longer a whole processor's second takes."""
    return max(1.0, FULL_PROCESSOR_MB / memory)


def chunks(size: float) -> int:
    """Return the requests that SQS bills: one for each 64 KiB."""
    return max(1, math.ceil(size / CHUNK))


def dollars(traffic: Traffic, measured: Measured, setup: Setup) -> dict[str, float]:
    """Return the dollars for a million events by part (``PARTS``)."""
    webhooks = MILLION / traffic.webhook
    in_message = min(traffic.webhook, messages.CHUNK_EVENTS, int(messages.CHUNK_BYTES // (measured.event_bytes + 60)))
    per_webhook = math.ceil(traffic.webhook / in_message)
    weight = min(in_message, traffic.webhook) * (measured.event_bytes + 60) + 100
    invocations = MILLION / _events_an_invocation(traffic, in_message, setup, weight)
    jobs = max(invocations, MILLION / 1_000)
    return {
        "HTTP API": webhooks * math.ceil(traffic.webhook * measured.event_bytes / 524_288) * PRICES["http_api_request"],
        "receive": _receive(traffic, webhooks, per_webhook, measured, setup),
        "SQS": _queue(webhooks, per_webhook, weight, traffic.received),
        "deliver": _deliver(invocations, jobs, measured, setup),
        # A slot, and that its job was accepted, which a function writes at most every five seconds.
        "DynamoDB": jobs * (2 * PRICES["dynamodb_write"] + PRICES["dynamodb_read"]),
        "logs": _logs(webhooks, invocations, measured, setup) * PRICES["logs_gb"],
        "data out": MILLION * measured.event_bytes / 1e9 * PRICES["data_out_gb"],
    }


def _events_an_invocation(traffic: Traffic, in_message: int, setup: Setup, weight: float) -> float:
    """Return what the batching window gathers, at most 6 MB or 10,000 messages, at least one message."""
    most = min(10_000.0, 6_000_000 / (weight * 1.1 + 700)) * in_message
    return min(most, max(float(in_message), traffic.a_second * setup.window))


def _lambda(memory: int, cpu: float, waiting: float) -> float:
    """Return the dollars of one invocation: the processor's share grows with memory, waiting does not shrink."""
    seconds = cpu * _stretch(memory) + waiting
    return PRICES["lambda_request"] + math.ceil(seconds * 1e3) / 1e3 * memory / 1_024 * PRICES["lambda_gb_second"]


def _receive(traffic: Traffic, webhooks: float, per_webhook: int, measured: Measured, setup: Setup) -> float:
    cpu = measured.receive_cpu + measured.receive_cpu_event * (traffic.webhook - 1)
    return webhooks * _lambda(setup.receive_mb, cpu, setup.sqs_answer * math.ceil(per_webhook / 10))


def _queue(webhooks: float, per_webhook: int, weight: float, received: int) -> float:
    """Return the dollars of sending, receiving and deleting in batches; the surcharge of fair queues is on each."""
    batches = [min(10, per_webhook - start) for start in range(0, per_webhook, 10)]
    sends = webhooks * sum(chunks(count * weight) for count in batches)
    together = webhooks * per_webhook / received
    requests = sends + together * chunks(received * weight) + together
    return requests * (PRICES["sqs_request"] + PRICES["sqs_fair_request"])


def _deliver(invocations: float, jobs: float, measured: Measured, setup: Setup) -> float:
    cpu = measured.deliver_cpu + measured.deliver_cpu_event * MILLION / invocations
    waiting = (setup.slot_lead + 2 * setup.table_answer + setup.klaviyo_answer) * jobs / invocations
    return invocations * _lambda(setup.deliver_mb, cpu, waiting)


def _logs(webhooks: float, invocations: float, measured: Measured, setup: Setup) -> float:
    """Return the gigabytes that a million events log."""
    # The door logs an event's id as deliver does; a webhook's first one is in its own line already.
    door = webhooks * (measured.receive_log + setup.access_log) + (MILLION - webhooks) * measured.deliver_log_event
    return (door + invocations * measured.deliver_log + MILLION * measured.deliver_log_event) / 1e9


TRAFFIC = (
    Traffic("1 a webhook, one in 10 s", 0.1, 1, 1),
    Traffic("1 a webhook, 10 a second", 10, 1, 1),
    Traffic("1 a webhook, backlog", 2_500, 1, 10),
    Traffic("10 a webhook, 10 a second", 10, 10, 1),
    Traffic("1,000 a webhook, 10 a second", 10, 1_000, 10),
)


def run(measured: Measured) -> dict[str, Any]:
    """Calculate the bill by traffic, and what memory and window change of it; print the tables."""
    setup = Setup()
    bills = {traffic.name: dollars(traffic, measured, setup) for traffic in TRAFFIC}
    rows = [
        (name, *(f"{bill[part]:.2f}" for part in PARTS), f"{sum(bill.values()):.2f}") for name, bill in bills.items()
    ]
    title = f"Dollars for a million events (us-east-1, prices as of {AS_OF}, no free tier)"
    print(table(title, ("events", *PARTS, "all"), rows))
    by_setup = _setups(TRAFFIC[1], measured)
    best = cheapest(TRAFFIC[1], measured)
    print(f"The cheapest whose cold starts keep a sender, and a lone event beyond the window, {SECOND:g} s at most:")
    print(_named(best) if best else "none: this machine is too slow for that", end="\n\n")
    return {
        "prices_as_of": AS_OF,
        "by_traffic": {name: _rounded(bill) for name, bill in bills.items()},
        "by_setup": by_setup,
        "cheapest": None if best is None else [best.receive_mb, best.deliver_mb, best.window],
    }


def _named(setup: Setup) -> str:
    return f"receive {setup.receive_mb} MB, deliver {setup.deliver_mb} MB, window {setup.window:g} s"


def _rounded(bill: dict[str, float]) -> dict[str, float]:
    return {part: round(amount, 3) for part, amount in bill.items()} | {"all": round(sum(bill.values()), 3)}


def _setups(traffic: Traffic, measured: Measured) -> list[dict[str, Any]]:
    """Compare the same traffic with other memory sizes and windows."""
    changes: Sequence[tuple[int, int, float]] = (
        (256, 256, 5),
        (256, 512, 5),
        (512, 512, 5),
        (512, 1_024, 5),
        (1_024, 1_024, 5),
        (1_769, 1_769, 5),
        (512, 512, 1),
        (512, 512, 20),
    )
    by_traffic: list[dict[str, Any]] = []
    for receive_mb, deliver_mb, window in changes:
        setup = replace(Setup(), receive_mb=receive_mb, deliver_mb=deliver_mb, window=window)
        bill = dollars(traffic, measured, setup)
        by_traffic.append(
            {
                "receive_mb": receive_mb,
                "deliver_mb": deliver_mb,
                "window_s": window,
                "receive": round(bill["receive"], 3),
                "deliver": round(bill["deliver"], 3),
                "all": round(sum(bill.values()), 3),
                **dict(
                    zip(("door_s", "beyond_window_s"), (round(wait, 2) for wait in waits(measured, setup)), strict=True)
                ),
            }
        )
    rows = [tuple(entry.values()) for entry in by_traffic]
    head = ("receive MB", "deliver MB", "window s", "receive $", "deliver $", "all $", "door s", "beyond window s")
    print(table(f"The same by memory and window ({traffic.name})", head, rows))
    return by_traffic
