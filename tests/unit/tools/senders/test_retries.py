"""How senders retry: what their files say of it, the page made of them, and that the last retry is let in."""

from __future__ import annotations

import copy
import re
import tomllib
from typing import Any

import pytest

from handler.door import signatures
from handler.errors import NotVerified
from handler.events import senders
from handler.events.senders import Scheme
from handler.events.webhook import Webhook
from tools import paths
from tools.senders import retries, sign

SHIPPED = sorted(path.stem for path in senders.SHIPPED.glob("*.toml"))
TABLES = {name: senders.document(name)["retries"] for name in SHIPPED}


def stamped(scheme: Scheme) -> bool:
    return bool(scheme.timestamp or scheme.timestamp_header or scheme.timestamp_body)


WITH_TIME = [name for name in SHIPPED if any(map(stamped, senders.load(name).schemes))]
URL = "https://relay.example/webhooks/x"
AT = 1_795_500_000


def outcome(name: str, later: float) -> str:
    """What becomes of a webhook with the signature of ``AT`` that comes ``later`` (seconds)."""
    source = senders.load(name)
    secret = sign.development_secret(name, source.schemes[0])
    body = sign.fresh(name, b'{"type":"x"}', AT)
    url, headers = sign.sign(name, secret, body=body, headers={"content-type": "application/json"}, url=URL, now=AT)
    sent = Webhook("POST", url, "/webhooks/x", headers, {}, body)
    try:
        signatures.verify(source.schemes, sent, [secret], now=AT + later)
    except NotVerified as error:
        return error.reason
    return "verified"


@pytest.mark.parametrize("name", WITH_TIME)
def test_the_last_retry_verifies_with_the_first_ones_signature(name: str) -> None:
    table = TABLES[name]
    if table["signed_again"] == "yes":
        assert outcome(name, 300) == "verified"
        assert outcome(name, 301) == "timestamp_stale"
    else:
        assert outcome(name, table.get("lasts", retries.DAY)) == "verified"


@pytest.mark.parametrize("name", WITH_TIME)
def test_no_sender_may_sign_more_than_five_minutes_ahead(name: str) -> None:
    assert outcome(name, -300) == "verified"
    assert outcome(name, -301) == "timestamp_future"


def test_the_senders_whose_schedule_outlasts_five_minutes_are_there() -> None:
    assert {"zoom", "hubspot", "paddle", "linear", "zendesk", "recharge", "sendgrid", "stripe"} <= set(WITH_TIME)


def test_the_page_is_up_to_date() -> None:
    written = (paths.ROOT / "docs/retries.md").read_text("utf-8")
    assert written == retries.page(), "run: python -m tools retries > docs/retries.md"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_senders_table_says_where_it_is_from(name: str) -> None:
    own = tomllib.loads(senders.path_of(name).read_text("utf-8"))["retries"]
    assert own["known"] in retries.GRADES
    assert ("source" in own) or own["known"] in ("not known", retries.CALLER)


PROMISES = (
    r"\b(?:the|a) sender,? (?:who )?(?:retries|tries again)|\bsenders retry\b|\bso that the sender retr"
    r"|\bwho retries\b|\band sends again\b"
)


def test_no_text_promises_a_retry() -> None:
    """A sender decides whether it tries again: GitHub and WooCommerce do not, Segment and HubSpot not after a 401."""
    texts = [paths.ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "template.yaml")]
    texts += [*(paths.ROOT / "docs").rglob("*.md"), *(paths.ROOT / "src/handler").rglob("*.py")]
    texts += [
        *senders.SHIPPED.glob("*.toml"),
        *(paths.ROOT / "local").rglob("*.py"),
        *(paths.ROOT / "tools").rglob("*.py"),
    ]
    promises = {path.name: re.findall(PROMISES, " ".join(path.read_text("utf-8").split())) for path in texts}
    assert {name: words for name, words in promises.items() if words} == {}


def test_page_names_each_sender_that_gives_up_after_a_401() -> None:
    (line,) = [line for line in retries.page().split("\n") if line.startswith("**A webhook that met a 401**")]
    named = set(re.findall(r"`(\w+)`", line))
    assert {"github", "segment", "hubspot", "twilio", "zendesk"} <= named
    assert not {"stripe", "shopify", "mailchimp", "typeform"} & named


def gives_up_at_once(name: str) -> bool:
    return TABLES[name].get("tries") == 1 or "4xx" in TABLES[name].get("not_retried", "")


@pytest.mark.parametrize(
    ("page", "begin", "end", "seconds"),
    [
        ("README.md", "others (", ") do not", 0),
        ("docs/runbook.md", "or sooner: ", " give up within four hours", 4 * 3_600),
        ("docs/runbook.md", "four hours, ", "\nwithin minutes", 600),
        ("docs/runbook.md", "within minutes, ", " at once", 0),
    ],
)
def test_the_senders_that_are_named_give_up_as_soon_as_it_is_said(
    page: str, begin: str, end: str, seconds: int
) -> None:
    titles = {senders.load(name).title: name for name in SHIPPED}
    named = (paths.ROOT / page).read_text("utf-8").split(begin, 1)[1].split(end, 1)[0]
    for title in re.split(r", | and ", named):
        name = titles[title]
        assert gives_up_at_once(name) if not seconds else TABLES[name]["lasts"] <= seconds, title


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (7, "7 s"),
        (155, "155 s"),
        (5_100, "85 min"),
        (7_200, "2 h"),
        (25_260, "7 h 1 min"),
        (99_305, "27 h 35 min"),
        (172_800, "48 h"),
        (259_200, "3 days"),
        (283_080, "3 days 6 h 38 min"),
    ],
)
def test_spans_are_shown_for_people(seconds: int, shown: str) -> None:
    assert retries.span(seconds) == shown


ZOOM = senders.document("zoom")


def found(shipped: bool = True, **changed: Any) -> list[str]:
    """The linter's words about Zoom's file with some of its ``[retries]`` changed; ``None`` takes a key out."""
    tables = copy.deepcopy(ZOOM)
    for name, value in changed.items():
        tables["signature" if name == "tolerance" else "retries"][name] = value
    for table in (tables["signature"], tables["retries"]):
        for name in [name for name, value in table.items() if value is None]:
            del table[name]
    return [f"{'.'.join(map(str, place))}: {text}" for place, text in retries.mistakes(tables, tables, shipped=shipped)]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"known": "surely"}, "retries.known: expected 'documented' or"),
        ({"known": None}, "retries: expected 'known'"),
        ({"accepts": None}, "retries: expected 'accepts'"),
        ({"accepts": "OK"}, "retries.accepts: expected statuses"),
        ({"switches_off": ""}, "retries.switches_off: expected a text"),
        ({"by_hand": None}, "retries: expected 'by_hand'"),
        ({"not_retried": 4}, "retries.not_retried: expected a text"),
        ({"source": None}, "retries: expected 'source'"),
        ({"source": "the docs"}, "retries.source: expected the https address"),
        ({"tries": 0}, "retries.tries: expected a whole number"),
        ({"lasts": True}, "retries.lasts: expected a whole number"),
        ({"tries": 1}, "retries.lasts: expected no 'lasts'"),
        ({"signed_again": "perhaps"}, "retries.signed_again: expected 'yes' or"),
        ({"signed_again": None}, "retries: expected 'signed_again'"),
        ({"tolerance": None}, "signature.tolerance: expected 5100 s or more: the last retry"),
        ({"tolerance": 5_099}, "signature.tolerance: expected 5100 s or more"),
        ({"signed_again": "no", "tolerance": 300}, "signature.tolerance: expected 5100 s or more"),
        ({"lasts": None}, "signature.tolerance: expected 86400 s or more: how long it retries is not known"),
    ],
)
def test_a_table_that_says_too_little_is_named(changed: dict[str, Any], expected: str) -> None:
    assert any(problem.startswith(expected) for problem in found(**changed)), found(**changed)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"tolerance": 5_100},
        {"tolerance": 0},
        {"tolerance": 300, "signed_again": "yes"},
        {"tolerance": 300, "known": retries.CALLER},
        {"tolerance": 300, "tries": 1, "lasts": None},
        {"accepts": "200, 201 or 204"},
        {"accepts": "not known"},
    ],
)
def test_a_table_that_says_enough_passes(changed: dict[str, Any]) -> None:
    assert found(**changed) == []


def test_only_a_shipped_file_must_have_the_table() -> None:
    bare = {name: table for name, table in ZOOM.items() if name != "retries"}
    assert list(retries.mistakes(bare, bare, shipped=False)) == []
    assert [text for _, text in retries.mistakes(bare, bare, shipped=True)] == [
        "expected [retries]: what the sender counts as delivered, and how it retries"
    ]


def test_a_tolerance_without_its_reason_is_named() -> None:
    lines = ["[signature]", "tolerance = 8700", "tolerance = 8700   # why"]
    assert [place for place, _ in retries.uncommented({("signature", "tolerance"): 2}, lines)] == [
        ("signature", "tolerance")
    ]
    assert list(retries.uncommented({("signature", "tolerance"): 3, (): 1}, lines)) == []
