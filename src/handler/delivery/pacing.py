"""Slots, and open or closed: one DynamoDB item keeps an account's rate for all deliver functions.

Klaviyo counts 10 requests a second and 150 a minute per account and endpoint,
in fixed windows of unknown phase. Every POST therefore takes a slot first.
Slots are ``interval`` apart, so that no minute and no second, wherever it begins,
holds more than the limit. No slot, no POST.

The item's format is costly to change, since several versions and several stacks
may share it. All numbers are integers; times are epoch milliseconds:

``id`` (S)             the key, ``{account}/event-bulk-create-jobs``
``next`` (N)           the next free slot
``closed_until`` (N)   present while closed; once it has passed, one probe may be sent
``closed_reason`` (S)  why, as ``code: detail`` (``closing``)
``probe_until`` (N)    lease of the probe under way; identifies its holder, too
``interval`` (N)       ms between slots while another user of the account uses part of the allowance ...
``learned_at`` (N)     ... found out at this time; the excess over our own interval halves every 30 s
``accepted_at`` (N)    when Klaviyo last accepted the probe that opened the relay: proof for all functions

A function reserves a slot, sleeps, reads the item again and posts. Reserving is one
conditional update in the common case; giving up writes nothing. The relay stays
closed after ``closed_until`` until Klaviyo has answered a probe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..closing import CONFIGURATION, NO_SLOT, NO_TABLE, THROTTLED, Closing
from ..errors import Closed, TableUnavailable, TooLate
from ..pauses import Pauses
from ..telemetry import logger

T = TypeVar("T")
Value = int | str | None
Item = Mapping[str, int | str]

PER_MINUTE = 60.0
PER_SECOND = 10
TOLERANCE = 0.05  # seconds that a POST may start after its slot; counted into the interval
LEADS = (0.05, 0.5, 2.0)  # seconds between asking and the slot; longer after a slot went by unused
LOOK_AHEAD = 0.3  # seconds before the slot at which a function reads the item again and opens its connection ...
LONGEST_LOOK = 1.0  # ... and at most so many when the table is slow, so that the slot does not go by meanwhile
HORIZON = 960.0  # no function runs longer than 900 s, so no reserved slot is further ahead
MINUTE_OF_SILENCE = 60.0
SLOWEST = 4  # times our own interval; if another user leaves us less, the relay closes instead
_ATTEMPTS = 8
_UNTOLD = Closing(CONFIGURATION)
_CONTENDED = Closing(NO_TABLE, "the pacing table is contended")
_PAST_DEADLINE = Closing(NO_SLOT, "no free slot before this invocation's deadline")


def interval(requests_per_minute: int, arrival_spread: float) -> float:
    """Return the seconds between slots for which no window holds more than the limit.

    The arrival times of two requests differ from their slots by up to ``arrival_spread``
    seconds, and a request starts up to ``TOLERANCE`` late. So the arrivals of one
    minute belong to slots within 60 s plus both. That span must hold no more than
    ``requests_per_minute`` intervals. The same applies to ten in a second.
    """
    spread = arrival_spread + TOLERANCE
    return max((PER_MINUTE + spread) / requests_per_minute, (1 + spread) / PER_SECOND)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


@dataclass(frozen=True, slots=True)
class State:
    """The item as read; ``None`` where an attribute is absent."""

    next: int | None = None
    closed_until: int | None = None
    closing: Closing = _UNTOLD
    probe_until: int | None = None
    interval: int | None = None
    learned_at: int | None = None
    accepted_at: int | None = None

    @classmethod
    def of(cls, item: Item) -> State:
        """Read ``item``; raise ``ValueError`` if a number is not a whole number."""
        numbers = ("next", "closed_until", "probe_until", "interval", "learned_at", "accepted_at")
        wrong = [name for name in numbers if not isinstance(item.get(name, 0), int)]
        if wrong:
            raise ValueError(f"not a whole number: {', '.join(wrong)}")
        found: dict[str, Any] = {name: item.get(name) for name in numbers}
        return cls(**found, closing=Closing.parse(str(item.get("closed_reason", ""))))


@dataclass(frozen=True, slots=True)
class Slot:
    """Permission to make one POST at ``at`` (epoch seconds).

    ``lease`` is set if this POST is the probe that decides whether to open
    again; ``closed_until`` and ``closing`` are then those of the item.
    """

    at: float
    lease: int | None = None
    closed_until: int | None = None
    closing: Closing | None = None


class Table(Protocol):
    """The conditional operations that pacing needs, each atomic, each raising ``TableUnavailable``.

    Both updates return whether they were made and the item as it was before.
    """

    def read(self) -> Item:
        """Return the item as it is now (a consistent read); empty if there is none."""

    def advance(self, *, first: int, last: int, step: int, learned_at: int | None) -> tuple[bool, Item]:
        """Return ``next += step`` if ``first <= next <= last``, not closed, and ``learned_at`` is this."""

    def swap(self, expected: Mapping[str, Value], changed: Mapping[str, Value]) -> tuple[bool, Item]:
        """Set ``changed`` if the item has ``expected``; in both, ``None`` means absent."""


class Pacer:
    """One function's view of the item.

    ``clock`` gives epoch seconds; ``spacing`` is ``interval(...)`` in seconds.
    """

    def __init__(
        self,
        table: Table,
        *,
        spacing: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        pauses: Pauses,
    ) -> None:
        self._table = table
        self._own = math.ceil(round(spacing * 1000, 6))
        self._clock = clock
        self._sleep = sleep
        self._pauses = pauses
        self._known = State()
        self._ahead = LOOK_AHEAD

    @property
    def accepted_at(self) -> float:
        """When Klaviyo last accepted a probe that opened the relay, as far as is known here (epoch seconds)."""
        return (self._known.accepted_at or 0) / 1000

    def turn(self, deadline: float, prepare: Callable[[], T | None]) -> tuple[Slot, T | None]:
        """Reserve a slot, sleep until it and read the item again; on return it is time to post.

        ``prepare`` runs shortly before the slot and opens the connection. If it returns
        a value, that is passed on and the slot is not to be used. A slot that went by
        meanwhile is forfeited, since a late POST would break the spacing.

        Raises
        ------
        Closed, TooLate, TableUnavailable
            No POST may be made; nothing is held.
        """
        lease: int | None = None
        for lead in LEADS:
            slot = self.reserve(deadline, lead=lead, lease=lease)
            self._approach(slot)
            trouble = prepare()
            if trouble is not None:
                return slot, trouble
            self._sleep_until(slot.at)
            if self._clock() <= slot.at + TOLERANCE:
                return slot, None
            lease = slot.lease
        late = Closing(NO_TABLE, "slots went by before the pacing table answered")
        raise TableUnavailable(self._clock() + self._pauses.long, late)

    def _approach(self, slot: Slot) -> None:
        if slot.at - self._clock() > self._ahead + TOLERANCE:
            self._sleep_until(slot.at - self._ahead)
            began = self._clock()
            self._look(slot)
            self._ahead = min(max(LOOK_AHEAD, 2 * (self._clock() - began)), LONGEST_LOOK)

    def _sleep_until(self, moment: float) -> None:
        if (rest := moment - self._clock()) > 0:
            self._sleep(rest)

    def _look(self, slot: Slot) -> None:
        """Raise ``Closed`` if the relay has closed since the slot was reserved."""
        state = self._state(self._table.read())
        if state is None or state.closed_until is None:
            return
        if slot.lease is None or slot.lease != state.probe_until or state.closed_until != slot.closed_until:
            if slot.lease is not None:
                self._release(slot)
            raise Closed(state.closed_until / 1000, state.closing)

    def reserve(self, deadline: float, *, lead: float = LEADS[0], lease: int | None = None) -> Slot:
        """Return the next free slot, at least ``lead`` seconds from now and not after ``deadline``.

        ``lease``: the probe's own, if it missed its slot. Raises as ``turn``.
        """
        for _ in range(_ATTEMPTS):
            now = _ms(self._clock())
            first, last = now + _ms(lead), _ms(deadline)
            if first > last:
                raise TooLate(now / 1000, Closing(NO_SLOT, "no time left for another job"))
            step = self._step(now)
            taken, item = self._table.advance(first=first, last=last, step=step, learned_at=self._known.learned_at)
            state = self._state(item)
            if state is None:
                continue
            if taken and state.next is not None:
                return Slot(state.next / 1000)
            slot = self._closed(state, now, first, last, lease) or self._idle(state, now, first, last)
            if slot is not None:
                return slot
        raise TableUnavailable(self._clock() + self._pauses.brief, _CONTENDED)

    def _state(self, item: Item) -> State | None:
        """Remember and return the item's state; reset a damaged item and return ``None``."""
        try:
            self._known = State.of(item)
        except ValueError as error:
            logger.error("pacing item damaged, reset", extra={"detail": str(error)})
            silence: dict[str, Value] = dict.fromkeys(("closed_until", "closed_reason", "probe_until", "interval"))
            silence |= {"learned_at": None, "accepted_at": None, "next": _ms(self._clock() + MINUTE_OF_SILENCE)}
            self._table.swap({}, silence)
            return None
        return self._known

    def _step(self, now: int) -> int:
        """Return the interval in ms: our own, or for a while the rate that another user leaves us."""
        state = self._known
        if state.interval is None or state.learned_at is None:
            return self._own
        excess = min(state.interval, SLOWEST * self._own) - self._own
        age = max(0, now - state.learned_at) / 1000
        return self._own + max(0, round(excess * math.exp2(-age / self._pauses.half_life)))

    def _idle(self, state: State, now: int, first: int, last: int) -> Slot | None:
        """Return the first slot after a rest, or ``None`` if ``next`` has just moved and ``advance`` will work."""
        if state.next is None or state.next < first:
            expected = {"next": state.next, "closed_until": None, "learned_at": state.learned_at}
            taken, _ = self._table.swap(expected, {"next": first + self._step(now)})
            return Slot(first / 1000) if taken else None
        if state.next > now + _ms(HORIZON):
            # The damage hides which slots others hold. A minute of silence covers those of a minute.
            logger.error("next slot too far ahead, reset", extra={"ahead_seconds": (state.next - now) / 1000})
            self._table.swap({"next": state.next}, {"next": now + _ms(MINUTE_OF_SILENCE)})
        elif state.next > last:
            raise TooLate(state.next / 1000, _PAST_DEADLINE)
        return None

    def _closed(self, state: State, now: int, first: int, last: int, lease: int | None) -> Slot | None:
        """Return the probe's slot if it is due and the lease is free, or ``None`` if the relay is open."""
        if state.closed_until is None:
            return None
        # No version sets a time further ahead, so such a time is damage and does not count.
        if now < state.closed_until <= now + 2 * _ms(self._pauses.longest):
            raise Closed(state.closed_until / 1000, state.closing)
        mine = lease is not None and lease == state.probe_until
        leased = now + _ms(HORIZON + self._pauses.lease)
        if not mine and state.probe_until is not None and now < state.probe_until <= leased:
            raise Closed(min(state.probe_until / 1000, now / 1000 + self._pauses.probe_wait), state.closing)
        near = state.next is not None and state.next <= now + _ms(HORIZON)
        at = max(first, state.next) if near and state.next is not None else first
        if at > last:
            raise TooLate(at / 1000, _PAST_DEADLINE)
        seen = {"next": state.next, "closed_until": state.closed_until, "probe_until": state.probe_until}
        until = at + _ms(self._pauses.lease)
        taken, _ = self._table.swap(seen, {"next": at + self._step(now), "probe_until": until})
        return Slot(at / 1000, until, state.closed_until, state.closing) if taken else None

    def answered(
        self, slot: Slot, *, accepted: bool = False, remaining: int | None = None, reset: float | None = None
    ) -> None:
        """Record that Klaviyo accepted (``accepted``) or judged the request: a probe opens the relay.

        Klaviyo reports ``remaining`` requests for the next ``reset`` seconds of its
        minute window. If another user shares the window, slow down in time.
        """
        if slot.lease is not None:
            self._open(slot, accepted=accepted)
        if remaining is None or reset is None or not 2 <= reset <= PER_MINUTE:
            return
        if remaining <= 0:
            self.throttled(Slot(slot.at), reset)
        elif reset >= 10:  # less says little: both numbers are rounded
            needed = _ms(reset / remaining)
            if needed > 1.2 * self._step(_ms(self._clock())):
                self._learn(needed)

    def _open(self, slot: Slot, *, accepted: bool) -> None:
        cleared: dict[str, Value] = dict.fromkeys(("closed_until", "closed_reason", "probe_until"))
        if accepted:
            cleared["accepted_at"] = _ms(self._clock())
        opened, _ = self._table.swap({"probe_until": slot.lease, "closed_until": slot.closed_until}, cleared)
        if not opened:
            # Another function closed the relay for longer meanwhile. That stays; only our lease ends.
            self._release(slot)

    def _release(self, slot: Slot) -> None:
        self._table.swap({"probe_until": slot.lease}, {"probe_until": None})

    def failed(self, slot: Slot, closing: Closing, *, pause: float = 0.0) -> float:
        """Close the relay after a missing answer, or after one that means that all must wait.

        The pause is at least ``pause`` seconds, brief after a first fault and longer
        after a probe. After a probe it counts from the slot, so that a probe that times
        out costs no more than another. A pause that already runs is never shortened.

        Returns
        -------
        float
            Seconds for which it was closed.
        """
        now, pauses = self._clock(), self._pauses
        least = pauses.brief if slot.lease is None else max(pauses.brief, slot.at + pauses.long - now)
        pause = max(least, pause if pause <= pauses.longest else pauses.long)
        until = _ms(now + pause)
        state = State()
        for _ in range(_ATTEMPTS):
            changed: dict[str, Value] = {"closed_until": until, "closed_reason": str(closing)}
            if state.closed_until is not None and until <= state.closed_until <= until + _ms(pauses.longest):
                changed = {}
            if slot.lease is not None and state.probe_until == slot.lease:
                changed["probe_until"] = None
            if not changed:
                return pause
            seen = {"closed_until": state.closed_until, "probe_until": state.probe_until}
            done, item = self._table.swap(seen, changed)
            if done:
                return pause
            state = self._state(item) or State()
        raise TableUnavailable(self._clock() + self._pauses.brief, _CONTENDED)

    def throttled(self, slot: Slot, retry_after: float | None) -> float:
        """Close after a 429; a second one within minutes means that another user shares the allowance."""
        pause = self.failed(slot, Closing(THROTTLED, "Klaviyo asked to wait"), pause=retry_after or 0.0)
        if slot.lease is None:
            now = _ms(self._clock())
            age = now - (self._known.learned_at or 0)
            if age > 120_000:
                self._learn(self._own)
            elif age > 5_000:  # otherwise it belongs to the same volley
                self._learn(round(1.5 * self._step(now)))
        return pause

    def _learn(self, spacing: int) -> None:
        """Store ``spacing`` ms, unless another function stored a value at the same time."""
        changed = {"interval": min(spacing, SLOWEST * self._own), "learned_at": _ms(self._clock())}
        self._table.swap({"learned_at": self._known.learned_at}, changed)
