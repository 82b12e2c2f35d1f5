"""``make logs``: the lines of the relay that ``make local`` runs, readable; by id, by source, or what was parked."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import aws
from .stack import RUNNING

# What leads a line; everything else that it holds follows by name, but for what only a machine needs.
_FIRST = ("source", "sources", "outcome", "status", "reason", "detail")
_LEFT_OUT = {"timestamp", "level", "location", "service", "message", "request_id", *_FIRST}
_MOST_IDS = 3


def matching(client: Any, groups: Iterable[str], words: str = "", *, since: float = 0.0) -> list[dict[str, Any]]:
    """JSON lines of the log groups that hold ``words``, by time; ``since`` in epoch seconds."""
    options: dict[str, Any] = {"startTime": int(since * 1000)} if since else {}
    if words:
        options["filterPattern"] = json.dumps(words)
    found: list[dict[str, Any]] = []
    for group in groups:
        for page in client.get_paginator("filter_log_events").paginate(logGroupName=group, **options):
            texts = (one["message"] for one in page["events"])
            found += [json.loads(text) for text in texts if text.startswith("{") and words in text]
    return sorted((line for line in found if "message" in line), key=lambda line: str(line.get("timestamp", "")))


def readable(line: dict[str, Any]) -> str:
    """One line as a person reads it: time, kind, what became of it, then the rest by name."""
    first = list(dict.fromkeys(_short(line[name]) for name in _FIRST if _says(line.get(name))))
    rest = [f"{name}={_short(value)}" for name, value in line.items() if name not in _LEFT_OUT and _says(value)]
    return "  ".join([str(line.get("timestamp", ""))[11:23], str(line["message"]), " ".join(first), " ".join(rest)])


def _says(value: Any) -> bool:
    return value not in (None, "", False, [], {})


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{count}" for name, count in value.items())
    if isinstance(value, list):
        more = [f"… {len(value) - _MOST_IDS} more"] if len(value) > _MOST_IDS else []
        return ",".join([*(str(one) for one in value[:_MOST_IDS]), *more])
    return str(value)


def chosen(lines: Sequence[dict[str, Any]], *, source: str = "", parked: bool = False) -> Iterator[dict[str, Any]]:
    """The lines about ``source`` (all if empty), and of these only what tells of parking if ``parked``."""
    for line in lines:
        about = [line.get("source"), *line.get("sources", [])]
        if (not source or source in about) and (not parked or line["message"] == "parked" or line.get("parked")):
            yield line


def main(arguments: list[str]) -> int:
    """Print the lines that were asked for."""
    parser = argparse.ArgumentParser(prog="make logs", description=__doc__)
    parser.add_argument("--id", default="", help="an event_id, a webhook_id, or the event's id at the sender")
    parser.add_argument("--source", default="")
    parser.add_argument("--parked", action="store_true")
    options = parser.parse_args(arguments)
    if not RUNNING.exists():
        print("logs: no relay is running here: start one with `make local`", file=sys.stderr)
        return 2
    state = json.loads(RUNNING.read_text())
    groups = [state["outputs"][name] for name in ("ReceiveLogGroup", "DeliverLogGroup")]
    lines = matching(aws.client("logs", state["aws"]), groups, options.id)
    found = list(chosen(lines, source=options.source, parked=options.parked))
    print("\n".join(map(readable, found)) or "no such line")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
