"""Payloads gone wrong, a few for every source; ``python -m tests.mutations`` makes 10,000."""

from __future__ import annotations

from typing import Any

import pytest

from handler.events import mapping, senders
from handler.events.mapping import Outcome
from handler.events.senders import Source
from handler.events.webhook import Webhook
from tests import mutations


@pytest.mark.parametrize("name", senders.names())
def test_whatever_a_sender_gets_wrong_it_is_an_event_or_a_reason(name: str) -> None:
    counts, wrong = mutations.run(name, 100)
    assert wrong == []
    assert counts.total() in (0, 100)


def test_what_klaviyo_would_refuse_and_a_crash_are_found() -> None:
    def broken(source: Source, webhook: Webhook, **named: Any) -> Outcome:
        if len(webhook.body) % 2:
            raise ZeroDivisionError
        outcome = mapping.understand(source, webhook, **named)
        outcome.events = [
            event._replace(entry=event.entry.replace("properties", "property")) for event in outcome.events
        ]
        return outcome

    counts, wrong = mutations.run("segment", 300, understand=broken)
    assert counts["invalid"] > 0
    assert counts["crashed"] > 0
    assert len(wrong) == counts["invalid"] + counts["crashed"]
