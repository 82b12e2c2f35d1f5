"""``deliver`` as chaos runs it: killed at chosen steps and by poison, with pauses and time-outs a tenth as long."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from handler.delivery.dispatch import Dispatcher, Result
from handler.delivery.function import Deliver
from handler.delivery.jobs import Job
from handler.delivery.klaviyo import Answer, Connection
from handler.messages import Message
from handler.pauses import PAUSES, Pauses
from handler.telemetry import metrics

from . import steps
from .schedule import POISON, READ_SECONDS

CONNECT_SECONDS = 1.0
SHORTER = 10
SHORT = Pauses(
    brief=PAUSES.brief / SHORTER,
    long=PAUSES.long / SHORTER,
    longest=PAUSES.longest / SHORTER,
    lease=CONNECT_SECONDS + READ_SECONDS + 1,
    probe_wait=PAUSES.probe_wait / SHORTER,
    half_life=PAUSES.half_life / SHORTER,
    patience=PAUSES.patience / SHORTER,
    connect=CONNECT_SECONDS,
    read=READ_SECONDS,
    finish=2.0,
    kept=5.0,
    reread=PAUSES.reread / SHORTER,
    key_reread=PAUSES.key_reread / SHORTER,
    stagger=2,
    spread=PAUSES.spread / SHORTER,
    deferral=PAUSES.deferral / SHORTER,
    longest_deferral=PAUSES.longest_deferral / SHORTER,
)


class Poisoned(Dispatcher):
    """Dies of poison, before its first request."""

    def run(self, work: Iterable[Job], messages: Mapping[int, Message], deadline: float) -> Result:
        """See ``Dispatcher``."""
        if any(POISON in event.unique_id for message in messages.values() for event in message.events):
            steps.kill()
        return super().run(work, messages, deadline)


class Killed(Connection):
    """Dies before or after a request, if it is to."""

    def post(self, body: bytes, key: str) -> Answer:
        """See ``Connection``."""
        steps.step("deliver", "posting")
        answer = super().post(body, key)
        steps.step("deliver", "posted")
        return answer


_CALLS = {
    "dynamodb": {"update_item": ("reserving", "reserved")},
    "sqs": {"send_message_batch": ("sending", "sent"), "delete_message_batch": ("sent", "deleted")},
}
_DELIVER = Deliver.from_environment(
    os.environ, pauses=SHORT, client=steps.clients("deliver", _CALLS), dispatcher=Poisoned, connection=Killed
)
handler = steps.between("deliver", "received", metrics.log_metrics(_DELIVER), "answering")
