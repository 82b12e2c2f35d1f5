"""The two observability objects; every module logs and counts through these."""

from __future__ import annotations

import hashlib

from aws_lambda_powertools import Logger, Metrics

logger = Logger(service="klaviyo-relay", use_rfc3339=True)
metrics = Metrics(namespace="KlaviyoRelay", service="klaviyo-relay")


def event_id(unique_id: str, *, private: bool) -> str:
    """The name of an event in logs and answers: its ``unique_id``, or a digest of it.

    ``private`` is true for sources whose callers choose the ``unique_id``
    themselves (``custom``), since it may then hold an email address.
    """
    if not private:
        return unique_id
    return "sha256:" + hashlib.sha256(unique_id.encode("utf-8", "replace")).hexdigest()[:32]
