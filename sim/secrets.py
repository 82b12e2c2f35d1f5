"""Secrets Manager in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from .hooks import Hook, nothing


class Secrets:
    """The client's ``get_secret_value``.

    Parameters
    ----------
    documents : mapping
        What each secret holds, by name; kept as ``documents``, which may be changed. A text is
        stored as it is, anything else as JSON.
    before : callable
        Called with the operation's name before it is answered: to raise, or to count.
    """

    def __init__(self, documents: Mapping[str, Any], *, before: Hook = nothing) -> None:
        self.documents = dict(documents)
        self.before = before
        self.reads = 0

    def get_secret_value(self, *, SecretId: str) -> dict[str, str]:  # noqa: N803 (boto3's name)
        """Return the secret; ``ClientError`` with ``ResourceNotFoundException`` if there is none of that name."""
        self.reads += 1
        self.before("GetSecretValue")
        if SecretId not in self.documents:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "GetSecretValue")
        document = self.documents[SecretId]
        return {"Name": SecretId, "SecretString": document if isinstance(document, str) else json.dumps(document)}
