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
``accepted_at`` (N)    when Klaviyo last accepted the probe that opened the relay: proof for all functions
``delivered_at`` (N)   when it last accepted any request, some seconds old at most: nobody closes the relay for refusals
``died_at`` (N)        when a message last came back from a function that handled it together with others ...
``alive_at`` (N)       ... and when a function after that settled all that it had: evidence for ``crashes``

Versions before this one also wrote ``interval`` and ``learned_at``, which nothing reads any more.
``share/STACK`` (S)    ``RATE@TIME``: the stack's requests a minute, if fewer than the account's, and when it said so

A stack that may not use the whole rate keeps a second item,
``{account}/event-bulk-create-jobs/share/STACK``, with a ``next`` of its own.

A function reserves a slot, sleeps, reads the item again and posts. Reserving is one
conditional update in the common case; giving up writes nothing. The relay stays
closed after ``closed_until`` until Klaviyo has answered a probe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ..closing import CONFIGURATION, NO_SLOT, NO_TABLE, Closing
from ..errors import Closed, TableUnavailable, TooLate
from ..pauses import Pauses
from ..telemetry import logger

T = TypeVar("T")
Value = int | str | None
Item = Mapping[str, int | str]

ACCOUNT = 150  # requests a minute, Klaviyo's limit for an account and this endpoint (API reference)
MINUTE = 60.0
PER_SECOND = 10
TOLERANCE = 0.05  # seconds that a POST may start after its slot; counted into the interval
LEADS = (0.05, 0.5, 2.0)  # seconds between asking and the slot; longer after a slot went by unused
LOOK_AHEAD = 0.5  # seconds before the slot at which a function reads the item again and opens its connection
SHARE = "share/"
SHARE_SECONDS = 600.0  # for which a stack's share is kept free after it was last used
HORIZON = 960.0  # no function runs longer than 900 s, so no reserved slot is further ahead
_ATTEMPTS = 8
_NUMBERS = ("next", "closed_until", "probe_until", "accepted_at", "delivered_at", "died_at", "alive_at")
_SHARE = re.compile(r"(\d{1,9})@(\d{1,18})", re.ASCII)
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
    return max((MINUTE + spread) / requests_per_minute, (1 + spread) / PER_SECOND)


def rate_beside(rate: int, others: Iterable[int]) -> int:
    """Return the requests a minute that a stack with ``rate`` may make next to ``others``, which use theirs.

    The smaller ones have theirs first. Of what they leave it gets one less, or the
    account's slots would be used up to the last and the queue for them never empty.
    """
    taken = sum(other for other in others if other < rate)
    return max(1, min(rate, ACCOUNT - taken - 1)) if taken else rate


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


@dataclass(frozen=True, slots=True)
class State:
    """The item as read; ``None`` where an attribute is absent."""

    next: int | None = None
    closed_until: int | None = None
    closing: Closing = _UNTOLD
    probe_until: int | None = None
    accepted_at: int | None = None
    delivered_at: int | None = None
    died_at: int | None = None
    alive_at: int | None = None
    shares: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # by stack: its rate, and when it said so

    @classmethod
    def of(cls, item: Item) -> State:
        """Read ``item``; raise ``ValueError`` if a number is not a whole number."""
        wrong = [name for name in _NUMBERS if not isinstance(item.get(name, 0), int)]
        if wrong:
            raise ValueError(f"not a whole number: {', '.join(wrong)}")
        numbers: dict[str, Any] = {name: item.get(name) for name in _NUMBERS}
        shares = {
            name.removeprefix(SHARE): (int(said[1]), int(said[2]))
            for name, value in item.items()
            if name.startswith(SHARE) and (said := _SHARE.fullmatch(str(value)))
        }
        return cls(**numbers, closing=Closing.parse(str(item.get("closed_reason", ""))), shares=shares)


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

    def at(self, name: str) -> Table:
        """Return the same table for another item of this account: its key is ours, a slash and ``name``."""

    def read(self) -> Item:
        """Return the item as it is now (a consistent read); empty if there is none."""

    def advance(self, *, first: int, last: int, step: int) -> tuple[bool, Item]:
        """Make ``next += step`` if ``first <= next <= last`` and not closed."""

    def swap(self, expected: Mapping[str, Value], changed: Mapping[str, Value]) -> tuple[bool, Item]:
        """Set ``changed`` if the item has ``expected``; in both, ``None`` means absent."""


class Pacer:
    """One function's view of the item.

    ``clock`` gives epoch seconds; ``spacing`` is ``interval(...)`` in seconds. ``share``
    is its stack's part of the rate, ``None`` if it has all of it.
    """

    def __init__(
        self,
        table: Table,
        *,
        spacing: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        pauses: Pauses,
        share: Share | None = None,
    ) -> None:
        self._table = table
        self._step = math.ceil(round(spacing * 1000, 6))
        self._share = share
        self._clock = clock
        self._sleep = sleep
        self._pauses = pauses
        self.known = State()

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
        if self._share is not None:
            if self.known == State():  # a new process has not heard of other stacks yet
                self._state(self._table.read())
            self._share.wait(self.known, deadline)
        lease: int | None = None
        for lead in LEADS:
            slot = self.reserve(deadline, lead=lead, lease=lease)
            if slot.at - self._clock() > LOOK_AHEAD + TOLERANCE:
                self._sleep_until(slot.at - LOOK_AHEAD)
                self._look(slot)
            trouble = prepare()
            if trouble is not None:
                return slot, trouble
            self._sleep_until(slot.at)
            if self._clock() <= slot.at + TOLERANCE:
                return slot, None
            lease = slot.lease
        late = Closing(NO_TABLE, "slots went by before the pacing table answered")
        raise TableUnavailable(self._clock() + self._pauses.long, late)

    def _sleep_until(self, moment: float) -> None:
        self._sleep(max(0.0, moment - self._clock()))

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
            taken, item = self._table.advance(first=first, last=last, step=self._step)
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
            self.known = State.of(item)
        except ValueError as error:
            logger.error("pacing item damaged, reset", extra={"detail": str(error)})
            absent = dict.fromkeys((*_NUMBERS, "closed_reason"))
            self._table.swap({}, {**absent, "next": _ms(self._clock() + MINUTE)})
            return None
        return self.known

    def _idle(self, state: State, now: int, first: int, last: int) -> Slot | None:
        """Return the first slot after a rest, or ``None`` if ``next`` has just moved and ``advance`` will work."""
        if state.next is None or state.next < first:
            expected = {"next": state.next, "closed_until": None}
            taken, _ = self._table.swap(expected, {"next": first + self._step})
            return Slot(first / 1000) if taken else None
        if state.next > now + _ms(HORIZON):
            # The damage hides which slots others hold. A minute of silence covers those of a minute.
            logger.error("next slot too far ahead, reset", extra={"ahead_seconds": (state.next - now) / 1000})
            self._table.swap({"next": state.next}, {"next": now + _ms(MINUTE)})
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
        taken, _ = self._table.swap(seen, {"next": at + self._step, "probe_until": until})
        return Slot(at / 1000, until, state.closed_until, state.closing) if taken else None

    def note(self, name: str) -> float:
        """Write the time into the item under this name, for all functions, if the table answers; return it."""
        now = self._clock()
        with suppress(TableUnavailable):
            self._table.swap({}, {name: _ms(now)})
        return now

    def opened(self, slot: Slot, *, accepted: bool) -> None:
        """Open the relay: Klaviyo accepted the probe (``accepted``), or judged it at least."""
        cleared: dict[str, Value] = dict.fromkeys(("closed_until", "closed_reason", "probe_until"))
        cleared |= {"accepted_at": _ms(self._clock())} if accepted else {}
        if not self._table.swap({"probe_until": slot.lease, "closed_until": slot.closed_until}, cleared)[0]:
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


class Share:
    """A ``stack``'s part of an account's requests: ``rate`` a minute at most, less what smaller stacks need.

    A function first waits for its stack's turn, and only then takes a slot of the
    account. So no stack waits in the queue of another.
    """

    def __init__(
        self,
        table: Table,
        *,
        stack: str,
        rate: int,
        arrival_spread: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        pauses: Pauses,
    ) -> None:
        self._account = table
        self._own = table.at(f"{SHARE}{stack}")
        self._stack = stack
        self._rate = rate
        self._spread = arrival_spread
        self._clock = clock
        self._sleep = sleep
        self._pauses = pauses

    def wait(self, state: State, deadline: float) -> None:
        """Sleep until this stack's turn; raise as ``Pacer.reserve``. The whole rate needs none."""
        if self._rate < ACCOUNT:
            self._say(state)
        now, old = _ms(self._clock()), _ms(SHARE_SECONDS)
        others = (rate for stack, (rate, at) in state.shares.items() if stack != self._stack and abs(now - at) < old)
        rate = rate_beside(self._rate, others)
        if rate < ACCOUNT:
            spacing = interval(rate, self._spread)
            own = Pacer(self._own, spacing=spacing, clock=self._clock, sleep=self._sleep, pauses=self._pauses)
            self._sleep(max(0.0, own.reserve(deadline - LEADS[-1]).at - LEADS[0] - self._clock()))

    def _say(self, state: State) -> None:
        """Tell the account's other stacks of this one, every few minutes."""
        now = _ms(self._clock())
        rate, at = state.shares.get(self._stack, (0, 0))
        if rate != self._rate or abs(now - at) > _ms(SHARE_SECONDS / 2):
            self._account.swap({}, {f"{SHARE}{self._stack}": f"{self._rate}@{now}"})


def shared(
    table: Table,
    *,
    stack: str,
    requests_per_minute: int,
    arrival_spread: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    pauses: Pauses,
) -> Pacer:
    """Return the pacer of a function of ``stack``, which may make ``requests_per_minute`` of the account's requests."""
    share = Share(
        table,
        stack=stack,
        rate=requests_per_minute,
        arrival_spread=arrival_spread,
        clock=clock,
        sleep=sleep,
        pauses=pauses,
    )
    spacing = interval(max(ACCOUNT, requests_per_minute), arrival_spread)
    return Pacer(table, spacing=spacing, clock=clock, sleep=sleep, pauses=pauses, share=share)
