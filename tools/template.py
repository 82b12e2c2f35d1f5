"""The template as CloudFormation will see it: translated, with parameters and conditions put in."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from typing import Any

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

from . import paths

NOTHING = object()
# The translator counts its own calls, and warns at exit that the counts were not published.
logging.getLogger("samtranslator.metrics.metrics").setLevel(logging.ERROR)


class NoPolicies:
    """A stand-in for the managed policies that SAM fetches from AWS: this template names none."""

    def load(self) -> dict[str, str]:
        """Return no policies."""
        return {}


def source() -> dict[str, Any]:
    """Return template.yaml as it is written."""
    document: dict[str, Any] = yaml_parse((paths.ROOT / "template.yaml").read_text("utf-8"))
    return document


def resources(**parameters: Any) -> dict[str, Any]:
    """Return the resources of a stack with these parameters (otherwise their defaults)."""
    return _stack(parameters)["Resources"]


def outputs(**parameters: Any) -> dict[str, Any]:
    """Return the outputs of a stack with these parameters, pseudo parameters among them (otherwise their defaults)."""
    return _stack(parameters)["Outputs"]


def _stack(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-west-1")
    written = source()
    chosen = {name: parameter.get("Default") for name, parameter in written["Parameters"].items()}
    chosen |= {"AWS::Partition": "aws", **parameters}
    values = {name: _number(value) for name, value in chosen.items()}
    written["Globals"]["Function"]["CodeUri"] = {"Bucket": "code", "Key": "code.zip"}
    translated = transform(copy.deepcopy(written), dict(values), NoPolicies())
    conditions = {name: _truth(rule, values) for name, rule in translated["Conditions"].items()}
    return {
        part: {
            name: _put_in(item, values, conditions)
            for name, item in translated[part].items()
            if conditions.get(item.get("Condition", ""), True)
        }
        for part in ("Resources", "Outputs")
    }


def of_type(resources: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """Return the properties of all resources of a type, by name."""
    return {name: resource.get("Properties", {}) for name, resource in resources.items() if resource["Type"] == kind}


def metrics_of(alarm: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return namespace, name and dimensions of what an alarm watches: one metric, or those of its formula."""
    formula = alarm.get("Metrics", [])
    return [term["MetricStat"]["Metric"] for term in formula if "MetricStat" in term] or [alarm]


def _number(value: Any) -> Any:
    """Return digits as the number that CloudFormation makes of them wherever a property is one."""
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _truth(rule: Any, values: Mapping[str, Any]) -> bool:
    ((operator, operands),) = rule.items()
    if operator == "Fn::Not":
        return not _truth(operands[0], values)
    if operator == "Fn::And":
        return all(_truth(operand, values) for operand in operands)
    if operator != "Fn::Equals":
        raise ValueError(f"tools/template.py cannot evaluate {operator} in a condition; add it there")
    left, right = (_put_in(operand, values, {}) for operand in operands)
    return bool(str(left) == str(right))


def _put_in(node: Any, values: Mapping[str, Any], conditions: Mapping[str, bool]) -> Any:
    """Return ``node`` with parameters and conditions put in; other intrinsic functions stay."""
    if isinstance(node, list):
        kept = [_put_in(item, values, conditions) for item in node]
        return [item for item in kept if item is not NOTHING]
    if not isinstance(node, dict):
        return node
    if list(node) == ["Ref"] and node["Ref"] == "AWS::NoValue":
        return NOTHING
    if list(node) == ["Ref"] and node["Ref"] in values:
        return values[node["Ref"]]
    if list(node) == ["Fn::If"]:
        condition, if_true, if_false = node["Fn::If"]
        return _put_in(if_true if conditions[condition] else if_false, values, conditions)
    if list(node) == ["Fn::Join"]:
        mark, parts = _put_in(node["Fn::Join"], values, conditions)
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            return str(mark).join(parts)
    kept_members = {name: _put_in(member, values, conditions) for name, member in node.items()}
    return {name: member for name, member in kept_members.items() if member is not NOTHING}
