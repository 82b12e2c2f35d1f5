"""Lambda 2, ``deliver``: queued events become bulk jobs within Klaviyo's rate limit.

A record is acknowledged only once each of its events is delivered, parked or sent
again. A crash before that repeats events, which Klaviyo collapses by ``unique_id``.
A record that could not be sent again is reported as failed and stays queued.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from .. import aws, messages
from ..errors import Crashed
from ..messages import Message, Raw
from ..pauses import PAUSES, Pauses
from ..secret import Key, Secret
from ..settings import DeliverSettings, for_deliver
from ..telemetry import crash, logger
from . import crashes, jobs, pacing, pacing_table, records, report, returns
from .dispatch import Dispatcher
from .klaviyo import Connection
from .records import Received, Record
from .returns import Parcel

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class Deliver:
    """The function: called with a batch of records and Lambda's context.

    ``clock`` gives epoch seconds, ``random`` numbers from 0 to 1.
    """

    def __init__(
        self,
        *,
        settings: DeliverSettings,
        sqs: SQSClient,
        dispatcher: Dispatcher,
        pauses: Pauses,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._sqs = sqs
        self._dispatcher = dispatcher
        self._pauses = pauses
        self._clock = clock
        self._random = random

    @classmethod
    def from_environment(
        cls,
        env: Mapping[str, str],
        *,
        pauses: Pauses = PAUSES,
        client: Callable[..., Any] = aws.client,
        dispatcher: type[Dispatcher] = Dispatcher,
        connection: type[Connection] = Connection,
    ) -> Self:
        """Build the function with AWS and Klaviyo as ``env`` names them; raises as ``settings.for_deliver``."""
        settings = for_deliver(env)
        # One attempt each: a slot reserved twice is a slot lost, and a slow table must not use up the invocation.
        table = pacing_table.DynamoTable(
            client("dynamodb", connect=1, read=1, attempts=1),
            settings.pacing_table,
            settings.pacing_account,
            clock=time.time,
            pauses=pauses,
        )
        secret = Secret(
            client("secretsmanager", connect=1, read=3, attempts=2),
            settings.klaviyo_secret,
            time.time,
            kept=pauses.kept,
            reread=pauses.key_reread,
        )
        return cls(
            settings=settings,
            sqs=client("sqs", connect=2, read=10, attempts=3),
            dispatcher=dispatcher(
                pacer=pacing.Pacer(
                    table,
                    spacing=pacing.interval(settings.requests_per_minute, settings.arrival_spread),
                    clock=time.time,
                    sleep=time.sleep,
                    pauses=pauses,
                ),
                poster=connection(settings.klaviyo_url, settings.klaviyo_revision, pauses=pauses),
                key=Key(secret, time.time, pauses),
                clock=time.time,
                sleep=time.sleep,
                random=random.random,
                record=report.posted,
                pauses=pauses,
            ),
            pauses=pauses,
            clock=time.time,
            random=random.random,
        )

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        """Deliver one batch of ``events``; the answer names the records that stay in the queue.

        Raises
        ------
        Crashed
            An unexpected failure: all records stay in the queue, and Lambda counts an error.
        """
        try:
            return self._deliver(event, context)
        except Exception as error:  # noqa: BLE001 (Lambda would log its text, which may quote an event)
            cause, place = crash(error)
            logger.error("delivery crashed", extra={"cause": cause, "place": place})
            raise Crashed(f"{cause} at {place}") from None

    def _deliver(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        deadline = self._clock() + context.get_remaining_time_in_millis() / 1000 - self._pauses.reserve
        logger.append_keys(request_id=context.aws_request_id)
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")
        calm, stuck = self._set_crashers_apart(records.of_event(event["Records"]), now)
        decoded = records.read(calm, at=now)
        failed = [*stuck, *decoded.newer, *self._park_unreadable(decoded)]
        received, parked, again = self._map_raw(decoded.received, now, until=(self._clock() + deadline) / 2)
        handled = {
            owner: record.message for owner, record in enumerate(received) if isinstance(record.message, Message)
        }
        work = jobs.pack(list(handled.items()), now=self._clock(), late_after=self._settings.late_after)
        result = self._dispatcher.run(work, handled, deadline)
        result.left, overdue = returns.overdue(result.left, received, cause=result.cause, now=self._clock())
        result.parked += overdue
        report.finished(result, handled)
        parked += returns.park(result.parked, received, at=now)
        again += returns.defer(
            result.left,
            received,
            cause=result.cause,
            now=self._clock(),
            refused_at=result.refused_at,
            random=self._random,
            late_after=self._settings.late_after,
            pauses=self._pauses,
        )
        unsent = returns.send(self._sqs, self._settings.dead_letter_queue_url, parked)
        unsent |= returns.send(self._sqs, self._settings.events_queue_url, again)
        report.resent(len(again))
        failed += [received[owner].record_id for owner in sorted(unsent)]
        return {"batchItemFailures": [{"itemIdentifier": record_id} for record_id in failed]}

    def _park_unreadable(self, decoded: records.Batch) -> list[str]:
        """Park messages that are not in the queue's format; return the records for which that failed."""
        parcels = [Parcel(outgoing, frozenset({place})) for place, (_, outgoing) in enumerate(decoded.unreadable)]
        unsent = returns.send(self._sqs, self._settings.dead_letter_queue_url, parcels)
        for _, outgoing in decoded.unreadable:
            report.dead_letter(outgoing.attributes["reason"], outgoing.attributes["detail"], "unknown")
        return [decoded.unreadable[place][0] for place in sorted(unsent)]

    def _set_crashers_apart(self, records: list[Record], now: str) -> tuple[list[Record], list[str]]:
        """Apply the crash rule; return the records to handle now, and the ids of those that could not be sent."""
        triage = crashes.triage(records, stagger=self._pauses.stagger)
        stuck: list[str] = []
        queues = self._settings
        for queue, parcels in (
            (queues.dead_letter_queue_url, [(record, crashes.crashed(record, at=now)) for record in triage.park]),
            (queues.events_queue_url, [(record, crashes.again(record, delay)) for record, delay in triage.resend]),
        ):
            sent = [Parcel(outgoing, frozenset({place})) for place, (_, outgoing) in enumerate(parcels)]
            unsent = returns.send(self._sqs, queue, sent)
            gone = [record for place, (record, _) in enumerate(parcels) if place not in unsent]
            returns.delete(self._sqs, self._settings.events_queue_url, gone)
            stuck += [parcels[place][0].id for place in sorted(unsent)]
        report.resent(len(triage.resend))
        for record in triage.park:
            report.dead_letter("crashed", crashes.CRASHED, messages.source(record.body))
        return triage.handle, stuck

    def _map_raw(
        self, received: list[Received], now: str, *, until: float
    ) -> tuple[list[Received], list[Parcel], list[Parcel]]:
        """Map raw webhooks (see ``redriven``) until ``until``; the rest waits, so that live events are delivered."""
        if not any(isinstance(record.message, Raw) for record in received):
            return received, [], []
        # Only a redrive needs these: an ordinary delivery starts faster without.
        from ..events import mapping
        from . import redriven

        return redriven.replay(
            received,
            defaults=mapping.Defaults(self._settings.phone_region, self._settings.time_zone),
            at=now,
            stagger=self._pauses.stagger,
            is_late=lambda: self._clock() > until,
        )
