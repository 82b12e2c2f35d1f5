"""The playground's other process: one payload and one sender's file in, what becomes of it out, line by line in JSON.

It runs the relay's own modules on a folder that holds the file as it is in
the editor. Expressions can be made to take for ever, or all memory; then the
system ends this process, and nothing else.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handler import zones
from handler.errors import RelayError
from handler.events import bodies, mapping, senders
from handler.events.entry import EVENT_PROPERTIES, IDENTIFIERS
from handler.events.mapping import Defaults, Outcome
from handler.events.senders import Source
from handler.events.webhook import Webhook
from local import klaviyo_checks
from tools.senders import coverage, lint, payload, places, preview
from tools.senders.payload import Payload

from . import story
from .provenance import NOWHERE, Written

SECONDS = 3
MEMORY_BYTES = 1_500_000_000
SHOWN = 20


class Scratch:
    """A folder of its own, with the user's other files and the samples together with the file under trial."""

    def __init__(self, folder: Path, custom: Path, samples: Path) -> None:
        self._custom, self._samples = custom, samples
        self._own = folder / "custom"
        self._own_samples = folder / "samples"
        senders.CUSTOM = self._own

    def put(self, name: str, toml: str, sent: Payload) -> None:
        """Lay out the file and the payload, as if both had been saved."""
        for path in (self._own, self._own_samples):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        for path in self._custom.glob("*.toml"):
            shutil.copy(path, self._own)
        (self._own / f"{name}.toml").write_text(toml, "utf-8")
        own = self._own_samples / name
        own.mkdir()
        for path in (self._samples / name).glob("*.json"):
            shutil.copy(path, own)
        (own / "playground.json").write_text(sample(sent), "utf-8")
        senders.load.cache_clear()

    def samples(self, name: str) -> Iterator[Payload]:
        """Yield the source's samples."""
        yield from map(payload.request, (self._samples / name).glob("*.json"))

    def problems(self, name: str) -> list[dict[str, Any]]:
        """Return mistakes with their lines; ``missing`` marks what only lacks a sample."""
        return [
            {"line": problem.line, "text": problem.message, "missing": problem.code == coverage.NO_SAMPLE}
            for problem in lint.problems(name, self._own_samples)
        ]


def sample(sent: Payload) -> str:
    """Return a payload as a file of ``events/``: a body that is JSON is in it as such, any other as text."""
    text = sent.body.decode("utf-8", "replace")
    try:
        body = json.loads(text)
        exact = not isinstance(body, str)
    except (ValueError, RecursionError):
        exact = False
    document: dict[str, Any] = {"method": sent.method} if sent.method != "POST" else {}
    document |= {"query": sent.query} if sent.query else {}
    return json.dumps(
        document | {"headers": sent.headers, "body": body if exact else text}, indent=2, ensure_ascii=False
    )


def tried(scratch: Scratch, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``mistakes``, and what the payload becomes: ``events``, ``ignored``, ``parked`` or ``handshake``."""
    name, toml = str(request["source"]), str(request["toml"])
    sent = Payload(request["method"], request["query"], request["headers"], request["body"].encode())
    scratch.put(name, toml, sent)
    mistakes = scratch.problems(name)
    if any(not mistake["missing"] for mistake in mistakes):
        return {"mistakes": mistakes}
    source, received = senders.load(name), float(request["received"])
    defaults = Defaults(request["region"], zones.load(request["zone"]))
    try:
        if (greeting := preview.greeting(name, sent)) is not None:
            return {"mistakes": mistakes, "handshake": greeting}
        outcome = _understood(source, sent, received, defaults)
    except RelayError as error:
        return {"mistakes": mistakes, "parked": [str(error)]}
    written = _written(name, toml, source.title)
    unmade = written.spot_of(outcome.ignored) if outcome.ignored else NOWHERE
    rules = _rules(source, sent, received, defaults, outcome)
    late = float(request["late_hours"]) * 3600
    names = {name for payload in (sent, *scratch.samples(name)) for name in _names(_document(payload, source))}
    events = [
        described(json.loads(event.entry), written, rules.get(event.unique_id), received - event.time > late > 0, names)
        for event in outcome.events[:SHOWN]
    ]
    return {
        "mistakes": mistakes,
        "topics": outcome.topics,
        "unknown": [{"topic": topic, "stub": stub(topic)} for topic in story.unknown(source, outcome)],
        "events": events,
        "more": max(0, len(outcome.events) - SHOWN),
        "ignored": outcome.ignored,
        "ignored_at": asdict(unmade),
        "parked": list(dict.fromkeys(f"{item.reason}: {item.detail}" for item in outcome.parked)),
    }


def stub(topic: str) -> str:
    """Return an ``[[event]]`` for a topic, to start from; the metric is for a person to name."""
    words = [word.capitalize() for word in re.split(r"[^A-Za-z0-9]+", topic) if word]
    return f"\n[[event]]\ntopic = {json.dumps(topic)}\nmetric = {json.dumps(' '.join(words))}\n[event.properties]\n"


def _document(sent: Payload, source: Source) -> Any:
    try:
        return bodies.parse(bodies.unpack(sent.body), source.body)
    except RelayError:
        return None


def _names(value: Any) -> Iterator[str]:
    """Yield every member's name in a document."""
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _names(inner)


def odd(expression: str, names: set[str]) -> tuple[bool, str]:
    """Return whether an expression names what no payload of the sender has, and what may have been meant.

    Of several ways in one expression (``a || b``, ``[a, b]``) one that may find something is enough.
    """
    plain = re.sub(r"'[^']*'|`[^`]*`|\w+\s*[(:]", " ", expression)
    ways = re.split(r"\|\||,", plain) if expression.startswith("[") or "||" in plain else [plain]
    strange = [[name for name in re.findall(r"[A-Za-z]\w*", way) if name not in names] for way in ways]
    if not all(strange):
        return False, ""
    near = difflib.get_close_matches(strange[0][0], names, 1, 0.8)
    return True, f"{near[0]} for {strange[0][0]}" if near else ""


def _understood(source: Source, sent: Payload, received: float, defaults: Defaults) -> Outcome:
    return mapping.understand(source, Webhook.posted(sent.headers, sent.body), received=received, defaults=defaults)


def _written(name: str, toml: str, title: str, *, shown: str = "") -> Written:
    own, whole = tomllib.loads(toml), senders.document(name)
    if "extends" not in own:
        return Written(shown, title, whole, places.lines(toml))
    extended = own["extends"]
    base = _written(extended, senders.path_of(extended).read_text("utf-8"), title, shown=extended)
    inherited = len(whole.get("event", [])) - len(own.get("event", []))
    return Written(shown, title, whole, places.lines(toml), base, inherited)


def _rules(source: Source, sent: Payload, received: float, defaults: Defaults, outcome: Outcome) -> dict[str, int]:
    """Return which ``[[event]]`` made which event, found out by asking each alone; ids name the events."""
    rules: dict[str, int] = {}
    asked = {id(rule) for topic in outcome.topics for rule in source.rules_for(topic)}
    for index, rule in enumerate(source.rules):
        if id(rule) in asked:
            try:
                alone = _understood(replace(source, rules=(rule,)), sent, received, defaults)
            except RelayError:
                continue
            for event in alone.events:
                rules.setdefault(event.unique_id, index)
    return rules


def described(entry: dict[str, Any], written: Written, rule: int | None, late: bool, names: set[str]) -> dict[str, Any]:
    """Return one event: its values with where they come from, and the checklist."""
    plain = story.plain(entry)
    values = []
    for path, value in _flat(plain):
        expression, spot = ("", NOWHERE) if rule is None else written.of(path, rule)
        values.append({"path": path, "value": value, "expression": expression, **asdict(spot)})
    return {
        "metric": plain["metric"],
        "values": values,
        "checks": list(_checks(entry, plain, late)),
        "nothing": [] if rule is None else list(_nothing(plain, written, rule, names)),
        "entry": plain,
    }


def _flat(plain: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the event's values; objects in profile and properties that are values themselves are one value."""
    for name, value in plain.items():
        if name == "profile":
            for inner, part in value.items():
                if inner in ("location", "properties"):
                    yield from ((("profile", inner, last), member) for last, member in part.items())
                else:
                    yield ("profile", inner), part
        elif name == "properties":
            yield from ((("properties", inner), part) for inner, part in value.items())
        else:
            yield (name,), value


def _nothing(plain: Mapping[str, Any], written: Written, rule: int, names: set[str]) -> Iterator[dict[str, Any]]:
    """Yield what the file asks for and this payload does not have."""
    profile = plain["profile"]
    for path in written.wanted(rule):
        known = plain["properties"] if path[0] == "properties" else (*profile, "full_name", "customer_id")
        if path[1] not in known:
            expression, spot = written.of(path, rule)
            strange, meant = odd(expression, names)
            yield {"path": path, "odd": strange, "meant": meant, **asdict(spot)}


def _checks(entry: dict[str, Any], plain: Mapping[str, Any], late: bool) -> Iterator[tuple[str, str]]:
    """Yield what Klaviyo does with it: a kind (``kept``, ``changed``, ``silent``, ``refused``) and a sentence."""
    job = {"type": "event-bulk-create-job", "attributes": {"events-bulk-create": {"data": [entry]}}}
    for problem in klaviyo_checks.problems({"data": job}, datetime.now(UTC)):
        yield "refused", f"refused: {problem.detail} ({'/'.join(map(str, problem.path[4:]))})"
    if story.is_silent(entry):
        yield "silent", "accepted and silently ignored: Klaviyo stores no event for this email's domain"
    by = [name for name in (*IDENTIFIERS, "id") if name in plain["profile"]]
    yield "kept", f"profile matched or created by {', '.join(by)}"
    for mark in story.marks_of(entry):
        yield "changed", story.explained(mark)
    if late:
        yield (
            "changed",
            "older than the limit for late events: sent as backfill with identifiers only, triggers no flow",
        )
    count = len(plain["properties"])
    yield "kept", f"{count} propert{'y' if count == 1 else 'ies'}, of at most {EVENT_PROPERTIES}"
    if "value" in plain:
        yield "kept", f"counts {plain['value']} {plain.get('value_currency', '(no currency)')} as value"
    yield "kept", "retries and repeats collapse by its unique_id"


def main(arguments: list[str]) -> int:
    """Answer each line of standard input until it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the drafts are")
    parser.add_argument("custom", type=Path, help="the folder of custom senders' files")
    parser.add_argument("samples", type=Path, help="the folder of samples")
    options = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints, an answer stays one line
    scratch = Scratch(options.folder, options.custom, options.samples)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # its signal ends the process, whatever it is at
        answer = _answer(scratch, json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def _answer(scratch: Scratch, request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return tried(scratch, request)
    except RelayError as error:
        return {"mistakes": [{"line": getattr(error, "line", None), "text": str(error), "missing": False}]}
    except Exception as error:  # noqa: BLE001 (the file is a stranger's text: any failure is its mistake)
        text = f"expected the form of a source (it gives a {type(error).__name__})"
        return {"mistakes": [{"line": None, "text": text, "missing": False}]}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
