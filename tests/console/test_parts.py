"""The console's parts that need neither a browser nor a stack."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.events import entry as entries
from handler.events import mapping, senders
from handler.events.mapping import Defaults
from handler.events.webhook import Webhook
from local import run
from local.console import curl, rate, render, signing, story
from local.console.exchanges import Exchange, Exchanges
from local.console.trail import SentJob, Trail, state
from tools import paths
from tools.errors import CommandError
from tools.operate.dead_letters import DeadLetter
from tools.senders import payload, sign
from tools.terminal import visible

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


def test_a_job_counts_for_the_webhook_that_waited_for_it() -> None:
    trail = Trail()
    first = {"timestamp": "2026-11-24T10:00:00.500+00:00"}
    later = {"timestamp": "2026-11-24T10:00:20.500+00:00"}
    at = 1_795_514_400.0
    trail.take([line("job", "a", **first)])
    assert [bool(trail.of("a", (at - 1, at + 9), which).delivered) for which in (0, 1)] == [True, False]
    trail.take([line("job", "a", **later)])
    assert [len(trail.of("a", (at - 1, at + 9), which).jobs) for which in (0, 1)] == [1, 1]
    assert trail.of("a", (at - 1, at + 9), 1).jobs[0].at == pytest.approx(at + 20)
    # Parked, corrected and sent again: the job is the new one's, until the parked one comes back, too.
    trail.take([line("parked", "b", reason="refused_by_klaviyo", **first), line("job", "b", **later)])
    assert trail.of("b", (at - 1, at + 9), 0).parked
    assert trail.of("b", (at - 1, at + 9), 1).delivered
    trail.take([line("job", "b", timestamp="2026-11-24T10:00:30.500+00:00")])
    assert trail.of("b", (at - 1, at + 9), 0).was_parked
    assert trail.of("b", (at - 1, at + 9), 0).delivered


def test_webhooks_know_who_else_brought_their_event() -> None:
    exchanges = Exchanges(most=2)
    answer = b'{"accepted": 1, "event_ids": ["a"]}'
    first, second, third = (
        exchanges.add(
            at=at,
            method="POST",
            target="/webhooks/stripe",
            headers={},
            body=b"",
            status=200,
            answer=answer,
            milliseconds=1,
        )
        for at in (1.0, 3.0, 2.0)
    )
    assert [exchange.number for exchange in exchanges.newest_first()] == [2, 3]
    assert second.receipts("a") == third.receipts("a") == [(3, 2.0), (2, 3.0)]
    assert story.history_of("a", first, Trail()).jobs == []


def test_the_log_says_what_became_of_an_event() -> None:
    trail = Trail()

    def shown(*names: str) -> str:
        return state([trail.of(name) for name in names])

    assert shown("a") == "waiting"
    trail.take([line("job", "a", "b", outcome="rows", status=400), line("parked", "b", reason="refused_by_klaviyo")])
    assert (shown("a"), shown("b"), shown("a", "b")) == ("waiting", "parked", "parked")
    trail.take([line("job", "a"), line("job continued", "c"), line("deferred"), line("job", "b")])
    assert shown("a", "b", "c") == "delivered"
    assert [job.status for job in trail.of("a").jobs] == [400, 202]
    assert trail.of("a").jobs[0].at == pytest.approx(1_795_514_400.0)


def test_requests_are_counted_by_second_and_by_the_minute_before() -> None:
    requests = [SentJob(1_000.0 + n / 10, 202, 1, 1, {}) for n in range(20)]
    requests += [SentJob(1_000.5, 429, 0, 1, {}), SentJob(1_001.5, None, 0, 1, {})]
    chart = rate.seconds(requests, now=1_060.5)
    at = len(chart) - 61
    assert (chart[at].taken, chart[at].throttled, chart[at].failed) == (10, 1, 0)
    assert (chart[at + 1].taken, chart[at + 1].failed) == (10, 1)
    assert [chart[at + n].minute for n in (0, 1, 59, 60)] == [10, 21, 21, 11]


def test_the_last_jobs_are_in_the_order_in_which_they_were_sent() -> None:
    jobs = [SentJob(at, 202, 1, 1, {}) for at in (3.0, 5.0, 1.0, 4.0, 2.0, *range(100, 100 + rate.JOBS))]
    assert [job.at for job in rate.latest(jobs)] == list(range(99 + rate.JOBS, 99, -1))
    assert [job.at for job in rate.latest(jobs[:5])] == [5.0, 4.0, 3.0, 2.0, 1.0]


def test_parked_messages_are_grouped_by_source_and_reason() -> None:
    letters = [
        DeadLetter(str(n), "", "", {}, reason, f"because {n}", "stripe", f"2026-01-0{n}", n)
        for n, reason in ((1, "no_identifier"), (2, "refused"), (3, "no_identifier"))
    ]
    first, second = rate.groups(letters)
    assert (first.reason, first.events, first.since, first.details) == (
        "no_identifier",
        4,
        "2026-01-01",
        ["because 1", "because 3"],
    )
    assert (second.reason, second.events) == ("refused", 2)


def came(source: str, headers: dict[str, str], body: bytes = b"{}", query: str = "") -> Exchange:
    return Exchanges().add(
        at=0.0,
        method="POST",
        target=f"/webhooks/{source}{query}",
        headers=headers,
        body=body,
        status=401,
        answer=b"{}",
        milliseconds=1.0,
    )


@pytest.mark.parametrize("source", senders.names())
def test_every_source_says_how_it_signs_and_hides_its_token(source: str) -> None:
    schemes = senders.load(source).schemes
    headers = {name: "Bearer hidden-value" for scheme in schemes for name in scheme.header}
    exchange = came(source, headers, query="?token=hidden-value")
    description = dict(signing.described(exchange, "https://relay"))
    assert description["scheme"]
    assert "has" in description["this request"]
    hidden = {name for scheme in schemes if scheme.scheme == "token" for name in scheme.header}
    assert not [name for name in hidden if "hidden-value" in exchange.headers[name]]
    assert "hidden-value" not in exchange.path


def refused(
    source: str, body: bytes, change: Callable[[str, bytes], tuple[str, bytes]], age: float = 0.0
) -> dict[str, str]:
    """What is said of a request whose signature, or whose body after that, was changed."""
    now = 1_795_500_000.0
    secrets = sign.development_secrets([source])["sources"][source]
    _, signed = sign.sign(
        source, secrets[0], body=body, headers={}, url=f"https://relay/webhooks/{source}", now=now - age
    )
    (name,) = (header for header in senders.load(source).schemes[0].header if header in signed)
    signed[name], body = change(signed[name], body)
    answer = json.dumps({"error": "signature_wrong", "detail": ""}).encode()
    exchange = Exchanges().add(
        at=now,
        method="POST",
        target=f"/webhooks/{source}",
        headers=signed,
        body=body,
        status=401,
        answer=answer,
        milliseconds=1,
    )
    description = dict(signing.described(exchange, "https://relay", secrets))
    assert not any(secret.removeprefix("whsec_") in text for secret in secrets for text in description.values())
    return description


BODY = b'{"id": "evt_1", "name": "Zo\xc3\xab"}'


@pytest.mark.parametrize(
    ("source", "change", "said"),
    [
        ("stripe", lambda value, body: (value[:-1], body), "it is not of the form that SHA256 in hex has"),
        ("stripe", lambda value, body: (value[:-64] + value[-64:].upper(), body), "lowercase hex"),
        ("stripe", lambda value, body: (value[:-24], body), "it is as long as SHA1"),
        ("stripe", lambda value, body: (value[:-64] + "0" * 64, body), "the form is right: another secret"),
        ("stripe", lambda value, body: (value, json.dumps(json.loads(body), indent=4).encode()), "rewrote the body"),
        ("stripe", lambda value, body: (value, body + b"\n"), "without the line end after it"),
        ("shopify", lambda value, body: ("0" * 64, body), "it is not of the form that SHA256 in base64 has"),
    ],
)
def test_a_wrong_signature_is_compared_with_the_right_one(source: str, change: Any, said: str) -> None:
    description = refused(source, BODY, change)
    assert said in description["likely"]
    assert description["expected"].startswith("64 characters, hex" if source == "stripe" else "44 characters, base64")
    assert "by the development secret" in description["expected"]


def test_what_came_and_how_old_it_was_is_shown() -> None:
    description = refused("stripe", BODY, lambda value, body: (value.replace("v1=", "v1=zz"), body), age=900.0)
    assert description["received"].startswith("stripe-signature: t=1795499100,v1=zz")
    assert description["its form"] == "66 characters, neither hexadecimal nor base64"
    assert "900 s before it came in; the limit is 300 s" in description["timestamp"]


def test_an_event_is_shown_without_its_envelopes_and_with_what_was_left_out() -> None:
    headers, body = payload.read(paths.SAMPLES / "stripe" / "invoice.paid.json")
    exchange = Exchanges().add(
        at=1_795_000_000.0,
        method="POST",
        target="/webhooks/stripe",
        headers=headers,
        body=body,
        status=200,
        answer=b'{"accepted": 1, "event_ids": ["stripe:paid-invoice:evt_1Qrelay0006"]}',
        milliseconds=1.0,
    )
    outcome = story.outcome_of(exchange, Defaults())
    row = json.loads(outcome.events[0].entry)
    plain = story.plain(row)
    assert plain["metric"] == "Paid Invoice"
    assert plain["profile"]["email"] == "jonas.wimmer@post.example"
    assert plain["properties"]["InvoiceId"]
    assert exchange.outcome == "accepted"
    late = story.plain(json.loads(entries.identifiers_only(outcome.events[0].entry)))
    assert late["backfill"] is True
    assert set(late["profile"]) == {"email"}


def test_the_time_of_receipt_alone_makes_no_other_event() -> None:
    headers, body = payload.read(paths.SAMPLES / "stripe" / "invoice.paid.json")
    outcome = mapping.understand(
        senders.load("stripe"), Webhook.posted(headers, body), received=1_795_000_000.0, defaults=Defaults()
    )
    entry, later, another = (json.loads(outcome.events[0].entry) for _ in range(3))
    event = later["attributes"]["events"]["data"][0]["attributes"]
    event["time"] = event["time"].replace(":02Z", ":03Z")
    another["attributes"]["events"]["data"][0]["attributes"]["value"] = 1
    assert later != entry
    assert story.alike(later, entry)
    assert not story.alike(another, entry)
    assert not story.alike(None, entry)


def test_every_note_is_explained() -> None:
    codes = set(
        re.findall(r'Note\(\s*"(\w+)"', "".join(path.read_text() for path in senders.SHIPPED.parent.rglob("*.py")))
    )
    assert codes <= set(story.NOTES)


def test_what_was_parked_is_delivered_once_it_was_corrected_and_sent_back() -> None:
    body = {
        "id": "evt_9",
        "type": "customer.created",
        "data": {"object": {"id": "cus_9", "email": "ada@letters.example"}},
    }
    answer = {"accepted": 0, "parked": [{"index": None, "reason": "no_identifier", "detail": "says nobody"}]}
    exchange = Exchanges().add(
        at=1_795_000_000.0,
        method="POST",
        target="/webhooks/stripe",
        headers={"content-type": "application/json"},
        body=json.dumps(body).encode(),
        status=200,
        answer=json.dumps(answer).encode(),
        milliseconds=1.0,
    )
    trail = Trail()
    assert story.state_of(exchange, trail, Defaults()) == "parked"
    (event,) = story.outcome_of(exchange, Defaults()).events
    trail.take([line("job", event.unique_id)])
    assert story.state_of(exchange, trail, Defaults()) == "delivered"


def test_make_local_names_the_console_and_a_tunnel_to_the_webhooks() -> None:
    running: Any = SimpleNamespace(
        url=lambda source: f"http://127.0.0.1:1/webhooks/{source}",
        has_standin=True,
        klaviyo_url="http://127.0.0.1:3",
        aws=SimpleNamespace(url="http://127.0.0.1:4"),
    )
    said = list(run.addresses(running, "http://127.0.0.1:2"))
    assert "console: http://127.0.0.1:2" in said
    (tunnel,) = (line for line in said if line.startswith("tunnel (optional): "))
    assert "--url http://127.0.0.1:1 (" in tunnel


def test_one_relay_runs_in_a_folder_and_takes_its_own_address_away(tmp_path: Path) -> None:
    running = tmp_path / "running.json"
    with run.alone(running):
        running.write_text("{}")
        with pytest.raises(CommandError, match="already running in this folder"), run.alone(running):
            raise AssertionError("a second one started")
        assert running.exists()
    assert not running.exists()
    with run.alone(running):
        assert not running.exists()


BODIES = [
    b'{"who": "it\'s $HOME"}\n',
    b"@file",
    b"-d `id` $(id) !! \\ %41 * ~ \n\n",
    b"\xff\x00",
    b"\x1b[2J\x03\rrm -rf x",
    "\u202e{1,2}\u200b".encode(),
    b"",
]


@pytest.mark.parametrize("body", BODIES)
def test_a_copied_command_sends_the_very_request_and_is_safe_to_paste(tmp_path: Path, body: bytes) -> None:
    headers = {"X-Note": "a 'b' `c` $HOME !!", "X-Odd": "\x1b]0;x\x07 100% \\n \u202e!!", "X-None": "", "@file": "x"}
    query = "?token=hidden&a=[1-7]&b={c,d}&e=$(id)`id`&f=!!&g=;h&#i"
    exchange = came("stripe", headers | {"Authorization": "Bearer hidden"}, body, query)
    written = curl.command(exchange, "http://127.0.0.1:1")
    assert visible(written, keep="\n") == written
    assert "hidden" not in written
    assert not re.search(r"printf '[^']*[!%]", written)
    # In curl's place something that writes down how it was called.
    fake = tmp_path / "curl"
    fake.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([[os.fsencode(word).decode('latin-1') for word in sys.argv[1:]],\n"
        "                  sys.stdin.buffer.read().decode('latin-1')]))\n"
    )
    fake.chmod(0o700)
    shell = ["/bin/sh", "-c", written]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    ran = subprocess.run(shell, capture_output=True, check=True, env=environment, input=b"")  # noqa: S603
    words, piped = json.loads(ran.stdout)
    assert "--globoff" in words
    assert words[words.index("-X") + 2] == f"http://127.0.0.1:1{exchange.path}"
    passed = [word.encode("latin-1").decode() for flag, word in itertools.pairwise(words) if flag == "-H"]
    assert f"x-note: {headers['X-Note']}" in passed
    assert f"x-odd: {headers['X-Odd']}" in passed
    assert "x-none;" in passed
    assert not [word for word in passed if word.startswith("@")]
    sent = piped if words[-1] == "@-" else words[-1] if "--data-raw" in words else ""
    assert sent.encode("latin-1") == body


def test_times_are_local_and_topics_break_after_dots() -> None:
    assert re.fullmatch(r"2026-01-0\d \d\d:\d\d:05", render.when("2026-01-02T03:04:05+00:00"))
    assert render.when("no time") == "no time"
    assert render.parted("a.<b>_c") == "a.<wbr>&lt;b&gt;_<wbr>c"
