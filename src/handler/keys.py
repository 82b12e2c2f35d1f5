"""Secrets Manager documents: kept for a while, and read again on a suspicion, but not each time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from .errors import Unavailable

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


class Secret:
    """One JSON secret of Secrets Manager.

    Parameters
    ----------
    client : SecretsManagerClient
        Where the document is read.
    name : str
        Name or ARN.
    clock : callable
        Epoch seconds; tells how old the document is.
    kept, reread : float
        Seconds for which the document is used, and in which a doubted one is read again once.
    """

    def __init__(
        self,
        client: SecretsManagerClient,
        name: str,
        clock: Callable[[], float],
        *,
        kept: float,
        reread: float,
    ) -> None:
        self._client = client
        self._name = name
        self._clock = clock
        self._kept = kept
        self._reread = reread
        self._read_at = float("-inf")
        self._document: dict[str, Any] = {}

    def document(self) -> dict[str, Any]:
        """The secret's document.

        Raises
        ------
        Unavailable
            It cannot be read, or is not a JSON object. The text holds none of it.
        """
        if self._clock() - self._read_at >= self._kept:
            self._read()
        return self._document

    def doubted(self) -> dict[str, Any] | None:
        """The document read anew; ``None`` if that was done lately. Raises as ``document``."""
        if self._clock() - self._read_at < self._reread:
            return None
        self._read()
        return self._document

    def _read(self) -> None:
        """Read it; as long as that fails, each call tries again."""
        self._read_at = float("-inf")
        try:
            document = json.loads(self._client.get_secret_value(SecretId=self._name).get("SecretString", ""))
        except (ClientError, BotoCoreError) as error:
            cause = type(error).__name__
            raise Unavailable("secret_unreadable", f"Secrets Manager does not give out the secret ({cause})") from None
        except ValueError:
            raise Unavailable("secret_unreadable", "the secret is not a JSON document") from None
        if not isinstance(document, dict):
            raise Unavailable("secret_unreadable", "the secret is not a JSON object")
        self._document, self._read_at = document, self._clock()
