"""What the playground tells of a payload and a file; no browser needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handler.events import senders
from local.console.sandbox import Sandbox
from tools import paths
from tools.senders import payload

TOML = """\
title = "Shop"

[signature]
header = "x-shop"

[webhook]
topic = "type"
key = "id"
time = "at"

[profile]
email = "who"
phone_number = "phone"

[[event]]
topic = "order"
metric = "Placed Order"
value = "money(total)"
[event.properties]
Number = "number"
Missing = "nowhere"

[ignore]
"ping" = "says nothing"
"""
BODY = {
    "type": "order",
    "id": 7,
    "at": "2026-01-02T03:04:05Z",
    "who": "ada@letters.example",
    "total": "19.90",
    "number": 3,
}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    custom = tmp_path_factory.mktemp("custom")
    opened = Sandbox(custom, paths.SAMPLES)
    yield opened
    opened.close()


def tried(sandbox: Sandbox, toml: str = TOML, source: str = "shop", body: Any = BODY, **change: Any) -> dict[str, Any]:
    request = {
        "source": source,
        "toml": toml,
        "method": "POST",
        "query": {},
        "headers": {"content-type": "application/json"},
        "body": body if isinstance(body, str) else json.dumps(body),
        "received": 1_767_400_000.0,
        "region": "",
        "zone": "UTC",
        "late_hours": "0",
    }
    return sandbox.ask(request | change)


def line(toml: str, start: str) -> int:
    return next(number for number, text in enumerate(toml.splitlines(), 1) if text.startswith(start))


def test_each_value_names_the_expression_and_the_line_that_it_comes_from(sandbox: Sandbox) -> None:
    (event,) = tried(sandbox)["events"]
    values = {
        ".".join(value["path"]): (value["value"], value["expression"], value["line"]) for value in event["values"]
    }
    assert values["value"] == (19.9, "money(total)", line(TOML, "value"))
    assert values["properties.Number"] == (3, "number", line(TOML, "Number"))
    assert values["profile.email"] == ("ada@letters.example", "who", line(TOML, "email"))
    assert values["unique_id"] == ("shop:placed-order:7", "id", line(TOML, "key"))
    assert values["time"][1:] == ("at", line(TOML, "time"))
    assert values["metric"][2] == line(TOML, "metric")
    assert event["nothing"] == [
        {"path": ["properties", "Missing"], "odd": True, "meant": "", "line": line(TOML, "Missing"), "file": ""},
        {"path": ["profile", "phone_number"], "odd": True, "meant": "", "line": line(TOML, "phone_number"), "file": ""},
    ]


@pytest.mark.parametrize("source", ["stripe", "shopify", "woocommerce", "typeform"])
def test_every_value_of_the_shipped_samples_has_its_line(sandbox: Sandbox, source: str) -> None:
    toml = senders.path_of(source).read_text()
    for path in sorted((paths.SAMPLES / source).glob("*.json")):
        sent = payload.request(path)
        answer = tried(sandbox, toml, source, sent.body.decode(), headers=sent.headers)
        for event in answer.get("events", []):
            for value in event["values"]:
                if value["path"] == ["properties", "RelayDropped"]:
                    continue
                assert value["line"], (path.name, value)
                assert toml.splitlines()[value["line"] - 1].strip()


def test_what_is_inherited_names_its_file_and_the_line_there(sandbox: Sandbox) -> None:
    toml = (
        'extends = "stripe"\ntitle = "Stripe EU"\n[[event]]\ntopic = "order"\nmetric = "Own"\nvalue = "money(total)"\n'
    )
    body = {"type": "order", "id": "evt_7", "data": {"object": {"email": "ada@letters.example", "total": 5}}}
    (event,) = tried(sandbox, toml, "stripe_eu", body)["events"]
    values = {".".join(value["path"]): value for value in event["values"]}
    assert (values["value"]["file"], values["value"]["line"]) == ("", 6)
    stripe = senders.path_of("stripe").read_text()
    for name, start in (("unique_id", "key = "), ("profile.email", "email = ")):
        assert (values[name]["file"], values[name]["line"]) == ("stripe", line(stripe, start))
    assert values["unique_id"]["expression"] == "_webhook.id"


def test_an_inherited_event_and_what_is_not_relayed_name_their_lines_too(sandbox: Sandbox) -> None:
    # One event is replaced, so that those after it have other places than in the file that is extended.
    toml = 'extends = "stripe"\ntitle = "Stripe EU"\n[[event]]\ntopic = "invoice.paid"\nmetric = "Paid Invoice"\n'
    sent = payload.request(paths.SAMPLES / "stripe" / "customer.subscription.trial_will_end.json")
    stripe = senders.path_of("stripe").read_text().splitlines()
    (event,) = tried(sandbox, toml, "stripe_eu", sent.body.decode())["events"]
    assert [value for value in event["values"] if value["line"]]
    for value in event["values"]:
        if value["line"]:
            assert value["file"] == "stripe"
            assert value["expression"] in stripe[value["line"] - 1], value
    ignored = tried(sandbox, toml, "stripe_eu", {"id": "evt_8", "type": "customer.deleted", "data": {"object": {}}})
    assert ignored["ignored_at"]["file"] == "stripe"
    assert stripe[ignored["ignored_at"]["line"] - 1].startswith('"customer.deleted"')


def test_a_mistake_is_shown_at_its_line_and_nothing_is_made(sandbox: Sandbox) -> None:
    answer = tried(sandbox, TOML.replace("money(total)", "total("))
    assert "events" not in answer
    assert {mistake["line"] for mistake in answer["mistakes"]} == {line(TOML, "value")}
    broken = tried(sandbox, TOML.replace('"Placed Order"', '"Placed Order'))
    assert [mistake["line"] for mistake in broken["mistakes"]] == [line(TOML, "metric")]


def test_what_klaviyo_does_is_shown(sandbox: Sandbox) -> None:
    body = BODY | {"who": "ada@example.com", "phone": "12", "number": "9" * 120_000}
    (event,) = tried(sandbox, body=body, late_hours="24", received=1_800_000_000.0)["events"]
    kinds = {kind for kind, _ in event["checks"]}
    texts = " ".join(text for _, text in event["checks"])
    assert "silent" in kinds
    assert "phone_number: not a valid number" in texts
    assert "Number: cut to 100,000 bytes" in texts
    assert "identifiers only" in texts


def test_what_is_not_relayed_names_the_line_that_says_so(sandbox: Sandbox) -> None:
    answer = tried(sandbox, body={"type": "ping"})
    assert answer["ignored"] == "says nothing"
    assert answer["ignored_at"] == {"line": line(TOML, '"ping"'), "file": ""}
    assert tried(sandbox, body={"type": "other"})["parked"] == [
        "unknown_topic: the source's file says nothing about this topic"
    ]
    assert tried(sandbox, body="{")["parked"][0].startswith("not_json")


HOSTILE = {
    "deep TOML": "title = " + "[" * 20_000,
    "tables of other types": 'title = "x"\nevent = [1, "a"]\nsignature = 3\nprofile = []\n',
    "deep expression": TOML.replace('"number"', '"' + "(" * 5_000 + "a" + ")" * 5_000 + '"'),
    "a name that leaves the folder": 'extends = "../../../etc/passwd"\n',
    "bytes that are none": "title = \x00\ud800",
}


@pytest.mark.parametrize("toml", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_a_mistake_and_no_more(sandbox: Sandbox, toml: str) -> None:
    answer = tried(sandbox, toml)
    assert answer["mistakes"] or answer["trouble"]
    assert len(tried(sandbox)["events"]) == 1


def test_an_expression_that_takes_for_ever_is_stopped(sandbox: Sandbox) -> None:
    tried(sandbox)
    doubling = " | ".join(["[@, @]"] * 60)
    answer = tried(sandbox, TOML.replace('"number"', f'"to_string({doubling})"'))  # it would make 2 ** 60 values
    assert answer.get("trouble") or answer["mistakes"]
    assert len(tried(sandbox)["events"]) == 1


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    opened = Sandbox(tmp_path, paths.SAMPLES)
    assert len(tried(opened)["events"]) == 1
    folder = Path(opened.folder)
    assert folder.exists()
    opened.close()
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_path_is_named_with_what_was_meant(sandbox: Sandbox) -> None:
    (event,) = tried(sandbox, TOML.replace('"number"', "\"numbre || upper('x')\""))["events"]
    missing = {".".join(value["path"]): value for value in event["nothing"]}
    assert "properties.Number" not in missing
    (event,) = tried(sandbox, TOML.replace('"number"', '"numbre"'))["events"]
    missing = {".".join(value["path"]): value for value in event["nothing"]}
    assert missing["properties.Number"]["meant"] == "number for numbre"
    assert missing["properties.Number"]["line"] == line(TOML, "Number")
    assert missing["properties.Missing"]["meant"] == ""
    for several in ("numbre || note", "note"):  # an empty note is no mistake
        (event,) = tried(sandbox, TOML.replace('"number"', f'"{several}"'), body=BODY | {"note": None})["events"]
        (number,) = (value for value in event["nothing"] if value["path"][1] == "Number")
        assert not number["odd"]


def test_what_another_sample_has_is_no_mistake(sandbox: Sandbox) -> None:
    sent = payload.request(paths.SAMPLES / "stripe" / "checkout.session.completed.json")
    toml = senders.path_of("stripe").read_text().replace('"payment_link"', '"payment_lnik"')
    (event,) = tried(sandbox, toml, "stripe", sent.body.decode(), headers=sent.headers)["events"]
    odd = {value["path"][1]: value["meant"] for value in event["nothing"] if value["odd"]}
    assert odd.pop("PaymentLink") in ("payment_link for payment_lnik", "")
    assert "SubscriptionId" not in odd


def test_an_unknown_topic_is_named_with_an_event_to_start_from(sandbox: Sandbox) -> None:
    (unknown,) = tried(sandbox, body=BODY | {"type": "order.lost"})["unknown"]
    assert unknown["topic"] == "order.lost"
    (event,) = tried(sandbox, TOML + unknown["stub"], body=BODY | {"type": "order.lost"})["events"]
    assert event["metric"] == "Order Lost"
    assert tried(sandbox, body={"type": "ping"})["unknown"] == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"Placed Order"', '"Placed Order', "expected TOML: the text is not closed (column 23)"),
        ('"Placed Order"', "", "expected TOML: the value is missing, or a text without quotes (column 10)"),
        ("money(total)", "money(total", "expected a JMESPath expression: it ends too early"),
        ("money(total)", "monney(total)", "unknown function monney(): did you mean 'money'?"),
        ("value =", "valeu =", "unknown 'valeu': did you mean 'value'?"),
        ('"number"', '"a b"', "expected a JMESPath expression: 'b' at character 3 is not expected"),
    ],
)
def test_one_mistake_is_named_once_and_in_words(sandbox: Sandbox, old: str, new: str, said: str) -> None:
    assert [mistake["text"] for mistake in tried(sandbox, TOML.replace(old, new, 1))["mistakes"]] == [said]


def test_an_event_without_a_sample_is_missed_once(sandbox: Sandbox) -> None:
    toml = TOML + '[[event]]\ntopic = "other"\nmetric = "Other"\n'
    assert [mistake["missing"] for mistake in tried(sandbox, toml)["mistakes"]] == [True]
