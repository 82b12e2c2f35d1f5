"""The crash rule: what came back is handled last and in small groups, and parked only with proof.

``deliver`` answers every record, unless it dies. So a record that comes back shows that
a function died, or could not start, or could not send it on. It does not show that this
message is at fault. A storm, a broken release, throttling and a queue that refuses all
bring back thousands of innocent messages (docs/decisions/0037). Hence:

- What did not come back is handled and deleted first.
- What came back is handled with many others, so that a storm costs little. What comes
  back again and again is handled with fewer, at last alone.
- Handling a message alone is written into the pacing table *before* it begins. Only
  these trials count, and only while other work gets done: between the last record that
  came back from a group (``died_at``) and the trial, a function must have settled all
  that it had (``alive_at``).
- It is parked after ``DEATHS`` such trials, if nothing else came back for an hour. If it
  holds several events, since deferred ones travel together, these are sent one by one
  instead, and each has trials of its own. If a message survives after it died alone, the
  deaths were not its own: that is a storm, too.

A trial is an item of the table, ``{account}/event-bulk-create-jobs/trial/{MessageId}``:
``deaths`` (N, with ``APART`` once its events are being sent one by one), ``cause`` (S,
the exception if there was one) and ``expires_at`` (N, epoch seconds, for DynamoDB to
delete it). SQS gives a message the same id at each
receive (SQS guide, "Queue and message identifiers"); one that is sent again starts
without a trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from ..errors import TableUnavailable
from ..pauses import Pauses
from .pacing import Pacer, State, Table
from .records import Record

MANY, SOME, FEW = 512, 64, 8  # messages that came back, handled together
TWICE = 3  # receives up to which they are handled among many
DEATHS = 7
DIED = f"the function ended {DEATHS} times while it handled this message alone, and settled others in between"
STUCK = 7 * 86_400  # seconds; with a thousand receives SQS moves a message after eight days
SHOWN = 100  # receives up to which a message comes again soon; with 900 more, each after 725 s, it is ``STUCK`` first
APART = 1_000  # added to the deaths of a message whose events are being sent one by one; no trials come so far
EXPIRY_SECONDS = 15 * 86_400  # SQS keeps a message for 14 days
SPLIT = "split"  # attribute of an event that was in a message which killed functions
_KILLERS = ("crashed", "waited_too_long")  # reasons of parked messages that may have killed functions
NOTE_SECONDS = 60.0  # a function notes deaths at most so often


class Trial(NamedTuple):
    """A message that was handled alone: how often it came back from that, and the exception, if any."""

    deaths: int
    cause: str = ""


class Deaths:
    """What the functions know of each other's deaths, in the pacing table.

    ``pacer`` has the pacing item as it read it last. If the table does not answer,
    there is no evidence, and nobody is parked. ``courage`` is how many messages
    that came back often the function handles together: it doubles with each group that
    is settled, and is forgotten when the function dies.
    """

    def __init__(self, table: Table, *, pacer: Pacer, clock: Callable[[], float], pauses: Pauses) -> None:
        self._table = table
        self._pacer = pacer
        self._clock = clock
        self._pauses = pauses
        self._died = self._alive = 0.0
        self.courage = 1

    def _look(self, state: State) -> None:
        self._died = max(self._died, (state.died_at or 0) / 1000)
        self._alive = max(self._alive, (state.alive_at or 0) / 1000)

    def read(self, *, came_back: bool) -> None:
        """Read the evidence of all functions; ``came_back``: now a message came back from a group."""
        with suppress(TableUnavailable, ValueError):
            state = State.of(self._table.read())
            self._died = self._alive = 0.0  # what the table no longer has is no evidence
            self._look(state)
        if came_back:
            self.died()

    def died(self) -> None:
        """Note that a message came back from a group, or could not be sent on."""
        if self._alive >= self._died or abs(self._clock() - self._died) > NOTE_SECONDS:
            self._died = self._pacer.note("died_at")

    def settled(self) -> None:
        """Note that this function settled all that it had; one note after each death is enough."""
        self._look(self._pacer.known)
        if self._died and self._alive <= self._died:
            self._alive = self._pacer.note("alive_at")

    def calm(self) -> bool:
        """Return whether work got done since the last death. A time that is still to come is no evidence."""
        self._look(self._pacer.known)
        return self._died < self._alive <= self._clock() + NOTE_SECONDS

    def convicts(self, trial: Trial) -> bool:
        """Return whether a message with this ``trial`` is to be parked."""
        return trial.deaths >= DEATHS and self.calm() and self._clock() - self._died > self._pauses.calm

    def trial(self, record: Record) -> Trial | None:
        """Return the message's trial, ``None`` if it has none or the table does not answer."""
        with suppress(TableUnavailable):
            item = self._item(record).read()
            if isinstance(deaths := item.get("deaths"), int):
                return Trial(deaths, str(item.get("cause", "")))
        return None

    def begin(self, records: Iterable[Record], trial: Trial | None = None, *, deaths: int = 1) -> None:
        """Write down that these are about to be handled: alone, if there is a ``trial``, or with few others.

        ``deaths`` are those that the message has more, if the function dies now.
        """
        expires = round(self._clock()) + EXPIRY_SECONDS
        for record in records:
            changed = {"deaths": trial.deaths + deaths if trial else 0, "expires_at": expires}
            with suppress(TableUnavailable):
                self._item(record).swap({"deaths": trial.deaths if trial else None}, changed)

    def end(self, record: Record, trial: Trial, *, cause: str) -> None:
        """Write down how the function survived ``record`` alone: it raised ``cause``, or the message is acquitted."""
        with suppress(TableUnavailable):
            self._item(record).swap({"deaths": trial.deaths + 1}, {"cause": cause} if cause else {"deaths": 0})
        if trial.deaths and not cause:
            self.died()  # so something else kills functions

    def _item(self, record: Record) -> Table:
        return self._table.at(f"trial/{record.id}")


def apart(records: Iterable[Record], *, now: float) -> tuple[list[Record], list[Record], list[Record]]:
    """Return the new ``records``, those that came back, and those that have come back for too long.

    A part of a message that came back counts as one, and so does what a redrive brought
    back after it was parked for that.
    """
    new: list[Record] = []
    returned: list[Record] = []
    stuck: list[Record] = []
    for record in records:
        if record.receives <= 1 and not _is_suspect(record):
            new.append(record)
        else:
            (stuck if 0 < record.sent_at < now - STUCK else returned).append(record)
    return new, returned, stuck


def from_a_group(record: Record) -> bool:
    """Return whether ``record`` came back from being handled together with many others."""
    return 1 < record.receives <= TWICE and not _is_suspect(record)


def _is_suspect(record: Record) -> bool:
    return SPLIT in record.attributes or record.attributes.get("reason") in _KILLERS


def groups(
    returned: Sequence[Record], deaths: Deaths, *, random: Callable[[], float]
) -> Iterator[tuple[list[Record], Trial | None]]:
    """Yield what came back in the groups in which it is handled; a message that is alone has its trial with it.

    Each group is chosen, and its trials begin, when the one before it has been settled.
    """
    early = [record for record in returned if from_a_group(record)]
    late = [record for record in returned if not from_a_group(record)]
    for start in range(0, len(early), MANY):
        yield early[start : start + MANY], None
    # In any order, since a message that kills the function would otherwise keep the ones behind it for ever.
    late.sort(key=lambda _: random())
    while late:
        calm = deaths.calm()
        size = min(deaths.courage, FEW if calm else SOME)
        some, late = late[:size], late[size:]
        trials = [(record, deaths.trial(record) if calm else None) for record in some]
        untried = [record for record, trial in trials if trial is None]
        if calm:
            deaths.begin(untried)
        if untried:
            yield untried, None
        yield from (([record], trial) for record, trial in trials if trial is not None)
        deaths.courage = min(2 * deaths.courage, SOME)
