"""``deliver`` as chaos runs it: killed at chosen steps and by poison, with pauses and time-outs a tenth as long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from handler import batch, deliver, dispatch, jobs, keys, pacing
from local import seams

from . import steps
from .schedule import POISON, READ_SECONDS

CONNECT_SECONDS = 1.0
SHORTER = 10

_pack, _delay = jobs.pack, batch.delay


def _packed(messages: Any, **named: Any) -> list[jobs.Job]:
    if any(POISON in event.unique_id for _, message in messages for event in message.events):
        steps.kill()
    return _pack(messages, **named)


def _shorter(*arguments: Any, **named: Any) -> int:
    return max(1, round(_delay(*arguments, **named) / SHORTER))


def _between(before: str, call: Callable[..., Any], after: str) -> Callable[..., Any]:
    return steps.between("deliver", before, call, after)


_DISPATCHER: Any = deliver.DISPATCHER
_PACER, _POSTER = _DISPATCHER._pacer, _DISPATCHER._poster
seams.put(
    (pacing, "LONG", pacing.LONG / SHORTER),
    (dispatch, "LONG", pacing.LONG / SHORTER),
    (pacing, "LONGEST", pacing.LONGEST / SHORTER),
    (pacing, "BRIEF", pacing.BRIEF / SHORTER),
    (pacing, "PROBE_WAIT", pacing.PROBE_WAIT / SHORTER),
    (pacing, "HALF_LIFE", pacing.HALF_LIFE / SHORTER),
    (pacing, "LEASE", CONNECT_SECONDS + READ_SECONDS + 1),
    (dispatch, "PATIENCE", dispatch.PATIENCE / SHORTER),
    (keys, "KEPT_SECONDS", 5),
    (deliver._SECRET, "_reread_seconds", dispatch.KEY_REREAD_SECONDS / SHORTER),
    (deliver, "RESERVE_SECONDS", CONNECT_SECONDS + READ_SECONDS + 2),
    (batch, "STAGGER_SECONDS", 2),
    (batch, "delay", _shorter),
    (jobs, "pack", _packed),
    (_POSTER, "_connect_seconds", CONNECT_SECONDS),
    (_POSTER, "_read_seconds", READ_SECONDS),
    (_PACER, "reserve", _between("reserving", _PACER.reserve, "reserved")),
    (_POSTER, "post", _between("posting", _POSTER.post, "posted")),
    (batch, "send", _between("sending", batch.send, "sent")),
    (batch, "delete", _between("sent", batch.delete, "deleted")),
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The real handler between its first and its last step."""
    found: dict[str, Any] = _between("received", deliver.handler, "answering")(event, context)
    return found
