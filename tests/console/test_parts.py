"""The console's parts that need neither a browser nor a stack."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import mapping, schema, sources
from handler.mapping import Defaults
from local import check, payload, run, stack
from local.console import rate, render, signing, story
from local.console.ledger import Exchange, Ledger
from local.console.trail import Job, Trail
from local.redrive import Parked

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_json_is_only_given_other_white_space(value: Any) -> None:
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert json.loads(render.indented(written)) == value
    assert render.indented('{"a":19.90,"b":[],"c":1E2}') == '{\n  "a": 19.90,\n  "b": [],\n  "c": 1E2\n}'


@given(VALUES | st.text())
def test_whatever_is_shown_is_escaped(value: Any) -> None:
    for shown in (render.json_text(value), render.body_text(json.dumps(value).encode())):
        assert not re.search("[<>\"']", re.sub(r'<span class="j-\w+">|</span>', "", shown))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe<b>", b"a=1&b=<i>", b"[" * 50_000, b'{"a": "' + b"<" * 200_000])
def test_bodies_of_any_kind_are_shown_and_bounded(body: bytes) -> None:
    shown = render.body_text(body)
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert len(shown) < 700_000


def line(kind: str, *ids: str, **fields: Any) -> dict[str, Any]:
    head = {"message": kind, "timestamp": "2026-11-24T10:00:00.500+00:00", "event_ids": list(ids)}
    return head | {"outcome": "delivered", "status": 202, "events": len(ids), "bytes": 10, "answer_ms": 500} | fields


def test_the_log_tells_what_became_of_an_event() -> None:
    trail = Trail()
    assert trail.state(["a"]) == "waiting"
    trail.take([line("job", "a", "b", outcome="rows", status=400), line("parked", "b", reason="refused_by_klaviyo")])
    assert (trail.state(["a"]), trail.state(["b"]), trail.state(["a", "b"])) == ("waiting", "parked", "parked")
    trail.take([line("job", "a"), line("job continued", "c"), line("deferred"), line("job", "b")])
    assert trail.state(["a", "b", "c"]) == "delivered"
    assert [job.status for job in trail.of("a").jobs] == [400, 202]
    assert trail.of("a").jobs[0].at == pytest.approx(1_795_514_400.0)


def test_requests_are_counted_by_second_and_by_the_minute_before() -> None:
    requests = [Job(1_000.0 + n / 10, 202, 1, 1, {}) for n in range(20)]
    requests += [Job(1_000.5, 429, 0, 1, {}), Job(1_001.5, None, 0, 1, {})]
    chart = rate.seconds(requests, now=1_060.5)
    at = len(chart) - 61
    assert (chart[at].taken, chart[at].throttled, chart[at].failed) == (10, 1, 0)
    assert (chart[at + 1].taken, chart[at + 1].failed) == (10, 1)
    assert [chart[at + n].minute for n in (0, 1, 59, 60)] == [10, 21, 21, 11]


def test_the_last_jobs_stand_in_the_order_in_which_they_were_sent() -> None:
    told = [Job(at, 202, 1, 1, {}) for at in (3.0, 5.0, 1.0, 4.0, 2.0, *range(100, 100 + rate.JOBS))]
    assert [job.at for job in rate.latest(told)] == list(range(99 + rate.JOBS, 99, -1))
    assert [job.at for job in rate.latest(told[:5])] == [5.0, 4.0, 3.0, 2.0, 1.0]


def test_parked_messages_are_heaped_by_source_and_reason() -> None:
    found = [
        Parked(str(n), "", "", {}, reason, f"because {n}", "stripe", f"2026-01-0{n}", n)
        for n, reason in ((1, "no_identifier"), (2, "refused"), (3, "no_identifier"))
    ]
    first, second = rate.heaps(found)
    assert (first.reason, first.events, first.since, first.details) == (
        "no_identifier",
        4,
        "2026-01-01",
        ["because 1", "because 3"],
    )
    assert (second.reason, second.events) == ("refused", 2)


def came(source: str, headers: dict[str, str], body: bytes = b"{}", query: str = "") -> Exchange:
    return Ledger().add(
        at=0.0,
        method="POST",
        target=f"/webhooks/{source}{query}",
        headers=headers,
        body=body,
        status=401,
        answer=b"{}",
        milliseconds=1.0,
    )


@pytest.mark.parametrize("source", sources.names())
def test_every_source_says_how_it_signs_and_hides_its_token(source: str) -> None:
    schemes = sources.load(source).schemes
    headers = {name: "Bearer hidden-value" for scheme in schemes for name in scheme.header}
    exchange = came(source, headers, query="?token=hidden-value")
    told = dict(signing.described(exchange, "https://relay"))
    assert told["scheme"]
    assert "has" in told["this request"]
    hidden = {name for scheme in schemes if scheme.scheme == "token" for name in scheme.header}
    assert not [name for name in hidden if "hidden-value" in exchange.headers[name]]
    assert "hidden-value" not in exchange.path


def test_an_event_is_told_without_its_envelopes_and_with_what_was_left_out() -> None:
    headers, body = payload.read(check.SAMPLES / "stripe" / "invoice.paid.json")
    exchange = Ledger().add(
        at=1_795_000_000.0,
        method="POST",
        target="/webhooks/stripe",
        headers=headers,
        body=body,
        status=202,
        answer=b'{"accepted": 1, "event_ids": ["stripe:paid-invoice:evt_1Qrelay0006"]}',
        milliseconds=1.0,
    )
    outcome = story.outcome_of(exchange, Defaults())
    entry = json.loads(outcome.events[0].entry)
    plain = story.plain(entry)
    assert plain["metric"] == "Paid Invoice"
    assert plain["profile"]["email"] == "jonas.wimmer@post.example"
    assert plain["properties"]["InvoiceId"]
    assert exchange.outcome == "accepted"
    late = story.plain(json.loads(schema.identifiers_only(outcome.events[0].entry)))
    assert late["backfill"] is True
    assert set(late["profile"]) == {"email"}


def test_the_time_of_receipt_alone_makes_no_other_event() -> None:
    headers, body = payload.read(check.SAMPLES / "stripe" / "invoice.paid.json")
    made = mapping.understand(
        sources.load("stripe"), headers=headers, body=body, received=1_795_000_000.0, defaults=Defaults()
    )
    entry, later, another = (json.loads(made.events[0].entry) for _ in range(3))
    event = later["attributes"]["events"]["data"][0]["attributes"]
    event["time"] = event["time"].replace(":02Z", ":03Z")
    another["attributes"]["events"]["data"][0]["attributes"]["value"] = 1
    assert later != entry
    assert story.alike(later, entry)
    assert not story.alike(another, entry)
    assert not story.alike(None, entry)


def test_every_note_is_explained() -> None:
    codes = set(
        re.findall(r'Note\(\s*"(\w+)"', "".join(path.read_text() for path in sources.SHIPPED.parent.glob("*.py")))
    )
    assert codes <= set(story.NOTES)


def test_what_was_parked_is_delivered_once_it_was_mended_and_sent_back() -> None:
    body = {
        "id": "evt_9",
        "type": "customer.created",
        "data": {"object": {"id": "cus_9", "email": "ada@letters.example"}},
    }
    answer = {"accepted": 0, "parked": [{"index": None, "reason": "no_identifier", "detail": "says nobody"}]}
    exchange = Ledger().add(
        at=1_795_000_000.0,
        method="POST",
        target="/webhooks/stripe",
        headers={"content-type": "application/json"},
        body=json.dumps(body).encode(),
        status=202,
        answer=json.dumps(answer).encode(),
        milliseconds=1.0,
    )
    trail = Trail()
    assert story.state_of(exchange, trail, Defaults()) == "parked"
    (event,) = story.outcome_of(exchange, Defaults()).events
    trail.take([line("job", event.unique_id)])
    assert story.state_of(exchange, trail, Defaults()) == "delivered"


class _Running:
    """A stack, or a console, that only says where it is."""

    url = "http://127.0.0.1:2"
    left_out = ()
    klaviyo_url = "http://127.0.0.1:3"
    known_as = "https://relay"
    outputs: ClassVar[dict[str, str]] = {}
    parameters: ClassVar[dict[str, str]] = {}
    aws = SimpleNamespace(url="http://127.0.0.1:4")

    def __init__(self, *_: Any, **__: Any) -> None:
        self.url = lambda source: f"http://127.0.0.1:1/webhooks/{source}"  # type: ignore[assignment]

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Opened(_Running):
    def __init__(self, *_: Any, **__: Any) -> None:
        """``url`` stays an address."""


def test_make_local_names_the_console_before_it_is_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "Stack", _Running)
    monkeypatch.setattr(run, "Console", _Opened)
    monkeypatch.setattr(run, "RUNNING", tmp_path / "running.json")
    for module in (run, stack):
        monkeypatch.setattr(module, "SECRETS_FILE", tmp_path / "secrets.json")
    # In this module alone: other threads of the process wait for events of their own.
    over = SimpleNamespace(wait=lambda: True, set=lambda: None)
    monkeypatch.setattr(run, "threading", SimpleNamespace(Event=lambda: over))
    monkeypatch.setattr("local.run.signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["local"])
    assert run.main() == 0
    said = capsys.readouterr().out.splitlines()
    assert "console: http://127.0.0.1:2" in said[: said.index("ready")]
    (tunnel,) = (one for one in said if one.startswith("tunnel: "))
    assert "--url http://127.0.0.1:1," in tunnel
