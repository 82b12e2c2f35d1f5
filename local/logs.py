"""``make logs``: the lines of the relay, readable; by id, by source, what was parked; and what they answer.

It reads the relay that ``make local`` runs, or with ``--stack`` a deployed one,
with the credentials of the environment.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from handler.telemetry import event_id

from . import aws, platform_lines, questions
from .questions import Waiting
from .stack import RUNNING
from .terminal import say, table

# What leads a line; everything else that it holds follows by name, but for what only a machine needs.
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
    """Lines of the log groups that hold ``words`` or are of that ``kind``, by time; ``since`` in epoch seconds.

    The relay's own are JSON. Of Lambda's, those that tell of a failure are there, too, as of the kind ``lambda``.
    """
    options: dict[str, Any] = {"startTime": int(since * 1000)} if since else {}
    written = _as_json(words)[1:-1]  # as they stand in a line
    if words or kind:
        options["filterPattern"] = _as_json(written) if words else f'{{ $.message = "{kind}" }}'
    found: list[dict[str, Any]] = []
    for group in groups:
        for page in client.get_paginator("filter_log_events").paginate(logGroupName=group, **options):
            lines = (_line(one, group) for one in page["events"] if written in one["message"])
            found += [line for line in lines if line and kind in ("", line["message"])]
    return sorted(found, key=lambda line: str(line.get("timestamp", "")))


def _line(event: Mapping[str, Any], group: str) -> dict[str, Any] | None:
    """One log event as a line; ``None`` for metrics, and for what Lambda writes of every invocation."""
    text, at = str(event["message"]), float(event.get("timestamp", 0))
    try:
        found = json.loads(text) if text.startswith("{") else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return platform_lines.of_text(text, at, group)
    return found if "message" in found else platform_lines.of_object(found, at, group)


def _as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def readable(line: dict[str, Any]) -> str:
    """One line as a person reads it: time, kind, what became of it, then the rest by name."""
    parked = line.get("parked", {})  # with more than one reason none of them is the line's
    told = [name for name in _FIRST if not (name in ("reason", "detail") and len(parked) > 1)]
    first = list(dict.fromkeys(_short(line[name]) for name in told if _says(line.get(name))))
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
        return ",".join([*(str(one) for one in value[:_MOST_IDS]), *more])
    return str(value)


def chosen(lines: Sequence[dict[str, Any]], *, source: str = "", parked: bool = False) -> Iterator[dict[str, Any]]:
    """The lines about ``source`` (all if empty), and of these only what tells of parking if ``parked``.

    A failure of Lambda's names no source, and may concern each.
    """
    for line in lines:
        about = [line.get("source"), *line.get("sources", [])]
        chosen_source = not source or source in about or line["message"] == platform_lines.KIND
        if chosen_source and (not parked or line["message"] == "parked" or line.get("parked")):
            yield line


@dataclass(frozen=True)
class Relay:
    """Where a relay's lines are read: boto3 clients by service, the stack's outputs and parameters, and since when."""

    client: Callable[[str], Any]
    outputs: dict[str, str]
    parameters: dict[str, str]
    since: float = 0.0

    def lines(self, *outputs: str, words: str = "", kind: str = "") -> list[dict[str, Any]]:
        """Lines of these log groups, of both if none is named."""
        groups = {self.outputs[name]: FUNCTIONS[name] for name in outputs or FUNCTIONS}
        found = matching(self.client("logs"), groups, words, kind=kind, since=self.since)
        return [
            line | {"function": groups[line["function"]]} if line["message"] == platform_lines.KIND else line
            for line in found
        ]

    def story(self, words: str) -> list[dict[str, Any]]:
        """Lines that hold ``words``, those of the events that it names, and of how their invocations failed."""
        found = self.lines(words=words)
        others = [one for one in questions.event_ids(found, words) if words not in one][: questions.MOST_FATES]
        found += [line for one in others for line in self.lines("DeliverLogGroup", words=one) if line not in found]
        requests = list(dict.fromkeys(line["request_id"] for line in found if line.get("request_id")))[-_INVOCATIONS:]
        ends = (line for one in requests for line in self.lines("DeliverLogGroup", words=one))
        found += [line for line in ends if line["message"] == platform_lines.KIND and line not in found]
        return sorted(found, key=lambda line: str(line.get("timestamp", "")))

    def waiting(self) -> Waiting:
        """What lies in the queues now."""
        ready, in_flight, delayed = self._counts("EventsQueueUrl", "", "NotVisible", "Delayed")
        return Waiting(ready, in_flight, delayed, sum(self._counts("DeadLetterQueueUrl", "", "NotVisible")))

    def _counts(self, queue: str, *kinds: str) -> list[int]:
        names = [f"ApproximateNumberOfMessages{kind}" for kind in kinds]
        answer = self.client("sqs").get_queue_attributes(QueueUrl=self.outputs[queue], AttributeNames=names)
        return [int(answer["Attributes"][name]) for name in names]

    def deferred(self) -> dict[str, Any] | None:
        """The latest line of that kind."""
        lines = self.lines("DeliverLogGroup", kind="deferred")
        return lines[-1] if lines else None


def _local(hours: float) -> Relay:
    if not RUNNING.exists():
        raise ValueError("no relay is running here: start one with `make local`, or name one with STACK=")
    state = json.loads(RUNNING.read_text())
    since = time.time() - hours * 3600 if hours else 0.0
    return Relay(lambda service: aws.client(service, state["aws"]), state["outputs"], state["parameters"], since)


def _deployed(name: str, hours: float) -> Relay:
    from . import deployed  # it needs this module

    found = deployed.find(name, deployed.clients(name))
    return Relay(found.client, found.outputs, found.parameters, time.time() - (hours or DAY_HOURS) * 3600)


def by_id(relay: Relay, words: str) -> Iterator[str]:
    """The lines about ``words``, and what became of it."""
    lines = relay.story(words)
    if not lines:  # custom's ids are logged as digests
        words = event_id(words, private=True)
        lines = relay.story(words)
    if not lines:
        yield "no such line: what was refused has no event id (REFUSED=1), and what never came has no line"
        return
    yield from map(readable, lines)
    yield ""
    yield from questions.fates(lines, words, relay.waiting(), relay.deferred())


def refused(relay: Relay, source: str) -> Iterator[str]:
    """Refused webhooks by source and reason."""
    lines = [line for kind in questions.REFUSED for line in relay.lines("ReceiveLogGroup", kind=kind)]
    lines.sort(key=lambda line: str(line.get("timestamp", "")))
    rows = questions.refusals(list(chosen(lines, source=source)))
    yield from table(rows) or ["nothing was refused"]


def keeping_up(relay: Relay) -> Iterator[str]:
    """Jobs and events of each minute, and what waits now."""
    jobs = relay.lines("DeliverLogGroup", kind="job")
    limit = int(relay.parameters.get("RequestsPerMinute", 0)) or LIMIT
    yield from table(questions.rate(jobs, limit=limit, most=MINUTES)) or ["no job yet"]
    yield from questions.keeping_up(jobs, relay.waiting(), relay.deferred())


def answers(relay: Relay, asked: argparse.Namespace) -> Iterator[str]:
    """What was asked for, line by line."""
    if asked.id:
        yield from by_id(relay, asked.id)
    elif asked.refused:
        yield from refused(relay, asked.source)
    elif asked.rate:
        yield from keeping_up(relay)
    else:
        lines = list(chosen(relay.lines(), source=asked.source, parked=asked.parked))
        yield from map(readable, lines)
        if not lines:
            yield "no such line"


def options(arguments: list[str]) -> argparse.Namespace:
    """What is asked for on the command line."""
    parser = argparse.ArgumentParser(prog="make logs", description=__doc__)
    parser.add_argument("--id", default="", help="an event_id, a webhook_id, or the event's id at the sender")
    parser.add_argument("--source", default="")
    parser.add_argument("--parked", action="store_true")
    parser.add_argument("--refused", action="store_true", help="refused webhooks by source and reason")
    parser.add_argument("--rate", action="store_true", help="jobs a minute, and what waits")
    parser.add_argument("--stack", default="", help="a deployed stack; the one of `make local` if not given")
    parser.add_argument("--hours", type=float, default=0.0, help="how far back; 24 for a deployed stack if not given")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Print the lines that were asked for."""
    asked = options(arguments)
    try:
        relay = _deployed(asked.stack, asked.hours) if asked.stack else _local(asked.hours)
        for line in answers(relay, asked):
            say(line)
    except (ValueError, ClientError, BotoCoreError) as error:
        say(f"logs: {error}", error=True)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
