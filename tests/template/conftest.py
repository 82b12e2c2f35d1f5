"""The template is translated once for all tests that only read it."""

from __future__ import annotations

from typing import Any

import pytest

from tools import template as reading

EVERYTHING: dict[str, Any] = {
    "AlarmEmail": "ops@relay.invalid",
    "WatchedSource1": "stripe",
    "WatchedSource3": "shopify",
    "DomainName": "hooks.relay.invalid",
    "CertificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/1",
    "KmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
    "PacingTable": "another-stack",
    "ReceiveReservedConcurrency": 20,
    "Tracing": "Active",
    "ThrottleRate": 20,
    "ThrottleBurst": 50,
    "ExpectedRequests": 600,
    "MonthlyBudget": 25,
}


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    return reading.source()


@pytest.fixture(scope="session")
def stack() -> dict[str, Any]:
    """The resources of a stack with every parameter at its default."""
    return reading.resources()


@pytest.fixture(scope="session")
def full_stack() -> dict[str, Any]:
    """The resources of a stack with every option turned on."""
    return reading.resources(**EVERYTHING)


@pytest.fixture(scope="session")
def essential_stack() -> dict[str, Any]:
    """The resources of a stack with every option turned on, and the least monitoring."""
    return reading.resources(**EVERYTHING, Monitoring="essential")
