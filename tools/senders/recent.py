"""A sample as if it happened now: the samples are old, and what is old triggers no flow."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from handler.errors import RelayError
from handler.events import mapping, senders, values
from handler.events.mapping import Defaults
from handler.events.webhook import Webhook

from .payload import Payload

OLD = 3_600.0  # seconds; what is younger stays as it is
_MOMENT = 3  # seconds that the sender took


def dated_now(source: str, sent: Payload, now: float) -> Payload:
    """Return ``sent`` with its event's time, anywhere in the body, set to ``now`` (epoch seconds).

    Any other time stays, and so does a body that is not JSON, or whose event
    has no time of its own.
    """
    try:
        outcome = mapping.understand(
            senders.load(source), Webhook.posted(sent.headers, sent.body), received=now, defaults=Defaults()
        )
        document = json.loads(sent.body)
    except (RelayError, ValueError):
        return sent
    old = {event.time for event in outcome.events if event.time < now - OLD}
    changed = _moved(document, old, now - _MOMENT)
    if changed == document:
        return sent
    return replace(sent, body=json.dumps(changed, ensure_ascii=False).encode())


def _moved(value: Any, old: set[int], now: float) -> Any:
    if isinstance(value, dict):
        return {name: _moved(inner, old, now) for name, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, old, now) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool):
        for unit in (1, 1000):
            if value / unit in old:
                return int(now) * unit
    # A text without a zone may mean any zone's time.
    if isinstance(value, str) and value[-1:] == "Z" and values.time(value) in old:
        return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return value
