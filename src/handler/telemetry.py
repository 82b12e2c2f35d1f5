"""The logger and the metrics that every module uses."""

from __future__ import annotations

import hashlib
import json
import os
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from aws_lambda_powertools import Logger, Metrics

from .cleaning import cleaned
from .version import VERSION

# The template sets this to the stack's name, since an account may have several stacks.
SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "klaviyo-relay")
NAMESPACE = "KlaviyoRelay"
_IDS_PER_LINE = 1_000
_ID_BYTES_PER_LINE = 200_000  # a log event holds 256 KiB, and an id of 255 characters up to 1,020 bytes


def _line(fields: dict[str, Any]) -> str:
    """Return a line as cleaned JSON; without cleaning, half a surrogate pair, for example, would lose the line."""
    return json.dumps(cleaned(fields), separators=(",", ":"), ensure_ascii=False)


logger = Logger(service=SERVICE, version=VERSION, use_rfc3339=True, json_serializer=_line)
metrics = Metrics(namespace=NAMESPACE, service=SERVICE)
# A default is also part of every further set (`add_dimensions(source=...)`) in addition to the stack's totals.
metrics.set_default_dimensions(service=SERVICE)


def event_id(unique_id: str, *, private: bool) -> str:
    """Return the name of an event in logs and answers: its ``unique_id``, or a digest of it.

    ``private`` is true for sources whose callers choose the ``unique_id``
    themselves (``custom``), since it may then hold an email address. It is also true
    for a webhook in which an id, a topic or a metric holds personal data.
    """
    if not private:
        return unique_id
    return "sha256:" + hashlib.sha256(unique_id.encode("utf-8", "replace")).hexdigest()[:32]


def by_line(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield ``ids`` in parts that each fit a log line; one empty part if there are none."""
    start = used = 0
    for place, name in enumerate(ids):
        weight = 2 * len(name) if name.isascii() else 4 * len(name)  # JSON doubles quotation marks
        if place - start == _IDS_PER_LINE or used + weight > _ID_BYTES_PER_LINE:
            yield ids[start:place]
            start, used = place, 0
        used += weight
    yield ids[start:]


def crash(error: BaseException) -> tuple[str, str]:
    """Return class and place (folder, file and line) of an exception; its text may quote an event."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    # With its folder: function.py is in two of them.
    return type(error).__name__, f"{'/'.join(frame.filename.split(os.sep)[-2:])}:{frame.lineno}"
