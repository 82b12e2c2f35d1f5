"""The package that `sam build` makes, apart from the packages that it installs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.paths import ROOT

MAKEFILE = ROOT / "src" / "Makefile"
BY_HASH_CHECKED = 0b11
MAGIC_OF_3_13 = (3571).to_bytes(2, "little") + b"\r\n"  # CPython, Include/internal/pycore_magic_number.h


def functions(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    kind = "AWS::Serverless::Function"
    return {name: resource for name, resource in template["Resources"].items() if resource["Type"] == kind}


def test_each_function_is_built_by_the_makefile_for_its_runtime(template: dict[str, Any]) -> None:
    shared = template["Globals"]["Function"]
    written = MAKEFILE.read_text("utf-8")
    assert f"PYTHON := {shared['Runtime']}\n" in written
    assert f"--python-version {shared['Runtime'].removeprefix('python')} " in written
    assert shared["Architectures"] == ["arm64"]
    assert "manylinux2014_aarch64" in written
    assert {function["Metadata"]["BuildMethod"] for function in functions(template).values()} == {"makefile"}


def build(name: str, package: Path, python: str) -> subprocess.CompletedProcess[str]:
    """What ``make`` says with a shell script of these lines as its Python."""
    stand_in = package.with_name("python3.13")
    stand_in.write_text(f"#!/bin/sh\n{python}\n")
    stand_in.chmod(0o755)
    return subprocess.run(  # noqa: S603 (our own command line)
        ["make", "--silent", f"build-{name}", f"ARTIFACTS_DIR={package}", f"PYTHON={stand_in}"],  # noqa: S607
        cwd=MAKEFILE.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


OTHER_VERSION = f"""exec {sys.executable} -c 'import sys; sys.version_info = (3, 12, 9); exec(sys.argv[1])' "$2" """


@pytest.mark.parametrize("python", ["echo 'pyenv: python3.13: command not found' >&2; exit 127", OTHER_VERSION])
def test_another_python_than_the_runtimes_builds_nothing_and_says_what_to_do(python: str, tmp_path: Path) -> None:
    done = build("ReceiveFunction", tmp_path / "package", python)
    assert done.returncode != 0
    assert done.stderr.startswith(f"{tmp_path / 'python3.13'} is not a working Python 3.13. ")
    assert 'export PATH="$(pyenv prefix 3.13)/bin:$PATH"' in done.stderr
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize("name", ["ReceiveFunction", "DeliverFunction"])
def test_a_package_brings_bytecode_that_holds_whatever_the_times_of_its_files(name: str, tmp_path: Path) -> None:
    package = tmp_path / "package"
    old = package / "handler" / "__pycache__" / "receive.cpython-27.pyc"
    old.parent.mkdir(parents=True)
    old.touch()
    # A Python that installs nothing, and is this one, whatever its version: what is in the package is ours.
    done = build(name, package, f'[ "$1" = -c ] || [ "$2" = pip ] || exec {sys.executable} "$@"')
    assert done.returncode == 0, done.stderr
    sources = sorted((package / "handler").rglob("*.py"))
    assert {path.name for path in sources} >= {"receive.py", "deliver.py"}
    assert (package / "handler" / "sources" / "stripe.toml").exists()
    assert not old.exists()
    for path in sources:
        header = Path(importlib.util.cache_from_source(str(path))).read_bytes()[:16]
        assert header[:4] == importlib.util.MAGIC_NUMBER
        assert header[4] == BY_HASH_CHECKED
        assert header[8:] == importlib.util.source_hash(path.read_bytes())


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="packages are built with Python 3.13")
def test_the_packed_bytecode_is_that_of_the_runtime(tmp_path: Path) -> None:
    package = tmp_path / "package"
    done = build("DeliverFunction", package, f'[ "$2" = pip ] || exec {sys.executable} "$@"')
    assert done.returncode == 0, done.stderr
    packed = list(package.rglob("*.pyc"))
    assert len(packed) == len(list(package.rglob("*.py"))) > 20
    assert {path.read_bytes()[:4] for path in packed} == {MAGIC_OF_3_13}
