"""What surrounds the relay exists once, in ``sim``: no test and no benchmark has a table, queue or clock of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Methods by which a stand-in is known, and the classes from which one may have them.
KINDS = {
    "pacing table": ({"advance", "swap"}, {"Table"}),
    "SQS client": ({"send_message_batch"}, {"Sqs"}),
    "Secrets Manager client": ({"get_secret_value"}, {"Secrets"}),
    "Klaviyo": ({"open", "post"}, {"Klaviyo", "Connection"}),  # or the real connection, made to fail
    "clock": ({"sleep"}, {"Time"}),
}
VARIABLES = {"EVENTS_QUEUE_URL", "REQUESTS_PER_MINUTE", "KLAVIYO_SECRET", "SOURCES_SECRET"}


def doubles(source: str) -> Iterator[tuple[int, str]]:
    """Line and kind of each stand-in that ``source`` defines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            methods = {method.name for method in node.body if isinstance(method, ast.FunctionDef)}
            bases = {ast.unparse(base).split(".")[-1] for base in node.bases}
            for kind, (known_by, real) in KINDS.items():
                if known_by <= methods and not bases & real:
                    yield node.lineno, kind
        elif isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            if len(keys & VARIABLES) > 1:
                yield node.lineno, "environment"


@pytest.mark.parametrize("folder", ["tests", "bench", "fuzz"])
def test_every_double_is_in_sim(folder: str) -> None:
    copies = [
        f"{path.relative_to(ROOT)}:{line}: a {kind} of its own; pass a hook to the one in sim/"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, kind in doubles(path.read_text("utf-8"))
    ]
    assert copies == []


def test_a_double_of_each_kind_is_seen() -> None:
    written = ["\n  ".join(["class Own:", *(f"def {name}(self): ..." for name in kind[0])]) for kind in KINDS.values()]
    written.append(f"OWN = {dict.fromkeys(VARIABLES, '')}")
    assert [kind for source in written for _, kind in doubles(source)] == [*KINDS, "environment"]


def test_sim_imports_the_handler_only() -> None:
    """So that whatever is tested or measured with it can be changed without it."""
    for path in sorted((ROOT / "sim").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = node.module if isinstance(node, ast.ImportFrom) and not node.level else ""
            assert (name or "").split(".")[0] not in ("local", "tests", "bench", "tools"), f"{path.name} imports {name}"
