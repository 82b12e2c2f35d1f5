"""No code compares prose: texts for people may be reworded at any time, so programs compare codes.

Two things are refused in the functions, the tools and the benchmarks: a comparison with a literal (or a constant) of
more than one word, and the text of an exception taken apart. What others wrote has no code; each such text has its
reason here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("src/handler", "tools", "local", "bench")
WORDS = re.compile(r"[A-Za-z]{2,}\S* +\S|\S +\S*[A-Za-z]{2,}")
IN_PATTERN = re.compile(r"[A-Za-z]{3,}:? +[\w(\\]|[\w)+*] +[A-Za-z]{2,}")
METHODS = {"startswith", "endswith", "removeprefix", "removesuffix", "find", "index", "count", "split", "partition"}
PATTERNS = {"compile", "match", "search", "fullmatch", "findall", "finditer", "sub", "split"}
APART = METHODS | PATTERNS | {"splitlines", "rpartition", "rsplit", "replace"}

LINES = "the name of a kind of log line: docs/logs.md lists it, and users' queries select by it"
RETRIES = "a value of the vocabulary of [retries] in a sender's file"
MARKS = "a mark in a page of docs/, which the page itself documents"
BY_OTHERS = {
    "job continued": LINES,
    "webhook continued": LINES,
    "webhook mapped again": LINES,
    "webhooks refused": LINES,
    r"Status: (.+), (\d{4}-\d{2}-\d{2})": MARKS,
    "<!-- made by python -m tools pages -->": MARKS,
    "<!-- end -->": MARKS,
    "the caller decides": RETRIES,
    "200 or 204": RETRIES,
    r"(\d{3}|\dxx)(( or | to |, )(\d{3}|\dxx))*|not known": RETRIES,
    r"\bStatus: (?!success)": "Lambda's REPORT line in text format, which has no code for a failure",
    "Klaviyo-API-Key {}": "the Authorization header's scheme (Klaviyo, Authenticate API requests)",
    "{} Customer ID": "the name of a profile property in Klaviyo",
    r"VmHWM:\s+(\d+) kB": "a line of Linux's /proc/self/status",
    r"\(at line (\d+), column (\d+)\)$": "tomllib names the line in its text only, until Python 3.14",
}
# Where the text of an exception is taken apart: of these libraries' exceptions only.
TAKEN_APART = {("src/handler/events/toml_errors.py", "tomllib's errors have no code and no line")}

Place = tuple[str, int, str]


def files() -> dict[str, ast.Module]:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8")) for path in paths}


def constants(tree: ast.Module) -> dict[str, list[str]]:
    """Texts of a module's constants by name."""
    assigned: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id.lstrip("_").isupper():
                assigned.setdefault(target.id, []).extend(texts(value, {}))
    return assigned


def public(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Those that other modules may import."""
    sentences: dict[str, list[str]] = {}
    for tree in trees.values():
        for name, said in constants(tree).items():
            if not name.startswith("_"):
                sentences.setdefault(name, []).extend(said)
    return sentences


def texts(node: ast.AST, known: dict[str, list[str]]) -> Iterator[str]:
    """Every text that an operand may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        yield node.value if isinstance(node.value, str) else node.value.decode("latin-1")
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for part in node.elts:
            yield from texts(part, known)
    elif isinstance(node, ast.Dict):
        for key in node.keys:
            yield from texts(key, known) if key else ()
    elif isinstance(node, ast.BinOp):
        yield from (*texts(node.left, known), *texts(node.right, known))
    elif isinstance(node, ast.IfExp):
        yield from (*texts(node.body, known), *texts(node.orelse, known))
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("frozenset", "set", "tuple"):
        for part in node.args:
            yield from texts(part, known)
    elif isinstance(node, ast.Name):
        yield from known.get(node.id, ())
    elif isinstance(node, ast.Attribute):
        yield from known.get(node.attr, ())


def compared(node: ast.AST) -> list[ast.expr]:
    """What a node compares something with."""
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, ast.MatchValue):
        return [node.value]
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return []
    return node.args[:1] if node.func.attr in (PATTERNS if _is_pattern(node) else METHODS) else []


def prose(trees: dict[str, ast.Module]) -> Iterator[Place]:
    shared = public(trees)
    for path, tree in trees.items():
        known = shared | constants(tree)
        for node in ast.walk(tree):
            for operand in compared(node):
                yield from (
                    (path, node.lineno, text)  # type: ignore[attr-defined]
                    for text in texts(operand, known)
                    if _is_prose(text, pattern=_is_pattern(node))
                )


def _is_pattern(node: ast.AST) -> bool:
    function = node.func if isinstance(node, ast.Call) else None
    return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "re"


def _is_prose(text: str, *, pattern: bool) -> bool:
    plain = re.sub(r"\(\?P<\w+>|\[[^\]]*\]", "", text) if pattern else text
    return bool((IN_PATTERN if pattern else WORDS).search(plain))


def caught(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Comparisons with the text of an exception, and calls that take one apart."""
    for handler in (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name):
        for node in (inner for statement in handler.body for inner in ast.walk(statement)):
            operands = [*compared(node), *(node.args if isinstance(node, ast.Call) and _takes_apart(node) else [])]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in APART:
                operands.append(node.func.value)
            if any(_is_text_of(part, str(handler.name)) for part in operands):
                yield node.lineno, ast.unparse(node)  # type: ignore[attr-defined]


def _takes_apart(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr in PATTERNS


def _is_text_of(node: ast.expr, name: str) -> bool:
    """Whether ``node`` is ``str(name)``, ``repr(name)``, ``f"{name}"`` or of ``name.args``."""
    for inner in ast.walk(node):
        of = inner.args if isinstance(inner, ast.Call) and getattr(inner.func, "id", "") in ("str", "repr") else []
        of = [inner.value] if isinstance(inner, ast.FormattedValue) else of
        if any(isinstance(caught_type, ast.Name) and caught_type.id == name for caught_type in of):
            return True
        if isinstance(inner, ast.Attribute) and inner.attr == "args" and getattr(inner.value, "id", "") == name:
            return True
    return False


def test_no_code_compares_a_sentence() -> None:
    assert [place for place in prose(files()) if place[2] not in BY_OTHERS] == []


def test_each_text_by_others_is_still_compared_somewhere() -> None:
    assert {text for _, _, text in prose(files())} == set(BY_OTHERS)


def test_names_of_log_lines_are_documented() -> None:
    page = (ROOT / "docs/logs.md").read_text("utf-8")
    assert [text for text, why in BY_OTHERS.items() if why == LINES and f"`{text}`" not in page] == []


def test_no_code_takes_the_text_of_an_exception_apart() -> None:
    allowed = {path for path, _ in TAKEN_APART}
    places = [(path, *place) for path, tree in files().items() for place in caught(tree)]
    assert [place for place in places if place[0] not in allowed] == []


@pytest.mark.parametrize(
    "code",
    [
        'found = reason == "the relay is closed"',
        'found = "is closed" in reason',
        'found = reason in ("open", "the relay is closed")',
        'found = reason.startswith(f"closed for {seconds}")',
        'WHY = "the relay is closed"\nfound = reason != WHY',
        'found = re.search(r"closed for \\d+ s", reason)',
        'match reason:\n    case "the relay is closed":\n        pass',
    ],
)
def test_comparison_with_prose_is_found(code: str) -> None:
    assert len(list(prose({"x.py": ast.parse(code)}))) == 1


@pytest.mark.parametrize(
    "code",
    [
        'reason == "outage"',
        'text.split(" ")',
        'print("the relay is closed")',
        'PATTERN.search("a b")',
        're.sub(r"\\s+", " ", text)',
    ],
)
def test_comparison_with_a_code_passes(code: str) -> None:
    assert not list(prose({"x.py": ast.parse(code)}))


@pytest.mark.parametrize(
    "use",
    [
        '"away" in str(error)',
        'str(error).startswith("a")',
        're.match("a", str(error))',
        'error.args[0] == "a"',
        'f"{error}" == "a"',
    ],
)
def test_text_of_an_exception_is_found(use: str) -> None:
    assert list(caught(ast.parse(f"try:\n    pass\nexcept OSError as error:\n    found = {use}")))
