"""``sim.stacks`` compared with boto3's client on MiniStack; moto's CloudFormation needs packages that are not here.

Known differences: MiniStack gives empty lists where ``sim`` leaves them out, which the API allows, and
all stacks on one page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sim.stacks import Stack, Stacks
from tests.conformance.support import refused

pytestmark = pytest.mark.xdist_group("conformance")
Client = Callable[[str], Any]
RESOURCES = {"Topic": {"Type": "AWS::SNS::Topic"}}
TEMPLATE = {
    "Parameters": {"Rate": {"Type": "String"}},
    "Resources": RESOURCES,
    "Outputs": {"RateName": {"Value": {"Ref": "Rate"}}},
}


@pytest.fixture
def sides(ministack: Client, name: str) -> list[Any]:
    """Both have the stack ``name``, with a parameter, an output and a resource, and ``name``-bare, with a resource."""
    real = ministack("cloudformation")
    rate = [{"ParameterKey": "Rate", "ParameterValue": "75"}]
    real.create_stack(StackName=name, TemplateBody=json.dumps(TEMPLATE), Parameters=rate)
    real.create_stack(StackName=f"{name}-bare", TemplateBody=json.dumps({"Resources": RESOURCES}))
    for one in (name, f"{name}-bare"):
        real.get_waiter("stack_create_complete").wait(StackName=one, WaiterConfig={"Delay": 1})
    topic = real.describe_stack_resource(StackName=name, LogicalResourceId="Topic")["StackResourceDetail"]
    resources = {"Topic": topic["PhysicalResourceId"]}
    whole = Stack(name, {"Rate": "75"}, {"RateName": "75"}, resources)
    return [Stacks(whole, Stack(f"{name}-bare", resources=resources), per_page=1), real]


def comparable(stack: dict[str, Any]) -> dict[str, Any]:
    """What both sides say of a stack."""
    lists = {
        kind: {pair[f"{kind}Key"]: pair[f"{kind}Value"] for pair in stack.get(f"{kind}s", [])}
        for kind in ("Parameter", "Output")
    }
    return lists | {name: stack[name] for name in ("StackName", "StackStatus")}


@pytest.mark.parametrize("suffix", ["", "-bare"])
def test_a_stack_is_described_alike_by_name(suffix: str, sides: list[Any], name: str) -> None:
    simulated, real = (comparable(*side.describe_stacks(StackName=name + suffix)["Stacks"]) for side in sides)
    assert simulated == real


def test_pages_have_every_stack_once(sides: list[Any], name: str) -> None:
    """Among those of other tests, which the emulator keeps."""
    answers = []
    for side in sides:
        pages = list(side.get_paginator("describe_stacks").paginate())
        stacks = [comparable(stack) for page in pages for stack in page["Stacks"]]
        answers.append([stack for stack in stacks if stack["StackName"] in (name, f"{name}-bare")])
    assert sorted(answers[0], key=str) == sorted(answers[1], key=str)
    assert len(answers[0]) == 2


def test_a_resource_is_described_alike(sides: list[Any], name: str) -> None:
    asked = {"StackName": name, "LogicalResourceId": "Topic"}
    simulated, real = (side.describe_stack_resource(**asked)["StackResourceDetail"] for side in sides)
    assert simulated.items() <= real.items()


def test_what_is_missing_is_the_same_error(sides: list[Any], name: str) -> None:
    for side in sides:
        resource = side.describe_stack_resource
        assert refused(side.describe_stacks, StackName="missing") == "ValidationError"
        assert refused(resource, StackName="missing", LogicalResourceId="Topic") == "ValidationError"
        assert refused(resource, StackName=name, LogicalResourceId="Missing") == "ValidationError"
