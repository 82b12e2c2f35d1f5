"""Which rows to blame for a job that Klaviyo refused without naming a row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..messages import Message
from .jobs import Job

LONE_TRIES = 6  # deferrals after which a single row that is refused without proof means the brake
PROOF_SECONDS = 10.0  # for which an accepted request proves that Klaviyo accepts what the relay sends ...
MEMORY_SECONDS = 1_200.0  # ... and for a row that was refused before it; a deferral takes at most 900

Verdict = Literal["split", "control", "park", "hold", "give_up", "brake"]


@dataclass(slots=True)
class Doubt:
    """The judgement of refusals that name no row, one for each invocation.

    A row is blamed only with proof that Klaviyo accepts others. The proof must come
    between two refusals: of the row or, within an invocation, of the job that it was
    cut from. If a request, both its halves and then two single rows from different
    messages fail alike, the rows are not at fault: that is the brake. It is also the
    brake if one row is refused through many deferrals without proof. Requests that
    were accepted before the invocation prove nothing alone: a refusal of everything
    also begins right after an accepted request.
    """

    accepted_at: float = float("-inf")
    began: float = float("inf")  # the invocation's first refusal
    alike: int = 0
    signature: tuple[object, ...] = ()
    singles: list[int] = field(default_factory=list)

    def accepted(self, now: float) -> None:
        """Note that Klaviyo accepted a request or named the rows at fault: it does read our requests."""
        self.accepted_at = now
        self.alike = 0
        self.singles.clear()

    def refused(self, job: Job, signature: tuple[object, ...], now: float, message: Message) -> Verdict:
        """Return what to do with ``job``, which was refused without a pointer; ``message`` is that of its first row.

        Returns
        -------
        str
            ``split`` it; split it and try two single rows (``control``); ``park``
            its one row; ``hold`` that row until others got through; ``give_up`` for
            now, since there are rows of one message only; ``brake``.
        """
        single = len(job.rows) == 1
        since = abs(now - self.accepted_at)
        self.began = min(self.began, now)
        proved = self.accepted_at > (message.refused_at if message.suspect else self.began)
        if since < PROOF_SECONDS:
            return ("park" if proved else "hold") if single else "split"
        if message.suspect and proved and since < MEMORY_SECONDS:
            # A row that is alone in its message was refused alone before. Any other is alone from now on and waits.
            return ("park" if len(message.events) == 1 else "hold") if single else "split"
        if signature != self.signature:
            self.signature, self.alike = signature, 0
            self.singles.clear()
        self.alike += 1
        if not single:
            return "control" if self.alike == 3 else "split"
        self.singles.append(job.rows[0].owner)
        if len(set(self.singles)) > 1 or (message.suspect and message.deferred >= LONE_TRIES):
            return "brake"
        return "give_up" if len(self.singles) > 1 else "hold"
