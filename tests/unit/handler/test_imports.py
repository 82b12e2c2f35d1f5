"""What a cold start must not load: each of these costs tens of milliseconds, or is not needed at the door."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim import environment

SRC = Path(__file__).parents[3] / "src"
ENVIRONMENT = environment.receive() | environment.deliver(KlaviyoUrl="https://127.0.0.1")
HEAVY = ("pydantic", "aws_xray_sdk", "phonenumbers", "aws_lambda_powertools.event_handler")
# What only multipart forms and only signatures by key pair need.
SELDOM = ("email.headerregistry", "handler.events.multipart", "multipart", "handler.door.ecdsa")
# What each function may not load as it starts: the other's package, and for ``deliver`` what reads webhooks, which is
# loaded for a parked one or a late event only.
OTHERS = {"receive": ("handler.delivery",), "deliver": ("handler.door", "handler.events", "tomllib")}
ZONES = ("zoneinfo", "tzdata")
TOOLS = ("tools", "local", "tests", "samtranslator", "ministack")


def loaded(statement: str, **more: str) -> set[str]:
    """The modules that a fresh interpreter holds after ``statement``."""
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    passed = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(  # noqa: S603 (our own command line)
        [sys.executable, "-c", code],
        env={**passed, **ENVIRONMENT, "PYTHONPATH": str(SRC), **more},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


def found(modules: set[str], names: tuple[str, ...]) -> list[str]:
    return sorted(
        module for module in modules if module.startswith(tuple(f"{name}." for name in names)) or module in names
    )


@pytest.mark.parametrize("function", ["receive", "deliver"])
def test_a_start_loads_no_heavy_module(function: str) -> None:
    assert found(loaded(f"import handler.{function}"), (*HEAVY, *SELDOM, *TOOLS)) == []


@pytest.mark.parametrize("function", ["receive", "deliver"])
def test_zones_are_loaded_only_by_a_stack_that_has_one(function: str) -> None:
    statement = f"import handler.{function}"
    assert found(loaded(statement), ZONES) == []
    assert "zoneinfo" in loaded(statement, TIME_ZONE="Europe/Paris")


@pytest.mark.parametrize("function", ["receive", "deliver"])
def test_a_function_loads_nothing_of_the_other(function: str) -> None:
    assert found(loaded(f"import handler.{function}"), OTHERS[function]) == []


@pytest.mark.parametrize(
    ("function", "services"),
    [("receive", {"secretsmanager", "sqs"}), ("deliver", {"dynamodb", "secretsmanager", "sqs"})],
)
def test_a_start_looks_for_no_other_service_of_aws(function: str, services: set[str]) -> None:
    code = (
        "import pathlib, sys; listed = set(); "
        "sys.addaudithook(lambda event, args: event == 'os.listdir' and listed.add(pathlib.Path(args[0] or '.'))); "
        f"import handler.{function}; "
        "sys.modules.update(dict.fromkeys('listed:' + path.name for path in listed if path.parent.name == 'data'))"
    )
    assert {module.removeprefix("listed:") for module in loaded(code) if module.startswith("listed:")} == services


def test_the_door_reads_no_sender_before_its_first_webhook() -> None:
    statement = (
        "import handler.receive; from handler.events.senders import load; assert load.cache_info().currsize == 0"
    )
    assert "handler.events.custom_source" not in loaded(statement)


def test_a_webhook_loads_its_own_sender_only() -> None:
    statement = "from handler.events import senders as s; s.load('stripe'); assert s.load.cache_info().currsize == 1"
    assert found(loaded(statement), ("phonenumbers",)) == []


@pytest.mark.parametrize(("name", "files"), [("stripe", {"stripe"}), ("rudderstack", {"rudderstack", "segment"})])
def test_a_webhook_reads_no_other_senders_file(name: str, files: set[str]) -> None:
    code = (
        "import pathlib, sys; opened = set(); "
        "sys.addaudithook(lambda event, args: event == 'open' and str(args[0]).endswith('.toml')"
        " and opened.add('read:' + pathlib.Path(args[0]).stem)); "
        f"from handler.events import senders; senders.load('{name}'); sys.modules.update(dict.fromkeys(opened))"
    )
    assert {module.removeprefix("read:") for module in loaded(code) if module.startswith("read:")} == files


def test_the_first_phone_number_loads_the_metadata() -> None:
    assert (
        found(loaded("from handler.events import values; values.phone('+447911123456', [])"), ("phonenumbers",)) != []
    )
