"""Payloads gone wrong, a few for every source; ``python -m tests.mutations`` makes 10,000."""

from __future__ import annotations

import re

import pytest

from handler.events import entry, senders
from tests import mutations


@pytest.mark.parametrize("name", senders.names())
def test_whatever_a_sender_gets_wrong_it_is_an_event_or_a_reason(name: str) -> None:
    counts, wrong = mutations.run(name, 100)
    assert wrong == []
    assert counts.total() in (0, 100)


def test_what_klaviyo_would_refuse_and_a_crash_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "STRING_BYTES", 10_000_000)
    monkeypatch.setattr(entry, "CONTROL", re.compile("$^"))
    counts, wrong = mutations.run("segment", 300)
    assert counts["invalid"] > 0
    assert counts["crashed"] > 0
    assert len(wrong) == counts["invalid"] + counts["crashed"]
