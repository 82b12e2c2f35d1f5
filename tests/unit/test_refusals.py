"""A flood of refusals costs a few lines a minute, and hides nothing: no authentic webhook's line, no count."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from handler.door.refusals import PER_WINDOW, WINDOW, Refusals
from tests.unit import test_receive
from tests.unit.fakes_door import Door
from tests.unit.test_receive import custom, event, post
from tools.operate import questions

log = test_receive.log  # the fixture
FLOOD = 5 * PER_WINDOW


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Door:
    return Door(refusals=Refusals(clock))


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.getvalue().splitlines()]
    log.seek(0)
    log.truncate()
    return found


def forge(door: Door, source: str = "stripe", times: int = FLOOD) -> None:
    for number in range(times):
        assert post(door, source, b"%d" % number, secret="whsec_" + "x" * 32)[0] == 401


def test_of_many_refusals_the_first_have_a_line_and_one_says_how_many_more(
    door: Door, log: io.StringIO, clock: Clock
) -> None:
    forge(door)
    assert [line["message"] for line in lines(log)] == ["webhook"] * PER_WINDOW
    clock.now += WINDOW
    post(door, "custom", custom(event()))
    more, webhook = lines(log)
    assert (more["message"], more["more"], webhook["outcome"]) == ("webhooks refused", FLOOD - PER_WINDOW, "accepted")
    assert (more["source"], more["reason"]) == ("stripe", "signature_wrong")
    forge(door, times=1)
    assert [line["message"] for line in lines(log)] == ["webhook"]


def test_each_minute_and_each_source_and_reason_has_lines_of_its_own(
    door: Door, log: io.StringIO, clock: Clock
) -> None:
    forge(door)
    forge(door, "shopify")
    door.secrets.document = {}
    door.forget()
    post(door, "stripe", b"{}")
    said = [(line["source"], line["reason"]) for line in lines(log)]
    assert set(said) == {("stripe", "signature_wrong"), ("shopify", "signature_wrong"), ("stripe", "no_secret")}
    assert len(said) == 2 * PER_WINDOW + 1
    clock.now += WINDOW
    forge(door, times=2)
    assert [line["message"] for line in lines(log)] == ["webhooks refused"] * 2 + ["webhook"] * 2


def test_no_line_of_an_authentic_webhook_is_dropped(door: Door, log: io.StringIO, clock: Clock) -> None:
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
    door.sqs.down = True
    for _ in range(FLOOD):
        post(door, "custom", custom(event()))
    assert [line["status"] for line in lines(log) if line["message"] == "webhook"] == [503] * FLOOD


def test_every_refusal_is_counted_with_a_line_or_without(
    door: Door, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(door)
    counted = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    assert sum(one["NotVerified"][0] for one in counted) == FLOOD


def test_make_logs_counts_what_has_no_line(door: Door, log: io.StringIO, clock: Clock) -> None:
    forge(door)
    clock.now += WINDOW
    forge(door, times=1)
    ((_, _, count, _, detail),) = questions.refusals(lines(log))[1:]
    assert int(count) == FLOOD + 1
    assert detail
