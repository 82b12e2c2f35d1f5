"""Which rows to blame for a refusal: only those that Klaviyo refuses again and again while it accepts others.

Only a 202 proves that Klaviyo accepts what the relay sends. Klaviyo may refuse a
whole job for one row, it may name the wrong row, it may refuse everything, and it may
refuse now this and now that. So a job is taken apart until single rows are refused, and
each of these is judged by the first line of this table that is true (docs/decisions/0036
and 0040):

==========================================================  ======================
the row                                                     is
==========================================================  ======================
was refused before, and since then Klaviyo accepted a
request, at most 20 minutes ago if the row was refused alone
or 10 seconds ago if Klaviyo names it now, ...

- and Klaviyo has refused the row alone 16 times            parked
- and its refusals are contradictory: it accepted a row that
  it had refused alone, and was not consistent for ten
  times since                                               sent back to the queue
- and Klaviyo names it                                      parked
- and it has refused the row alone eight times              parked
- and it has refused the row alone three times, and its
  refusals are consistent: six times it accepted a request
  and then refused again a row that it had refused alone    parked
- and that is still open                                    held
is named with all rows of a new job, three at most, three
for each accepted request, and the refusals are not
contradictory                                               parked
was refused less than 10 seconds after Klaviyo accepted a
request                                                     held
is the first that Klaviyo refuses since it accepted one     held
is not: Klaviyo refused a row of another message, or three
rows in all, or this row for the 7th, 14th, 21st ... time   held: it is the brake
==========================================================  ======================

At the brake the function stops, and closes the relay unless another function delivers
(docs/decisions/0041). While a row is held, the next request carries one row from elsewhere (``dispatch``).
What is held is tried once more as soon as Klaviyo accepts a request. Otherwise it goes
back to the queue at the end of the invocation.

A row that Klaviyo names needs no consistency, since its pointer says which row it means.
The exception for named rows of a new job is for quiet days: there a bad event has no
neighbour that could prove anything, and need not wait for one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .jobs import Job, Row

ROWS = 3  # that are refused in one invocation, or parked on Klaviyo's word for each accepted request
PROOF_SECONDS = 10.0  # for which an accepted request says how Klaviyo works now ...
MEMORY_SECONDS = 1_200.0  # ... and for a row that was refused alone before it; a deferral takes at most 900
TRIES = 3  # refusals of a row alone, if it is not named
TRUST = 6  # times that Klaviyo accepted a request and then refused again a row that it had refused alone ...
DISTRUST = -10  # ... counted from here after it accepted such a row
BRAKE_TRIES = 7  # refusals of a row alone; if it has no proof, each seventh closes the relay
PROOF_TRIES = 8  # refusals of a row alone that need no consistency; twice as many if the refusals are contradictory

Verdict = Literal["park", "hold", "later", "brake"]


@dataclass(slots=True)
class Doubt:
    """The judgement of rows that are refused alone; a function keeps it from one invocation to the next.

    ``accepted_at`` is when Klaviyo last accepted a request of this function, or the
    probe of another (epoch seconds). Another machine's clock may be wrong, so its age
    counts without its sign. ``trust`` is how often Klaviyo's refusals have been
    consistent, and negative once they were contradictory.
    """

    accepted_at: float = float("-inf")
    judged: int = 0  # rows that Klaviyo refused again, or named, since it last accepted a request of this function
    refused: list[Row] = field(default_factory=list)  # without proof since then, in this invocation
    trust: int = 0

    def after(self, job: Job, now: float) -> Doubt:
        """Return the doubt that is left now that Klaviyo has accepted ``job``."""
        return Doubt(now, trust=DISTRUST if job.refusals else self.trust)

    def wants_proof(self, now: float) -> bool:
        """Return whether a row from elsewhere should be sent now, for the sake of a row that is held."""
        return self.trust < TRUST or abs(now - self.accepted_at) > PROOF_SECONDS / 2

    def judge(
        self, row: Row, job: Job, tries: int, now: float, *, named: bool = False, believe: bool = False
    ) -> Verdict:
        """Return what to do with ``row``, which was sent in ``job`` and is refused alone for the ``tries``-th time.

        ``named``: Klaviyo's pointer says that it is this row. ``believe``: it named all rows of a new job.
        """
        age = abs(now - self.accepted_at)
        again = self.accepted_at > (job.refused_at or 0) and (
            age < MEMORY_SECONDS if job.refusals else named and age < PROOF_SECONDS
        )
        if again or believe:
            self.judged += 1
            self.trust += again and self.judged == 1
            proved = named or tries >= PROOF_TRIES or (tries >= TRIES and self.trust >= TRUST)
            if tries >= 2 * PROOF_TRIES or (proved and self.trust >= 0 and (again or self.judged <= ROWS)):
                return "park"
        if again or age < PROOF_SECONDS:
            return "later" if again and self.trust < 0 else "hold"
        self.refused.append(row)
        many = len(self.refused) >= ROWS or any(row.owner != other.owner for other in self.refused)
        return "brake" if many or tries % BRAKE_TRIES == 0 else "hold"
