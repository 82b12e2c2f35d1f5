"""Which sender is meant by what somebody entered."""

from __future__ import annotations

import difflib

from handler.events import senders
from tools.errors import CommandError


def known(name: str) -> str:
    """Return ``name`` if there is a source of that name.

    Raises
    ------
    CommandError
        No source has that name; the text names one like it, or says where they all are.
    """
    names = senders.names()
    if name in names:
        return name
    if not name:
        raise CommandError("No source given. Set SOURCE= to a sender's name; docs/metrics.md lists them")
    near = difflib.get_close_matches(name, names, 1)
    raise CommandError(
        f"Unknown source {name!r}. {f'Did you mean {near[0]!r}?' if near else 'docs/metrics.md has them'}"
    )
