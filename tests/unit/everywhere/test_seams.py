"""Nothing is rewired from outside: what a test, a benchmark or chaos needs otherwise is passed in."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.handler.test_imports import ENVIRONMENT

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("function", ["deliver", "receive"])
def test_chaos_starts_both_functions(function: str) -> None:
    code = f"import local.chaos.killed_{function} as killed; print(callable(killed.handler))"
    assert run(code) == "True"


def test_every_pause_is_shorter_in_chaos() -> None:
    code = (
        "from dataclasses import fields; from handler.pauses import PAUSES as whole; "
        "from local.chaos.killed_deliver import SHORT as short; "
        "print([one.name for one in fields(whole) if getattr(short, one.name) >= getattr(whole, one.name)])"
    )
    assert run(code) == "[]"


def run(code: str) -> str:
    """What ``code`` prints in a process with the functions' environment."""
    passed = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(  # noqa: S603 (our own command line)
        [sys.executable, "-c", code],
        env={**passed, **ENVIRONMENT, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout.strip()


def unchecked(tree: ast.Module) -> Iterator[int]:
    """Lines that set a private attribute, set one by a name that nobody checks, or load a module again."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = method or getattr(node.func, "id", "")
            patches = (
                method in ("setattr", "delattr") or name == "patch" or ast.unparse(node.func).endswith("patch.object")
            )
            lenient = any(word.arg in ("raising", "create") for word in node.keywords)
            private = any(
                isinstance(argument, ast.Constant) and re.search(r"(^|\.)_(?!_)", str(argument.value))
                for argument in (*node.args[:2], *(word.value for word in node.keywords))
            )
            if (not method and name in ("setattr", "delattr")) or (patches and (lenient or private)):
                yield node.lineno
            if method in ("reload", "exec_module"):
                yield node.lineno
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            own = getattr(node.value, "id", "") in ("self", "cls")
            if node.attr.startswith("_") and not own:
                yield node.lineno


def test_no_other_code_sets_attributes_unchecked() -> None:
    paths = [
        path for folder in ("sim", "tools", "local", "bench", "tests", "fuzz") for path in (ROOT / folder).rglob("*.py")
    ]
    settings = {str(path.relative_to(ROOT)): list(unchecked(ast.parse(path.read_text("utf-8")))) for path in paths}
    # MiniStack, which is not ours, has no other way in.
    assert {path for path, lines in settings.items() if lines} == {"local/emulator.py"}


@pytest.mark.parametrize(
    "code",
    [
        'setattr(a, "b", 1)',
        "module.SECRETS._client = 1",
        "a._count += 1",
        "a._b, c = 1, 2",
        "a._b: int = 1",
        "del a._b",
        'patch.setattr(a, "b", 1, raising=False)',
        'patch.setattr(a, "_b", 1)',
        'patch.setattr("a._b", 1)',
        'patch.setattr(a, name="_b", value=1)',
        'patch.delattr(a, "_b")',
        'patch.object(a, "_b")',
        'mock.patch.object(a, "b", create=True)',
        'mock.patch("a._b")',
        "importlib.reload(a)",
    ],
)
def test_unchecked_attribute_is_found(code: str) -> None:
    assert list(unchecked(ast.parse(code))) == [1]


def unseeded(tree: ast.Module) -> Iterator[int]:
    """Lines that draw from chance without a seed: such a test fails once, and nobody can repeat it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random" and node.attr != "Random":
            yield node.lineno
        if isinstance(node, ast.Call) and re.fullmatch(r"(random\.)?Random", ast.unparse(node.func)) and not node.args:
            yield node.lineno


def test_chance_in_tests_and_benchmarks_comes_from_a_seed() -> None:
    paths = [path for folder in ("sim", "bench", "tests") for path in (ROOT / folder).rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): list(unseeded(ast.parse(path.read_text("utf-8")))) for path in paths}
    assert {path: found for path, found in lines.items() if found} == {}


@pytest.mark.parametrize("code", ["random.random()", "f(random=random.random)", "random.Random()", "chance = Random()"])
def test_unseeded_chance_is_found(code: str) -> None:
    assert list(unseeded(ast.parse(code))) == [1]
