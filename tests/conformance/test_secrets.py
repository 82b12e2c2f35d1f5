"""``sim.secrets`` compared with boto3's client on MiniStack."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sim.secrets import Secrets
from tests.conformance.support import refused

pytestmark = pytest.mark.xdist_group("conformance")
Client = Callable[[str], Any]


@pytest.fixture
def sides(ministack: Client, name: str) -> list[Any]:
    """Both hold the secret ``name``."""
    document = {"api_key": "pk_one"}
    real = ministack("secretsmanager")
    real.create_secret(Name=name, SecretString=json.dumps(document))
    return [Secrets({name: document}), real]


def test_a_secret_is_read_as_it_was_stored(sides: list[Any], name: str) -> None:
    simulated, real = (side.get_secret_value(SecretId=name) for side in sides)
    assert simulated["SecretString"] == real["SecretString"]
    assert simulated["Name"] == real["Name"]


def test_a_missing_secret_is_the_same_error(sides: list[Any]) -> None:
    codes = [refused(side.get_secret_value, SecretId="missing") for side in sides]
    assert codes == ["ResourceNotFoundException"] * 2
