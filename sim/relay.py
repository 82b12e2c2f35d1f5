"""``deliver`` as its entry point composes it, with this world in place of AWS, Klaviyo and time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from handler.delivery import pacing, report
from handler.delivery.crashes import Deaths
from handler.delivery.dispatch import Dispatcher
from handler.delivery.function import Deliver
from handler.delivery.pacing import Table
from handler.pauses import PAUSES
from handler.secret import Key, Secret
from handler.settings import for_deliver

from .klaviyo import Klaviyo
from .queue import Sqs
from .secrets import Secrets


def deliver(
    env: Mapping[str, str],
    *,
    sqs: Sqs,
    table: Table,
    klaviyo: Klaviyo,
    secrets: Secrets,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    random: Callable[[], float],
    stack: str = "stack",
) -> Deliver:
    """Build the function; the one place outside the handler that knows of what it is made."""
    settings = for_deliver(env)
    secret = Secret(cast("Any", secrets), settings.klaviyo_secret, clock, kept=PAUSES.kept, reread=PAUSES.key_reread)
    pacer = pacing.shared(
        table,
        stack=stack,
        requests_per_minute=settings.requests_per_minute,
        arrival_spread=settings.arrival_spread,
        clock=clock,
        sleep=sleep,
        pauses=PAUSES,
    )
    dispatcher = Dispatcher(
        pacer=pacer,
        poster=klaviyo,
        key=Key(secret, clock, PAUSES),
        clock=clock,
        sleep=sleep,
        random=random,
        record=report.posted,
        pauses=PAUSES,
    )
    return Deliver(
        settings=settings,
        sqs=cast("Any", sqs),
        dispatcher=dispatcher,
        deaths=Deaths(table, pacer=pacer, clock=clock, pauses=PAUSES),
        pauses=PAUSES,
        clock=clock,
        random=random,
    )
