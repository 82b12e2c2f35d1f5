"""What may leave the functions: one function says so, for every line, answer and attribute."""

from __future__ import annotations

import io
import json
import time
import timeit
from typing import Any

import pytest

from handler import cleaning, messages, telemetry
from handler.cleaning import HIDDEN, MOST, clean, cleaned
from handler.errors import Crashed, Unmapped
from handler.events import mapping, senders
from handler.events.mapping import Defaults, Outcome
from handler.events.webhook import Webhook
from handler.work import bounded
from sim import lines
from tests.unit.delivery import test_deliver
from tests.unit.delivery.test_deliver import World, queued
from tools.paths import SAMPLES
from tools.senders import payload
from tools.senders.outcome import RECEIVED, understood

world = test_deliver.world  # the fixture
SHOPIFY_ID = "5310112345678"  # as many digits as a phone number has


@pytest.mark.parametrize(
    "text",
    [
        "ada@letters.example",
        "mailto:ada%40letters.example",
        "+12025550187",
        "tel:%2B12025550187",
        "+1 (202) 555-0187",
        "+49/151/23456789",
        "\uff0b12025550187",
        "ada\uff20letters.example",
        "(202) 555-0187",
        "+49 151 23456789",
        "+49–151–23456789",
        "+49_151_23456789",
        "+​12025550187",
        "\\u002b12025550187",
        "&#43;12025550187",
        "ada&#64;letters.example",
        "ada\\u0040letters.example",
        "ada%2540letters.example",
        "ada\ufe6bletters.example",
        '"ada"@letters.example',
        r"https:\/\/letters.example\/reset",
        "https://letters.example/reset?code=1",
        "HTTP://letters.example",
        "https%3A%2F%2Fletters.example%2Freset",
        "www.letters.example/reset",
        "pk_0123456789abcdef",
        "whsec_0123456789abcdef",
        "shpat_0123456789abcdef",
        "Bearer 0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "eyJ-eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    ],
)
def test_what_looks_personal_or_secret_is_hidden(text: str) -> None:
    for written in (text, f"stripe:paid:{text}", f"said {text} twice"):
        shown = clean(written)
        assert HIDDEN in shown
        assert not set(shown.split()) & set(text.split())
    assert clean(f"before {text} after") in (
        f"before {HIDDEN} after",
        f"before mailto:{HIDDEN} after",
        f"before tel:{HIDDEN} after",
    )


@pytest.mark.parametrize(
    "text",
    [
        SHOPIFY_ID,
        f"gid://shopify/Order/{SHOPIFY_ID}",
        "active_campaign:clicked-email:42:2026-10-12T09:04:13+05:00:77",
        "a1b2c3d4-0000-4000-8000-0123456789ab",
        "orders/create",
        "x-shopify-hmac-sha256 does not match this body under any configured secret",
        "the webhook is larger than a queue message can hold (1 MiB), even when compressed",
        "q6gBJVO5TzexKYTb_I2rpg==",
    ],
)
def test_ids_topics_and_words_of_our_own_stay(text: str) -> None:
    assert clean(text) == text


def test_a_number_with_spaces_around_its_dashes_and_a_quoted_name_are_hidden() -> None:
    assert clean("+49 - 151 - 23456789") == HIDDEN
    assert clean('"ada king"@letters.example') == HIDDEN


def test_a_profiles_number_is_known_with_other_numbers_around_it() -> None:
    for written in ("15123456789-99", "2026_4915123456789", "0151/23456789", "015123456789/2026/1"):
        assert cleaning.is_private(f"a:b:{written}", ["+49 (0)151 23456789"])
    assert not cleaning.is_private(f"a:b:{SHOPIFY_ID}", ["+49 (0)151 23456789"])


def test_ids_topics_and_metrics_of_every_sample_stay() -> None:
    hidden = []
    for path in sorted(SAMPLES.glob("*/*.json")):
        source = path.parent.name
        if source in senders.names() and payload.request(path).body:
            outcome = understood(source, path)
            hidden += [path] * (outcome.private_ids and source != "custom")
            named = [*outcome.topics, *outcome.metrics]
            hidden += [path for name in named if clean(name, hide_numbers=True) != name]
            hidden += [path for sender_id in outcome.sender_ids if clean(sender_id, resources=True) != sender_id]
    assert hidden == []


def test_a_number_in_what_is_not_an_id_is_hidden() -> None:
    assert clean("call 0151 2345678 back", hide_numbers=True) == f"call {HIDDEN} back"
    assert clean("order 123456", hide_numbers=True) == "order 123456"


def test_characters_that_something_acts_on_are_replaced() -> None:
    assert clean("a\x1b[31mb\u202ec\ud800d\u200be") == "a\ufffd[31mb\ufffdc\ufffdd\ufffde"
    assert clean("a\nb\tc\u2028d") == "a b c d"


def test_invisible_characters_between_digits_hide_no_number() -> None:
    assert clean("call +1202\u200b555\u20600187") == f"call {HIDDEN}"
    assert clean("call 0202\u200b5550187", hide_numbers=True) == f"call {HIDDEN}"


def test_a_text_is_cut_and_nothing_personal_is_left_at_the_cut() -> None:
    assert len(clean("x" * 10 * MOST)) == MOST
    for shift in range(20):
        shown = clean("x " * ((MOST - 20) // 2) + "y" * shift + " +12025550187 ada@letters.example")
        assert "202555" not in shown
        assert "ada" not in shown


@pytest.mark.parametrize(
    "shape", ["a", "+1", "@", "a@", "1 ", "www.", "eyJ", "%3a//", "+1(", "pk_", "http://", "\u202e"]
)
def test_time_is_bounded_whatever_the_text(shape: str) -> None:
    began = time.process_time()
    clean(shape * 2_000_000, hide_numbers=True)
    assert time.process_time() - began < 0.25


@pytest.mark.parametrize("shape", ["eyJa-", '"a', "a,", "&a", "(12)1", "+1 ", "%2b1", "pk_a ", "bearer "])
def test_four_times_the_text_takes_four_times_the_time(shape: str) -> None:
    def least(length: int) -> float:
        text = f"{(shape * length)[: length - 2]} @"
        return min(timeit.repeat(lambda: clean(text, hide_numbers=True), timer=time.process_time, number=5, repeat=10))

    assert least(2 * MOST) < 8 * least(MOST // 2)  # a square would be 16


def test_each_word_near_an_address_is_counted_as_work() -> None:
    texts = ["a," * (MOST - 1) + "@"] * 200
    with pytest.raises(Unmapped, match="too_much_work"), bounded(0):
        cleaned(texts)


def test_names_and_texts_are_cleaned_at_any_depth_and_numbers_kept() -> None:
    line = {
        "a": [{"ada@letters.example": ("+12025550187", 1, None, True, 2.5)}],
        "event_ids": ["https://a.example/b/1"],
    }
    assert cleaned(line) == {"a": [{HIDDEN: [HIDDEN, 1, None, True, 2.5]}], "event_ids": ["https://a.example/b/1"]}
    assert cleaned({"detail": "see https://a.example/b/1"}) == {"detail": f"see {HIDDEN}"}


def test_every_log_line_is_cleaned_whatever_the_field() -> None:
    with lines.into(io.TextIOWrapper(io.BytesIO(), "utf-8")) as stream:
        telemetry.logger.warning(
            "said ada@letters.example", extra={"cause": ["+12025550187\ud800"], "other": {"x": object}}
        )
    stream.seek(0)
    line = json.loads(stream.read())
    assert line["message"] == f"said {HIDDEN}"
    assert line["cause"] == [f"{HIDDEN}\ufffd"]


def test_a_parked_messages_attributes_are_cleaned() -> None:
    parked = messages.parked_text(
        "{}", "stripe", reason="mapping_failed", detail="at ada@letters.example\x1b", at="now"
    )
    assert parked.attributes["detail"] == f"at {HIDDEN}"


def test_ids_fill_lines_that_a_log_event_holds() -> None:
    ids = ["\U0001f600" * 255] * 2_500 + ['"' * 255] * 2_500 + ["evt_1"] * 2_500
    parts = list(telemetry.by_line(ids))
    assert [event_id for part in parts for event_id in part] == ids
    assert max(len(json.dumps(list(part), ensure_ascii=False).encode()) for part in parts) < 250_000
    assert max(map(len, parts)) == 1_000
    assert list(telemetry.by_line([])) == [[]]


# ------------------------------------------------- whom an id, a topic or a metric names
def left(number: str, **participant: str) -> dict[str, Any]:
    who = {"user_id": "1", "user_name": "Ada", "id": "", "email": "", "phone_number": number, **participant}
    return {
        "event": "meeting.participant_joined",
        "event_ts": 1791900090000,
        "payload": {"object": {"uuid": "u1", "id": SHOPIFY_ID, "topic": "Hours", "participant": who}},
    }


def understand(source: str, document: Any) -> Outcome:
    body = json.dumps(document).encode()
    defaults = Defaults(phone_region="US")
    return mapping.understand(senders.load(source), Webhook.posted({}, body), received=RECEIVED, defaults=defaults)


@pytest.mark.parametrize("number", ["+12025550187", "12025550187"])
def test_an_id_is_made_of_no_phone_number(number: str) -> None:
    (event,) = understand("zoom", left(number)).events
    assert "2025550187" not in event.unique_id


def test_an_id_with_the_profiles_phone_number_in_it_is_named_by_a_digest() -> None:
    document = {"type": "call.ended", "id": "call 1 of 2025550187", "data": {"phone": "+12025550187"}}
    outcome = understand("hmac", document)
    assert len(outcome.events) == 1
    assert outcome.private_ids
    assert not understand("hmac", document | {"id": "call 1 of 2025550188"}).private_ids


@pytest.mark.parametrize("number", ["+12025550187", 12025550187, "(202) 555-0187", "202 555 0187"])
def test_a_phone_number_is_known_in_any_spelling(number: str | int) -> None:
    for written in ("12025550187", "2025550187", "202.555.0187", "202-555-0187"):
        assert cleaning.is_private(f"source:said:1:{written}", [number])
    assert not cleaning.is_private(f"source:said:1:{SHOPIFY_ID}", [number, None, "", "1", {}])


def test_an_id_of_other_digits_is_named_as_it_is() -> None:
    outcome = understand("zoom", left("+12025550187", email="ada@letters.example", registrant_id=SHOPIFY_ID))
    assert len(outcome.events) == 1
    assert not outcome.private_ids


@pytest.mark.parametrize("event", ["Called 0151 2345678", "Wrote to ada@letters.example", "Saw www.letters.example"])
def test_a_visitors_metric_that_says_whom_names_its_events_by_digests(event: str) -> None:
    outcome = understand("segment", track(event))
    assert len(outcome.events) == 1
    assert outcome.private_ids


def track(event: str, **properties: Any) -> dict[str, Any]:
    traits = {"traits": {"email": "ada@letters.example"}}
    return {"type": "track", "event": event, "messageId": "m1", "context": traits, "properties": properties}


def test_a_visitor_sets_no_property_that_is_klaviyos_or_the_relays() -> None:
    taken = {"$value": 9_999, " $flow": "x", "RelayDropped": ["nothing"], "RelayDropped ": 1}
    taken |= {f"RelayDropped{' ' * 250}z": 1}  # which is cut to spaces at its end
    outcome = understand("segment", track("Saw", **taken, **{"$ 5 and more": "yes", "price": 3}))
    ((event,), notes) = outcome.events, outcome.notes
    properties = json.loads(event.entry)["attributes"]["events"]["data"][0]["attributes"]["properties"]
    assert {name for name in properties if name.strip() in ("$value", "$flow", "RelayDropped")} == {"RelayDropped"}
    assert (properties["price"], properties["$ 5 and more"]) == (3, "yes")
    assert "nothing" not in properties["RelayDropped"]
    assert [note.code for note in notes].count("reserved_name") == 5


def test_a_crash_of_the_delivery_is_logged_by_its_place_and_not_in_its_words(world: World, log: io.StringIO) -> None:

    def crash(*_: Any) -> None:
        raise KeyError("ada@letters.example")

    world.sqs.before = crash
    world.klaviyo.bad = {"a"}
    with pytest.raises(Crashed) as raised:
        world.deliver(queued("a"))
    assert "KeyError at handler/test_cleaning.py:" in str(raised.value)
    assert raised.value.__suppress_context__
    assert "delivery crashed" in log.getvalue()
    assert "ada" not in log.getvalue() + str(raised.value)
