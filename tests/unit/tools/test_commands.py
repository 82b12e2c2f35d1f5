"""The commands, their help, the make targets and docs/tools.md say the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools import commands
from tools.commands import COMMANDS
from tools.errors import CommandError

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/tools.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
# What make prints for each target: its variables, and what it does.
TARGETS = {
    target: (variables.removesuffix(": "), words)
    for target, variables, words in re.findall(
        r"^([a-z-]+):.*?## ((?:\[?[A-Z]+=.*?: )?)(?=[a-z])(.*)$", MAKEFILE, re.MULTILINE
    )
}
RUN_BY_MAKE = dict(re.findall(r"^([a-z-]+):[^\n]*\n\t@\$\(BIN\)/python -m tools ([a-z-]+)", MAKEFILE, re.MULTILINE))
ROWS = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| ")]


def summary(command: str) -> str:
    (row,) = (words for _, name, words in ROWS if name == f"`{command}`")
    return row


def written(target: str) -> list[str]:
    """The page's row of a make target."""
    (row,) = (row for row in ROWS if re.match(rf"`make {target}[ `]", row[0]))
    return row


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_explains_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main([command, "--help"])
    assert ended.value.code == 0
    assert COMMANDS[command].summary[1:] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("folder", ["tools", "local", "bench", "fuzz", "tests"])
def test_arguments_of_every_program_have_help(folder: str) -> None:
    calls = [
        (path.name, ast.unparse(node.args[0]), {word.arg for word in node.keywords})
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
    ]
    assert [call[:2] for call in calls if "help" not in call[2]] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_page_says_of_each_command_what_its_help_says(command: str) -> None:
    assert summary(command).startswith(COMMANDS[command].summary)


@pytest.mark.parametrize("target", TARGETS)
def test_page_says_of_each_target_what_make_says(target: str) -> None:
    variables, words = TARGETS[target]
    shown, _, explained = written(target)
    assert shown.replace("\\|", "|") == f"`make {target}{f' {variables}' if variables else ''}`"
    assert explained == words


@pytest.mark.parametrize(("target", "command"), RUN_BY_MAKE.items())
def test_target_that_runs_a_command_says_what_it_does(target: str, command: str) -> None:
    assert target == command
    assert TARGETS[target][1].startswith(COMMANDS[command].summary)
    assert written(target)[1] == f"`{command}`"


def test_every_target_is_listed_by_make_and_every_command_by_help(capsys: pytest.CaptureFixture[str]) -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == set(TARGETS)
    assert commands.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert [name for name in COMMANDS if not re.search(rf"^  {name} ", listed, re.MULTILINE)] == []
    assert len(RUN_BY_MAKE) == 14


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["log"], "error: unknown command 'log'. Did you mean 'logs'?"),
        (["logs", "--hours", "two"], "error: argument --hours: invalid float value: 'two'"),
        (["preview", "stripe"], "error: the following arguments are required: file"),
    ],
)
def test_mistake_on_the_command_line_is_an_error_without_a_usage_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = commands.main(arguments)
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr()
    assert status == 2
    assert said.err.startswith(words)
    assert (said.err.count("\n"), said.out) == (1, "")


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (CommandError("No stack given. Set STACK="), "No stack given. Set STACK="),
        (EOFError(), "nothing was entered"),
        (PermissionError(13, "Permission denied", "order.json"), "order.json: Permission denied"),
    ],
)
def test_error_raised_on_purpose_is_told_in_its_words(
    failure: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> int:
        raise failure

    assert commands.status("words", run) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


@pytest.mark.parametrize("failure", [ValueError("not enough values"), RuntimeError("changed size"), KeyError("name")])
def test_bug_of_the_project_is_shown_as_a_crash_and_not_as_the_callers_error(
    failure: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> int:
        raise failure

    assert commands.status("words", run) == commands.CRASHED
    *_, crash, report = capsys.readouterr().err.splitlines()
    assert re.match(rf"crash: {type(failure).__name__} at tools/test_commands\.py:\d+, in the command 'words'", crash)
    assert ".github/ISSUE_TEMPLATE/bug.yml" in report
    assert (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").exists()
