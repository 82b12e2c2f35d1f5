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


PATCHES = re.compile(r"(^|\.)((set|del)(attr|item)|(mock\.)?patch(\.(object|dict|multiple))?)$")
TERMINAL = "whole commands run, on what a stranger wrote, and find all of this themselves"
# Everything that is replaced from outside, and why no argument carries it.
REPLACED = {
    "bench/simulation.py: os.environ[name]": "botocore reads nowhere else what the function was invoked with",
    "bench/simulation.py: jobs.JOB_EVENTS": "Klaviyo's limit, the same in every deployment: small jobs are for speed",
    "fuzz/parsers.py: sys.stdout": "the process's own, in which nothing else runs",
    "local/console/worker.py: senders.CUSTOM": "as in the tests; the process is there for this folder",
    "local/emulator.py: app.app": "MiniStack, which is not ours, has no other way in",
    "local/emulator.py: lambda_svc._xray_trace_id_for_invocation": "MiniStack",
    "local/emulator.py: sqs._build_send_sys_attrs": "MiniStack",
    "sim/faults.py: messages.decode": "a fault of our code where nothing outside takes part",
    "sim/lines.py: handler.stream": "the logger is one for the process, and made where it is imported",
    "tests/console/test_browser.py: console.stack.parameters.RequestsPerMinute": "another stack takes ten seconds",
    "tests/unit/everywhere/test_canaries.py: errors.RelayError.__init__": "receives every text, wherever it is raised",
    "tests/unit/everywhere/test_canaries.py: mapping.understand": "a fault of our code that quotes what it reads",
    "tests/unit/support_senders.py: senders.CUSTOM": "some fifty places look senders up, and would have to pass it on",
    "tests/unit/tools/test_terminal.py: builtins.input": TERMINAL,
    "tests/unit/tools/test_terminal.py: loopback.RUNNING": TERMINAL,
    "tests/unit/tools/test_terminal.py: loopback.client": TERMINAL,
    "tests/unit/tools/test_terminal.py: paths.SAMPLES": TERMINAL,
    "tests/unit/tools/test_terminal.py: senders.CUSTOM": TERMINAL,
    "tests/unit/tools/test_terminal.py: sys.stdout": "a pipe that nobody reads",
    "tests/unit/tools/test_terminal.py: target.clients": TERMINAL,
    "tests/unit/tools/test_terminal.py: urllib3.request": TERMINAL,
}


def root(node: ast.AST) -> str:
    """The name at which a chain of attributes and keys begins, also inside a cast; empty if none does."""
    match node:
        case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Call(func=ast.Name("cast"), args=[_, inner]):
            return root(inner)
        case ast.Name(name):
            return name
    return ""


def imported(tree: ast.Module) -> set[str]:
    """The names of what is imported, and of what is taken out of that without a call, if no parameter has the name."""
    nodes = list(ast.walk(tree))
    names = [name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for name in node.names]
    known = {(name.asname or name.name).partition(".")[0] for name in names}
    parameters = {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        match node:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), value=ast.expr() as value):
                if root(value) in known and name not in parameters:
                    known.add(name)
    return known


def replaced(tree: ast.Module) -> Iterator[str]:
    """What is replaced from outside: targets of patches, and what is assigned to in what was imported."""
    known = imported(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Call() if PATCHES.search(ast.unparse(node.func)) and (node.args or node.keywords):
                parts = [*node.args, *(word.value for word in node.keywords)][:2]
                whole = isinstance(parts[0], ast.Constant) and "." in str(parts[0].value)
                yield ".".join(ast.unparse(part).strip("'") for part in (parts[:1] if whole else parts))
            case ast.Attribute() | ast.Subscript() if isinstance(node.ctx, ast.Store | ast.Del) and root(node) in known:
                yield ast.unparse(node)


def test_what_is_replaced_from_outside_has_a_reason() -> None:
    folders = ("src/handler", "sim", "tools", "local", "bench", "tests", "fuzz")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    trees = {path.relative_to(ROOT): ast.parse(path.read_text("utf-8")) for path in paths}
    assert {f"{path}: {target}" for path, tree in trees.items() for target in replaced(tree)} == set(REPLACED)


@pytest.mark.parametrize(
    ("code", "target"),
    [
        ('monkeypatch.setattr(a, "b", 1)', "a.b"),
        ('monkeypatch.setattr(a, name="b", value=1)', "a.b"),
        ('monkeypatch.setattr("a.b", 1)', "a.b"),
        ("monkeypatch.setattr(a, name, 1)", "a.name"),
        ('patch.delattr(a, "b")', "a.b"),
        ('patch.setitem(a.b, "c", 1)', "a.b.c"),
        ('mock.patch("a.b", 1)', "a.b"),
        ('patch.object(a, "b", 1)', "a.b"),
        ('setattr(a, "b", 1)', "a.b"),
        ("import a\na.b = 1", "a.b"),
        ("from a import b as c\nc.d += 1", "c.d"),
        ("import a.b\ndel a.b.c", "a.b.c"),
        ("import a\na.b['c'] = 1", "a.b['c']"),
        ("import a\nb: Any = a.b\nb.c = 1", "b.c"),
        ("import a\nb = cast('Any', a.b)\nb.c = 1", "b.c"),
    ],
)
def test_replacement_is_found(code: str, target: str) -> None:
    assert list(replaced(ast.parse(code))) == [target]


@pytest.mark.parametrize(
    "code",
    [
        "patch.get('a', 1)",
        "client.patch()",
        "monkeypatch.setenv('A', 'b')",
        "import a\nb = a.c",
        "import a\nb = a.c()\nb.d = 1",
        "import a\nb = a.fixture\ndef test(b):\n b.c = 1",
        "a.b = 1",
    ],
)
def test_other_code_replaces_nothing(code: str) -> None:
    assert list(replaced(ast.parse(code))) == []


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
