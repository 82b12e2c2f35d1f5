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


def triage(records: Sequence[Record], *, stagger: int) -> Triage:
    """Apply the crash rule; suspected messages come back ``stagger`` seconds apart.

    Messages that came back are sent again, with the return counted, before any is
    handled. Of messages sent again in this way, one that came back twice is handled
    alone, with all others out of reach. Those that came back once are handled a few
    at a time, so that not all of them must be handled alone.
    """
    if not any(record.crashes for record in records):
        return Triage(handle=list(records))
    result = Triage(park=[record for record in records if record.crashes >= PARKED_AT])
    here = [record for record in records if record.crashes < PARKED_AT and not record.returned]
    alone = [record for record in here if record.crashes == ALONE_AT]
    shaky = [record for record in here if 0 < record.crashes < ALONE_AT]
    result.handle = alone[:1] or [*(record for record in here if not record.crashes), *shaky[:SHAKY]]
    chosen = {id(record) for record in [*result.handle, *result.park]}
    late = 0
    for record in records:
        if id(record) in chosen:
            continue
        late += bool(record.crashes)
        group = late if record.crashes == ALONE_AT else -(-late // SHAKY)
        result.resend.append((record, min(MAX_DELAY, group * stagger) if record.crashes else 0))
    return result


def again(record: Record, delay: int) -> Outgoing:
    """Return ``record`` to be sent again unchanged, with how often it came back."""
    return Outgoing(record.body, record.group, delay, {**record.attributes, **account(record.crashes)})


def account(crashes: int) -> dict[str, str]:
    return {"crashes": str(crashes)} if crashes else {}


def crashed(record: Record, *, at: str) -> Outgoing:
    """Return ``record`` for the dead-letter queue, unchanged; after a redrive it is handled alone at once."""
    parked = messages.parked_text(record.body, messages.source(record.body), reason="crashed", detail=CRASHED, at=at)
    return Outgoing(parked.body, parked.group, parked.delay, {**parked.attributes, **account(ALONE_AT)})
