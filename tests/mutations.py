"""Payloads gone wrong: ``python -m tests.mutations [--count 10000] [source …]``.

Each mutation takes a sample and changes one to three of its fields as no
documentation foresees: missing, null, of another type, huge, renamed, nested,
another field's value. Whatever comes of it must be events that Klaviyo takes,
or parked, or ignored with a reason; the same bytes must give the same ids.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from handler.errors import Unmapped
from handler.events import mapping, senders
from handler.events.mapping import Defaults, Outcome
from handler.events.webhook import Webhook
from local.klaviyo_checks import problems
from tools import paths
from tools.senders import payload
from tools.senders.outcome import RECEIVED
from tools.senders.payload import Payload

Understand = Callable[..., Outcome]
_NOW = datetime.fromtimestamp(RECEIVED, UTC)
_FORM = "application/x-www-form-urlencoded"
# Values that no field expects; the long ones are past Klaviyo's limits.
_WRONG: list[Any] = [
    *(None, True, False, 0, -1, 10**30, 1e308, -0.0, float("nan"), float("inf"), 19.999999999999),
    *("", " ", "0", "null", "\x00", "\ud800", "\u202eevil", "' OR 1=1", "2026-13-45T99:99:99Z", "9" * 5000, "@", "a@b"),
    *("kim@@mail.example", "+", "+1" + "0" * 40, "𝒦" * 40_000, "x" * 150_000, "-1.5e400", "1,2,3", "０１２"),
    *([], {}, [None], [[]], {"": ""}, {"a": {"b": {"c": []}}}, [0] * 5000, ["x" * 1000] * 200, {"x": "y" * 120_000}),
    {str(number): number for number in range(600)},
]


def samples(name: str) -> list[Payload]:
    """The webhooks of a source's samples, without its checks of the URL."""
    requests = (payload.request(path) for path in sorted((paths.SAMPLES / name).glob("*.json")))
    return [sent for sent in requests if sent.method == "POST" and sent.body]


def mutated(sent: Payload, dice: random.Random) -> bytes:
    """The body of ``sent`` with one to three fields gone wrong."""
    kind = sent.headers.get("content-type", "").partition(";")[0]
    times = dice.randint(1, 3)
    if kind == _FORM:
        return _mutated_form(parse_qsl(sent.body.decode(), keep_blank_values=True), times, dice)
    try:
        document = json.loads(sent.body)
    except ValueError:
        return _mutated_text(sent.body, times, dice)
    for _ in range(times):
        document = _mutate(document, dice)
    return json.dumps(document, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node[:20]) if isinstance(node, list) else ()
    for name, value in inner:
        yield (*path, name)
        if len(path) < 8:
            yield from _places(value, (*path, name))


def _mutate(document: Any, dice: random.Random) -> Any:
    places = list(_places(document))
    if not places or dice.random() < 0.01:
        return dice.choice([None, [], {}, 5, "text", [document], {"data": document}, [document] * 3])
    *path, name = dice.choice(places)
    parent = document
    for step in path:
        parent = parent[step]
    match dice.randrange(7):
        case 0:
            del parent[name]
        case 1 | 2:
            parent[name] = copy.deepcopy(dice.choice(_WRONG))
        case 3 if isinstance(parent, dict):
            parent[dice.choice([f"{name}_new", str(name).upper(), "é", "_webhook", "_root", "_id", "id"])] = parent.pop(
                name
            )
        case 4:
            parent[name] = dice.choice(
                [[parent[name]], {"value": parent[name]}, {name: {name: parent[name]}}, str(parent[name])]
            )
        case 5:
            parent[name] = _deep(parent[name], dice.randint(5, 40))
        case _:
            parent[name] = copy.deepcopy(_at(document, dice.choice(places)))
    return document


def _at(node: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        node = node[step]
    return node


def _deep(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = {"in": value} if depth % 2 else [value]
    return value


def _mutated_form(pairs: list[tuple[str, str]], times: int, dice: random.Random) -> bytes:
    for _ in range(times):
        if not pairs:
            break
        place = dice.randrange(len(pairs))
        name, value = pairs[place]
        wrong = str(dice.choice(_WRONG))[:150_000]
        change = dice.choice(["drop", "value", "name", "nest", "twice", "inner"])
        replaced = {
            "drop": [],
            "value": [(name, wrong)],
            "name": [(name + "x", value)],
            "nest": [(f"{name}[{dice.choice(['a', '0', ''])}]", value)],
            "twice": [(name, value), (name, wrong)],
            "inner": [(name, _inner(value, dice))],
        }[change]
        pairs = pairs[:place] + replaced + pairs[place + 1 :]
    return urlencode(pairs, errors="replace").encode()


def _inner(value: str, dice: random.Random) -> str:
    """A JSON document within a text, mutated; another text as it is."""
    try:
        return json.dumps(_mutate(json.loads(value), dice))
    except ValueError:
        return value


def _mutated_text(body: bytes, times: int, dice: random.Random) -> bytes:
    """A body of several parts: cut, a piece twice, JSON in a part mutated, a byte changed."""
    for _ in range(times):
        lines = body.split(b"\r\n")
        place = dice.randrange(len(lines))
        match dice.randrange(4):
            case 0:
                del lines[place]
            case 1:
                lines.insert(place, lines[place])
            case 2:
                lines[place] = _inner(lines[place].decode("utf-8", "replace"), dice).encode("utf-8", "replace")
            case _:
                lines[place] = lines[place][: dice.randint(0, len(lines[place]))]
        body = b"\r\n".join(lines)
    return body


def outcome(name: str, sent: Payload, body: bytes, understand: Understand) -> Outcome | Unmapped:
    """What becomes of a body; any other exception is a crash, and passes."""
    try:
        return understand(
            senders.load(name), Webhook.posted(sent.headers, body), received=RECEIVED, defaults=Defaults()
        )
    except Unmapped as error:
        return error


def wrong_with(name: str, sent: Payload, body: bytes, understand: Understand) -> tuple[str, str]:
    """What became of a body in a word, and what is wrong with it, if anything is."""
    first = outcome(name, sent, body, understand)
    if isinstance(first, Unmapped):
        return "parked", ""
    if not (first.events or first.parked or first.ignored):
        return "lost", "neither an event nor a reason"
    again = outcome(name, sent, body, understand)
    if not isinstance(again, Outcome) or [event.unique_id for event in again.events] != [
        event.unique_id for event in first.events
    ]:
        return "unstable", "the same bytes gave other ids"
    entries = list({event.unique_id: json.loads(event.entry) for event in first.events}.values())
    attributes = {"events-bulk-create": {"data": entries}}
    document = {"data": {"type": "event-bulk-create-job", "attributes": attributes}}
    if entries and (mistakes := problems(document, _NOW)):
        return "invalid", f"{'/'.join(map(str, mistakes[0].path[4:]))}: {mistakes[0].detail}"
    return ("events" if first.events else "parked" if first.parked else "ignored"), ""


def run(
    name: str, count: int, seed: int = 1, understand: Understand = mapping.understand
) -> tuple[Counter[str], list[str]]:
    """Outcomes of ``count`` mutations of a source's samples, and what was wrong with any, with its seed."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    originals = samples(name)
    for number in range(count if originals else 0):
        dice = random.Random(f"{name} {seed} {number}")  # noqa: S311 (no secret)
        sent = originals[number % len(originals)]
        body = mutated(sent, dice)
        try:
            word, why = wrong_with(name, sent, body, understand)
        except Exception as error:  # noqa: BLE001 (a crash is what is looked for)
            word, why = "crashed", f"{type(error).__name__}: {error}"[:200]
        counts[word] += 1
        if why:
            wrong.append(f"{name} {seed} {number}: {word}: {why}")
    return counts, wrong


def main(arguments: list[str]) -> int:
    """Print a line for each source; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("sources", nargs="*", default=senders.names(), help="names of senders; all if not given")
    parser.add_argument("--count", type=int, default=10_000, help="payloads for each sender")
    parser.add_argument("--seed", type=int, default=1, help="of the random changes")
    options = parser.parse_args(arguments)
    bad = False
    for name in options.sources:
        began = time.perf_counter()
        counts, wrong = run(name, options.count, options.seed)
        shares = ", ".join(f"{count} {word}" for word, count in counts.most_common())
        print(f"{name}: {shares} in {time.perf_counter() - began:.0f} s", flush=True)
        print(*wrong[:10], sep="\n", end="\n" if wrong else "", file=sys.stderr)
        bad = bad or bool(wrong)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
