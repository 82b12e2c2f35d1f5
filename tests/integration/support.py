"""What the tests of the running stack share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from local.stack import Stack

WAIT_SECONDS = 120  # both processors may be busy


def until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """The first true value of ``condition``; fails with ``what`` if none comes in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def event(unique_id: str, **change: Any) -> dict[str, Any]:
    """One event of the ``custom`` source."""
    return {"profile": {"email": f"{unique_id}@mail.example"}, "metric": "Visited", "unique_id": unique_id} | change


def custom(stack: Stack, *events: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Post events as the ``custom`` source."""
    return stack.send("custom", json.dumps(events).encode(), {"content-type": "application/json"})


def arrived(stack: Stack) -> set[str]:
    """The unique_ids that the stand-in stored."""
    return {event["unique_id"] for event in stack.arrived()}
