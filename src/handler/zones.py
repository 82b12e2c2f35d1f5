"""IANA time zones by name: one that cannot be loaded is refused where it is set, and never read as UTC.

The data are those of the package ``tzdata`` where the system has none (Lambda's
image once came without).
"""

from __future__ import annotations

import re
from datetime import UTC, tzinfo

# The form of zone names (also in template.yaml). Without it, a file system that ignores case, and other files in the
# zones' folder ("posix/Europe/Paris", "localtime"), would load names that the functions do not know.
FORM = r"[A-Z][A-Za-z0-9_+-]*(?:/[A-Z][A-Za-z0-9_+-]*)*"


class UnknownZone(ValueError):
    """No such zone; the text names it and says what is expected."""


def load(name: str) -> tzinfo:
    """Return the zone of that name.

    Raises
    ------
    UnknownZone
        No such zone.
    """
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # 4 to 13 ms of a start, which most stacks save

    try:
        if re.fullmatch(FORM, name) and name != "Factory":  # tzdata's own for "not set", which is UTC
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones is an OSError
        pass
    raise UnknownZone(f"{name!r} is not an IANA time zone; expected a name such as Europe/Paris")
