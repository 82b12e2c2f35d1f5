"""Write the tables of docs/ that are made from the code: ``python -m tools pages``.

docs/architecture.md lists every module with the first paragraph of its
docstring, and docs/decisions/README.md every decision with its status. A link
of docs/architecture.md names a function, class or constant; if that has moved
to another module, and only one module defines it, the link follows.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.errors import CommandError

from .paths import ROOT

FOLDERS = ("src/handler", "sim", "local", "tools", "bench", "fuzz")
ARCHITECTURE = Path("docs/architecture.md")
DECISIONS = Path("docs/decisions/README.md")
BEGIN = "<!-- made by python -m tools pages -->"
END = "<!-- end -->"
STATUS = re.compile(r"Status: (.+), (\d{4}-\d{2}-\d{2})")
_TITLE = re.compile(r"# (\d{4}) (.+)")
LINK = re.compile(r"\[`(\w+)`\]\(\.\./([\w./-]+\.py)\)")


@dataclass(frozen=True)
class Decision:
    """One file of docs/decisions: ``status`` may hold a link, ``day`` is an ISO date."""

    file: str
    number: str
    title: str
    status: str
    day: str


def about(module: Path) -> str:
    """Return the first paragraph of the module's docstring as one line of Markdown, or raise ``CommandError``."""
    text = ast.get_docstring(ast.parse(module.read_text("utf-8")))
    if not text:
        raise CommandError(f"{module} has no docstring: docs/architecture.md shows its first line")
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`").replace("|", r"\|")


def modules(root: Path = ROOT) -> str:
    """Return one table for each folder with Python modules."""
    by_folder: dict[Path, list[Path]] = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            by_folder.setdefault(path.parent, []).append(path)
    return "\n\n".join(_table(folder, paths, root) for folder, paths in sorted(by_folder.items()))


def _table(folder: Path, paths: list[Path], root: Path) -> str:
    introduction = [about(path) for path in paths if path.name == "__init__.py"]
    rows = [
        f"| [`{path.name}`](../{path.relative_to(root).as_posix()}) | {about(path)} |"
        for path in paths
        if path.name != "__init__.py"
    ]
    heading = f"### `{folder.relative_to(root).as_posix()}/`"
    table = "\n".join(["| module | what it is for |", "|---|---|", *rows]) if rows else ""
    return "\n\n".join(part for part in (heading, *introduction, table) if part)


def decision(path: Path) -> Decision:
    """Read the heading of a decision; ``CommandError`` if it is not in the form of docs/decisions/README.md."""
    title, _, status = path.read_text("utf-8").splitlines()[:3]
    named, dated = _TITLE.fullmatch(title), STATUS.fullmatch(status)
    if not named or not dated:
        raise CommandError(f"{path}: expected '# NNNN Title', an empty line, and 'Status: accepted, YYYY-MM-DD'")
    return Decision(path.name, *named.groups(), *dated.groups())


def decisions(root: Path = ROOT) -> str:
    """Return the table of all decisions by number."""
    listed = [decision(path) for path in sorted((root / DECISIONS).parent.glob("[0-9]*.md"))]
    rows = [
        f"| [{decision.number}]({decision.file}) | {decision.title} | {decision.status} | {decision.day} |"
        for decision in listed
    ]
    return "\n".join(["| | decision | status | date |", "|---|---|---|---|", *rows])


def defined(module: Path) -> set[str]:
    """Return the functions, classes and constants of a module, methods included."""
    names: set[str] = set()
    tree = ast.parse(module.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def followed(text: str, root: Path = ROOT) -> str:
    """Return ``text`` with each link to a name that has moved corrected."""

    def corrected(link: re.Match[str]) -> str:
        name, target = link.groups()
        if (root / target).exists() and name in defined(root / target):
            return link[0]
        modules = [path for folder in FOLDERS for path in (root / folder).rglob("*.py") if name in defined(path)]
        return f"[`{name}`](../{modules[0].relative_to(root).as_posix()})" if len(modules) == 1 else link[0]

    return LINK.sub(corrected, text)


def filled(page: str, table: str) -> str:
    """Return ``page`` with ``table`` between the two marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}"


def pages(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Yield each page with what it has to hold."""
    architecture = (root / ARCHITECTURE).read_text("utf-8")
    yield root / ARCHITECTURE, followed(filled(architecture, modules(root)), root)
    yield root / DECISIONS, filled((root / DECISIONS).read_text("utf-8"), decisions(root))


def run(_: argparse.Namespace) -> int:
    """Write both pages."""
    for path, text in pages():
        path.write_text(text, "utf-8")
    return 0
