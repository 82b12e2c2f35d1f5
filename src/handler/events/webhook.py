"""A sender's HTTP request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from . import bodies
from .bodies import Body


@dataclass(frozen=True, slots=True)
class Webhook:
    """One HTTP request: header names in lower case, ``body`` the exact bytes."""

    method: str
    url: str
    uri: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    _documents: dict[Body, tuple[Any, int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def posted(cls, headers: Mapping[str, str], body: bytes) -> Self:
        """Return a POST of which only this much is known, as after a redrive."""
        return cls("POST", "", "", headers, {}, body)

    def document(self, read: Body) -> tuple[Any, int]:
        """Return the body's document, and its size in bytes once decompressed; parse it once for each way to read it.

        Do not change the document: signature, handshakes and mapping read the same one.

        Raises
        ------
        Unmapped
            It is not of a kind in ``read``.
        """
        if read not in self._documents:
            plain = bodies.unpack(self.body)
            self._documents[read] = bodies.parse(plain, read), len(plain)
        return self._documents[read]
