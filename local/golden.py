"""The ``unique_id`` of every sample's events, kept: ``python -m local.golden`` adds those of new samples.

An id that changes makes a double in Klaviyo of each event that is sent again
after the change. So what is kept is not replaced, unless ``--replace`` says
that the change is meant; the CHANGELOG then has its reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from handler.events import senders

from . import check
from .terminal import say

KEPT = check.ROOT / "tests/unit/golden/unique_ids.json"
ADD = "PYTHONPATH=src:. .venv/bin/python -m local.golden"
MEANING = f"""\
Each of these events that a sender repeats, or that is imported again, becomes a second event in Klaviyo.
If the change was not meant, correct the mapping. If it was, write the reason into CHANGELOG.md and run
  {ADD} --replace"""
Ids = Mapping[str, list[str]]


def made() -> dict[str, list[str]]:
    """The ids of each shipped source's samples, by ``source/sample``; a sample without events has no entry."""
    found: dict[str, list[str]] = {}
    for path in sorted(check.SAMPLES.glob("*/*.json")):
        source = path.parent.name
        if (senders.SHIPPED / f"{source}.toml").exists():
            ids = dict.fromkeys(event.unique_id for event in check.understood(source, path).events)
            found |= {f"{source}/{path.stem}": list(ids)} if ids else {}
    return found


def changed(kept: Ids, now: Ids) -> Iterator[str]:
    """A line for each kept id that its sample no longer makes."""
    for name, ids in kept.items():
        gone = [one for one in ids if one not in now.get(name, [])]
        fresh = [one for one in now.get(name, []) if one not in ids] or ["none"]
        yield from (f"{name}: {one} is gone; now: {', '.join(fresh)}" for one in gone)


def added(kept: Ids, now: Ids) -> dict[str, list[str]]:
    """``kept`` with the ids that are new."""
    names = sorted({*kept, *now})
    return {name: list(dict.fromkeys([*kept.get(name, []), *now.get(name, [])])) for name in names}


def read(path: Path) -> dict[str, list[str]]:
    """The kept ids; empty before the first time."""
    found: dict[str, list[str]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def main(arguments: list[str], path: Path = KEPT) -> int:
    """Add new ids to the file at ``path``; without ``--replace`` a changed one leaves it as it is and returns 1."""
    parser = argparse.ArgumentParser(prog="python -m local.golden", description=__doc__)
    parser.add_argument("--replace", action="store_true", help="also take out the ids that have changed")
    options = parser.parse_args(arguments)
    kept, now = read(path), made()
    gone = list(changed(kept, now))
    if gone and not options.replace:
        say("error: nothing was written; ids have changed:", *gone, *MEANING.split("\n"), error=True)
        return 1
    path.parent.mkdir(parents=True, exist_ok=True)
    written = now if options.replace else added(kept, now)
    path.write_text(json.dumps(written, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
    count = sum(map(len, written.values()))
    say(f"{check.shown(path)}: {count} ids of {len(written)} samples, {len(gone)} taken out")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
