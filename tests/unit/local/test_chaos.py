"""The account that chaos gives: it must see what it says never happens."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from handler import messages
from handler.messages import Event, Message, Raw
from local.chaos import schedule, traffic
from local.chaos.ledger import Account, Ledger, Parked, crowded, parked
from local.chaos.schedule import BAD, POISON, REFUSED, WORSE
from local.chaos.traffic import UNMAPPABLE, Webhook, custom

NOW = 1_789_999_990


def test_the_same_seed_gives_the_same_faults_and_the_same_webhooks() -> None:
    assert schedule.episodes(7, 120) == schedule.episodes(7, 120)
    assert schedule.episodes(7, 120) != schedule.episodes(8, 120)
    assert traffic.webhooks(7, 60, NOW) == traffic.webhooks(7, 60, NOW)


@pytest.mark.parametrize("calm", [schedule.CALM, 0.0])
def test_every_kind_of_fault_comes_within_some_minutes(calm: float) -> None:
    kinds = [
        *schedule.KLAVIYO,
        *schedule.AWS,
        *schedule.KILLED,
        *schedule.HANGS,
        "key revoked and replaced",
        "trigger restarted",
    ]
    assert {episode.name for episode in schedule.episodes(1, 600 if calm else 200, calm)} == set(kinds)
    assert len(kinds) == len(set(kinds))


def test_between_storms_nothing_fails() -> None:
    within = [(episode.start % 90, episode.end % 90) for episode in schedule.episodes(1, 1_800)]
    assert max(end for _, end in within) <= schedule.STORM
    assert all(start < end for start, end in within)


def test_without_calm_some_fault_is_always_active() -> None:
    episodes = schedule.episodes(1, 900, calm=0.0)
    assert max(episode.end for episode in episodes) <= 900
    moments = [second / 2 for second in range(10, 1_780)]
    idle = [now for now in moments if not any(episode.start <= now < episode.end for episode in episodes)]
    assert len(idle) < len(moments) / 50


def test_klaviyo_refuses_without_a_pointer_either_everything_or_certain_rows() -> None:
    # A refusal of a random share would convict rows beside proof, and nothing would tell them from bad ones.
    refusing = [fault for fault in schedule.KLAVIYO.values() if fault.get("status") in (400, 409, 413, 422)]
    assert refusing
    assert all("chance" not in fault for fault in refusing)


def test_mapping_makes_of_each_webhook_the_events_that_the_traffic_names() -> None:
    plan = [webhook for webhook in traffic.webhooks(3, 60, NOW) if not webhook.forged]
    ledger = sent(*plan)
    assert Account(ledger).entries.keys() == {event for webhook in plan for event in webhook.events}
    kinds = {schedule.plant(event) for webhook in plan for event in webhook.events}
    assert kinds == {"", "crashed", REFUSED}
    assert {webhook.reason for webhook in plan} == {"", UNMAPPABLE}
    assert any(webhook.reason and webhook.events for webhook in plan)
    assert all(webhook.reason or webhook.events for webhook in plan)


def sent(*webhooks: Webhook, status: int = 200) -> Ledger:
    ledger = Ledger()
    for webhook in webhooks:
        ledger.plan(webhook)
        ledger.answered(webhook, status)
    return ledger


def entries(*webhooks: Webhook) -> dict[str, str]:
    return Account(sent(*webhooks)).entries


def stored(*webhooks: Webhook) -> list[dict[str, Any]]:
    return [{"unique_id": name, "entry": json.loads(entry)} for name, entry in entries(*webhooks).items()]


def letter(webhook: Webhook, reason: str, *names: str) -> Parked:
    """Events of ``webhook``, all without ``names``, in a message of the dead-letter queue."""
    texts = entries(webhook)
    events = tuple(Event(name, NOW, texts[name]) for name in names or webhook.events)
    return parked(messages.encode(Message("custom", events, 1.0)), reason)


def raw(webhook: Webhook, reason: str) -> Parked:
    return parked(messages.encode(Raw(webhook.source, webhook.body, {}, 1.0)), reason)


def judged(ledger: Ledger, *letters: Parked, refused_rows: tuple[str, ...] = ()) -> Account:
    account = Account(ledger)
    account.judge(letters, refused_rows)
    return account


def closed(ledger: Ledger, events: list[dict[str, Any]], *letters: Parked, sought: bool = False) -> Account:
    account = Account(ledger)
    account.close(events, letters, sought=sought)
    return account


PAIR = custom(0, NOW, "a", "b")


def test_what_is_neither_stored_nor_parked_is_lost() -> None:
    assert closed(sent(PAIR), stored(PAIR)[:1]).lost == {"b"}
    assert closed(sent(PAIR), stored(PAIR)[:1], letter(PAIR, REFUSED, "b")).lost == set()
    assert closed(sent(PAIR), stored(PAIR)).lost == set()
    assert closed(sent(PAIR), [], raw(PAIR, "mapping_crashed")).lost == set()


def test_event_is_lost_though_the_answer_to_its_webhook_named_one_less() -> None:
    # The fault that the ledger is there to find: a receive that drops the last event of each large webhook.
    large = custom(0, NOW, *(f"many-{number}" for number in range(21)))
    account = closed(sent(large, PAIR), [*stored(large)[:20], *stored(PAIR)])
    assert account.lost == {"many-20"}
    assert (account.accepted, account.delivered) == (23, 22)


def test_event_that_mapping_drops_is_lost_or_a_stranger() -> None:
    dropped = replace(PAIR, events=("a", "b", "c"))
    assert closed(sent(dropped), stored(PAIR)).lost == {"c"}


def test_webhook_that_was_never_accepted_is_named_and_not_lost() -> None:
    ledger = sent(PAIR, status=503)
    assert ledger.unaccepted == {"a"}
    assert closed(ledger, []).lost == set()
    ledger.answered(PAIR, 200)
    assert ledger.unaccepted == set()
    assert closed(ledger, []).lost == {"a", "b"}


def test_webhook_that_was_never_tried_is_not_accepted() -> None:
    ledger = Ledger()
    ledger.plan(PAIR)
    assert ledger.unaccepted == {"a"}


def test_webhook_that_names_nobody_must_be_parked_as_it_came() -> None:
    webhook = custom(0, NOW, "a", unmappable=True)
    assert closed(sent(webhook), stored(webhook)).lost == {"a"}
    assert closed(sent(webhook), [], raw(webhook, UNMAPPABLE)).lost == {"a"}
    assert closed(sent(webhook), stored(webhook), raw(webhook, UNMAPPABLE)).lost == set()


def test_poison_that_is_still_sought_is_not_lost() -> None:
    poison = custom(0, NOW, POISON)
    assert closed(sent(poison, PAIR), stored(PAIR), sought=True).lost == set()
    assert closed(sent(poison, PAIR), [], sought=True).lost == {"a", "b"}
    assert closed(sent(poison, PAIR), stored(PAIR)).lost == {POISON}


def test_event_parked_though_nothing_is_wrong_with_it_is_innocent() -> None:
    assert judged(sent(PAIR), letter(PAIR, "crashed")).innocent == dict.fromkeys("ab", "crashed")
    assert judged(sent(PAIR), letter(PAIR, REFUSED, "b")).innocent == {"b": REFUSED}
    assert judged(sent(PAIR), raw(PAIR, "mapping_crashed")).innocent == dict.fromkeys("ab", "mapping_crashed")


@pytest.mark.parametrize(("name", "reason"), [(POISON, "crashed"), (f"{BAD}-1", REFUSED), (f"{WORSE}-1", REFUSED)])
def test_planted_event_is_guilty_for_its_own_reason_only(name: str, reason: str) -> None:
    webhook = custom(0, NOW, name)
    account = judged(sent(webhook), letter(webhook, reason))
    assert not account.misnamed | account.innocent
    assert not account.different | account.strangers
    account = judged(sent(webhook), letter(webhook, "too_large"))
    assert (account.misnamed, account.innocent) == ({name: "too_large"}, {})


def test_row_that_klaviyo_refused_for_a_while_is_no_innocent() -> None:
    webhook = custom(0, NOW, "many-37", "many-38")
    faults: list[dict[str, Any]] = [{"point": True, "matching": "[37]7@"}, {"status": 503}]
    account = judged(sent(webhook), letter(webhook, REFUSED), refused_rows=tuple(schedule.refused_rows(faults)))
    assert account.innocent == {"many-38": REFUSED}
    crashed = judged(sent(webhook), letter(webhook, "crashed"), refused_rows=tuple(schedule.refused_rows(faults)))
    assert crashed.innocent == dict.fromkeys(webhook.events, "crashed")


def test_webhook_parked_for_another_reason_than_planted_is_misnamed() -> None:
    webhook = custom(0, NOW, "a", unmappable=True)
    assert judged(sent(webhook), raw(webhook, "")).misnamed == {"a": ""}
    assert judged(sent(webhook), raw(webhook, UNMAPPABLE)).misnamed == {}


@pytest.mark.parametrize("change", ["value", "time", "properties", "metric"])
def test_event_whose_contents_changed_is_different(change: str) -> None:
    events = stored(PAIR)
    attributes = events[1]["entry"]["attributes"]["events"]["data"][0]["attributes"]
    attributes[change] = {"other": 1}
    assert closed(sent(PAIR), events).different == {"b"}
    texts = entries(PAIR)
    changed = Parked(REFUSED, {"a": texts["a"], "b": json.dumps(events[1]["entry"])})
    assert judged(sent(PAIR), changed).different == {"b"}


def test_event_with_the_profile_of_another_is_different() -> None:
    first, second = stored(PAIR)
    first["entry"]["attributes"]["profile"] = second["entry"]["attributes"]["profile"]
    assert closed(sent(PAIR), [first, second]).different == {"a"}


def test_stored_event_without_contents_is_counted() -> None:
    account = closed(sent(PAIR), [*stored(PAIR)[:1], {"unique_id": "b"}])
    assert (account.unread, account.different, account.lost) == (1, set(), set())


FORGED = replace(custom(0, NOW, "forged-1"), forged="signature")


def test_forgery_that_got_in_is_a_stranger_wherever_it_is() -> None:
    ledger = sent(FORGED, status=401)
    assert (ledger.let_in, ledger.sent) == (set(), {})
    assert closed(ledger, stored(replace(FORGED, forged=""))).strangers == {"forged-1"}
    true = replace(FORGED, forged="")
    assert judged(ledger, letter(true, REFUSED)).strangers == {"forged-1"}
    assert judged(ledger, raw(true, "no_topic")).strangers == {true.body[:100].decode()}
    assert sent(FORGED).let_in == {"forged-1"}


def test_message_that_cannot_be_read_is_a_stranger() -> None:
    assert judged(sent(PAIR), parked("not a message", "unreadable_message")).strangers == {"not a message"}


def test_requests_that_come_too_fast_are_counted() -> None:
    assert crowded([], 1.0, 10) == (0, 0)
    assert crowded([number / 10 for number in range(40)], 1.0, 10) == (10, 0)
    assert crowded([number / 20 for number in range(40)], 1.0, 10) == (20, 30)
