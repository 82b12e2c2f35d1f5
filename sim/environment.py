"""What template.yaml gives the functions, with its parameters' defaults put in.

Names of resources stay names: ``!Ref EventsQueue`` is ``"EventsQueue"``. Only
``KlaviyoUrl`` is never the default, since nothing simulated may reach Klaviyo.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

TEMPLATE = Path(__file__).parent.parent / "template.yaml"
NOWHERE = "http://127.0.0.1:9"
# Lambda's own, and invented credentials.
PLATFORM = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}


def receive(**parameters: str) -> dict[str, str]:
    """Return the environment of ``receive``."""
    return _variables("ReceiveFunction", parameters)


def deliver(**parameters: str) -> dict[str, str]:
    """Return the environment of ``deliver``."""
    return _variables("DeliverFunction", parameters)


def properties(resource: str, template: Path = TEMPLATE, **parameters: str) -> dict[str, Any]:
    """Return a resource's properties as the template writes them, parameters and conditions put in."""
    document = _read(template)
    properties: dict[str, Any] = _resolved(document["Resources"][resource]["Properties"], document, parameters)
    return properties


def _variables(function: str, parameters: Mapping[str, str]) -> dict[str, str]:
    document = _read(TEMPLATE)
    shared = document["Globals"]["Function"]["Environment"]["Variables"]
    own = document["Resources"][function]["Properties"]["Environment"]["Variables"]
    chosen = {"KlaviyoUrl": NOWHERE, **parameters}
    return PLATFORM | {name: str(_resolved(value, document, chosen)) for name, value in {**shared, **own}.items()}


@cache
def _read(template: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml_parse(template.read_text("utf-8"))
    return document


def _resolved(node: Any, document: Mapping[str, Any], parameters: Mapping[str, str]) -> Any:
    if isinstance(node, list):
        return [_resolved(part, document, parameters) for part in node]
    if not isinstance(node, dict):
        return node
    if list(node) == ["Ref"]:
        declared = document["Parameters"].get(node["Ref"], {"Default": node["Ref"]})
        return parameters.get(node["Ref"], declared.get("Default", ""))
    if list(node) == ["Fn::If"]:
        condition, yes, no = node["Fn::If"]
        return _resolved(
            yes if _holds(document["Conditions"][condition], document, parameters) else no, document, parameters
        )
    if list(node) == ["Fn::Join"]:
        mark, parts = _resolved(node["Fn::Join"], document, parameters)
        return str(mark).join(parts)
    return {name: _resolved(value, document, parameters) for name, value in node.items()}


def _holds(condition: Any, document: Mapping[str, Any], parameters: Mapping[str, str]) -> bool:
    ((operator, operands),) = condition.items()
    if operator == "Fn::Not":
        return not _holds(operands[0], document, parameters)
    if operator != "Fn::Equals":
        raise ValueError(f"sim/environment.py cannot evaluate {operator} in a condition; add it there")
    left, right = (str(_resolved(operand, document, parameters)) for operand in operands)
    return left == right
