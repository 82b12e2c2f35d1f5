"""``make mutants``: list the changes of the crash, blame and pacing rules that no test notices.

mutmut changes one expression at a time and runs the tests that reach it (``[tool.mutmut]``
in pyproject.toml). A change that survives shows a missing test, or it is a change that
nobody can notice. tests/mutants.toml gives the reason for each of the latter, under
the changed text and its function, so that it stays valid when lines move. A survivor
without a reason is an error, and so is a reason without its survivor.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .errors import CommandError
from .paths import ROOT, shown
from .terminal import error, say, table

REASONS = ROOT / "tests" / "mutants.toml"
FOLDER = ROOT / "mutants"  # mutmut's own: the changed code and the results
SOURCES = [
    ROOT / name for name in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]["only_mutate"]
]
LONGEST = 1_800.0  # seconds that mutmut may take
KILLED, TIMED_OUT, UNFINISHED = "killed", "timeout", ("not checked", "check was interrupted by user")


class Change(NamedTuple):
    """A change of one function: ``function`` is ``module.Class.name``, the texts are those of the changed lines."""

    function: str
    was: str
    becomes: str


class Mutant(NamedTuple):
    """A change that mutmut made; ``place`` is ``file:line``."""

    change: Change
    place: str
    status: str


def statuses(listed: str) -> dict[str, str]:
    """Return the status of each mutant's name from the output of ``mutmut results --all true``."""
    return dict(line.strip().rsplit(": ", 1) for line in listed.splitlines() if ": " in line)


def mutant(name: str, shown_as: str, status: str, source: Path) -> Mutant:
    """Return the mutant that the output of ``mutmut show`` describes.

    mutmut names the mutants of ``f`` and ``C.f`` in ``module`` ``module.x_f__mutmut_1`` and ``module.xǁCǁf__mutmut_1``.
    """
    module, _, mangled = name.removesuffix(f"__mutmut_{name.rsplit('_', 1)[1]}").rpartition(".")
    function = mangled.removeprefix("x").replace("ǁ", ".").removeprefix("_" if "ǁ" not in mangled else ".")
    lines = [line for line in shown_as.splitlines() if line[:1] in "-+" and line[:3] not in ("---", "+++")]
    was, becomes = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    change = Change(f"{module.rsplit('.', 1)[1]}.{function}", was, becomes)
    first = next((line[1:] for line in lines if line[0] == "-"), "")
    return Mutant(change, f"{shown(source)}:{_line(source.read_text('utf-8'), function, first)}", status)


def _line(text: str, function: str, changed: str) -> int:
    """Return the first line of ``function`` that reads ``changed``, otherwise the function's own."""
    node: ast.AST = ast.parse(text)
    for name in function.split("."):
        node = next(child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == name)
    first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", 1)
    numbered = list(enumerate(text.splitlines(), 1))[first - 1 : last]
    return next((number for number, line in numbered if line.strip() == changed.strip()), int(first))


def reasons(text: str) -> dict[Change, str]:
    """Return the reason of each change in the text of tests/mutants.toml."""
    return {
        Change(entry["function"], entry["was"], becomes): entry["reason"]
        for entry in tomllib.loads(text).get("survivor", [])
        for becomes in entry["becomes"]
    }


def faults(mutants: Iterable[Mutant], known: Mapping[Change, str]) -> list[str]:
    """Return what is wrong: survivors without a reason, and reasons without a survivor.

    A mutant that timed out may survive on a faster machine, so its reason stays.
    """
    left = list(mutants)
    seen = {survivor.change for survivor in left}
    unknown = [survivor for survivor in left if survivor.status != TIMED_OUT and not known.get(survivor.change)]
    missing = [
        f"{survivor.place}: no test notices this change of {survivor.change.function}: "
        f"write a test that fails with it, or write the reason into {shown(REASONS)}"
        for survivor in unknown
    ]
    stale = [
        f"{shown(REASONS)}: a test notices this change of {change.function}, or it is no longer made; "
        f"delete its entry: {change.was} -> {change.becomes}"
        for change in known
        if change not in seen
    ]
    return missing + stale


def _mutmut(*arguments: str, watched: bool = False) -> str:
    """Run mutmut and return its output; ``watched`` shows it on a terminal instead."""
    program = Path(sys.executable).with_name("mutmut")
    if not program.exists():
        raise CommandError("mutmut is not installed. Run: make mutants")
    to_screen = watched and sys.stdout.isatty()
    pipe, joined = (None, None) if to_screen else (subprocess.PIPE, subprocess.STDOUT)
    command = [str(program), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=joined, text=True) as process:  # noqa: S603 (our own)
        try:
            output = process.communicate(timeout=LONGEST)[0] or ""
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # so that mutmut ends its workers
            process.communicate()
            raise CommandError(
                "not finished in 30 minutes. Run it while the machine is quiet, "
                "or for one module: make mutants MODULE=blame"
            ) from None
    if process.returncode:
        say(*output.replace("\r", "\n").splitlines()[-40:], error=True)
        raise CommandError(
            f"mutmut {arguments[0]} ended with {process.returncode}; nothing can be said about the tests"
        )
    return output


def summary(results: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return the rows of the table: the mutants of each module by what became of them."""
    rows: list[tuple[str, ...]] = [("module", "mutants", "killed", "timed out", "survived")]
    for module in sorted({_module(name) for name in results}):
        count = Counter(status for name, status in results.items() if _module(name) == module)
        survived = count.total() - count[KILLED] - count[TIMED_OUT]
        rows.append((module, *map(str, (count.total(), count[KILLED], count[TIMED_OUT], survived))))
    return rows


def _module(name: str) -> str:
    return name.split(".")[-2]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--module", choices=[source.stem for source in SOURCES], help="only the mutants of this module")


def run(asked: argparse.Namespace) -> int:
    """Make and test the mutants; print the counts, the survivors with their reasons, and what is wrong."""
    sources = {source.stem: source for source in SOURCES if asked.module in (None, source.stem)}
    shutil.rmtree(FOLDER, ignore_errors=True)  # results of before: mutmut would keep them
    _mutmut("run", "--max-children", "2", *([f"*.{asked.module}.*"] if asked.module else []), watched=True)
    results = {
        name: status
        for name, status in statuses(_mutmut("results", "--all", "true")).items()
        if _module(name) in sources
    }
    if not results or set(UNFINISHED) & set(results.values()):
        raise CommandError("mutmut was interrupted before it had tried every mutant. Run: make mutants")
    left = [
        mutant(name, _mutmut("show", name), status, sources[_module(name)])
        for name, status in results.items()
        if status != KILLED
    ]
    known = {
        change: reason
        for change, reason in reasons(REASONS.read_text("utf-8")).items()
        if change.function.split(".")[0] in sources
    }
    say(*table(summary(results)))
    _say(left, known)
    wrong = faults(left, known)
    error(*wrong)
    return 1 if wrong else 0


def _say(left: Sequence[Mutant], known: Mapping[Change, str]) -> None:
    for change, place, status in left:
        say("", f"{place}: {change.function}: {status}", f"  - {change.was}", f"  + {change.becomes}")
        if change in known:
            say(f"  {known[change]}")
