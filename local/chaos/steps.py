"""Inside a function: at each step it asks the proxy whether it is to be killed here, or to hang."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from handler import aws as aws

from .proxy import STEP

URL = os.environ["AWS_ENDPOINT_URL"]


def kill() -> None:
    """End this process as a function out of memory ends: at once, without an answer."""
    os.kill(os.getpid(), signal.SIGKILL)


def step(function: str, name: str) -> None:
    """Be killed here, hang here, or go on."""
    with urllib.request.urlopen(f"{URL}{STEP}{function}/{name}", timeout=5) as reply:  # noqa: S310 (our own address)
        told = json.load(reply)
    if told.get("does") == "kill":
        kill()
    time.sleep(told.get("seconds", 0))


def between(function: str, before: str, call: Callable[..., Any], after: str) -> Callable[..., Any]:
    """``call`` with a step before and one after it."""

    def stepped(*arguments: Any, **named: Any) -> Any:
        step(function, before)
        found = call(*arguments, **named)
        step(function, after)
        return found

    return stepped


class Stepped:
    """An AWS client with steps around some of its calls."""

    def __init__(self, client: Any, calls: Mapping[str, Callable[..., Any]]) -> None:
        self._client = client
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        """The call ``name``."""
        return self._calls[name] if name in self._calls else getattr(self._client, name)


def clients(function: str, calls: Mapping[str, Mapping[str, tuple[str, str]]]) -> Callable[..., Any]:
    """``aws.client`` with steps of ``function``: ``calls`` has for a service's calls the step before and after."""

    def stepped(service: str, **named: Any) -> Any:
        made = aws.client(service, **named)
        around = calls.get(service, {})
        return Stepped(
            made,
            {name: between(function, first, getattr(made, name), last) for name, (first, last) in around.items()},
        )

    return stepped
