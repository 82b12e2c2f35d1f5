"""The crash rule: messages that may have crashed the function are set apart, until one is handled alone.

``deliver`` answers every record unless it crashes, so a record that comes back may
have crashed it. We do not know which message did, so we narrow it down until one is
handled alone. SQS's own count of receives proves nothing: functions that cannot
start and queues that refuse also raise it. So each return is counted in an attribute
of the message, and only that counts (docs/decisions/0023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .. import messages
from ..messages import MAX_DELAY, Outgoing
from .records import ALONE_AT, Record

PARKED_AT = 3  # ... and one that came back from that is parked
SHAKY = 32  # messages that came back once, which one invocation handles together
CRASHED = "the function ended three times without settling this message; the third time it handled it alone"


@dataclass(slots=True)
class Triage:
    """``handle`` now; ``resend`` with these delays in seconds, and ``park``, before that."""

    handle: list[Record] = field(default_factory=list)
    resend: list[tuple[Record, int]] = field(default_factory=list)
    park: list[Record] = field(default_factory=list)


def triage(given: Sequence[Record], *, stagger: int) -> Triage:
    """Apply the crash rule; suspected messages come back ``stagger`` seconds apart.

    Messages that came back are sent again, with the return counted, before any is
    handled. Of messages sent again in this way, one that came back twice is handled
    alone, with all others out of reach. Those that came back once are handled a few
    at a time, so that not all of them must be handled alone.
    """
    if not any(one.crashes for one in given):
        return Triage(handle=list(given))
    result = Triage(park=[one for one in given if one.crashes >= PARKED_AT])
    here = [one for one in given if one.crashes < PARKED_AT and not one.returned]
    alone = [one for one in here if one.crashes == ALONE_AT]
    shaky = [one for one in here if 0 < one.crashes < ALONE_AT]
    result.handle = alone[:1] or [*(one for one in here if not one.crashes), *shaky[:SHAKY]]
    chosen = {id(one) for one in [*result.handle, *result.park]}
    late = 0
    for one in given:
        if id(one) in chosen:
            continue
        late += bool(one.crashes)
        group = late if one.crashes == ALONE_AT else -(-late // SHAKY)
        result.resend.append((one, min(MAX_DELAY, group * stagger) if one.crashes else 0))
    return result


def again(one: Record, delay: int) -> Outgoing:
    """Return ``one`` to be sent again unchanged, with how often it came back."""
    return Outgoing(one.body, one.group, delay, {**one.attributes, **account(one.crashes)})


def account(crashes: int) -> dict[str, str]:
    return {"crashes": str(crashes)} if crashes else {}


def crashed(one: Record, *, at: str) -> Outgoing:
    """Return ``one`` for the dead-letter queue, unchanged; after a redrive it is handled alone at once."""
    parked = messages.parked_text(one.body, messages.source(one.body), reason="crashed", detail=CRASHED, at=at)
    return Outgoing(parked.body, parked.group, parked.delay, {**parked.attributes, **account(ALONE_AT)})
