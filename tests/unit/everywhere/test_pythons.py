"""Which Python the tools run on: the functions' own if it works, and the one of a virtual environment that is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
THIS = f'exec {sys.executable} "$@"'
REFUSING_SHIM = "echo 'pyenv: python: command not found' >&2; exit 127"


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    passed = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "PYTHON", "VENV")}
    return subprocess.run(  # noqa: S603 (our own command lines)
        list(map(str, command)),
        cwd=ROOT,
        env=passed | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def found(version: str, tmp_path: Path) -> str:
    """What ``.ci/find-python`` finds with nothing but the system's tools behind ``tmp_path/bin``."""
    script(tmp_path / "bin" / "pyenv", f'echo "{tmp_path}"')
    return run(ROOT / ".ci" / "find-python", version, PATH=f"{tmp_path / 'bin'}:/nowhere").stdout.strip()


def test_a_python_on_the_path_is_found(tmp_path: Path) -> None:
    script(tmp_path / "bin" / f"python{VERSION}", THIS)
    assert found(VERSION, tmp_path) == sys.executable


def test_behind_a_shim_that_refuses_pyenvs_own_is_found(tmp_path: Path) -> None:
    script(tmp_path / "bin" / f"python{VERSION}", REFUSING_SHIM)
    script(tmp_path / "versions" / f"{VERSION}.1" / "bin" / f"python{VERSION}", THIS)
    assert found(VERSION, tmp_path) == sys.executable


@pytest.mark.parametrize("python", [REFUSING_SHIM, THIS])
def test_what_refuses_or_is_of_another_version_is_not_taken(python: str, tmp_path: Path) -> None:
    script(tmp_path / "bin" / "python3.99", python)
    assert found("3.99", tmp_path) == ""


def test_an_environment_that_is_there_keeps_its_python(tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    script(environment / "bin" / "python", f'echo "$@" >> {tmp_path}/asked')
    done = run("make", "setup", f"VENV={environment}", f"PYTHON={script(tmp_path / 'other', 'exit 1')}")
    assert done.returncode == 0, done.stderr
    assert "--require-hashes -r src/requirements.txt" in (tmp_path / "asked").read_text()


def test_an_environment_whose_python_is_gone_is_made_again(tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    lines = [f'[ "$2" != venv ] || {{ echo "$@" > {tmp_path}/asked; cp {tmp_path}/works {environment}/bin/python; }}']
    script(tmp_path / "works", "exit 0")
    script(environment / "bin" / "python", "exit 127")
    done = run("make", "setup", f"VENV={environment}", f"PYTHON={script(tmp_path / 'other', *lines)}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text() == f"-m venv --clear {environment}\n"


def test_ci_runs_the_readmes_commands() -> None:
    written = (ROOT / ".ci" / "run").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    for command in ("make lint", "make test", "make chaos"):
        assert f"\n  {command}" in written
        assert command in readme
