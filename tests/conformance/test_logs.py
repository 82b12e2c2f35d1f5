"""``sim.logs`` compared with boto3's client on moto.

Known differences: moto answers with all events to a filter pattern of JSON, as ``sim`` does with ``filters=False``,
and reads an escaped quote in a term as two characters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from sim.logs import Logs
from tests.conformance.support import refused

pytestmark = pytest.mark.xdist_group("conformance")
Client = Callable[[str], Any]
LINES = ['{"message":"job","id":"a.b"}', '{"message":"deferred","id":"acb"}', 'plain A.B and "Zoë"']


@pytest.fixture
def began() -> int:
    """Epoch milliseconds of the first line; one follows in each second."""
    return int(time.time() * 1000) - 10_000


@pytest.fixture
def sides(moto: Client, name: str, began: int) -> list[Any]:
    """Both have ``LINES`` in the group ``name``, the simulated one with one line on each page."""
    events = [(began + number * 1000, line) for number, line in enumerate(LINES)]
    real = moto("logs")
    real.create_log_group(logGroupName=name)
    real.create_log_stream(logGroupName=name, logStreamName="one")
    put = [{"timestamp": at, "message": line} for at, line in events]
    real.put_log_events(logGroupName=name, logStreamName="one", logEvents=put)
    return [Logs({name: events}, per_page=1), real]


def found(client: Any, **asked: Any) -> list[tuple[int, str]]:
    pages = client.get_paginator("filter_log_events").paginate(**asked)
    return [(event["timestamp"], event["message"]) for page in pages for event in page["events"]]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("", LINES), ('"a.b"', LINES[:1]), ('"A.B"', LINES[2:]), ('"Zoë"', LINES[2:]), ('"none such"', [])],
)
def test_a_term_finds_the_same_lines(pattern: str, expected: list[str], sides: list[Any], name: str) -> None:
    asked = {"filterPattern": pattern} if pattern else {}
    simulated, real = (found(side, logGroupName=name, **asked) for side in sides)
    assert simulated == real
    assert [line for _, line in simulated] == expected


@pytest.mark.parametrize("after", [0, 999, 1000, 1001, 9000])
def test_a_start_time_finds_the_same_lines(after: int, sides: list[Any], name: str, began: int) -> None:
    simulated, real = (found(side, logGroupName=name, startTime=began + after) for side in sides)
    assert simulated == real


def test_a_field_of_json_and_an_escaped_quote_are_matched_in_sim(sides: list[Any], name: str) -> None:
    pattern = '{ $.message = "job" }'
    assert [line for _, line in found(sides[0], logGroupName=name, filterPattern=pattern)] == LINES[:1]
    assert [line for _, line in found(sides[0], logGroupName=name, filterPattern=r'"\"Zoë"')] == LINES[2:]
    unfiltered = Logs({name: LINES}, filters=False)
    simulated, real = (found(side, logGroupName=name, filterPattern=pattern) for side in (unfiltered, sides[1]))
    assert [line for _, line in simulated] == [line for _, line in real] == LINES


def test_a_missing_group_is_the_same_error(sides: list[Any]) -> None:
    codes = [refused(side.filter_log_events, logGroupName="missing") for side in sides]
    assert codes == ["ResourceNotFoundException"] * 2
