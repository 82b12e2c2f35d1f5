"""What is given to make reaches the tools as it is: neither make nor the shell reads anything in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMANDS = [
    ("logs", ("ID", "SOURCE", "STACK", "HOURS")),
    ("redrive", ("SOURCE", "REASON", "STACK")),
    ("send", ("SOURCE", "FILE", "HEADERS", "URL")),
    ("preview", ("SOURCE", "FILE", "HEADERS")),
    ("new-sender", ("NAME", "FILE", "HEADERS")),
    ("secrets", ("STACK", "SOURCE")),
    ("try", ("STACK", "SOURCE")),
    ("check", ("STACK",)),
    ("chaos", ("SEED", "MINUTES")),
    ("mutants", ("MODULE",)),
]
POSITIONAL = ("send", "preview", "new-sender")  # names of sources and files


@pytest.mark.parametrize("from_environment", [False, True])
@pytest.mark.parametrize(("target", "names"), COMMANDS, ids=[target for target, _ in COMMANDS])
def test_a_copied_id_runs_nothing(tmp_path: Path, target: str, names: tuple[str, ...], from_environment: bool) -> None:
    ran = tmp_path / "ran"
    value = f"-evt_1\"; touch {ran}; `touch {ran}` $(touch {ran}) $(shell touch {ran}) $HOME $$ 'x' \\ # %"
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport json, sys; print(json.dumps(sys.argv[1:]))\n")
    python.chmod(0o700)
    for stamp in (".ready", ".mutants-ready"):  # otherwise make would install what is missing
        (tmp_path / stamp).touch()
    values = {name: f"{value} {name}" for name in names}
    command = ["make", "-s", target, f"VENV={tmp_path}", f"BIN={tmp_path}"]
    command += [] if from_environment else [f"{name}={text}" for name, text in values.items()]
    environment = {"PATH": os.environ["PATH"]} | (values if from_environment else {})
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    arguments = json.loads(done.stdout)
    assert set(values.values()) <= {re.sub("^--[a-z]+=", "", argument) for argument in arguments}
    # An id may begin as an option does (-NabC, of Firebase's): the option's name comes before it in one argument.
    assert target in POSITIONAL or not [argument for argument in arguments if argument.startswith("-evt")]
    assert not ran.exists()
