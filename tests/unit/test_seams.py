"""What is replaced by name exists: after a renaming, chaos and the benchmarks fail rather than run unchanged."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from local import seams
from tests.unit.test_imports import ENVIRONMENT

ROOT = Path(__file__).parents[2]


def test_unknown_name_is_refused_and_nothing_is_replaced() -> None:
    owner = SimpleNamespace(known=1)
    with pytest.raises(AttributeError, match="has no attribute 'forgotten'"):
        seams.put((owner, "known", 2), (owner, "forgotten", 3))
    assert vars(owner) == {"known": 1}
    seams.put((owner, "known", 2))
    assert owner.known == 2


@pytest.mark.parametrize("function", ["deliver", "receive"])
def test_chaos_replaces_what_the_functions_have(function: str) -> None:
    code = f"import local.chaos.killed_{function}; from handler import keys; print(keys.KEPT_SECONDS)"
    passed = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    found = subprocess.run(  # noqa: S603 (our own command line)
        [sys.executable, "-c", code],
        env={**passed, **ENVIRONMENT, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (found.stdout.strip(), found.returncode) == ("5", 0), found.stderr[-500:]


def unchecked(tree: ast.Module) -> Iterator[int]:
    """Lines that set an attribute by a name which nobody checks: neither ``put``, nor pytest, nor mypy."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            lenient = any(word.arg == "raising" for word in node.keywords)
            if getattr(node.func, "id", "") == "setattr" or (method == "setattr" and lenient):
                yield node.lineno
        for target in node.targets if isinstance(node, ast.Assign) else ():
            own = isinstance(target, ast.Attribute) and getattr(target.value, "id", "") in ("self", "cls")
            if isinstance(target, ast.Attribute) and target.attr.startswith("_") and not own:
                yield node.lineno  # type: ignore[attr-defined]


def test_no_other_code_sets_attributes_unchecked() -> None:
    paths = [path for folder in ("tools", "local", "bench", "tests", "fuzz") for path in (ROOT / folder).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): list(unchecked(ast.parse(path.read_text("utf-8")))) for path in paths}
    assert {path: lines for path, lines in found.items() if lines and path != "local/seams.py"} == {}


@pytest.mark.parametrize(
    "code", ['setattr(a, "b", 1)', "module.SECRETS._client = 1", 'patch.setattr(a, "b", 1, raising=False)']
)
def test_unchecked_attribute_is_found(code: str) -> None:
    assert list(unchecked(ast.parse(code))) == [1]
