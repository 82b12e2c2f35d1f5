"""``make logs``: the log lines of the relay, readable, and the answers to usual questions about them.

It reads the relay that ``make local`` runs, or with ``--stack`` a deployed one,
with the credentials of the environment.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handler.telemetry import event_id
from tools.terminal import say, table

from . import platform_lines, questions, target
from .questions import Waiting
from .target import Relay

# What leads a line; everything else that it holds follows by name, except what only a machine needs.
_FIRST = ("function", "source", "sources", "outcome", "status", "reason", "detail")
_LEFT_OUT = {"timestamp", "level", "location", "service", "version", "message", "request_id", "xray_trace_id", *_FIRST}
_MOST_IDS = 3
MINUTES = 30  # of a rate that are shown
LIMIT = 150  # jobs a minute, the template's default
DAY_HOURS = 24.0
FUNCTIONS = {"ReceiveLogGroup": "receive", "DeliverLogGroup": "deliver"}
_INVOCATIONS = 5  # the latest of an event whose crash is looked for


def matching(
    client: Any, groups: Iterable[str], words: str = "", *, kind: str = "", since: float = 0.0
) -> list[dict[str, Any]]:
    """Return the lines of the log groups that hold ``words`` or are of that ``kind``, by time.

    ``since`` is in epoch seconds.

    The relay's own lines are JSON. Lambda's lines about a failure are included, with the kind ``lambda``.
    """
    options: dict[str, Any] = {"startTime": int(since * 1000)} if since else {}
    written = _as_json(words)[1:-1]  # as a line has them
    if words or kind:
        options["filterPattern"] = _as_json(written) if words else f'{{ $.message = "{kind}" }}'
    matches: list[dict[str, Any]] = []
    for group in groups:
        for page in client.get_paginator("filter_log_events").paginate(logGroupName=group, **options):
            lines = (_line(event, group) for event in page["events"] if written in event["message"])
            matches += [line for line in lines if line and kind in ("", line["message"])]
    return sorted(matches, key=lambda line: str(line.get("timestamp", "")))


def _line(event: Mapping[str, Any], group: str) -> dict[str, Any] | None:
    """Return one log event as a line; ``None`` for metrics, and for what Lambda writes of every invocation."""
    text, at = str(event["message"]), float(event.get("timestamp", 0))
    try:
        document = json.loads(text) if text.startswith("{") else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return platform_lines.of_text(text, at, group)
    return document if "message" in document else platform_lines.of_object(document, at, group)


def _as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def readable(line: dict[str, Any]) -> str:
    """Return one line as a person reads it: time, kind, what became of it, then the rest by name."""
    parked = line.get("parked", {})  # with more than one reason none of them is the line's
    shown = [name for name in _FIRST if not (name in ("reason", "detail") and len(parked) > 1)]
    first = list(dict.fromkeys(_short(line[name]) for name in shown if _says(line.get(name))))
    first += [f"{sum(parked.values())} parked"] if parked and line.get("outcome") == "accepted" else []
    rest = [f"{name}={_short(value)}" for name, value in line.items() if name not in _LEFT_OUT and _says(value)]
    return "  ".join([str(line.get("timestamp", ""))[11:23], str(line["message"]), " ".join(first), " ".join(rest)])


def _says(value: Any) -> bool:
    return value not in (None, "", [], {}) and value is not False


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{count}" for name, count in value.items())
    if isinstance(value, list):
        more = [f"… {len(value) - _MOST_IDS} more"] if len(value) > _MOST_IDS else []
        return ",".join([*(str(item) for item in value[:_MOST_IDS]), *more])
    return str(value)


def chosen(lines: Sequence[dict[str, Any]], *, source: str = "", parked: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the lines about ``source`` (all if empty), and of these only those about parking if ``parked``.

    A failure of Lambda's names no source, and may concern each.
    """
    for line in lines:
        about = [line.get("source"), *line.get("sources", [])]
        chosen_source = not source or source in about or line["message"] == platform_lines.KIND
        if chosen_source and (not parked or line["message"] == "parked" or line.get("parked")):
            yield line


@dataclass(frozen=True)
class Reader:
    """The log lines of ``relay`` since a time in epoch seconds, and what is in its queues."""

    relay: Relay
    since: float = 0.0

    def lines(self, *outputs: str, words: str = "", kind: str = "") -> list[dict[str, Any]]:
        """Return the lines of these log groups, of both if none is named."""
        groups = {self.relay.outputs[name]: FUNCTIONS[name] for name in outputs or FUNCTIONS}
        matches = matching(self.relay.client("logs"), groups, words, kind=kind, since=self.since)
        return [
            line | {"function": groups[line["function"]]} if line["message"] == platform_lines.KIND else line
            for line in matches
        ]

    def story(self, words: str) -> list[dict[str, Any]]:
        """Return the lines that hold ``words``.

        Also return the lines of the events that these name, and of how their invocations failed.
        """
        lines = self.lines(words=words)
        others = [name for name in questions.event_ids(lines, words) if words not in name][: questions.MOST_EVENTS]
        lines += [line for name in others for line in self.lines("DeliverLogGroup", words=name) if line not in lines]
        requests = list(dict.fromkeys(line["request_id"] for line in lines if line.get("request_id")))[-_INVOCATIONS:]
        ends = (line for name in requests for line in self.lines("DeliverLogGroup", words=name))
        lines += [line for line in ends if line["message"] == platform_lines.KIND and line not in lines]
        return sorted(lines, key=lambda line: str(line.get("timestamp", "")))

    def waiting(self) -> Waiting:
        """Return how many messages the queues have now."""
        ready, in_flight, delayed = self._counts("EventsQueueUrl", "", "NotVisible", "Delayed")
        return Waiting(ready, in_flight, delayed, sum(self._counts("DeadLetterQueueUrl", "", "NotVisible")))

    def _counts(self, queue: str, *kinds: str) -> list[int]:
        names = [f"ApproximateNumberOfMessages{kind}" for kind in kinds]
        answer = self.relay.client("sqs").get_queue_attributes(QueueUrl=self.relay.outputs[queue], AttributeNames=names)
        return [int(answer["Attributes"][name]) for name in names]

    def deferred(self) -> dict[str, Any] | None:
        """Return the latest line about deferred events; ``None`` if there is none."""
        lines = self.lines("DeliverLogGroup", kind="deferred")
        return lines[-1] if lines else None


def reader(stack: str, hours: float) -> Reader:
    """Return a reader of the lines of the last ``hours``.

    With 0 it reads a day of a deployed stack's lines, or all lines of the local relay.
    """
    back = hours or (DAY_HOURS if stack else 0.0)
    return Reader(target.relay(stack), time.time() - back * 3600 if back else 0.0)


def by_id(reader: Reader, words: str) -> Iterator[str]:
    """Yield the lines about ``words``, and what became of it."""
    lines = reader.story(words)
    if not lines:  # custom's ids are logged as digests
        words = event_id(words, private=True)
        lines = reader.story(words)
    if not lines:
        yield (
            "No log line matches. Refused webhooks have no event id: try REFUSED=1. "
            "If it is not there, it never reached the relay."
        )
        return
    yield from map(readable, lines)
    yield ""
    yield from questions.outcomes(lines, words, reader.waiting(), reader.deferred())


def refused(reader: Reader, source: str) -> Iterator[str]:
    """Yield refused webhooks by source and reason."""
    lines = [line for kind in questions.REFUSED for line in reader.lines("ReceiveLogGroup", kind=kind)]
    lines.sort(key=lambda line: str(line.get("timestamp", "")))
    rows = questions.refusals(list(chosen(lines, source=source)))
    yield from table(rows) or ["No webhook was refused."]


def keeping_up(reader: Reader) -> Iterator[str]:
    """Yield the jobs and events of each minute, and what waits now."""
    jobs = reader.lines("DeliverLogGroup", kind="job")
    limit = int(reader.relay.parameters.get("RequestsPerMinute", 0)) or LIMIT
    yield from table(questions.rate(jobs, limit=limit, most=MINUTES)) or ["No request to Klaviyo yet."]
    yield from questions.keeping_up(jobs, reader.waiting(), reader.deferred())


def answers(reader: Reader, asked: argparse.Namespace) -> Iterator[str]:
    """Yield what was asked for, line by line."""
    if asked.id:
        yield from by_id(reader, asked.id)
    elif asked.refused:
        yield from refused(reader, asked.source)
    elif asked.rate:
        yield from keeping_up(reader)
    else:
        lines = list(chosen(reader.lines(), source=asked.source, parked=asked.parked))
        yield from map(readable, lines)
        if not lines:
            yield "No log line matches."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``make logs``."""
    parser.add_argument("--id", default="", help="an event_id, a webhook_id, or the event's id at the sender")
    parser.add_argument("--source", default="", help="only lines about this source")
    parser.add_argument("--parked", action="store_true", help="only lines about parked events")
    parser.add_argument("--refused", action="store_true", help="refused webhooks by source and reason")
    parser.add_argument("--rate", action="store_true", help="jobs a minute, and what waits")
    target.argument(parser, or_local=True)
    parser.add_argument("--hours", type=float, default=0.0, help="how far back; 24 for a deployed stack if not given")


def run(asked: argparse.Namespace) -> int:
    """Print the lines that were asked for."""
    for line in answers(reader(asked.stack, asked.hours), asked):
        say(line)
    return 0
