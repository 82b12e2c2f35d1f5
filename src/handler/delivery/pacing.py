"""The slot, and open or closed: one DynamoDB item keeps an account's rate for all senders.

Klaviyo counts 10 requests a second and 150 a minute per account and endpoint,
in fixed windows of unknown phase. Every POST therefore takes a slot first;
slots lie ``interval`` apart, so that no minute and no second, however it is
cut, holds more than the limit. No slot, no POST.

The item, whose format is dear to change (several versions and several stacks
may share it). All numbers are integers; times are epoch milliseconds:

``id`` (S)             the key, ``{account}/event-bulk-create-jobs``
``next`` (N)           the next free slot
``closed_until`` (N)   present while closed; once it has passed, one probe may be sent
``closed_reason`` (S)  why, as ``code: what to do`` (``closing``)
``probe_until`` (N)    lease of the probe under way; names its holder, too
``interval`` (N)       ms between slots when another user of the account took part of the allowance ...
``learned_at`` (N)     ... found out at this time; the excess over our own interval halves every 30 s
``accepted_at`` (N)    when Klaviyo last took the probe that opened the relay: proof for all senders

A sender reserves, sleeps, looks again, posts. Reserving is one conditional
update in the common case; giving up writes nothing. The relay stays closed
after ``closed_until`` until a probe got an answer from Klaviyo.
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
LOOK_AHEAD = 0.3  # seconds before the slot at which a sender looks again and opens its connection ...
LONGEST_LOOK = 1.0  # ... and up to so many when the table has become slow, lest the slot go by meanwhile
HORIZON = 960.0  # no function lives longer than 900 s, so no reserved slot lies further ahead
MINUTE_OF_SILENCE = 60.0
SLOWEST = 4  # times the own interval; whoever leaves us less is met by closing
_ATTEMPTS = 8
_UNTOLD = Closing(CONFIGURATION)
_CONTENDED = Closing(NO_TABLE, "the pacing table is contended")
_PAST_DEADLINE = Closing(NO_SLOT, "the next free slot lies past the deadline")


def interval(requests_per_minute: int, arrival_spread: float) -> float:
    """Seconds between slots for which no window holds more than the limit.

    Requests arrive up to ``arrival_spread`` seconds earlier or later than each
    other's slots say, and start up to ``TOLERANCE`` late: the arrivals of one
    minute belong to slots within 60 s plus both, so that span must hold no more
    than ``requests_per_minute`` intervals; likewise for ten in a second.
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
        """Read ``item``; ``ValueError`` if a number is none."""
        numbers = ("next", "closed_until", "probe_until", "interval", "learned_at", "accepted_at")
        wrong = [name for name in numbers if not isinstance(item.get(name, 0), int)]
        if wrong:
            raise ValueError(f"not a whole number: {', '.join(wrong)}")
        found: dict[str, Any] = {name: item.get(name) for name in numbers}
        return cls(**found, closing=Closing.parse(str(item.get("closed_reason", ""))))


@dataclass(frozen=True, slots=True)
class Slot:
    """Leave to make one POST at ``at`` (epoch seconds).

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
        """The item as it is now (a consistent read); empty if there is none."""

    def advance(self, *, first: int, last: int, step: int, learned_at: int | None) -> tuple[bool, Item]:
        """``next += step`` if ``first <= next <= last``, not closed, and ``learned_at`` is this."""

    def swap(self, expected: Mapping[str, Value], changed: Mapping[str, Value]) -> tuple[bool, Item]:
        """Set ``changed`` if the item has ``expected``; ``None`` means absent in both."""


class Pacer:
    """One sender's view of the item.

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
        """When Klaviyo last took a probe that opened the relay, as far as this sender knows (epoch seconds)."""
        return (self._known.accepted_at or 0) / 1000

    def turn(self, deadline: float, prepare: Callable[[], T | None]) -> tuple[Slot, T | None]:
        """Reserve a slot, sleep until it, look again; on return it is time to post.

        ``prepare`` runs shortly before the slot (it opens the connection); if it
        returns something, that is passed on and the slot is not to be used. A slot
        that went by meanwhile is forfeited: a late POST would break the spacing.

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
        late = Closing(NO_TABLE, "slots went by before the pacing table had answered")
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
        """Drop out if the relay has closed since the slot was reserved."""
        state = self._state(self._table.read())
        if state is None or state.closed_until is None:
            return
        if slot.lease is None or slot.lease != state.probe_until or state.closed_until != slot.closed_until:
            if slot.lease is not None:
                self._release(slot)
            raise Closed(state.closed_until / 1000, state.closing)

    def reserve(self, deadline: float, *, lead: float = LEADS[0], lease: int | None = None) -> Slot:
        """The next free slot, at least ``lead`` seconds from now and not after ``deadline``.

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
        """The item's state, remembered; ``None`` if it was damaged, and is now reset."""
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
        """The interval in ms: our own, or for a while what another user leaves us."""
        state = self._known
        if state.interval is None or state.learned_at is None:
            return self._own
        excess = min(state.interval, SLOWEST * self._own) - self._own
        age = max(0, now - state.learned_at) / 1000
        return self._own + max(0, round(excess * math.exp2(-age / self._pauses.half_life)))

    def _idle(self, state: State, now: int, first: int, last: int) -> Slot | None:
        """The first slot after a rest; ``None`` if ``next`` has just moved and ``advance`` will do."""
        if state.next is None or state.next < first:
            expected = {"next": state.next, "closed_until": None, "learned_at": state.learned_at}
            taken, _ = self._table.swap(expected, {"next": first + self._step(now)})
            return Slot(first / 1000) if taken else None
        if state.next > now + _ms(HORIZON):
            # Slots that others hold are hidden behind the damage; a minute's silence covers those of a minute.
            logger.error("next slot too far ahead, reset", extra={"ahead_seconds": (state.next - now) / 1000})
            self._table.swap({"next": state.next}, {"next": now + _ms(MINUTE_OF_SILENCE)})
        elif state.next > last:
            raise TooLate(state.next / 1000, _PAST_DEADLINE)
        return None

    def _closed(self, state: State, now: int, first: int, last: int, lease: int | None) -> Slot | None:
        """The probe's slot, if it is time and nobody else has the lease; ``None`` if open."""
        if state.closed_until is None:
            return None
        # Times further ahead than anybody sets them are damage, and don't hold.
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
        """Klaviyo took (``accepted``) or judged the request: a probe opens the relay.

        ``remaining`` requests for the next ``reset`` seconds are Klaviyo's words
        on the minute window: when somebody else uses it too, slow down in time.
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
            # Somebody was told to wait longer meanwhile: that holds, but our lease needn't.
            self._release(slot)

    def _release(self, slot: Slot) -> None:
        self._table.swap({"probe_until": slot.lease}, {"probe_until": None})

    def failed(self, slot: Slot, closing: Closing, *, pause: float = 0.0) -> float:
        """Close: no answer, or one that tells everybody to wait.

        At least ``pause`` seconds, briefly after a first fault, longer after a
        probe, counted from its slot, so that one that times out costs no more
        than another; a pause that already runs is never shortened.

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
        """Close after a 429; a second one within minutes means that somebody else uses the allowance, too."""
        pause = self.failed(slot, Closing(THROTTLED, "Klaviyo asked to wait"), pause=retry_after or 0.0)
        if slot.lease is None:
            now = _ms(self._clock())
            age = now - (self._known.learned_at or 0)
            if age > 120_000:
                self._learn(self._own)
            elif age > 5_000:  # else one volley's
                self._learn(round(1.5 * self._step(now)))
        return pause

    def _learn(self, spacing: int) -> None:
        """Store ``spacing`` ms; if another sender learned something at the same time, that will do."""
        changed = {"interval": min(spacing, SLOWEST * self._own), "learned_at": _ms(self._clock())}
        self._table.swap({"learned_at": self._known.learned_at}, changed)
