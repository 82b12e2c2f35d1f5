"""``make costs``: what a stack costs a month while no webhook comes in, by part, in both kinds of ``Monitoring``.

Counted from the template, with the parameters put in; prices are those of
``prices.toml``. A kind of resource that is neither priced nor named as free
here is refused, so that a new one can't go uncounted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools import template

from .cost import AS_OF, PRICES

Stack = Mapping[str, Any]
MONITORING = ("full", "essential")
# Five pollers, three long polls a minute each, also with MaximumConcurrency set (observed: getlift/lift#132), in a
# month of 365 / 12 days.
EMPTY_RECEIVES = 5 * 3 * 60 * 24 * 365 // 12
# Billed by use: requests, events, gigabytes, messages. Queries and permissions cost nothing at all.
FREE = frozenset(
    {
        "AWS::ApiGatewayV2::Api",
        "AWS::ApiGatewayV2::ApiMapping",
        "AWS::ApiGatewayV2::DomainName",
        "AWS::ApiGatewayV2::Stage",
        "AWS::Budgets::Budget",  # with notifications only; the ones that act are billed from the third on
        "AWS::DynamoDB::Table",  # on demand, one item
        "AWS::IAM::Role",
        "AWS::Lambda::Function",
        "AWS::Lambda::Permission",
        "AWS::Logs::LogGroup",
        "AWS::Logs::MetricFilter",  # a custom metric, only in hours in which a line matches
        "AWS::Logs::QueryDefinition",
        "AWS::SNS::Topic",
        "AWS::SNS::TopicPolicy",
        "AWS::SQS::Queue",
        "AWS::SQS::QueuePolicy",
    }
)


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the bill: ``price`` is a key of ``prices.toml``, ``count`` how many one resource of ``kind`` has."""

    name: str
    kind: str
    price: str
    count: Callable[[Mapping[str, Any]], int]


PARTS = (
    Part("secrets", "AWS::SecretsManager::Secret", "secret_month", lambda _: 1),
    Part(
        "metrics under alarm",
        "AWS::CloudWatch::Alarm",
        "alarm_metric_month",
        lambda alarm: len(template.metrics_of(alarm)),
    ),
    Part("dashboards", "AWS::CloudWatch::Dashboard", "dashboard_month", lambda _: 1),
    Part(
        "empty receives of the SQS trigger",
        "AWS::Lambda::EventSourceMapping",
        "sqs_request",
        lambda _: EMPTY_RECEIVES,
    ),
)


def counted(stack: Stack) -> dict[str, int]:
    """Return how many of each part ``stack`` has, by name.

    Raises
    ------
    ValueError
        The stack has a kind of resource that is not known here.
    """
    unknown = {resource["Type"] for resource in stack.values()} - FREE - {part.kind for part in PARTS}
    if unknown:
        raise ValueError(f"bench/standing.py has no price for {', '.join(sorted(unknown))}")
    return {part.name: sum(map(part.count, template.of_type(stack, part.kind).values())) for part in PARTS}


def dollars(counts: Mapping[str, int]) -> dict[str, float]:
    """Return the dollars a month of each part, by name."""
    return {part.name: counts[part.name] * PRICES[part.price] for part in PARTS}


def bill(parameters: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of the bill of a stack with these parameters, otherwise their defaults."""
    stacks = [counted(template.resources(**{**parameters, "Monitoring": kind})) for kind in MONITORING]
    bills = [dollars(counts) for counts in stacks]
    sums = [sum(bill.values()) for bill in bills]
    yield "A month without webhooks: " + ", ".join(
        f"{kind} {total:.2f} dollars" for kind, total in zip(MONITORING, sums, strict=True)
    )
    yield f"{'':35}" + "".join(f"{kind:>20}" for kind in MONITORING)
    for part in PARTS:
        cells = (f"{counts[part.name]:>12,}{bill[part.name]:>8.2f}" for counts, bill in zip(stacks, bills, strict=True))
        yield f"{part.name:35}{''.join(cells)}"
    yield f"{'all':35}" + "".join(f"{total:>20.2f}" for total in sums)
    yield f"Calculated: list prices of {AS_OF} in us-east-1, no free tier; the receives as others observed them."


def read(arguments: Sequence[str]) -> dict[str, str]:
    """Return ``Name=value`` arguments as parameters; ``ValueError`` if the template has no such parameter."""
    parameters = dict(argument.partition("=")[::2] for argument in arguments)
    if unknown := parameters.keys() - template.source()["Parameters"].keys():
        raise ValueError(f"template.yaml has no parameter {', '.join(sorted(unknown))}; write Name=value")
    return parameters


def main(arguments: Sequence[str]) -> int:
    """Print the bill; return exit status 2 if it could not be made."""
    try:
        print("\n".join(bill(read(arguments))))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
