"""MiniStack with a rule of AWS's that it lacks: the trace header goes from invocation to message and back.

On AWS an invocation's trace header is the function's ``_X_AMZN_TRACE_ID``, and
SQS keeps the ``X-Amzn-Trace-Id`` of a SendMessage as ``AWSTraceHeader`` (X-Ray
developer guide, "Amazon SQS and AWS X-Ray"). MiniStack 1.5.33 does neither, so that
loops through its queues are endless (``lineage`` says what Lambda does about
them). It is pinned; tests/integration/test_loops.py fails if this no longer fits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from ministack import app
from ministack.services import lambda_svc, sqs

from . import lineage

_HEADER = lineage.HEADER.lower().encode()
_trace: ContextVar[str] = ContextVar("trace", default="")
_serve: Callable[..., Awaitable[None]] = app.app
_trace_id = lambda_svc._xray_trace_id_for_invocation
_system_attributes = sqs._build_send_sys_attrs


async def _traced(scope: dict[str, Any], receive: Any, send: Any) -> None:
    _trace.set(next((value.decode("latin-1") for name, value in scope.get("headers", []) if name == _HEADER), ""))
    await _serve(scope, receive, send)


def _of_invocation(config: dict[str, Any], inbound: str | None = None) -> str | None:
    trace: str | None = _trace_id(config, inbound or _trace.get())
    return trace


def _of_message(now: float, attributes: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = _system_attributes(now, attributes)
    if header := _trace.get():
        kept.setdefault(lineage.ATTRIBUTE, header)
    return kept


def main() -> None:
    """Serve as ``python -m ministack`` does."""
    app.app = _traced
    # MiniStack has no other way in; both names are read above, so that a release without them does not start.
    lambda_svc._xray_trace_id_for_invocation = _of_invocation
    sqs._build_send_sys_attrs = _of_message
    app.main()


if __name__ == "__main__":
    main()
