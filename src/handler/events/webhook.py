"""One HTTP request of a sender."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Webhook:
    """What a sender may sign: header names in lower case, ``body`` the exact bytes."""

    method: str
    url: str
    uri: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
