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
    longest: float = 600.0  # at most: Klaviyo has no window that explains a longer Retry-After
    lease: float = 30.0  # from a probe's slot to its answer: connect and read time-outs, and slack
    probe_wait: float = 1.0  # until the next look at whether the probe was accepted
    patience: float = 3.0  # to wait for a brief closing to end; messages wait for a longer one in the queue
    # Klaviyo's time-outs, and the time kept at an invocation's end to park and send again some 6 MB.
    connect: float = 3.0
    read: float = 20.0
    finish: float = 12.0
    last: float = 2.0  # of that, after the last call of a queue
    # Messages that came back are handled for ``returned`` seconds after the new ones, which leave them this time, and
    # no longer, so that the next new ones soon have their turn. The queue hands over the others again after 20 to
    # 120 % of ``unreached``.
    returned: float = 20.0
    calm: float = 3_600.0  # without another death, after which a message that died alone is parked for it
    unreached: float = 50.0
    # Secrets are kept for ``kept``; a doubted one is read again at most once in ``reread``.
    kept: float = 300.0
    reread: float = 60.0
    key_reread: float = 25.0  # less than ``long``, so that each probe may have a new key
    # Delays of messages that are sent again.
    stagger: int = 6  # longer than the SQS trigger's batching window, so that they come one at a time
    spread: float = 10.0  # at most, after a known time
    deferral: float = 5.0  # doubled with each deferral while the end of an outage is unknown ...
    longest_deferral: float = 780.0  # ... up to this: with closing and batching window, within a quarter of an hour

    @property
    def reserve(self) -> float:
        """The time at the end of an invocation in which no request may begin."""
        return self.connect + self.read + self.finish


PAUSES = Pauses()
