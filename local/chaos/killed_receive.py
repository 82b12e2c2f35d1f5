"""``receive`` as chaos runs it: killed at chosen steps; it reads its secrets every few seconds."""

from __future__ import annotations

import os
from dataclasses import replace

from handler.door.function import Receive
from handler.pauses import PAUSES
from handler.telemetry import metrics

from . import steps
from .steps import Around

_RECEIVE = Receive.from_environment(
    os.environ,
    pauses=replace(PAUSES, kept=5.0, reread=5.0),
    client=steps.clients("receive", {"sqs": {"send_message_batch": Around("queueing", "queued")}}),
)
handler = steps.between("receive", Around("received", "answering"), metrics.log_metrics(_RECEIVE))
