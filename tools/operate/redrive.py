"""``make redrive``: list the dead-letter queue with the reasons, and re-queue or delete its messages.

It works on the relay that ``make local`` runs, or with ``--stack`` on a deployed
one, with the credentials of the environment. Without ``--go`` it only lists.
"""

from __future__ import annotations

import argparse
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from tools.errors import CommandError
from tools.terminal import say, table

from . import dead_letters, target
from .dead_letters import DeadLetter, Sorted, put_back, read, release
from .target import Relay

RATE = 50


def summary(letters: Sequence[DeadLetter]) -> list[str]:
    """Return lines that count messages and events by source and reason, with one detail each."""
    if not letters:
        return ["nothing is parked"]
    counts: Counter[tuple[str, str]] = Counter()
    details: dict[tuple[str, str], str] = {}
    since: dict[tuple[str, str], str] = {}
    for letter in letters:
        key = (letter.source, letter.reason)
        counts[key] += letter.events
        details.setdefault(key, letter.detail)
        at = _utc(letter.parked_at)
        since[key] = min(since.get(key, at), at)
    rows = [("SOURCE", "REASON", "EVENTS", "SINCE", "DETAIL")]
    rows += [
        (*key, str(count), since[key], textwrap.shorten(details[key], 90, placeholder=" …"))
        for key, count in counts.most_common()
    ]
    return table(rows)


def _utc(parked_at: str) -> str:
    """Return the time in UTC: receive and deliver write theirs differently. What SQS itself moved has none."""
    try:
        return datetime.fromisoformat(parked_at).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return parked_at or "-"


def drop(sqs: Any, queue: str, source: str | None, reason: str | None, ask: Callable[[str], str]) -> list[DeadLetter]:
    """List what is chosen, ask, and delete it; return what was deleted.

    What came meanwhile stays.

    Raises
    ------
    CommandError
        The question was not answered with the number of events.
    """
    listed = Sorted(source, reason, None)
    release(sqs, queue, [*listed.through(read(sqs, queue)), *listed.kept])
    say(*summary(listed.chosen))
    events = str(sum(letter.events for letter in listed.chosen))
    if not listed.chosen:
        return []
    if ask(f"Permanently delete {_them(events)}? Type {events} to confirm: ").strip() != events:
        raise CommandError("Not confirmed. Nothing was deleted")
    known = {letter.message_id for letter in listed.chosen}
    again = Sorted(source, reason, None)
    gone, others = dead_letters.delete(sqs, queue, again.through(read(sqs, queue)), known)
    release(sqs, queue, [*again.kept, *others])
    return gone


def _them(events: str) -> str:
    return "this event" if events == "1" else f"these {events} events"


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``make redrive``."""
    target.argument(parser, or_local=True)
    parser.add_argument("--source", help="only messages of this source")
    parser.add_argument("--reason", help="only messages that were parked for this reason")
    parser.add_argument("--rate", type=float, default=RATE, help=f"messages to re-queue a second; {RATE} if not given")
    parser.add_argument("--go", action="store_true", help="re-queue them; without it they are only listed")
    parser.add_argument("--drop", action="store_true", help="delete the chosen messages, after a question")


def run(asked: argparse.Namespace) -> int:
    """List what is parked; with ``--go`` re-queue it, with ``--drop`` delete it."""
    if asked.drop and (asked.go or not (asked.source or asked.reason)):
        raise CommandError("DROP=1 deletes messages. Choose them by SOURCE= or REASON=, and leave out GO=1")
    return redrive(target.relay(asked.stack), asked, time.time, input)


def redrive(relay: Relay, asked: argparse.Namespace, clock: Callable[[], float], ask: Callable[[str], str]) -> int:
    """Do what was asked for on ``relay`` and return the exit status.

    ``clock`` gives epoch seconds, ``ask`` what a person answers.
    """
    sqs, queue = relay.client("sqs"), relay.outputs["DeadLetterQueueUrl"]
    if asked.drop:
        say(f"deleted {_messages(len(drop(sqs, queue, asked.source, asked.reason, ask)))}")
        return 0
    began = datetime.fromtimestamp(int(clock()), UTC) if asked.go else None
    parcels = Sorted(asked.source, asked.reason, began)
    back = parcels.through(read(sqs, queue))
    if asked.go:
        put_back(sqs, back, relay.outputs["EventsQueueUrl"], queue, rate=asked.rate, sleep=time.sleep)
        release(sqs, queue, parcels.kept)
    else:
        release(sqs, queue, [*back, *parcels.kept])
    say(*summary(parcels.chosen))
    if asked.go:
        say(f"re-queued {_messages(len(parcels.chosen))}")
    elif parcels.chosen:
        say("Dry run. Re-run with GO=1 to re-queue them.")
    return 0
