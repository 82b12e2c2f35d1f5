"""The package that `sam build` makes, apart from the packages that it installs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local.template import ROOT

MAKEFILE = ROOT / "src" / "Makefile"
BY_HASH_CHECKED = 0b11


def functions(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    kind = "AWS::Serverless::Function"
    return {name: one for name, one in template["Resources"].items() if one["Type"] == kind}


def test_each_function_is_built_by_the_makefile_for_its_runtime(template: dict[str, Any]) -> None:
    shared = template["Globals"]["Function"]
    written = MAKEFILE.read_text("utf-8")
    assert f"PYTHON := {shared['Runtime']}\n" in written
    assert f"--python-version {shared['Runtime'].removeprefix('python')} " in written
    assert shared["Architectures"] == ["arm64"]
    assert "manylinux2014_aarch64" in written
    assert {one["Metadata"]["BuildMethod"] for one in functions(template).values()} == {"makefile"}


@pytest.mark.parametrize("name", ["ReceiveFunction", "DeliverFunction"])
def test_a_package_brings_bytecode_that_holds_whatever_the_times_of_its_files(name: str, tmp_path: Path) -> None:
    # A python that installs nothing, and is this one: what lies in the archive is ours.
    stand_in, package = tmp_path / "python", tmp_path / "package"
    stand_in.write_text(f'#!/bin/sh\n[ "$2" = pip ] || exec {sys.executable} "$@"\n')
    stand_in.chmod(0o755)
    old = package / "handler" / "__pycache__" / "receive.cpython-27.pyc"
    old.parent.mkdir(parents=True)
    old.touch()
    subprocess.run(  # noqa: S603 (our own command line)
        ["make", "--silent", f"build-{name}", f"ARTIFACTS_DIR={package}", f"PYTHON={stand_in}"],  # noqa: S607
        cwd=MAKEFILE.parent,
        check=True,
        timeout=60,
    )
    sources = sorted((package / "handler").glob("*.py"))
    assert {path.name for path in sources} >= {"receive.py", "deliver.py"}
    assert (package / "handler" / "sources" / "stripe.toml").exists()
    assert not old.exists()
    for path in sources:
        header = Path(importlib.util.cache_from_source(str(path))).read_bytes()[:16]
        assert header[:4] == importlib.util.MAGIC_NUMBER
        assert header[4] == BY_HASH_CHECKED
        assert header[8:] == importlib.util.source_hash(path.read_bytes())
