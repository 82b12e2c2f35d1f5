"""The account that chaos gives: it must see what it says never happens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from handler import messages
from handler.messages import Message, Raw
from handler.telemetry import event_id
from local.chaos import schedule, traffic
from local.chaos.ledger import Account, Ledger, account, crowded, lying
from tests.unit.support_delivery import event


def test_the_same_seed_gives_the_same_faults_and_the_same_webhooks() -> None:
    assert schedule.episodes(7, 120) == schedule.episodes(7, 120)
    assert schedule.episodes(7, 120) != schedule.episodes(8, 120)
    assert traffic.webhooks(7, 60, 1e9) == traffic.webhooks(7, 60, 1e9)


def test_every_kind_of_fault_comes_within_some_minutes() -> None:
    kinds = [
        *schedule.KLAVIYO,
        *schedule.AWS,
        *schedule.KILLED,
        *schedule.HANGS,
        "key revoked and replaced",
        "trigger restarted",
    ]
    assert {one.name for one in schedule.episodes(1, 600)} == set(kinds)
    assert len(kinds) == len(set(kinds))


def test_between_storms_nothing_fails() -> None:
    within = [(one.start % 90, one.end % 90) for one in schedule.episodes(1, 1_800)]
    assert max(end for _, end in within) <= schedule.STORM
    assert all(start < end for start, end in within)


def dead(one: Message | Raw, reason: str = "refused_by_klaviyo") -> dict[str, str]:
    return {"body": messages.encode(one), "reason": reason}


def ledger(**answer: Any) -> Ledger:
    found = Ledger()
    found.answered("one", "", 200, {"event_ids": ["a", "b"], **answer})
    return found


def shop(*names: str) -> Message:
    return Message("shop", tuple(map(event, names)), 1.0)


def test_what_is_neither_stored_nor_parked_is_lost() -> None:
    assert account(ledger(), ["a"], [], ()).lost == {"b"}
    assert account(ledger(), ["a"], lying([dead(shop("b"))]), ()).lost == set()
    assert account(ledger(), ["a", "b"], [], ()).lost == set()


def test_an_event_is_found_by_the_digest_that_the_door_named() -> None:
    found = Ledger()
    found.answered("one", "", 200, {"event_ids": [event_id("own", private=True)]})
    assert account(found, ["own"], [], ()).lost == set()
    assert account(found, ["owner"], [], ()).lost == {event_id("own", private=True)}


def test_a_webhook_parked_at_the_door_must_lie_there() -> None:
    found = Ledger()
    found.answered("unmapped-1", "", 200, {"accepted": 0, "event_ids": [], "parked": [{"reason": "no_identifier"}]})
    other = Raw("stripe", json.dumps({"id": "evt_unmapped-12"}).encode(), {}, 1.0)
    assert account(found, [], lying([dead(other)]), ()).lost == {"unmapped-1"}
    own = Raw("stripe", json.dumps({"id": "evt_unmapped-1"}).encode(), {}, 1.0)
    assert account(found, [], lying([dead(own)]), ()).lost == set()


def test_stored_twice_is_duplicated_and_parked_without_fault_is_named() -> None:
    end = account(ledger(), ["a", "b", "a"], lying([dead(shop("b")), dead(shop("worse-1"), "")]), ("worse-1",))
    assert end.duplicated == {"a"}
    assert end.delivered == 2
    assert "b" in end.innocent
    assert end.without_reason == 1


@pytest.mark.parametrize("where", ["stored", "parked", "raw"])
def test_a_forgery_that_got_in_is_seen(where: str) -> None:
    found = Ledger()
    found.answered("forged-1", "signature", 401, {})
    raw = Raw("custom", b'{"unique_id": "forged-1"}', {}, 1.0)
    parked = {"stored": [], "parked": [dead(shop("x"))], "raw": [dead(raw)]}[where]
    if where == "parked":
        parked = [dead(Message("custom", (event("forged-1"),), 1.0, private_ids=True))]
    end: Account = account(found, ["forged-1"] if where == "stored" else [], lying(parked), ())
    assert end.unauthentic == {"forged-1"}


def test_requests_that_come_too_fast_are_counted() -> None:
    assert crowded([], 1.0, 10) == (0, 0)
    assert crowded([number / 10 for number in range(40)], 1.0, 10) == (10, 0)
    assert crowded([number / 20 for number in range(40)], 1.0, 10) == (20, 30)
