"""``sim.klaviyo`` compared with the stand-in: the same windows, and answers in which the relay reads the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handler.delivery import jobs
from handler.delivery.klaviyo import Answer, Connection, sort_answer
from handler.messages import Event, Message
from handler.pauses import PAUSES
from local import standin
from sim.klaviyo import Klaviyo, Windows
from sim.time import START, Time
from tests.unit.support_delivery import entry

LIMITS = standin.Limits()
GAPS = st.lists(st.sampled_from([0.0, 0.02, 0.11, 0.4, 0.97, 7.3]), max_size=40)


@dataclass
class Sides:
    """Both at one time, with windows of the same phases (seconds)."""

    minute: float = 0.0
    second: float = 0.0

    def __post_init__(self) -> None:
        self.time = Time()
        self.sim = Klaviyo(self.time, Windows(self.minute, self.second), seconds=0.0)
        self.standin = standin.Klaviyo(clock=self.time)
        self.standin.windows = (
            standin.Window(LIMITS.per_second, LIMITS.second, self.second),
            standin.Window(LIMITS.per_minute, LIMITS.minute, self.minute),
        )

    def post(self, *names: str) -> list[Answer]:
        """Both answers to a job of events of these names, as the relay reads them."""
        sent = Message("shop", tuple(Event(name, int(START), entry(name)) for name in names), START)
        (job,) = jobs.pack([(0, sent)], now=START)
        body = job.body()
        _, wait = self.standin.arrive()
        headers = {
            "authorization": f"Klaviyo-API-Key {self.standin.key}",
            "content-type": standin.MEDIA_TYPE,
            "revision": "2026-10-15",
        }
        answer = (
            standin.answer(self.standin, "POST", standin.PATH, headers, body, self.time())
            if wait is None
            else standin.throttled(wait)
        )
        return [
            self.sim.post(body, self.standin.key),
            sort_answer(answer.status, answer.headers, answer.body),
        ]


def read(answer: Answer) -> dict[str, Any]:
    """What the relay goes by; words and titles are for people."""
    names = ("kind", "status", "reason", "retry_after")
    return {name: getattr(answer, name) for name in names} | {"rows": list(answer.rows)}


@example(0.0, 0.0, [1.1, 0.02] * 16)  # in the fifteenth second both windows are full
@given(st.floats(0, 60), st.floats(0, 1), GAPS)
def test_any_arrivals_meet_the_same_limits(minute: float, second: float, gaps: list[float]) -> None:
    sides = Sides(minute, second)
    for gap in gaps:
        sides.time.sleep(gap)
        for _ in range(8):
            simulated, (_, wait) = sides.sim.windows, sides.standin.arrive()
            assert simulated is not None
            assert simulated.take(sides.time()) == wait
            assert simulated.headers(sides.time()) == sides.standin.rate_headers(sides.time())


@pytest.mark.parametrize(("minute", "second"), [(0, 0), (13.3, 0.4), (59.9, 0.99)])
def test_answers_say_the_same_until_after_a_limit(minute: float, second: float) -> None:
    sides = Sides(minute, second)
    for number in range(200):
        simulated, real = sides.post(f"e{number}")
        assert read(simulated) == read(real)
        sides.time.sleep(0.05 if number % 30 else 1.1)
    assert {request.status for request in sides.sim.requests} == {202, 429}
    assert sides.sim.stored == [name for name, *_ in sides.standin.stored]


@pytest.mark.parametrize("bad", [{"b"}, {"a", "c"}])
def test_a_refusal_points_at_the_same_rows(bad: set[str]) -> None:
    sides = Sides()
    sides.sim.bad = bad
    sides.standin.set_faults([{"point": True, "matching": f'"({"|".join(bad)})"'}], sides.time())
    simulated, real = sides.post("a", "b", "c")
    assert read(simulated) == read(real)
    assert {"abc"[index] for index in simulated.rows} == bad
    assert not sides.sim.stored
    assert not sides.standin.stored


def test_a_refusal_without_pointers_is_read_alike() -> None:
    sides = Sides()
    sides.sim.bad, sides.sim.pointers = {"b"}, False
    sides.standin.set_faults([{"status": 400, "body": {"errors": [{"title": "Invalid input."}]}}], sides.time())
    simulated, real = sides.post("a", "b")
    assert read(simulated) == read(real)
    assert simulated.kind == "refused"


def test_ids_are_read_as_json_has_them() -> None:
    sides = Sides()
    sides.post('quo"ted', "größer")
    assert sides.sim.stored == ['quo"ted', "größer"] == [name for name, *_ in sides.standin.stored]


def test_a_connection_is_opened_without_a_fault() -> None:
    with standin.Server(standin.Klaviyo()) as server:
        connection = Connection(server.url, "2026-10-15", pauses=PAUSES)
        assert [side.open() for side in (Sides().sim, connection)] == [None, None]
        connection.close()
