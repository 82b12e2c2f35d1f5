"""What events are called: nobody who repeats a request can vary it, and it names nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from handler.errors import Unmapped
from handler.events import mapping, senders
from handler.events.mapping import Defaults, Outcome
from handler.events.senders import Source
from handler.events.values import digest
from handler.events.webhook import Webhook

RECEIVED = 1_700_000_000.0
FORM = "application/x-www-form-urlencoded"
SOURCE = {
    "title": "Acme",
    "signature": {"header": "x-sign"},
    "webhook": {"topic": "type || 'order'", "key": "id"},
    "profile": {"email": "_root.email || email", "phone_number": "phone", "first_name": "first", "last_name": "last"},
    "event": [{"topic": "*", "metric": "Met"}],
}


def source(webhook: Mapping[str, Any] | None = None, **event: Any) -> Source:
    tables = {**SOURCE, "webhook": {**SOURCE["webhook"], **(webhook or {})}}  # type: ignore[dict-item]
    return senders.build("acme", {**tables, "event": [{"topic": "*", "metric": "Met"} | event]})


def outcome(rules: Source, document: Any) -> Outcome:
    return mapping.understand(
        rules, Webhook.posted({}, json.dumps(document).encode()), received=RECEIVED, defaults=Defaults("DE")
    )


def names(rules: Source, document: Any) -> list[str]:
    understood = outcome(rules, document)
    assert not understood.parked
    return [event.unique_id.removeprefix("acme:met:") for event in understood.events]


def name(key: str, **document: Any) -> str:
    (unique_id,) = names(source(key=key), {"email": "kim@mail.example"} | document)
    return unique_id


# ------------------------------------------------------------------------------------------------ without a key


def test_a_body_without_its_key_is_called_by_a_digest_of_all_of_it() -> None:
    body = {"email": "kim@mail.example", "total": 3}
    assert names(source(), body) == [digest(body)]
    nested = {"data": body, "at": 1}
    assert names(source({"root": "data"}), nested) == [digest({**body, "_webhook": nested})]


@pytest.mark.parametrize("webhook", [{}, {"items": "list"}])
def test_equal_items_without_a_key_are_events_of_their_own(webhook: dict[str, str]) -> None:
    items = [{"email": "kim@mail.example"}] * 2
    ids = names(source(webhook), {"list": items} if webhook else items)
    assert len(set(ids)) == 2
    assert ids == names(source(webhook), {"list": items, "sent": 2} if webhook else items)


def test_entries_without_a_key_keep_their_names_when_more_are_added() -> None:
    rule = source(each="refunds")
    order = {"id": 7, "email": "kim@mail.example", "refunds": [{"amount": 5}, {"amount": 5}]}
    first = names(rule, order)
    assert len(set(first)) == 2
    assert names(rule, order | {"refunds": [*order["refunds"], {"amount": 9}]})[:2] == first  # type: ignore[misc]


def test_equal_entries_of_two_webhooks_are_two_events() -> None:
    rule = source(each="refunds")
    order = {"id": 7, "email": "kim@mail.example", "refunds": [{"amount": 5}]}
    assert names(rule, order) != names(rule, order | {"id": 8})
    delivery = source({"root": "data"}, each="refunds")
    assert names(delivery, {"id": 1, "data": order}) != names(delivery, {"id": 2, "data": order})


def test_a_part_of_a_key_that_is_a_list_is_parked() -> None:
    for key in ("id", "[id, type]", "id || type"):
        (parked,) = outcome(source(key=key), {"email": "kim@mail.example", "id": ["a", "a"]}).parked
        assert parked.reason == "no_key"
    assert name("lines[].id", lines=[{"id": 1}, {"id": 2}]) == "1:2"


def twilio(fields: str) -> Outcome:
    headers = {"content-type": FORM}
    return mapping.understand(
        senders.load("twilio"), Webhook.posted(headers, fields.encode()), received=RECEIVED, defaults=Defaults()
    )


def test_nobody_varies_the_name_of_a_form_whose_fields_are_signed() -> None:
    sid = "SM" + "0" * 32
    form = f"From=%2B4915112345678&SmsStatus=received&Body=hi&MessageSid={sid}"
    (event,) = twilio(form).events
    assert twilio("&".join(form.split("&")[::-1])).events == [event]
    for repeated in ("&Body=hi", "&From=%2B4915112345678", f"&MessageSid={sid}" * 3):
        with pytest.raises(Unmapped, match="not_form"):
            twilio(form + repeated)
    # What a field under another name takes from the key takes the event with it.
    assert not twilio(form.replace("MessageSid=", "Message=Sid")).events


# --------------------------------------------------------------------------------------------------- who somebody is


@pytest.mark.parametrize(
    ("key", "document"),
    [
        ("[id, visitor.phone]", {"visitor": {"phone": "+4915112345678"}}),
        ("[id, visitor.id || visitor.mobileNumber]", {"visitor": {"mobileNumber": "0151 12345678"}}),
        ("[id, visitor.full_name]", {"visitor": {"full_name": "Kim Park"}}),
        ("[id, customer.name]", {"customer": {"name": "Kim Park"}}),
        ("[id, ship.street]", {"ship": {"street": "1 Long Road"}}),
        ("[id, link.url]", {"link": {"url": "https://mail.example/u/kim"}}),
        ("[id, answers.phone.value]", {"answers": {"phone": {"value": "015112345678"}}}),
        ("[id, lower(visitor.full_name)]", {"visitor": {"full_name": "KIM PARK"}}),
        ("join('-', [to_string(id), visitor.phone])", {"visitor": {"phone": "+4915112345678"}}),
        ("[id, phones[0].number]", {"phones": [{"number": "015112345678"}]}),
        ("[id, phonenumber]", {"phonenumber": "015112345678"}),
        ("[id, customername]", {"customername": "Kim Park"}),
        ("[id, name.last]", {"name": {"last": "Park"}}),
        ("[id, attendees[0].name]", {"attendees": [{"name": "Kim Park"}]}),
        ("[id, contacts[?primary].phone | [0]]", {"contacts": [{"primary": True, "phone": "015112345678"}]}),
        ("[id, answers.*.phone | [0]]", {"answers": {"a": {"phone": "015112345678"}}}),
        ("[id, answers[?type=='phone'].value | [0]]", {"answers": [{"type": "phone", "value": "015112345678"}]}),
        ("[id, find(answers, 'type', 'phone').value]", {"answers": [{"type": "phone", "value": "015112345678"}]}),
        ("[id, like(answers, 'phone')]", {"answers": {"q3_phone": "015112345678"}}),
        # Fields that name nobody, whose values are what the profile says.
        ("[id, call]", {"call": "+49 151 12345678", "phone": "+4915112345678"}),
        ("[id, call]", {"call": "4915112345678", "phone": "+4915112345678"}),
        ("[id, call]", {"call": "015112345678", "phone": ["nobody", "+49 (151) 123 456-78"]}),
        ("[id, call]", {"call": 4915112345678, "phone": "004915112345678"}),
        ("[id, call]", {"call": 4915112345678, "phone": "+49 (0)151 12345678"}),
        ("[id, tag]", {"tag": "kim park", "first": "Kim", "last": "Park"}),
        ("[id, tag]", {"tag": "Park, Kim", "first": "Kim", "last": "Park"}),
        ("[id, tag]", {"tag": "kim.park", "first": "Kim", "last": "Park"}),
        ("[id, call]", {"call": "0151/123–45678", "phone": "015112345678"}),
        ("[id, tag]", {"tag": "PARK", "first": "Kim", "last": "Park"}),
    ],
)
def test_a_key_that_says_who_somebody_is_becomes_a_digest(key: str, document: dict[str, Any]) -> None:
    digested = name(key, id=17, **document)
    assert len(digested) == 32
    assert set(digested) <= set("0123456789abcdef")
    assert digested == name(key, id=17, **document) != name(key, id=18, **document)


@pytest.mark.parametrize(
    ("key", "document", "expected"),
    [
        ("id", {"id": 5678901234567, "phone": "+4915112345678"}, "5678901234567"),
        ("[id, number]", {"id": 1, "number": "+4915112345678"}, "1:+4915112345678"),
        ("[id, visitor.id || visitor.phone]", {"id": 1, "visitor": {"id": "v1", "phone": "+4915112345678"}}, "1:v1"),
        ("uri", {"uri": "https://api.mail.example/events/1"}, "https://api.mail.example/events/1"),
        ("[plan.name, email_id, url_key]", {"plan": {"name": "Gold"}, "email_id": 3, "url_key": "u"}, "Gold:3:u"),
        ("[id, email_sent_at]", {"id": 1, "email_sent_at": "2026-01-01"}, "1:2026-01-01"),
        ("[id, status]", {"id": 123, "status": "paid", "phone": "123", "first": "Pai"}, "123:paid"),
        ("[id, customer.name || 'x']", {"id": "INV9", "customer": {}}, "INV9:x"),
        ("visitor.id || visitor.phone", {"visitor": {"id": "v17", "phone": "1"}}, "v17"),
        ("lines[?email].id | [0]", {"lines": [{"email": "kim", "id": "L1"}]}, "L1"),
        (
            "[invoice.number, order.name, customer]",
            {"invoice": {"number": 7}, "order": {"name": "#1"}, "customer": 3},
            "7:#1:3",
        ),
    ],
)
def test_a_key_that_names_a_thing_stays_as_it_is(key: str, document: dict[str, Any], expected: str) -> None:
    assert name(key, **document) == expected


def test_an_address_or_a_long_key_is_the_digest_that_it_was() -> None:
    assert name("[id, email]", id=1) == digest("1:kim@mail.example")
    assert name("id", id="x" * 151) == digest("x" * 151)
    assert name("id", id="x" * 150) == "x" * 150


def test_what_becomes_no_event_is_named_in_the_log_without_its_phone() -> None:
    rule = source(key="[id, call]", when="!id", otherwise="not wanted")
    understood = outcome(
        rule, {"email": "kim@mail.example", "id": 3, "call": "015112345678", "phone": "+4915112345678"}
    )
    (sender_id,) = understood.sender_ids
    assert len(sender_id) == 32
    (sender_id,) = outcome(
        source(key="[id, call]", whose="visitor", when="!id", otherwise="not wanted"),
        {"id": 3, "call": "015112345678", "visitor": {"email": "kim@mail.example", "phone": "+4915112345678"}},
    ).sender_ids
    assert len(sender_id) == 32
