"""CloudFormation in memory: stacks with parameters, outputs and resources.

Facts: CloudFormation API reference, DescribeStacks (all stacks in pages, or one by name) and DescribeStackResource.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from .pages import Paged


@dataclass(frozen=True)
class Stack:
    """A stack's name; its parameters, outputs and the physical ids of its resources by name."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, str] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """Return the stack as DescribeStacks has it, without lists that would be empty, which the API allows."""
        lists = {"Parameters": _pairs("Parameter", self.parameters), "Outputs": _pairs("Output", self.outputs)}
        known = {name: pairs for name, pairs in lists.items() if pairs}
        return {"StackName": self.name, "StackStatus": "CREATE_COMPLETE"} | known


class Stacks(Paged):
    """The client's ``describe_stacks`` and ``describe_stack_resource`` for ``stacks``, ``per_page`` in each answer."""

    def __init__(self, *stacks: Stack, per_page: int = 1) -> None:
        super().__init__(per_page)
        self._stacks = {stack.name: stack for stack in stacks}

    def describe_stacks(self, *, StackName: str = "", NextToken: str = "0") -> dict[str, Any]:  # noqa: N803
        """Do DescribeStacks; raise ``ClientError`` with ``ValidationError`` if none has the name."""
        if StackName:
            return {"Stacks": [self._stack("DescribeStacks", StackName).described()]}
        return self._page("Stacks", [stack.described() for stack in self._stacks.values()], NextToken)

    def describe_stack_resource(self, *, StackName: str, LogicalResourceId: str) -> dict[str, Any]:  # noqa: N803
        """Do DescribeStackResource; raise ``ClientError`` with ``ValidationError`` without such a stack or resource."""
        resources = self._stack("DescribeStackResource", StackName).resources
        if LogicalResourceId not in resources:
            raise _error("DescribeStackResource")
        detail = {
            "StackName": StackName,
            "LogicalResourceId": LogicalResourceId,
            "PhysicalResourceId": resources[LogicalResourceId],
        }
        return {"StackResourceDetail": detail}

    def _stack(self, operation: str, name: str) -> Stack:
        if name not in self._stacks:
            raise _error(operation)
        return self._stacks[name]


def _pairs(kind: str, values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{f"{kind}Key": name, f"{kind}Value": value} for name, value in values.items()]


def _error(operation: str) -> ClientError:
    return ClientError({"Error": {"Code": "ValidationError"}}, operation)
