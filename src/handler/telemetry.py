"""The two observability objects; every module logs and counts through these."""

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

# The template puts the stack's name here: several stacks may live in one account.
SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "klaviyo-relay")
NAMESPACE = "KlaviyoRelay"
_IDS_PER_LINE = 1_000
_ID_BYTES_PER_LINE = 200_000  # a log event holds 256 KiB, and an id of 255 characters up to 1,020 bytes


def _line(fields: dict[str, Any]) -> str:
    """A line as JSON, with nothing in it that may not leave; half a surrogate pair, for one, would lose the line."""
    return json.dumps(cleaned(fields), separators=(",", ":"), ensure_ascii=False)


logger = Logger(service=SERVICE, version=VERSION, use_rfc3339=True, json_serializer=_line)
metrics = Metrics(namespace=NAMESPACE, service=SERVICE)
# As a default it also becomes part of every further set (`add_dimensions(source=...)`), beside the stack's totals.
metrics.set_default_dimensions(service=SERVICE)


def event_id(unique_id: str, *, private: bool) -> str:
    """The name of an event in logs and answers: its ``unique_id``, or a digest of it.

    ``private`` is true for sources whose callers choose the ``unique_id``
    themselves (``custom``), since it may then hold an email address, and for a
    webhook in which an id, a topic or a metric holds something of the kind.
    """
    if not private:
        return unique_id
    return "sha256:" + hashlib.sha256(unique_id.encode("utf-8", "replace")).hexdigest()[:32]


def by_line(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """``ids`` in as many parts as they need log lines; one empty part if there are none."""
    start = used = 0
    for place, one in enumerate(ids):
        weight = 2 * len(one) if one.isascii() else 4 * len(one)  # JSON doubles quotation marks
        if place - start == _IDS_PER_LINE or used + weight > _ID_BYTES_PER_LINE:
            yield ids[start:place]
            start, used = place, 0
        used += weight
    yield ids[start:]


def crash(error: BaseException) -> tuple[str, str]:
    """Class and place (file and line) of an exception: its text may quote what was being worked on."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return type(error).__name__, f"{os.path.basename(frame.filename)}:{frame.lineno}"
