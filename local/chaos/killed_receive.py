"""``receive`` as chaos runs it: killed at chosen steps; it reads its secrets every few seconds."""

from __future__ import annotations

from typing import Any

from handler import keys, messages, receive
from local import seams

from . import steps

seams.put(
    (keys, "KEPT_SECONDS", 5),
    (receive.SECRETS, "_reread_seconds", 5),
    (messages, "send", steps.between("receive", "queueing", messages.send, "queued")),
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The real handler between its first and its last step."""
    found: dict[str, Any] = steps.between("receive", "received", receive.handler, "answering")(event, context)
    return found
