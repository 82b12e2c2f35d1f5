"""In which region, and as whom, the commands for a deployed stack look for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tools import commands
from tools.errors import CommandError
from tools.operate import target

SAVED = """
version = 0.1
[default.deploy.parameters]
stack_name = "shop"
region = "eu-west-1"
[staging.deploy.parameters]
stack_name = "shop-staging"
"""
VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in KEYS:
        monkeypatch.setenv(name, "none")
    (tmp_path / "samconfig.toml").write_text(SAVED)


def region(stack: str, folder: Path) -> Any:
    return target.clients(stack, folder)("sqs").meta.region_name


def test_it_is_the_environments_otherwise_what_sam_wrote_for_the_stack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert region("shop", tmp_path) == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert region("shop", tmp_path) == "us-west-2"


def test_without_any_it_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="AWS_REGION"):
        target.clients("shop-staging", tmp_path)


@pytest.mark.parametrize("what", ["check", "secrets", "try"])
def test_commands_without_credentials_say_how_to_get_some(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    for name in KEYS:
        monkeypatch.delenv(name)
    assert commands.main([what, "--stack", "shop"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: No AWS credentials. Set AWS_PROFILE")


def test_missing_stack_is_asked_for_without_a_parsers_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["check", "--stack", ""]) == 2
    assert capsys.readouterr().err == "error: No stack given. Set STACK=, such as STACK=klaviyo-relay\n"
