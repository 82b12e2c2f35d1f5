"""The ``unique_id`` of every sample's events, kept: ``python -m tools golden`` adds those of new samples.

An id that changes makes a double in Klaviyo of each event that is sent again
after the change. So what is kept is not replaced, unless ``--replace`` says
that the change is meant; the CHANGELOG then has its reason.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from handler.events import senders
from tools import paths
from tools.paths import shown
from tools.terminal import error, say

from . import outcome

KEPT = paths.ROOT / "tests/unit/golden/unique_ids.json"
ADD = "PYTHONPATH=src:. .venv/bin/python -m tools golden"
MEANING = f"""\
Each of these events that a sender repeats, or that is imported again, becomes a second event in Klaviyo.
If the change was not meant, correct the mapping. If it was, write the reason into CHANGELOG.md and run
  {ADD} --replace"""
Ids = Mapping[str, list[str]]


def current() -> dict[str, list[str]]:
    """Return the ids of each shipped source's samples, by ``source/sample``; a sample without events has no entry."""
    ids_of: dict[str, list[str]] = {}
    for path in sorted(paths.SAMPLES.glob("*/*.json")):
        source = path.parent.name
        if (senders.SHIPPED / f"{source}.toml").exists():
            ids = dict.fromkeys(event.unique_id for event in outcome.understood(source, path).events)
            ids_of |= {f"{source}/{path.stem}": list(ids)} if ids else {}
    return ids_of


def changed(kept: Ids, now: Ids) -> Iterator[str]:
    """Yield a line for each kept id that its sample no longer makes."""
    for name, ids in kept.items():
        gone = [unique_id for unique_id in ids if unique_id not in now.get(name, [])]
        fresh = [unique_id for unique_id in now.get(name, []) if unique_id not in ids] or ["none"]
        yield from (f"{name}: {unique_id} is gone; now: {', '.join(fresh)}" for unique_id in gone)


def added(kept: Ids, now: Ids) -> dict[str, list[str]]:
    """Return ``kept`` with the ids that are new."""
    names = sorted({*kept, *now})
    return {name: list(dict.fromkeys([*kept.get(name, []), *now.get(name, [])])) for name in names}


def read(path: Path) -> dict[str, list[str]]:
    """Read the kept ids; empty before the first time."""
    ids_of: dict[str, list[str]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return ids_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``python -m tools golden``."""
    parser.add_argument("--replace", action="store_true", help="also replace the ids that have changed")


def run(asked: argparse.Namespace, file: Path = KEPT) -> int:
    """Add new ids to those in ``file``; without ``--replace`` a changed one leaves them as they are and returns 1."""
    kept, now = read(file), current()
    gone = list(changed(kept, now))
    if gone and not asked.replace:
        error("nothing was written; ids have changed:")
        say(*gone, *MEANING.split("\n"), error=True)
        return 1
    file.parent.mkdir(parents=True, exist_ok=True)
    written = now if asked.replace else added(kept, now)
    file.write_text(json.dumps(written, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
    count = sum(map(len, written.values()))
    say(f"{shown(file)}: {count} ids of {len(written)} samples, {len(gone)} taken out")
    return 0
