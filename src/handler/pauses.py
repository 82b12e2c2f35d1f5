"""How long the functions wait, and how long they keep what they have read: one value, passed in.

The functions run with ``PAUSES``; ``make chaos`` passes shorter ones.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pauses:
    """All in seconds."""

    # The relay is closed for so long ...
    brief: float = 2.0  # after a first fault
    long: float = 30.0  # after a failed probe, so that Klaviyo receives at most two probes a minute
    longest: float = 600.0  # at the most: a longer Retry-After is not one of Klaviyo's windows, and is not believed
    lease: float = 30.0  # after its slot a probe has its answer: connect and read time-outs, and slack
    probe_wait: float = 1.0  # after which to ask again whether the probe got through
    half_life: float = 30.0  # of what another user of the account leaves us
    patience: float = 3.0  # to wait for a brief closing to end; a longer one is waited for in the queue
    # Klaviyo's time-outs, and what is kept at an invocation's end for parking and sending again some 6 MB.
    connect: float = 3.0
    read: float = 20.0
    finish: float = 12.0
    # Secrets are kept for so long; one that is doubted is read again once in this time.
    kept: float = 300.0
    reread: float = 60.0
    key_reread: float = 25.0  # less than ``long``, so that each probe may have a new key
    # Messages that are sent again come back after this.
    stagger: int = 6  # longer than the trigger's batching window, so that they come one at a time
    spread: float = 10.0  # at the most, after a moment that is known
    deferral: float = 5.0  # doubled with each deferral if nobody knows when Klaviyo is back ...
    longest_deferral: float = 780.0  # ... up to this: with closing and batching window, within a quarter of an hour

    @property
    def reserve(self) -> float:
        """Kept at the end of an invocation, in which no request may begin."""
        return self.connect + self.read + self.finish


PAUSES = Pauses()
