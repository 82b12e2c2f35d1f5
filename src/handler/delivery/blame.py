"""Whom to blame for a job that Klaviyo refused without naming a row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..messages import Message
from .jobs import Job

LONE_TRIES = 6  # deferrals after which a row that is refused without proof, and has no company, is the brake
PROOF_SECONDS = 10.0  # so long an accepted request shows that Klaviyo reads what the relay sends ...
MEMORY_SECONDS = 1_200.0  # ... and so long to a row that was refused before it; a deferral takes 900 at the most

Verdict = Literal["split", "control", "park", "hold", "give_up", "brake"]


@dataclass(slots=True)
class Doubt:
    """Is it the rows? Judges refusals that name no row.

    A row is blamed only beside proof that Klaviyo accepts others: between two
    refusals, of it or, within an invocation, of what it was cut from. If a request,
    both its halves and then two single rows from different messages fail alike, it
    is not the rows: that is the brake; likewise if one row is refused through many
    deferrals without proof. One for each invocation; what was accepted before it
    proves nothing alone, for a refusal of everything begins right after something
    that was accepted.
    """

    accepted_at: float = float("-inf")
    began: float = float("inf")  # the invocation's first refusal
    alike: int = 0
    signature: tuple[object, ...] = ()
    singles: list[int] = field(default_factory=list)

    def accepted(self, now: float) -> None:
        """Klaviyo took a request, or named the rows that stand in the way: it reads what we send."""
        self.accepted_at = now
        self.alike = 0
        self.singles.clear()

    def refused(self, job: Job, signature: tuple[object, ...], now: float, message: Message) -> Verdict:
        """What to do with ``job``, which was refused without a pointer; ``message`` is that of its first row.

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
            # By itself in its message: it was refused alone before. Else it is now, and waits for the next time.
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
