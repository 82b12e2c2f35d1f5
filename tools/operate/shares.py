"""The shares of stacks that deliver to one Klaviyo account through one pacing table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from handler.delivery.pacing import ACCOUNT, rate_beside

from .target import Deployed

_DEFAULT = "150"  # of RequestsPerMinute in the template


def warnings(stack: Deployed) -> Iterator[str]:
    """Say so if the shares of the stacks on the table of ``stack`` add up to more than Klaviyo accepts."""
    rates = _rates(stack)
    if len(rates) > 1 and sum(rates.values()) > ACCOUNT:
        named = ", ".join(f"{name} {rate}" for name, rate in sorted(rates.items()))
        yield (
            f"The {len(rates)} stacks on the pacing table {stack.outputs['PacingTableName']} may make "
            f"{sum(rates.values())} requests a minute ({named}), and Klaviyo accepts {ACCOUNT}. {_outcome(rates)} "
            f"If that is not what you want, set RequestsPerMinute in each so that the sum is {ACCOUNT} or less"
        )


def _rates(stack: Deployed) -> dict[str, int]:
    """Return ``RequestsPerMinute`` of each stack that shares the pacing item, by the stack's name."""
    rates = {stack.name: int(stack.parameters.get("RequestsPerMinute", _DEFAULT))}
    # Without a name DescribeStacks lists the stacks of the account and region, in pages (CloudFormation API reference).
    for page in stack.client("cloudformation").get_paginator("describe_stacks").paginate():
        for other in page["Stacks"]:
            parameters = _pairs(other, "Parameter")
            if _item(_pairs(other, "Output"), parameters) == _item(stack.outputs, stack.parameters):
                rates[other["StackName"]] = int(parameters.get("RequestsPerMinute", _DEFAULT))
    return rates


def _pairs(stack: Mapping[str, Any], kind: str) -> dict[str, str]:
    return {pair[f"{kind}Key"]: pair.get(f"{kind}Value", "") for pair in stack.get(f"{kind}s", [])}


def _item(outputs: Mapping[str, str], parameters: Mapping[str, str]) -> tuple[str, str] | None:
    """Return what names the pacing item: table and account; ``None`` if the stack is not a relay."""
    table = outputs.get("PacingTableName")
    return (table, parameters.get("PacingAccount", "default")) if table else None


def _outcome(rates: Mapping[str, int]) -> str:
    """Say what each stack gets: the smaller one its own, and the larger one what is left."""
    gets = {
        name: rate_beside(rate, (other for stack, other in rates.items() if stack != name))
        for name, rate in sorted(rates.items())
    }
    if sum(gets.values()) > ACCOUNT:
        return f"While all of them are busy, none is sure of its share: together they make {ACCOUNT}."
    return f"While all of them are busy, {', '.join(f'{name} gets {rate}' for name, rate in gets.items())}."
