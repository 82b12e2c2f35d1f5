"""The demo's account says why its numbers differ."""

from __future__ import annotations

from local import demo
from local.demo import Sent

ROWS = [
    Sent("shop", "order", 200, {"accepted": 2}, ("a", "b")),
    Sent("shop", "order.again", 200, {"accepted": 1}, ("a",)),
    Sent("shop", "update", 200, {"ignored": "not useful for messaging customers"}),
    Sent("shop", "nobody", 200, {"parked": [{"reason": "no_identifier"}]}, parks=True),
    Sent("shop", "ping", 200, {"challenge": "1"}),
]


def test_repeats_and_samples_that_become_no_event_are_accounted_for() -> None:
    text = demo.explained(ROWS)
    assert text.startswith("3 events accepted, 1 of them repeats")
    assert text.endswith("1 ignored, 1 parked, 1 answered")
    line, good = demo.account(ROWS, {"a", "b"}, {"statuses": {"202": 1}, "limited": 0, "jobs": 1})
    assert good
    assert line.startswith("delivered 2 of 2 events")
