"""Lambda's own lines in a function's log group that report a crash or a time-out, as lines like the relay's own.

Shapes, by the function's log format (Lambda guide, "Configuring JSON and plain text log formats"). Text, which the
template has: ``START``, ``END``, ``REPORT`` and the like around each invocation, ``... Task timed out after 30.00
seconds``, ``RequestId: ... Error: Runtime exited with error: signal: killed``, ``[ERROR] Class: words`` with the
traceback. JSON: objects with ``type`` (``platform.report`` and the like) and a ``record`` that has a ``status``; those
of the runtime client for an exception have ``errorType``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

KIND = "lambda"  # what such a line has as its message
_LONGEST = 1_000  # characters of a text that are shown
_ROUTINE = ("START ", "END ", "REPORT ", "XRAY ", "INIT_START ", "INIT_REPORT ", "EXTENSION ", "TELEMETRY ")
# "Status: timeout" and "Status: error" are in the REPORT of an invocation, or the INIT_REPORT of a start, that failed.
_FAILED = re.compile(r"\bStatus: (?!success)")
_REQUEST = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def of_text(text: str, at: float, function: str) -> dict[str, Any] | None:
    """Return the line of a text that is not JSON; ``None`` for routine ones. ``at`` is in epoch ms."""
    if not text.strip() or (text.startswith(_ROUTINE) and not _FAILED.search(text)):
        return None
    request = _REQUEST.search(text)
    return _line(text, at, function, request[0] if request else "")


def of_object(document: Mapping[str, Any], at: float, function: str) -> dict[str, Any] | None:
    """Return the line of a JSON object without a ``message``; ``None`` for metrics and routine ones."""
    record = document.get("record")
    if isinstance(record, Mapping):
        status = str(record.get("status", "success"))
        if status == "success":
            return None
        words = [str(document.get("type", "")), status, str(record.get("errorType", ""))]
        return _line(" ".join(words), at, function, str(record.get("requestId", "")))
    if "errorType" in document or "errorMessage" in document:
        trace = document.get("stackTrace")
        words = [f"{document.get('errorType', '')}: {document.get('errorMessage', '')}"]
        words += trace if isinstance(trace, list) else []
        return _line(" ".join(map(str, words)), at, function, str(document.get("requestId", "")))
    return None


def _line(text: str, at: float, function: str, request: str) -> dict[str, Any]:
    shown = " ".join(text.split())
    return {
        "timestamp": datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds"),
        "message": KIND,
        "function": function,
        "detail": shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} …",
        "request_id": request,
    }
