"""The errors that the relay raises on purpose, drawn as a tree.

::

    RelayError
    ├── Refused                ``receive`` answers with a status; nothing is kept
    │   ├── UnknownSource      404
    │   ├── NotVerified        401
    │   ├── NotParseable       400, only for unverified requests
    │   ├── TooLarge           413, authentic, but no message can hold it
    │   └── Unavailable        503: the sender is asked to retry
    ├── Unmapped               authentic, but it cannot be read or becomes no event: parked
    ├── SourceError            a mistake in a source's TOML file (build time)
    ├── MessageError           a queue message that this version cannot read
    │   └── NewerMessage       ... because a later version wrote it
    ├── Crashed                an unexpected fault in deliver: what Lambda may log of it
    └── NoSlot                 no POST now; the messages are deferred
        ├── Closed             the relay is closed (429, outage, refused key)
        ├── TooLate            there is no free slot before the caller's deadline
        └── TableUnavailable   the pacing table does not answer

Texts of these errors are in logs and in the dead-letter queue. They say what
happened and where, and never hold a value from a payload, a secret or a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .closing import Closing


class RelayError(Exception):
    """Base of all errors that the relay raises on purpose."""


class Refused(RelayError):
    """A request that is answered with ``status`` and of which nothing is kept.

    ``reason`` is a short snake_case code for logs and metrics, ``detail`` a
    sentence for the person who sets up the sender.
    """

    status = 400

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UnknownSource(Refused):
    """No TOML file of that name."""

    status = 404


class NotVerified(Refused):
    """Signature missing, malformed, wrong or stale, or no secret configured."""

    status = 401


class NotParseable(Refused):
    """A request that cannot be verified, or a check of the URL that cannot be answered."""

    status = 400


class TooLarge(Refused):
    """An authentic webhook that no queue message can hold, even compressed."""

    status = 413


class Unavailable(Refused):
    """Queue or secrets cannot be reached; the sender is asked to retry."""

    status = 503


class Unmapped(RelayError):
    """An authentic webhook that cannot be read or cannot become an event; it is parked raw.

    ``reason`` is a snake_case code, ``detail`` a sentence without payload values.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SourceError(RelayError):
    """A mistake in a source's TOML file: ``file``, ``line``, what was expected, and a ``code`` if tools need it."""

    def __init__(self, file: str, line: int | None, message: str, code: str = "") -> None:
        super().__init__(f"{file}:{line or 1}: {message}")
        self.file = file
        self.line = line
        self.message = message
        self.code = code


class MessageError(RelayError):
    """A queue message's body is not in the format of ``messages``."""


class NewerMessage(MessageError):
    """The message names a format version later than this code's."""


class Crashed(RelayError):
    """An unexpected failure of ``deliver``; the text is the exception's class and place, not its message."""


class NoSlot(RelayError):
    """No POST may be made now, and why. ``retry_at``: epoch seconds from which to try again."""

    def __init__(self, retry_at: float, closing: Closing) -> None:
        super().__init__(str(closing))
        self.retry_at = retry_at
        self.closing = closing


class Closed(NoSlot):
    """The relay is closed until ``retry_at``."""


class TooLate(NoSlot):
    """There is no free slot before the caller's deadline; the next one is at ``retry_at``."""


class TableUnavailable(NoSlot):
    """The pacing table cannot be read or written."""
