"""Events, and ``deliver`` as its entry point builds it, for the tests of the delivery."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from handler.closing import Closing
from handler.delivery import report
from handler.delivery.crashes import Deaths
from handler.delivery.dispatch import Dispatcher, Poster
from handler.delivery.function import Deliver
from handler.delivery.pacing import Pacer, Table, interval
from handler.errors import TableUnavailable
from handler.messages import Event
from handler.pauses import PAUSES
from handler.secret import Key
from handler.settings import for_deliver
from handler.telemetry import metrics
from sim import environment
from sim.time import Time

ENVIRONMENT = environment.deliver()
EVENTS, DEAD = ENVIRONMENT["EVENTS_QUEUE_URL"], ENVIRONMENT["DEAD_LETTER_QUEUE_URL"]


def entry(name: str, **properties: Any) -> str:
    return json.dumps(
        {
            "type": "event-bulk-create",
            "attributes": {
                "profile": {"data": {"type": "profile", "attributes": {"email": f"{name}@mail.example"}}},
                "events": {
                    "data": [
                        {
                            "type": "event",
                            "attributes": {
                                "metric": {"data": {"type": "metric", "attributes": {"name": "Placed Order"}}},
                                "properties": properties,
                                "unique_id": name,
                            },
                        }
                    ]
                },
            },
        }
    )


def event(name: str, time: int = 1_790_000_000) -> Event:
    return Event(name, time, entry(name))


class Known(Key):
    """The key ``pk_one``, which nobody replaces."""

    def __init__(self, key: str = "pk_one") -> None:
        self.key = key

    def current(self) -> str:
        return self.key

    def renewed(self, old: str) -> bool:
        return False


def no_table(clock: Time) -> TableUnavailable:
    """What a pacing table raises that does not answer."""
    return TableUnavailable(clock() + PAUSES.long, Closing("no_table", "the pacing table does not answer"))


def pacer(table: Table, clock: Time) -> Pacer:
    return Pacer(table, spacing=interval(150, 0.4), clock=clock, sleep=clock.sleep, pauses=PAUSES)


def deliver(
    *, sqs: Any, table: Table, poster: Poster, clock: Time, random: Callable[[], float], key: Key | None = None
) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """The function as ``deliver.py`` builds it, with all that is outside in memory."""
    paced = pacer(table, clock)
    dispatcher = Dispatcher(
        pacer=paced,
        poster=poster,
        key=key or Known(),
        clock=clock,
        sleep=clock.sleep,
        random=random,
        record=report.posted,
        pauses=PAUSES,
    )
    handler: Callable[[dict[str, Any], Any], dict[str, Any]] = metrics.log_metrics(
        Deliver(
            settings=for_deliver(ENVIRONMENT),
            sqs=sqs,
            dispatcher=dispatcher,
            deaths=Deaths(table, pacer=paced, clock=clock, pauses=PAUSES),
            pauses=PAUSES,
            clock=clock,
            random=random,
        )
    )
    return handler
