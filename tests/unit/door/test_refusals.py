"""A flood of refusals costs a few lines a minute, and hides nothing: no authentic webhook's line, no count."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from handler.door.refusals import PER_WINDOW, WINDOW, Refusals
from sim.time import Time
from tests.unit.door.test_receive import custom, event, post
from tests.unit.support_door import Door
from tools import paths
from tools.operate import questions
from tools.terminal import table

FLOOD = 5 * PER_WINDOW


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def door(clock: Time) -> Door:
    return Door(refusals=Refusals(clock))


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    parsed = [json.loads(line) for line in log.getvalue().splitlines()]
    log.seek(0)
    log.truncate()
    return parsed


def forge(door: Door, source: str = "stripe", times: int = FLOOD) -> None:
    for number in range(times):
        assert post(door, source, b"%d" % number, secret="whsec_" + "x" * 32)[0] == 401


def test_of_many_refusals_the_first_have_a_line_and_one_says_how_many_more(
    door: Door, log: io.StringIO, clock: Time
) -> None:
    forge(door)
    assert [line["message"] for line in lines(log)] == ["webhook"] * PER_WINDOW
    clock.sleep(WINDOW)
    post(door, "custom", custom(event()))
    more, webhook = lines(log)
    assert (more["message"], more["more"], webhook["outcome"]) == ("webhooks refused", FLOOD - PER_WINDOW, "accepted")
    assert (more["source"], more["reason"]) == ("stripe", "signature_wrong")
    forge(door, times=1)
    assert [line["message"] for line in lines(log)] == ["webhook"]


def test_each_minute_and_each_source_and_reason_has_lines_of_its_own(door: Door, log: io.StringIO, clock: Time) -> None:
    forge(door)
    forge(door, "shopify")
    door.hold({})
    door.forget()
    post(door, "stripe", b"{}")
    said = [(line["source"], line["reason"]) for line in lines(log)]
    assert set(said) == {("stripe", "signature_wrong"), ("shopify", "signature_wrong"), ("stripe", "no_secret")}
    assert len(said) == 2 * PER_WINDOW + 1
    clock.sleep(WINDOW)
    forge(door, times=2)
    assert [line["message"] for line in lines(log)] == ["webhooks refused"] * 2 + ["webhook"] * 2


def test_no_line_of_an_authentic_webhook_is_dropped(door: Door, log: io.StringIO, clock: Time) -> None:
    forge(door)
    lines(log)
    bodies = {
        "accepted": custom(event()),
        "parked": custom(event(profile={})),
        "ignored": b'{"id":"evt_1","type":"setup_intent.created","data":{"object":{"id":"seti_1"}}}',
    }
    for _ in range(FLOOD):
        for outcome, body in bodies.items():
            post(door, "stripe" if outcome == "ignored" else "custom", body)
    assert [line["outcome"] for line in lines(log)] == list(bodies) * FLOOD
    door.down = {"sqs"}
    for _ in range(FLOOD):
        post(door, "custom", custom(event()))
    assert [line["status"] for line in lines(log) if line["message"] == "webhook"] == [503] * FLOOD


def test_every_refusal_is_counted_with_a_line_or_without(
    door: Door, clock: Time, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(door)
    counted = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    assert sum(document["NotVerified"][0] for document in counted) == FLOOD


def test_make_logs_counts_what_has_no_line(door: Door, log: io.StringIO, clock: Time) -> None:
    forge(door)
    clock.sleep(WINDOW)
    forge(door, times=1)
    ((_, _, count, _, detail),) = questions.refusals(lines(log))[1:]
    assert int(count) == FLOOD + 1
    assert detail


def test_runbook_shows_the_refusals_as_they_are_printed(door: Door, log: io.StringIO, clock: Time) -> None:
    forge(door, times=12)
    unknown = {"pathParameters": {"source": "nowhere"}, "rawPath": "/webhooks/nowhere"}
    assert post(door, "stripe", b"{}", **unknown)[0] == 404
    clock.sleep(WINDOW)
    post(door, "custom", custom(event()))
    (heading, *rows) = questions.refusals(lines(log))
    printed = table(
        [heading, *((source, reason, count, "19:54:21", detail) for source, reason, count, _, detail in rows)]
    )
    page = (paths.ROOT / "docs/runbook.md").read_text("utf-8")
    shown = page.partition("$ make logs STACK=klaviyo-relay REFUSED=1\n")[2].partition("\n```")[0]
    assert shown.splitlines() == printed
