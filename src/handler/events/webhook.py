"""One HTTP request of a sender."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import bodies
from .bodies import Body


@dataclass(frozen=True, slots=True)
class Webhook:
    """What a sender may sign: header names in lower case, ``body`` the exact bytes."""

    method: str
    url: str
    uri: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    _documents: dict[Body, tuple[Any, int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def document(self, read: Body) -> tuple[Any, int]:
        """The body's document, and its bytes once decompressed; parsed once for each way to read it.

        Nobody may change it: a time in it, a check of the URL and the mapping are read from the same one.

        Raises
        ------
        Unmapped
            It is not of a kind in ``read``.
        """
        if read not in self._documents:
            plain = bodies.unpack(self.body)
            self._documents[read] = bodies.parse(plain, read), len(plain)
        return self._documents[read]
