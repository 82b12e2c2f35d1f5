"""Lambda 2, the delivery: queued events become bulk jobs within Klaviyo's rate limit.

A record is acknowledged only once each of its events is delivered, parked or
sent anew; a crash in between repeats events, which their ``unique_id``s
collapse. What could not be sent anew is reported as failed and stays queued.
"""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime
from typing import Any

from . import batch, clients, jobs, messages, pacing, report, settings
from .batch import Parcel, Received, Record
from .dispatch import KEY_REREAD_SECONDS, Dispatcher, Key
from .errors import Crashed
from .keys import Secret
from .klaviyo import CONNECT_SECONDS, READ_SECONDS, Connection
from .messages import Message, Raw
from .telemetry import crash, logger, metrics

SETTINGS = settings.for_deliver(os.environ)
SQS = clients.client("sqs", connect=2, read=10, attempts=3)
# One attempt each: a slot reserved twice is a slot lost, and a table that hangs must not eat the function's time.
_TABLE = pacing.DynamoTable(
    clients.client("dynamodb", connect=1, read=1, attempts=1),
    SETTINGS.pacing_table,
    SETTINGS.pacing_account,
    clock=time.time,
)
_SECRET = Secret(
    clients.client("secretsmanager", connect=1, read=3, attempts=2),
    SETTINGS.klaviyo_secret,
    time.time,
    KEY_REREAD_SECONDS,
)
DISPATCHER = Dispatcher(
    pacer=pacing.Pacer(
        _TABLE,
        spacing=pacing.interval(SETTINGS.requests_per_minute, SETTINGS.arrival_spread),
        clock=time.time,
        sleep=time.sleep,
    ),
    poster=Connection(SETTINGS.klaviyo_url, SETTINGS.klaviyo_revision),
    key=Key(_SECRET, time.time),
    clock=time.time,
    sleep=time.sleep,
    random=random.random,
    record=report.posted,
)
# Kept at the end for the last request's time-outs, and for parking and sending anew some 6 MB.
RESERVE_SECONDS = CONNECT_SECONDS + READ_SECONDS + 12


@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Deliver one batch of ``events``; the answer names the records that stay in the queue.

    Raises
    ------
    Crashed
        Something failed that nobody expected: all records stay, and Lambda counts an error.
    """
    try:
        return _deliver(event, context)
    except Exception as error:  # noqa: BLE001 (Lambda would log its text, which may quote an event)
        cause, place = crash(error)
        logger.error("delivery crashed", extra={"cause": cause, "place": place})
        raise Crashed(f"{cause} at {place}") from None


def _deliver(event: dict[str, Any], context: Any) -> dict[str, Any]:
    deadline = time.time() + context.get_remaining_time_in_millis() / 1000 - RESERVE_SECONDS
    logger.append_keys(request_id=context.aws_request_id)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    calm, stuck = _set_crashers_apart(batch.records(event["Records"]), now)
    found = batch.read(calm, at=now)
    failed = [*stuck, *found.newer, *_park_unreadable(found)]
    received, parked, again = _map_raw(found.received, now, until=(time.time() + deadline) / 2)
    handled = {owner: one.message for owner, one in enumerate(received) if isinstance(one.message, Message)}
    work = jobs.pack(list(handled.items()), now=time.time(), late_after=SETTINGS.late_after)
    result = DISPATCHER.run(work, handled, deadline)
    result.left, overdue = batch.overdue(result.left, received, cause=result.cause, now=time.time())
    result.parked += overdue
    report.finished(result, handled)
    parked += batch.park(result.parked, received, at=now)
    again += batch.defer(
        result.left,
        received,
        cause=result.cause,
        now=time.time(),
        refused_at=result.refused_at,
        random=random.random,
        late_after=SETTINGS.late_after,
    )
    unsent = batch.send(SQS, SETTINGS.dead_letter_queue_url, parked)
    unsent |= batch.send(SQS, SETTINGS.events_queue_url, again)
    report.resent(len(again))
    failed += [received[owner].record_id for owner in sorted(unsent)]
    return {"batchItemFailures": [{"itemIdentifier": record_id} for record_id in failed]}


def _park_unreadable(found: batch.Batch) -> list[str]:
    """Park what is not in the queue's format; returns the records for which that failed."""
    parcels = [Parcel(outgoing, frozenset({place})) for place, (_, outgoing) in enumerate(found.unreadable)]
    unsent = batch.send(SQS, SETTINGS.dead_letter_queue_url, parcels)
    for _, outgoing in found.unreadable:
        report.parked_whole(outgoing.attributes["reason"], outgoing.attributes["detail"], "unknown")
    return [found.unreadable[place][0] for place in sorted(unsent)]


def _set_crashers_apart(records: list[Record], now: str) -> tuple[list[Record], list[str]]:
    """Apply the crash rule: what to handle now, and the ids of what could be neither handled nor sent elsewhere."""
    triage = batch.triage(records)
    stuck: list[str] = []
    for queue, parcels in (
        (SETTINGS.dead_letter_queue_url, [(one, batch.crashed(one, at=now)) for one in triage.park]),
        (SETTINGS.events_queue_url, [(one, batch.again(one, delay)) for one, delay in triage.resend]),
    ):
        sent = [Parcel(outgoing, frozenset({place})) for place, (_, outgoing) in enumerate(parcels)]
        unsent = batch.send(SQS, queue, sent)
        batch.delete(SQS, SETTINGS.events_queue_url, [one for i, (one, _) in enumerate(parcels) if i not in unsent])
        stuck += [parcels[place][0].id for place in sorted(unsent)]
    report.resent(len(triage.resend))
    for one in triage.park:
        report.parked_whole("crashed", batch.CRASHED, messages.source(one.body))
    return triage.handle, stuck


def _map_raw(received: list[Received], now: str, *, until: float) -> tuple[list[Received], list[Parcel], list[Parcel]]:
    """See ``replay``; what is not mapped by ``until`` waits, so that what happens today is delivered."""
    if not any(isinstance(one.message, Raw) for one in received):
        return received, [], []
    from . import mapping, replay  # what a redrive needs; an ordinary delivery starts faster without

    defaults = mapping.Defaults(SETTINGS.phone_region, SETTINGS.time_zone)
    return replay.replay(received, defaults=defaults, at=now, is_late=lambda: time.time() > until)
