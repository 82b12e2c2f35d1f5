"""Local tools make clients that reach this machine only."""

from __future__ import annotations

import pytest

from tools import loopback
from tools.errors import CommandError


@pytest.mark.parametrize(
    "url",
    [
        "https://sqs.us-east-1.amazonaws.com",
        "http://127.0.0.1:4566@sqs.example",
        "http://127.0.0.1:@sqs.example:80",
        "http://127.0.0.1.sqs.example:4566",
        "https://127.0.0.1:4566",
        "",
    ],
)
def test_another_address_than_this_machines_is_refused(url: str) -> None:
    with pytest.raises(CommandError, match=r"127\.0\.0\.1 only"):
        loopback.client("sqs", url)


def test_a_client_of_this_machine_speaks_to_that_port() -> None:
    assert loopback.client("sqs", "http://127.0.0.1:4566").meta.endpoint_url == "http://127.0.0.1:4566"
