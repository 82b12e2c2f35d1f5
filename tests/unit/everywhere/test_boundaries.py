"""Which package may import which, and that no import goes in a circle: also none inside a function.

A command's module is imported by its name, so what the table of the commands names counts as imported there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tools.commands import COMMANDS

ROOT = Path(__file__).parents[3]
FOLDERS = ("src/handler", "sim", "tools", "local", "bench", "fuzz", "tests")
ENTRY = "tools.commands"
# Whatever a module's name begins with, the longest that fits: what its package may import besides itself.
SHARED = ("tools.errors", "tools.loopback", "tools.paths", "tools.template", "tools.terminal")
ALLOWED: dict[str, tuple[str, ...]] = {
    "handler": (),
    "sim": ("handler",),
    "tools": ("handler",),
    "tools.senders": ("handler", *SHARED),
    "tools.operate": ("handler", "tools.senders", *SHARED),
    "tools.commands": ("handler", "tools", "local"),
    "tools.__main__": ("tools.commands",),
    "local": ("handler", "tools.senders", "tools.operate.dead_letters", *SHARED),
    "bench": ("handler", "sim", "local", "tools.senders", *SHARED),
    "fuzz": ("handler", "tools.senders", "tests.unit.support_door"),
    "tests": ("handler", "sim", "tools", "local", "bench", "fuzz"),
}
# How a deployed stack is reached. The local stack has no way there, not even over another module.
REAL_AWS = ("tools.operate.target", "tools.commands")

Graph = Mapping[str, set[str]]


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] == "src" else parts).removesuffix(".__init__")


def imported(tree: ast.AST, name: str, *, package: bool) -> Iterator[str]:
    """Dotted names that the code of the module ``name`` imports, wherever it does."""
    parts = name.split(".") if package else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (around, node.module)))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph() -> dict[str, set[str]]:
    """The modules that each module of this repository imports."""
    paths = {module(path): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    imports: dict[str, set[str]] = {}
    for name, path in paths.items():
        names = imported(ast.parse(path.read_text("utf-8")), name, package=path.name == "__init__.py")
        known = {target if target in paths else target.rpartition(".")[0] for target in names}
        imports[name] = {target for target in known if target in paths and target != name}
    imports[ENTRY] |= {command.module for command in COMMANDS.values()}
    return imports


GRAPH = graph()


def cycle(modules: Graph) -> list[str]:
    """Modules that import each other in a circle; empty if there are none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(modules.get(name, ())):
            if circle := visit(other, [*path, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(modules) if (circle := visit(name, []))), [])


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def package_of(name: str) -> str:
    return max((package for package in ALLOWED if within(name, package)), key=len)


def forbidden(modules: Graph) -> list[tuple[str, str]]:
    """Imports from one package into another that the table does not allow."""
    return [
        (name, other)
        for name, others in modules.items()
        for other in sorted(others)
        if package_of(name) != package_of(other)
        and not any(within(other, package) for package in ALLOWED[package_of(name)])
    ]


def reachable(modules: Graph, start: str) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        fresh = modules[waiting.pop()] - reached
        reached |= fresh
        waiting += fresh
    return reached


def test_no_import_goes_in_a_circle() -> None:
    assert cycle(GRAPH) == []


def test_packages_import_only_what_the_table_allows() -> None:
    assert forbidden(GRAPH) == []


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("handler.door", ("handler.delivery",)),
        ("handler.delivery", ("handler.door",)),
        ("handler.events", ("handler.door", "handler.delivery")),
    ],
)
def test_neither_function_imports_what_the_other_runs(package: str, others: tuple[str, ...]) -> None:
    names = {other for name in GRAPH if within(name, package) for other in reachable(GRAPH, name)}
    assert [name for name in names if any(within(name, other) for other in others)] == []


def test_no_other_module_makes_clients_of_aws() -> None:
    """The functions' own; of the tools one that reaches this machine only, and one that local/ cannot import."""
    makers = set()
    for folder in ("src/handler", "sim", "tools", "local"):
        for path in (ROOT / folder).rglob("*.py"):
            names = imported(ast.parse(path.read_text("utf-8")), module(path), package=path.name == "__init__.py")
            if any(within(name, package) for name in names for package in ("boto3", "botocore.session")):
                makers.add(module(path))
    assert makers == {"handler.aws", "tools.loopback", "tools.operate.target"}


@pytest.mark.parametrize("name", [name for name in GRAPH if within(name, "local")])
def test_local_stack_cannot_reach_a_deployed_one(name: str) -> None:
    assert reachable(GRAPH, name).isdisjoint(REAL_AWS)


def test_cycle_inside_functions_is_found() -> None:
    codes = {"p.a": "from . import b", "p.b": "def f():\n    from . import c", "p.c": "import p.a"}
    modules = {name: set(imported(ast.parse(code), name, package=False)) for name, code in codes.items()}
    assert cycle(modules) == ["p.a", "p.b", "p.c", "p.a"]


@pytest.mark.parametrize(("name", "other"), [("handler.batch", "tools.paths"), ("tools.operate.logs", "local.aws")])
def test_import_against_the_table_is_found(name: str, other: str) -> None:
    assert forbidden({name: {other}, other: set()}) == [(name, other)]
