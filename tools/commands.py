"""The commands: ``python -m tools <command>``. The Makefile has targets for them, docs/tools.md has them all.

The exit status is 0 only if what was asked for happened: 1 if it was tried and something is wrong, 2 if it could not be
tried.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from handler.errors import RelayError
from handler.telemetry import crash

from . import terminal
from .errors import CommandError


@dataclass(frozen=True)
class Command:
    """``module`` has ``run(asked) -> exit status`` and, if it has any arguments, ``arguments(parser)``."""

    module: str
    summary: str


COMMANDS = {
    "demo": Command("local.demo", "send every sample through the whole stack"),
    "local": Command("local.run", "run the stack until Ctrl-C"),
    "send": Command("local.send", "sign a payload and post it"),
    "chaos": Command("local.chaos.run", "inject faults from a seed and account for every event"),
    "pictures": Command("local.console.pictures", "retake the README screenshots"),
    "preview": Command("tools.senders.preview", "show what a payload becomes, without a stack"),
    "new-sender": Command(
        "tools.senders.new_sender", "write a first TOML file for a sender, guessed from one delivery"
    ),
    "lint": Command("tools.senders.lint", "check the senders' files and samples"),
    "catalogue": Command("tools.senders.catalogue", "print docs/metrics.md, from the senders' files"),
    "retries": Command("tools.senders.retries", "print docs/retries.md, from the senders' files"),
    "expected": Command("tools.senders.outcome", "write what the samples become to tests/unit/expected"),
    "golden": Command("tools.senders.golden", "add the unique_ids of new samples to tests/unit/golden"),
    "logs": Command("tools.operate.logs", "show the relay's log lines, or what they say about an event"),
    "redrive": Command("tools.operate.redrive", "list parked messages"),
    "secrets": Command("tools.operate.secrets", "prompt for the secrets of a deployed stack and store them"),
    "try": Command("tools.operate.trial", "send a signed sample to a deployed stack and follow it to Klaviyo"),
    "check": Command("tools.operate.doctor", "report what a deployed stack lacks"),
    "words": Command("tools.words", "find words that this project does not use"),
    "pages": Command("tools.pages", "write the tables of docs/architecture.md and docs/decisions/README.md"),
    "mutants": Command(
        "tools.mutants", "list the changes of crashes, blame and pacing that no test notices, in 30 minutes at most"
    ),
    "audit": Command("tools.audit", "check packaged libraries for known vulnerabilities"),
}
# What stops a command: errors raised on purpose, and refusals from outside this program. Anything else is our bug.
FAILURES = (
    *(CommandError, RelayError, OSError, EOFError),
    *(ClientError, BotoCoreError, urllib3.exceptions.HTTPError),
)
CRASHED = 70  # EX_SOFTWARE of sysexits.h


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake on the command line as every other error, without the usage line."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` and end with status 2."""
        terminal.error(f"{message} (arguments: {self.prog} --help)")
        raise SystemExit(2)


def parser(name: str) -> tuple[Parser, Any]:
    """Return the parser and the module of a command."""
    command = COMMANDS[name]
    module: Any = importlib.import_module(command.module)
    reader = Parser(prog=f"python -m tools {name}", description=f"{command.summary[0].upper()}{command.summary[1:]}.")
    if hasattr(module, "arguments"):
        module.arguments(reader)
    return reader, module


def main(arguments: Sequence[str]) -> int:
    """Run the command that ``arguments`` begin with; return the exit status."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        terminal.say("usage: python -m tools COMMAND [ARGUMENTS]; COMMAND --help lists its arguments", "")
        terminal.say(*terminal.table([(f"  {name}", command.summary) for name, command in COMMANDS.items()]))
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        terminal.error(f"unknown command {name!r}. {f'Did you mean {near[0]!r}?' if near else 'See --help.'}")
        return 2
    reader, module = parser(name)
    asked = reader.parse_args(rest)
    return status(name, lambda: module.run(asked))


def status(name: str, run: Callable[[], int]) -> int:
    """Return the exit status of ``run``, which does what the command ``name`` was asked for; say why it failed."""
    try:
        return int(run())
    except FAILURES as failure:
        terminal.error(_words(failure))
        return 2
    except Exception as failure:  # noqa: BLE001 (whatever it is, it was not raised on purpose)
        traceback.print_exc()
        terminal.say(*_report(name, failure), error=True)
        return CRASHED


def _words(failure: BaseException) -> str:
    if isinstance(failure, EOFError):
        return "nothing was entered"
    if isinstance(failure, OSError) and failure.strerror:  # str() of it has the number of the error
        return f"{failure.filename}: {failure.strerror}" if failure.filename else failure.strerror
    return str(failure)


def _report(name: str, failure: Exception) -> list[str]:
    """Return what to do about a bug in the project."""
    cause, place = crash(failure)
    return [
        f"crash: {cause} at {place}, in the command {name!r}. This is a bug in the project, not in what you asked for.",
        "Report it as an issue (.github/ISSUE_TEMPLATE/bug.yml) with the lines above and the command. "
        "Remove secrets and personal data from them first.",
    ]
