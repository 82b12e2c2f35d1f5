"""Which rows to blame for a refusal: only those that Klaviyo refuses while it accepts others.

Only a 202 proves that Klaviyo accepts what the relay sends. Klaviyo may refuse a
whole job for one row, it may name the wrong row, and it may refuse everything. So a
job is taken apart until single rows are refused, and each of these is judged by this
table (docs/decisions/0036):

====================================================  ======================
Klaviyo accepted a request ...                        the row that it refused
====================================================  ======================
since it first refused this row                       is parked
not; but it named all rows of a new job, three at     is parked
most, and no others since it last accepted a request
less than 10 seconds ago, but before that             is held
not; this row is the first that it refuses            is held
not; and it refused a row of another message, or      is held, and the relay
three rows in all, or this row in six deferrals       closes: it is the brake
====================================================  ======================

While a row is held, the next request carries one row from elsewhere (``dispatch``).
What is held is tried once more as soon as Klaviyo accepts a request. Otherwise it goes
back to the queue at the end of the invocation. The exception is for quiet days: there a bad
event has no neighbour that could prove anything, and need not wait for one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..messages import Message
from .jobs import Job, Row

LONE_TRIES = 6  # deferrals of a row
ROWS = 3  # that are refused in one invocation, or parked on Klaviyo's word
PROOF_SECONDS = 10.0  # for which an accepted request says how Klaviyo works now ...
MEMORY_SECONDS = 1_200.0  # ... and for a row that was refused alone before it; a deferral takes at most 900

Verdict = Literal["park", "hold", "brake"]


@dataclass(slots=True)
class Doubt:
    """The judgement of rows that are refused alone, one for each invocation.

    ``accepted_at`` is when Klaviyo last accepted a request of this function, or the
    probe of another (epoch seconds). Another machine's clock may be wrong, so its age
    counts without its sign.
    """

    accepted_at: float = float("-inf")
    believed: int = 0  # rows parked on Klaviyo's word since then
    refused: list[Row] = field(default_factory=list)  # without proof, since the last request that was accepted

    def accepted(self, now: float) -> None:
        """Note that Klaviyo accepted a request."""
        self.accepted_at = now
        self.believed = 0
        self.refused.clear()

    def judge(self, row: Row, job: Job, message: Message, now: float, *, believe: bool = False) -> Verdict:
        """Return what to do with ``row`` of ``message``, which was sent in ``job`` and refused alone.

        ``believe``: Klaviyo named all rows of a new job.
        """
        age = abs(now - self.accepted_at)
        first = now if job.refused_at is None else job.refused_at
        alone_before = message.suspect and len(message.events) == 1
        if self.accepted_at > first and age < (MEMORY_SECONDS if alone_before else PROOF_SECONDS):
            return "park"
        if believe and self.believed < ROWS:
            self.believed += 1
            return "park"
        if age < PROOF_SECONDS:
            return "hold"
        self.refused.append(row)
        others = any(row.owner != other.owner for other in self.refused) or len(self.refused) >= ROWS
        return "brake" if others or (message.suspect and message.deferred >= LONE_TRIES) else "hold"
