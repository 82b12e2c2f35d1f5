"""Replace attributes by name, for runs that need shorter pauses or parts of their own; unknown names are refused."""

from __future__ import annotations

from typing import Any


def put(*changes: tuple[object, str, Any]) -> None:
    """Set each attribute ``name`` of ``owner`` to ``value``.

    Raises
    ------
    AttributeError
        There is no such attribute: after a renaming, the change would have no effect. None is made then.
    """
    for owner, name, _ in changes:
        if not hasattr(owner, name):
            raise AttributeError(f"{getattr(owner, '__name__', type(owner).__name__)} has no attribute {name!r}")
    for owner, name, value in changes:
        setattr(owner, name, value)
