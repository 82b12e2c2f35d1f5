"""The two observability objects; every module logs and counts through these."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from aws_lambda_powertools import Logger, Metrics

# The template puts the stack's name here: several stacks may live in one account.
SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "klaviyo-relay")
NAMESPACE = "KlaviyoRelay"


def _line(fields: dict[str, Any]) -> str:
    """A line as JSON. An id may hold half a surrogate pair, over which writing it would fail and the line be lost."""
    text = json.dumps(fields, default=str, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()


logger = Logger(service=SERVICE, use_rfc3339=True, json_serializer=_line)
metrics = Metrics(namespace=NAMESPACE, service=SERVICE)
# As a default it also becomes part of every further set (`add_dimensions(source=...)`), beside the stack's totals.
metrics.set_default_dimensions(service=SERVICE)


def event_id(unique_id: str, *, private: bool) -> str:
    """The name of an event in logs and answers: its ``unique_id``, or a digest of it.

    ``private`` is true for sources whose callers choose the ``unique_id``
    themselves (``custom``), since it may then hold an email address.
    """
    if not private:
        return unique_id
    return "sha256:" + hashlib.sha256(unique_id.encode("utf-8", "replace")).hexdigest()[:32]
