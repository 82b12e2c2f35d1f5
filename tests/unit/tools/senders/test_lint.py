"""Mistakes in a source's file are named by file, line and what was expected."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from handler.events import senders
from tools import paths
from tools.senders import catalogue, lint, outcome

Mistakes = Callable[[str], list[str]]

GOOD = """title = "Acme"

[signature]
header = "x-acme-signature"

[webhook]
topic = "type"
key = "id"

[profile]
email = "email"

[[event]]
topic = "order"
metric = "Placed Order"
value = "money(total)"
[event.properties]
OrderId = "id"

[ignore]
"*" = "not useful for messaging customers"
"""


@pytest.fixture
def mistakes(tmp_path: Path, custom_senders: Path) -> Mistakes:
    samples = tmp_path / "events"
    (samples / "acme").mkdir(parents=True)
    body = {"type": "order", "id": 1, "email": "kim@mail.example", "total": "9.90"}
    (samples / "acme/order.json").write_text(json.dumps({"headers": {}, "body": body}))

    def find(text: str) -> list[str]:
        senders.load.cache_clear()
        senders.load.cache_clear()
        (custom_senders / "acme.toml").write_text(text)
        return [str(problem).replace(f"{custom_senders}/", "") for problem in lint.problems("acme", samples)]

    return find


def test_a_good_file_passes(mistakes: Mistakes) -> None:
    assert mistakes(GOOD) == []


@pytest.mark.parametrize(
    ("right", "wrong", "line", "expected"),
    [
        ('metric = "Placed Order"', "", 13, "expected 'metric' or 'metric_from'"),
        ('key = "id"\n', "", 12, "expected 'key', here or in [webhook]"),
        ('value = "money(total)"', 'value = "total"', 16, "expected an amount"),
        ('value = "money(total)"', 'value = "money(total) || total"', 16, "expected an amount"),
        ('OrderId = "id"', 'OrderId = "id ||"', 18, "expected a JMESPath expression"),
        ('OrderId = "id"', 'OrderId = "to_number(id)"', 18, "expected money()"),
        ('OrderId = "id"', 'OrderId = "uper(id)"', 18, "unknown function uper()"),
        ('OrderId = "id"', 'OrderId = "upper(id, id)"', 18, "expected 1 arguments of upper(), found 2"),
        ('OrderId = "id"', "OrderId = 5", 18, "expected an expression"),
        ('email = "email"', 'e_mail = "email"', 11, "unknown 'e_mail'"),
        ('topic = "type"', 'topic_header = "x topic"', 7, "expected the name of an HTTP header"),
        ('topic = "type"', 'topic_header = "x-topic"', 13, "expected 'agrees'"),
        ('topic = "type"', "", 6, "expected 'topic' or 'topic_header'"),
        ('topic = "order"', "topic = []", 14, "expected 'topic': a text or a list of texts"),
        ('topic = "order"', 'topic = "invoice"', 14, "for the topic invoice"),
        ('topic = "order"', 'topic = "order"\nwhen = "paid"', 13, "expected 'otherwise'"),
        ('topic = "order"', 'topic = "order"\nshared = "order"', 15, "expected one of the [shared] tables"),
        ('header = "x-acme-signature"', 'digest = "md5"', 4, "expected 'sha256' or 'sha1'"),
        ('header = "x-acme-signature"', "", 3, "expected 'header', or scheme"),
        ('header = "x-acme-signature"', 'header = "x"\nsigned = "{time}.{body}"', 5, "in braces"),
        ('header = "x-acme-signature"', 'header = "x"\ntolerance = -1', 5, "expected whole seconds"),
        ('header = "x-acme-signature"', 'header = "x"\nsigned = "{method}"', 5, "expected {body} or {form}"),
        (
            'header = "x-acme-signature"',
            'header = "x"\nsigned = "{timestamp}{body}"',
            5,
            "expected the name of the header with the timestamp",
        ),
        ('header = "x-acme-signature"', 'header = "x"\ntimestamp_header = "t"', 3, "expected {timestamp}"),
        ('header = "x-acme-signature"', 'header = "x"\nid_header = "i"', 3, "expected {id}"),
        ('header = "x-acme-signature"', 'header = "x"\nprefix = 5', 5, "expected a text"),
        ('header = "x-acme-signature"', 'header = "x"\nlayout = "pairs"\nseparator = ""', 6, "expected a text"),
        ('topic = "type"', 'topic = "type"\nkeep_headers = ["X-Acme-Signature"]', 8, "no signature or token"),
        ('topic = "type"', 'topic = "type"\nkeep_headers = ["Cookie"]', 8, "no signature or token"),
        ('topic = "type"', 'topic = "type"\nkeep_headers = "x-id"', 8, "expected a list"),
        ('topic = "type"', 'topic = "type"\nbackfill = "false"', 8, "expected true or false"),
        ('topic = "order"', 'topic = "order"\nbackfill = "no"', 15, "expected true or false"),
        ("[profile]", '[[handshake]]\nwhen = "x"\nsigned = "no"\n[profile]', 12, "expected true or false"),
        ("[ignore]", '[ignore]\norder = "x"', 21, "expected no topic that an [[event]] reads"),
        ('title = "Acme"', 'title = "Acme"\nonly = "order"', 2, "expected a list of topics"),
        ('title = "Acme"', 'title = "Acme"\nformat = "klavyio"', 2, "expected 'klaviyo'"),
        ("[ignore]", "[ignored]", 20, "unknown 'ignored'"),
        ("[ignore]", "[retries]\ntrys = 4\n[ignore]", 21, "unknown 'trys'"),
        ("[ignore]", '[retries]\nknown = "perhaps"\n[ignore]', 21, "expected 'documented' or"),
        ("[ignore]", '[retries]\nknown = "observed"\n[ignore]', 20, "expected 'accepts'"),
        ('OrderId = "id"', 'OrderId = "!customer.id && id"', 18, "expected !(a.b)"),
        ('OrderId = "id"', "OrderId = \"!type == 'x' && id\"", 18, "expected !(a.b)"),
        ('topic = "type"', 'topic = "type"\nwhen = "live"', 8, "expected 'otherwise'"),
        ('topic = "type"', 'topic = "type"\ncurrency = "eur"', 8, "expected an ISO 4217 code"),
        ('header = "x-acme-signature"', 'scheme = "token"\ndigest = "sha1"', 5, "unknown 'digest'"),
        ('header = "x-acme-signature"', 'header = "x"\nscheme = "ecdsa"\nencoding = "hex"', 6, "unknown 'encoding'"),
        ('header = "x-acme-signature"', 'header = "x"\nencoding = "basic"', 5, 'expected scheme = "token"'),
        ('header = "x-acme-signature"', 'scheme = "token"\nencoding = "basic"', 3, "expected 'header'"),
        ('header = "x-acme-signature"', 'header = "x"\ntimestamp_body = "a ||"', 5, "expected a JMESPath expression"),
        ("[signature]", '[[signature]]\nheader = "y"\nid_header = "z"\n[[signature]]', 5, "expected no id_header"),
        ("[profile]", '[[handshake]]\nanswer = "x"\n[profile]', 10, "expected 'when'"),
        ("[profile]", '[[handshake]]\nwhen = "x"\nsigned = false\nhmac = "y"\n[profile]', 13, "expected a signed"),
        ("[profile]", '[[handshake]]\nwhen = "x"\nsigned = true\ntoken = "y"\n[profile]', 13, "expected no token"),
        ('topic = "type"', 'topic = "type"\nzone = "Mars/Base"', 8, "expected an IANA time zone"),
        ('topic = "type"', 'topic = "type"\nregion = "de"', 8, "expected a country code"),
        ('topic = "type"', 'topic = "type"\nbody = "xml"', 8, "expected 'json', 'form' or 'multipart'"),
        ('topic = "type"', 'topic = "type"\nbody = ["json"]', 8, "a list of two or three"),
        ('topic = "type"', 'topic = "type"\nbody = ["form", "form"]', 8, "a list of two or three"),
        ('topic = "type"', 'topic = "type"\nbody = ["json", "form"]', 8, "expected 'form' too"),
        ('topic = "type"', 'topic = "type"\nbody = ["json", "form"]\nform = "a"', 8, "expected 'form' too"),
        ('topic = "type"', 'topic = "type"\nbody = "form"\nform = ["a"]', 9, "expected body to be a list"),
        ('topic = "type"', 'topic = "type"\ncharset = "utf-16"', 8, "such as windows-1252"),
        ('topic = "type"', 'topic = "type"\ncharset = "latin-99"', 8, "such as windows-1252"),
        ('header = "x-acme-signature"', 'header = "x"\nsigned = "{url}{form}"', 7, 'expected body = "form"'),
        (
            'header = "x-acme-signature"\n\n[webhook]',
            'header = "x"\nid_header = "y"\nsigned = "{id}.{body}"\n\n[webhook]\nbody = "form"',
            9,
            "could stand for the end of the signed {id}",
        ),
        (
            'header = "x-acme-signature"\n\n[webhook]',
            'header = "x"\nid_header = "y"\nsigned = "{id}.{body}"\n\n[webhook]\nbody = [{ a = 1 }]',
            9,
            "expected 'json', 'form' or 'multipart'",
        ),
        ('title = "Acme"', 'title = "Acme', 1, "expected TOML"),
        ('title = "Acme"', 'extends = "nobody"', 1, "expected a source to extend"),
    ],
)
def test_a_mistake_is_named_with_its_line(mistakes: Mistakes, right: str, wrong: str, line: int, expected: str) -> None:
    lines = mistakes(GOOD.replace(right, wrong, 1))
    assert any(mistake.startswith(f"acme.toml:{line}: ") and expected in mistake for mistake in lines), lines


def test_a_metric_without_a_sample_is_named(mistakes: Mistakes) -> None:
    more = GOOD.replace("[ignore]", '[[event]]\ntopic = "order"\nmetric = "Paid Order"\nwhen = "paid"\n\n[ignore]')
    assert any("expected a sample" in mistake and "Paid Order" in mistake for mistake in mistakes(more))


def test_a_store_of_a_shipped_sender_needs_no_events_of_its_own(mistakes: Mistakes) -> None:
    store = 'extends = "shopify"\ntitle = "Shop EU"\nonly = ["orders/*"]\n\n[metrics]\n"Placed Order" = "Placed EU"\n'
    assert mistakes(store) == []


def test_a_store_may_not_shorten_what_covers_its_senders_retries(mistakes: Mistakes) -> None:
    store = 'extends = "zoom"\ntitle = "Zoom EU"\n\n[signature]\ntolerance = 300\n'
    assert mistakes(store) == [
        "acme.toml:5: expected 5100 s or more: the last retry may carry the first try's signature"
    ]
    assert mistakes(store + '\n[retries]\nsigned_again = "yes"\n') == []


@pytest.mark.parametrize("name", senders.names())
def test_every_source_passes(name: str) -> None:
    assert [str(problem) for problem in lint.problems(name)] == []


def test_the_table_of_metrics_is_up_to_date() -> None:
    written = (paths.ROOT / "docs/metrics.md").read_text("utf-8")
    assert written == catalogue.metrics_table(), "run: python -m tools catalogue > docs/metrics.md"


SHIPPED = {path.stem for path in senders.SHIPPED.glob("*.toml")}
# Sources of the user's own keep their samples in events/, and need no outcome to compare with.
SAMPLES = sorted(path for path in paths.SAMPLES.glob("*/*.json") if path.parent.name in SHIPPED)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_sample_becomes_what_is_in_expected(path: Path) -> None:
    reviewed = json.loads((outcome.EXPECTED / path.relative_to(paths.SAMPLES)).read_text("utf-8"))
    assert json.loads(outcome.expected_of(path)) == reviewed


def test_no_outcome_outlives_its_sample() -> None:
    kept = {path.relative_to(outcome.EXPECTED) for path in outcome.EXPECTED.glob("*/*.json")}
    assert kept == {path.relative_to(paths.SAMPLES) for path in SAMPLES}


def test_the_readme_names_every_sender() -> None:
    section = (paths.ROOT / "README.md").read_text("utf-8").split("## Senders")[1].split("[docs/metrics.md]")[0]
    named = set(re.findall(r"`(\w+)`", section))
    assert sorted(named) == sorted(SHIPPED)
