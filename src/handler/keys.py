"""Secrets Manager documents: cached, and re-read at most once a minute on a suspicion."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

from .errors import Unavailable

CACHE_SECONDS = 300
REREAD_SECONDS = 60


class Secret:
    """One JSON secret of Secrets Manager.

    Parameters
    ----------
    provider : SecretsProvider
        Powertools' provider; its cache holds the document for five minutes.
    name : str
        Name or ARN.
    clock : callable
        Epoch seconds; bounds how often a doubted document is read anew.
    reread_seconds : float
        ... namely once in this time.
    """

    def __init__(
        self,
        provider: SecretsProvider,
        name: str,
        clock: Callable[[], float],
        reread_seconds: float = REREAD_SECONDS,
    ) -> None:
        self._provider = provider
        self._name = name
        self._clock = clock
        self._reread_seconds = reread_seconds
        self._read_at = float("-inf")

    def document(self) -> dict[str, Any]:
        """The secret's document.

        Raises
        ------
        Unavailable
            It cannot be read, or is not a JSON object. The text holds none of it.
        """
        return self._get(force=False)

    def doubted(self) -> dict[str, Any] | None:
        """The document read anew; ``None`` if that was done lately."""
        if self._clock() - self._read_at < self._reread_seconds:
            return None
        return self._get(force=True)

    def _get(self, *, force: bool) -> dict[str, Any]:
        fresh = force or self._clock() - self._read_at >= CACHE_SECONDS
        if fresh:
            self._read_at = self._clock()
        try:
            text = self._provider.get(self._name, max_age=CACHE_SECONDS, force_fetch=fresh)
            document = json.loads(text if isinstance(text, str) else "")
        except GetParameterError as error:
            cause = type(error.__cause__ or error).__name__
            self._read_at = float("-inf")
            raise Unavailable("secret_unreadable", f"Secrets Manager does not give out the secret ({cause})") from None
        except ValueError:
            raise Unavailable("secret_unreadable", "the secret is not a JSON document") from None
        if not isinstance(document, dict):
            raise Unavailable("secret_unreadable", "the secret is not a JSON object")
        return document
