"""Inside a function: at each step it asks the proxy whether it is to be killed here, or to hang."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from handler import aws

from .proxy import STEP
from .schedule import STEPS

URL = os.environ["AWS_ENDPOINT_URL"]


def kill() -> None:
    """End this process as a function out of memory ends: at once, without an answer."""
    os.kill(os.getpid(), signal.SIGKILL)


def step(function: str, name: str) -> None:
    """Be killed here, hang here, or go on."""
    with urllib.request.urlopen(f"{URL}{STEP}{function}/{name}", timeout=5) as reply:  # noqa: S310 (our own address)
        order = json.load(reply)
    if order.get("does") == "kill":
        kill()
    time.sleep(order.get("seconds", 0))


@dataclass(frozen=True, slots=True)
class Around:
    """The steps before and after a call, for calls whose arguments meet ``when``."""

    before: str
    after: str
    when: Callable[[Mapping[str, Any]], bool] = bool


def between(function: str, around: Around, call: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``call`` with a step before and after; ``ValueError`` for a step that the schedule does not have."""
    if unknown := {around.before, around.after} - {*STEPS[function]}:
        raise ValueError(f"{function} has no step {', '.join(sorted(unknown))}")

    def stepped(*arguments: Any, **named: Any) -> Any:
        if named and not around.when(named):
            return call(*arguments, **named)
        step(function, around.before)
        answer = call(*arguments, **named)
        step(function, around.after)
        return answer

    return stepped


class Stepped:
    """An AWS client with steps around some of its calls."""

    def __init__(self, client: Any, calls: Mapping[str, Callable[..., Any]]) -> None:
        self._client = client
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        """Return the call ``name``."""
        return self._calls[name] if name in self._calls else getattr(self._client, name)


def clients(function: str, calls: Mapping[str, Mapping[str, Around]]) -> Callable[..., Any]:
    """Wrap ``aws.client`` with the steps of ``function`` around these ``calls`` of these services.

    Raises
    ------
    ValueError
        The relay uses no such service. An unknown call is an ``AttributeError`` when the client is created.
    """
    if unknown := calls.keys() - {*aws.LOADER.list_available_services("service-2")}:
        raise ValueError(f"the relay uses no {', '.join(sorted(unknown))}")

    def stepped(service: str, **named: Any) -> Any:
        client = aws.client(service, **named)
        steps = calls.get(service, {})
        return Stepped(
            client, {name: between(function, around, getattr(client, name)) for name, around in steps.items()}
        )

    return stepped
