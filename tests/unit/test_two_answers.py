"""What an authentic webhook is answered: 200 with what became of it, whatever that is."""

from __future__ import annotations

import json
import time
from types import ModuleType
from typing import Any

import pytest

from handler import sources
from local import payload, sign
from local.preview import preview_request
from tests.unit.test_receive import SAMPLES, door, request

__all__ = ["door"]  # a fixture


def became(shown: dict[str, Any]) -> str:
    """What the preview says of a sample, in the word of the log line."""
    if "handshake" in shown:
        return "handshake"
    return "accepted" if shown["events"] else "parked" if shown["unmapped"] else "ignored"


def told(answer: dict[str, Any]) -> str:
    """What an answer's document says, in the same word."""
    body = answer["body"]
    document = json.loads(body) if answer["headers"]["content-type"] == "application/json" else {}
    if document.get("event_ids"):
        return "accepted"
    return "parked" if document.get("parked") else "ignored" if document.get("ignored") else "handshake"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_sample_is_answered_200_whatever_became_of_it(door: ModuleType, path: Any) -> None:
    # RevenueCat, for one, counts every other status as a failed delivery and sends again (its guide "Webhooks").
    source, sent, now = path.parent.name, payload.request(path), time.time()
    door.SECRETS._client.document = sign.development_secrets([source])["sources"]
    answer = door.handler(request(source, sent, now), None)
    silent = sources.load(source).silent
    assert answer["statusCode"] == (204 if silent else 200)
    if not silent:
        assert told(answer) == became(preview_request(source, sent, now))
