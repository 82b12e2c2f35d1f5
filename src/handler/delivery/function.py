"""Lambda 2, ``deliver``: queued events become bulk jobs within Klaviyo's rate limit.

A record is acknowledged only once each of its events is delivered, parked or sent
again. A crash before that repeats events, which Klaviyo collapses by ``unique_id``.
A record that could not be sent again is reported as failed and stays queued.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from .. import aws, messages
from ..errors import Closed, Crashed
from ..messages import Message, Outgoing, Raw
from ..pauses import PAUSES, Pauses
from ..secret import Key, Secret
from ..settings import DeliverSettings, for_deliver
from ..telemetry import SERVICE, logger
from . import crashes, jobs, pacing, pacing_table, records, report, returns
from .crashes import Deaths, Trial
from .dispatch import Dispatcher
from .klaviyo import Connection
from .records import Decoded, Parcel, Record
from .returns import Queues

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


_ALONE = 2  # messages that raise alone before anything was settled


@dataclass(slots=True)
class _Run:
    """One invocation; times are epoch seconds.

    No request begins after ``deadline``, no call of the queues after ``end``. ``done``
    was settled and is not yet deleted; ``stay`` has the ids of what remains in the
    queue, ``reached`` those of all that were handled. ``cause`` is the last exception,
    ``closed`` why no more is posted.
    """

    records: list[Record]
    at: str
    began: float
    deadline: float
    end: float
    done: list[Record] = field(default_factory=list)
    stay: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    settled: int = 0
    cause: str = ""
    closed: Closed | None = None

    def settle(self, group: list[Record], stay: list[Record]) -> None:
        """Take down that ``group`` was handled, and that ``stay`` of it could not be settled."""
        self.stay |= {record.id for record in stay}
        self.reached |= {record.id for record in group}
        self.done += [record for record in group if record.id not in self.stay]


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
        deaths: Deaths,
        pauses: Pauses,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._sqs = sqs
        self._dispatcher = dispatcher
        self._deaths = deaths
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
        pacer = pacing.shared(
            table,
            stack=SERVICE,
            requests_per_minute=settings.requests_per_minute,
            arrival_spread=settings.arrival_spread,
            clock=time.time,
            sleep=time.sleep,
            pauses=pauses,
        )
        return cls(
            settings=settings,
            sqs=client("sqs", connect=2, read=10, attempts=3),
            dispatcher=dispatcher(
                pacer=pacer,
                poster=connection(settings.klaviyo_url, settings.klaviyo_revision, pauses=pauses),
                key=Key(secret, time.time, pauses),
                clock=time.time,
                sleep=time.sleep,
                random=random.random,
                record=report.posted,
                pauses=pauses,
            ),
            deaths=Deaths(table, pacer=pacer, clock=time.time, pauses=pauses),
            pauses=pauses,
            clock=time.time,
            random=random.random,
        )

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        """Deliver the records of ``event``; the answer names those that stay in the queue.

        Raises
        ------
        Crashed
            An unexpected failure, and nothing was settled: all records stay, and Lambda counts an error.
        """
        logger.append_keys(request_id=context.aws_request_id)
        try:
            run = self._run(event, context)
            self._deliver(run)
        except Exception as error:  # noqa: BLE001 (Lambda would log its text, which may quote an event)
            raise Crashed(report.crashed(error)) from None
        if run.cause and not run.settled:
            raise Crashed(run.cause) from None
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in sorted(run.stay)]}

    def _run(self, event: dict[str, Any], context: Any) -> _Run:
        began = self._clock()
        end = began + context.get_remaining_time_in_millis() / 1000
        return _Run(
            records=records.of_event(event["Records"]),
            at=datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
            began=began,
            deadline=end - self._pauses.reserve,
            end=end - self._pauses.last,
        )

    def _deliver(self, run: _Run) -> None:
        """Settle what came for the first time, and then what came back, in ever smaller groups."""
        new, returned, stuck = crashes.apart(run.records, now=run.began)
        if returned or stuck:
            self._deaths.read(came_back=any(map(crashes.from_a_group, returned)))
        if new:  # nothing settled proves nothing
            # If new messages use up each invocation, what came back has its time at the end.
            self._settle(
                run,
                new,
                run.deadline - (min(self._pauses.returned, (run.deadline - run.began) / 2) if returned else 0.0),
            )
        for record in stuck:  # SQS would soon move it without a reason
            self._park(run, record, "waited_too_long", "came back for a week without being settled")
        self._deliver_returned(run, returned)

    def _deliver_returned(self, run: _Run, returned: list[Record]) -> None:
        """Settle what came back while there is time; the queue hands over the rest again soon."""
        until = min(run.deadline, self._clock() + self._pauses.returned)
        for group, trial in crashes.groups(returned, self._deaths, random=self._random):
            # What is settled is deleted before the function may die. What is out of time waits.
            if self._clock() > until or not self._queues(until).delete(self._settings.events_queue_url, run.done):
                break
            run.done = []
            self._settle_returned(run, group, trial)
        waiting = [record for record in returned if record.id not in run.reached]
        run.stay |= {record.id for record in waiting}
        shown, after = [record for record in waiting if record.receives <= crashes.SHOWN], self._pauses.unreached
        self._queues(min(run.end, self._clock() + self._pauses.last)).show(
            self._settings.events_queue_url, shown, after=lambda: after * (0.2 + self._random())
        )

    def _settle_returned(self, run: _Run, group: list[Record], trial: Trial | None) -> None:
        """Settle what came back. ``trial`` is that of a message that is alone; after too many it is parked."""
        if trial is None:
            self._settle(run, group, run.deadline)
        elif self._deaths.convicts(trial):
            if trial.deaths >= crashes.APART or not self._split(run, group[0], trial):
                self._park(run, group[0], "crashed", trial.cause or crashes.DIED)
        elif run.closed is None:  # it may kill when it is posted: without a request a trial shows nothing
            self._deaths.begin(group, trial)
            run.cause = ""
            self._settle(run, group, run.deadline, trial)
            if run.closed is None:
                self._deaths.end(group[0], trial, cause=run.cause)
            else:  # back to where it was
                self._deaths.begin(group, Trial(trial.deaths + 1), deaths=-1)

    def _split(self, run: _Run, record: Record, trial: Trial) -> bool:
        """Send the events of ``record`` one by one, since only one may be at fault; return false if it holds one."""
        self._deaths.begin([record], trial, deaths=crashes.APART)  # decoding may be what kills: it is parked whole then
        try:
            message = messages.decode(record.body)
        except Exception as error:  # noqa: BLE001 (it may be what the message raises each time: it is parked whole)
            report.crashed(error)
            return False
        if isinstance(message, Raw) or len(message.events) == 1:
            return False
        parts = messages.pack(message.events, message, events_limit=1)
        alone = [Outgoing(messages.encode(part), messages.group(part), 0, {crashes.SPLIT: "1"}) for part in parts]
        if not self._send_away(run, record, self._settings.events_queue_url, alone):
            # Back to where it was: the parts are sent at the next turn.
            self._deaths.begin([record], Trial(trial.deaths + crashes.APART), deaths=-crashes.APART)
        return True

    def _settle(self, run: _Run, group: list[Record], deadline: float, trial: Trial | None = None) -> None:
        """Handle ``group``. Halve it where that raises, so that only records that raise alone stay in the queue.

        If two of them raise and nothing was settled, the release is at fault, and the rest stays, too.
        """
        waiting = deque([group])
        raised: list[Record] = []
        stay: list[Record] = []
        while waiting:
            part = waiting.popleft()
            if self._clock() > deadline or (len(raised) == _ALONE and not run.settled):
                stay += part
                continue
            try:
                left = self._handle(run, part, deadline)
            except Exception as error:  # noqa: BLE001 (one message must not hold up the others)
                run.cause = report.crashed(error)
                if len(part) > 1:
                    middle = len(part) // 2
                    waiting.extendleft([part[middle:], part[:middle]])
                else:
                    raised += part
                    waiting.reverse()  # next from the other end: messages that raise are often neighbours
            else:
                stay += left
        run.settle(group, stay + raised)
        if stay or (trial is None and len(raised) == len(group)):
            self._deaths.died()
        elif trial is None or not raised:  # what raises in its trial shows nothing about other messages
            self._deaths.settled()

    def _handle(self, run: _Run, group: list[Record], deadline: float) -> list[Record]:
        """Deliver, defer or park the events of ``group``; return the records for which none of these worked."""
        decoded = records.read(group, at=run.at, now=run.began)
        owners, parked, again = self._map_raw(decoded, group, run.at, deadline)
        work = jobs.pack(list(owners.items()), now=self._clock(), late_after=self._settings.late_after)
        result = self._dispatcher.run(work, owners, deadline, run.closed)
        run.closed = result.cause if isinstance(result.cause, Closed) else None
        result.left, overdue = returns.overdue(result.left, owners, cause=result.cause, now=self._clock())
        result.parked += overdue
        report.finished(result, owners)
        parked += decoded.unreadable + returns.park(result.parked, owners, at=run.at)
        again += returns.defer(
            result.left,
            owners,
            cause=result.cause,
            now=self._clock(),
            random=self._random,
            late_after=self._settings.late_after,
            pauses=self._pauses,
        )
        for parcel in decoded.unreadable:
            report.dead_letter(parcel.outgoing)
        # Nothing is sent before all that may raise: the halves would send it again.
        queues = self._queues(run.end)
        unsent = queues.send(self._settings.dead_letter_queue_url, parked)
        unsent |= queues.send(self._settings.events_queue_url, again)
        report.resent(len(again))
        run.stay |= {record.id for record in decoded.newer}
        run.settled += len(group) - len(unsent) - len(decoded.newer)
        return [group[owner] for owner in sorted(unsent)]

    def _queues(self, until: float) -> Queues:
        return Queues(self._sqs, lambda: self._clock() > until)

    def _park(self, run: _Run, record: Record, reason: str, detail: str) -> None:
        """Park ``record`` unchanged; it stays if the dead-letter queue does not accept it."""
        outgoing = messages.parked_text(
            record.body, messages.source(record.body), reason=reason, detail=detail, at=run.at
        )
        report.dead_letter(outgoing)
        self._send_away(run, record, self._settings.dead_letter_queue_url, [outgoing])

    def _send_away(self, run: _Run, record: Record, url: str, outgoing: list[Outgoing]) -> bool:
        """Send ``outgoing`` in place of ``record``, which stays unless the queue accepts all; return whether it did."""
        sent = not self._queues(run.end).send(url, [Parcel(message, {0}) for message in outgoing])
        run.settled += sent
        run.settle([record], [] if sent else [record])
        return sent

    def _map_raw(
        self, decoded: Decoded, group: list[Record], at: str, deadline: float
    ) -> tuple[dict[int, Message], list[Parcel], list[Parcel]]:
        """Map raw webhooks (see ``redriven``) for half of the time that is left; the others wait for another turn."""
        if not decoded.raw:
            return decoded.messages, [], []
        # Only a redrive needs these: an ordinary delivery starts faster without.
        from ..events import mapping
        from . import redriven

        until = (self._clock() + deadline) / 2
        mapped, parked, again = redriven.replay(
            decoded.raw,
            group,
            defaults=mapping.Defaults(self._settings.phone_region, self._settings.time_zone),
            at=at,
            stagger=self._pauses.stagger,
            is_late=lambda: self._clock() > until,
        )
        return dict(sorted((decoded.messages | mapped).items())), parked, again
