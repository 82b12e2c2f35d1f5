"""``sim.environment`` compared with the template as SAM translates it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sim import environment
from tools import template


def variables(function: str, **parameters: str) -> dict[str, str]:
    """The translated function's variables; a reference as the name that it refers to."""
    translated = template.resources(**parameters)[function]["Properties"]["Environment"]["Variables"]
    return {name: str(value["Ref"] if isinstance(value, dict) else value) for name, value in translated.items()}


@pytest.mark.parametrize(
    "parameters", [{}, {"PacingTable": "shared", "Monitoring": "essential", "WatchedSource1": "stripe"}]
)
def test_variables_are_those_of_the_translated_template(parameters: dict[str, str]) -> None:
    nowhere: dict[str, str] = {"KlaviyoUrl": environment.NOWHERE}
    for function, simulated in (
        ("ReceiveFunction", environment.receive(**parameters)),
        ("DeliverFunction", environment.deliver(**parameters)),
    ):
        expected = variables(function, **nowhere, **parameters)
        assert expected == {name: value for name, value in simulated.items() if name not in environment.PLATFORM}


def test_nothing_simulated_reaches_klaviyo_by_default() -> None:
    assert environment.deliver()["KLAVIYO_URL"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("resource", ["EventsQueue", "DeadLetterQueue"])
def test_properties_are_those_of_the_translated_template(resource: str) -> None:
    translated: dict[str, Any] = template.resources()[resource]["Properties"]
    numbers = {name: value for name, value in translated.items() if isinstance(value, int)}
    assert numbers.items() <= environment.properties(resource).items()


def test_another_template_may_be_read(tmp_path: Path) -> None:
    changed = tmp_path / "template.yaml"
    changed.write_text(
        environment.TEMPLATE.read_text("utf-8").replace("VisibilityTimeout: 725", "VisibilityTimeout: 9")
    )
    assert environment.properties("EventsQueue", changed)["VisibilityTimeout"] == 9
