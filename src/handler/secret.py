"""Secrets Manager documents: kept for a while, and read again if they may be out of date."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from .closing import NO_KEY, Closing
from .errors import NoSlot, Unavailable
from .pauses import Pauses

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
        Epoch seconds, for the age of the document.
    kept, reread : float
        Seconds for which the document is used, and in which a doubted one is read again at most once.
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
        """Return the secret's document.

        Raises
        ------
        Unavailable
            It cannot be read, or is not a JSON object. The text holds none of it.
        """
        if self._clock() - self._read_at >= self._kept:
            self._read()
        return self._document

    def doubted(self) -> dict[str, Any] | None:
        """Return the document, read again; ``None`` if it was read lately. Raises as ``document``."""
        if self._clock() - self._read_at < self._reread:
            return None
        self._read()
        return self._document

    def _read(self) -> None:
        """Read the document; while that fails, each call tries again."""
        self._read_at = float("-inf")
        try:
            document = json.loads(self._client.get_secret_value(SecretId=self._name).get("SecretString", ""))
        except (ClientError, BotoCoreError) as error:
            cause = type(error).__name__
            raise Unavailable("secret_unreadable", f"Secrets Manager did not return the secret ({cause})") from None
        except ValueError:
            raise Unavailable("secret_unreadable", "the secret is not a JSON document") from None
        if not isinstance(document, dict):
            raise Unavailable("secret_unreadable", "the secret is not a JSON object")
        self._document, self._read_at = document, self._clock()


class Key:
    """The private key in the secret ``{"api_key": "pk_..."}``."""

    def __init__(self, secret: Secret, clock: Callable[[], float], pauses: Pauses) -> None:
        self._secret = secret
        self._clock = clock
        self._pauses = pauses

    def current(self) -> str:
        """Return the key; raise ``NoSlot`` if it cannot be read, since no request is possible without it."""
        try:
            key = self._secret.document().get("api_key")
        except Unavailable as error:
            raise NoSlot(self._clock() + self._pauses.long, Closing(NO_KEY, error.detail)) from None
        if not _usable(key):
            raise NoSlot(self._clock() + self._pauses.long, Closing(NO_KEY, 'the Klaviyo secret has no "api_key"'))
        return str(key).strip()

    def renewed(self, old: str) -> bool:
        """Return whether the secret now holds another key than ``old``, which Klaviyo refused."""
        try:
            document = self._secret.doubted()
        except Unavailable:
            return False
        return document is not None and _usable(document.get("api_key")) and str(document["api_key"]).strip() != old


def _usable(key: object) -> bool:
    return isinstance(key, str) and bool(key.strip()) and key.strip().isascii() and key.strip().isprintable()
