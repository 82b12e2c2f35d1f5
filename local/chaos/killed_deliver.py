"""``deliver`` as chaos runs it: killed at chosen steps and by poison, with pauses and time-outs a tenth as long."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from handler.delivery.function import Deliver
from handler.delivery.klaviyo import Answer, Connection
from handler.pauses import PAUSES, Pauses
from handler.telemetry import metrics

from . import steps
from .schedule import POISON, READ_SECONDS
from .steps import Around

CONNECT_SECONDS = 1.0
SHORTER = 10
_TENTHS: dict[str, Any] = {field.name: getattr(PAUSES, field.name) / SHORTER for field in fields(Pauses)}
SHORT = replace(
    Pauses(**_TENTHS),
    connect=CONNECT_SECONDS,
    read=READ_SECONDS,
    lease=CONNECT_SECONDS + READ_SECONDS + 1,
    finish=2.0,
    returned=5.0,  # slots are as far apart as ever; an invocation has 11 s for requests
    kept=5.0,
    calm=20.0,
    stagger=2,  # SQS delays by whole seconds
)
_POISON = f'"{POISON}"'.encode()


class Killed(Connection):
    """Dies of poison, and before or after a request if it is to."""

    def post(self, body: bytes, key: str) -> Answer:
        """See ``Connection``."""
        if _POISON in body:
            steps.kill()
        steps.step("deliver", "posting")
        answer = super().post(body, key)
        steps.step("deliver", "posted")
        return answer


def _reserves(update: Mapping[str, Any]) -> bool:
    """Return whether this update of the pacing item takes a slot; only that moves ``next`` (``delivery.pacing``)."""
    return "next" in update["ExpressionAttributeNames"].values()


_CALLS = {
    "dynamodb": {"update_item": Around("reserving", "reserved", _reserves)},
    "sqs": {"send_message_batch": Around("sending", "sent"), "delete_message_batch": Around("sent", "deleted")},
}
_DELIVER = Deliver.from_environment(
    os.environ, pauses=SHORT, client=steps.clients("deliver", _CALLS), connection=Killed
)
handler = steps.between("deliver", Around("received", "answering"), metrics.log_metrics(_DELIVER))
