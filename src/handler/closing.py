"""The reason why no request may be made now: a code for programs, and a detail for people.

The pacing table stores it as ``code: detail`` (``closed_reason``). Several versions and
stacks may share that item, so only this module writes or reads the text. Programs
compare ``code``. The detail may be reworded at any time, except that of ``BRAKE``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

THROTTLED = "throttled"
OUTAGE = "outage"
KEY_REFUSED = "key_refused"
REFUSED_ALIKE = "refused_alike"
CONFIGURATION = "configuration"
# Never stored: these concern one function only.
NO_KEY = "no_key"
NO_TABLE = "no_table"
NO_SLOT = "no_slot"

_KNOWN = frozenset(
    (THROTTLED, OUTAGE, KEY_REFUSED, REFUSED_ALIKE, CONFIGURATION, "wrong_url", "revision_retired", "media_type")
)
_STATUS = re.compile(r"status_\d{3}")
_TOLD_APART = (THROTTLED, OUTAGE, NO_KEY, NO_TABLE)


@dataclass(frozen=True, slots=True)
class Closing:
    """Why the relay is closed, or cannot post: ``code`` is snake_case, ``detail`` a sentence for people."""

    code: str
    detail: str = ""

    @classmethod
    def parse(cls, text: str) -> Closing:
        """Read a stored text; without a known code it becomes ``configuration`` with the whole text as its detail."""
        code, _, detail = text.partition(":")
        if code in _KNOWN or _STATUS.fullmatch(code):
            return cls(code, detail.strip())
        return cls(CONFIGURATION, text)

    def __str__(self) -> str:
        """Return the text that is stored and logged."""
        return f"{self.code}: {self.detail}" if self.detail else self.code

    @property
    def kind(self) -> str:
        """The code as the alarms distinguish it.

        ``throttled`` and ``outage`` end without help. ``configuration``, ``no_key`` and ``no_table`` need a person.
        """
        return self.code if self.code in _TOLD_APART else CONFIGURATION


# Do not reword this: versions before this module compare the whole stored text with it.
BRAKE = Closing(REFUSED_ALIKE, "Klaviyo refuses everything alike, so it is not the events; see the runbook")
THROTTLE = Closing(THROTTLED, "Klaviyo asked to wait")
