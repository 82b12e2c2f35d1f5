"""Pages of a client's answers, as boto3's paginators ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Paginator:
    """Call after call of one operation, each with the ``token`` of the answer before it."""

    call: Callable[..., dict[str, Any]]
    token: str

    def paginate(self, **asked: Any) -> Iterator[dict[str, Any]]:
        """Yield the answers, until one has no token."""
        page = self.call(**asked)
        yield page
        while self.token in page:
            page = self.call(**asked, **{self.token: page[self.token]})
            yield page


class Paged:
    """A client that has pages of ``per_page`` items; ``CONTINUES`` is the name under which the service continues."""

    CONTINUES: ClassVar[str] = "NextToken"

    def __init__(self, per_page: int) -> None:
        self._per_page = per_page

    def _page(self, name: str, items: Sequence[Any], token: str) -> dict[str, Any]:
        """Return the answer with those of ``items`` under ``name`` that begin at ``token``, and how it continues."""
        first, end = int(token), int(token) + self._per_page
        return {name: items[first:end]} | ({self.CONTINUES: str(end)} if end < len(items) else {})

    def get_paginator(self, operation: str) -> Paginator:
        """Return the paginator of ``operation``."""
        return Paginator(getattr(self, operation), self.CONTINUES)
