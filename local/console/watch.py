"""What the running stack says of itself, read again and again while somebody looks at the console.

Nobody looks: nothing is read. So the console costs the relay nothing while its
pages are closed.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from local.stack import Stack

from .trail import Line, SentJob, Trail

EVERY = 0.4  # seconds between two looks
INTEREST = 6.0  # seconds after the last request for a page during which to keep looking
OVERLAP_MS = 1_000  # two invocations may end in the same millisecond
PAGE, PAGES = 10_000, 100  # what MiniStack gives at most, and how often at most in one look
_COUNTS = {"ready": "", "in_flight": "NotVisible", "delayed": "Delayed"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at one look: ``pacing`` is the account's item, ``stats`` the stand-in's."""

    at: float = 0.0
    queue: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))
    parked: int = 0
    pacing: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""

    @property
    def waiting(self) -> int:
        """Messages in the events queue, whatever their state."""
        return sum(self.queue.values())

    @property
    def closed(self) -> str:
        """The reason that nothing is posted just now; empty while the relay is open."""
        return str(self.pacing.get("closed_reason", "")) if self.pacing.get("closed_until", 0) > self.at * 1000 else ""


class Watch:
    """A watcher of ``stack`` in a thread of its own."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.trail = Trail()
        self.snapshot = Snapshot()
        self.requests: deque[SentJob] = deque(maxlen=50_000)
        self.has_standin = stack.has_standin
        self._logs = stack.aws.client("logs")
        self._sqs = stack.aws.client("sqs")
        self._table = stack.aws.client("dynamodb")
        self._seen: set[str] = set()
        self._recent: deque[tuple[int, str]] = deque()
        self._since = 0
        self._requests_read = 0
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._asked = 0.0
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="console watch", daemon=True)
        self._thread.start()

    def wanted(self) -> None:
        """Keep the snapshot fresh for some seconds, because a page asks for it.

        The first page gets a fresh one.
        """
        stale = time.monotonic() - self._asked > INTEREST
        self._asked = time.monotonic()
        self._wanted.set()
        if stale:
            self.look()

    def stored(self, unique_id: str) -> list[dict[str, Any]]:
        """Return what the stand-in stored under that ``unique_id``; nothing where Klaviyo itself gets the events."""
        return self.stack.stored(unique_id) if self.has_standin else []

    def close(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._wanted.set()
        self._thread.join(10)

    def _run(self) -> None:
        while self._wanted.wait() and not self._stopped.is_set():
            self.look()
            if time.monotonic() - self._asked > INTEREST:
                self._wanted.clear()
            self._stopped.wait(EVERY)

    def look(self) -> None:
        """Read everything once. What does not answer is named in the snapshot; the rest keeps its last state."""
        with self._looking:
            try:
                self.trail.take(self._lines())
                self.snapshot = self._snapshot()
                self._read_requests()
            except (ClientError, BotoCoreError, urllib3.exceptions.HTTPError) as error:
                self.snapshot = Snapshot(trouble=f"the stack does not answer ({type(error).__name__})")

    def _snapshot(self) -> Snapshot:
        outputs = self.stack.outputs
        depth = self._depth(outputs["EventsQueueUrl"])
        parked = sum(self._depth(outputs["DeadLetterQueueUrl"]).values())
        items = self._table.scan(TableName=outputs["PacingTableName"], Limit=1)["Items"]
        pacing = {name: next(iter(value.values())) for name, value in items[0].items()} if items else {}
        numbers = {name: int(value) if value.lstrip("-").isdigit() else value for name, value in pacing.items()}
        stats = self.stack.standin("stats") if self.has_standin else {}
        return Snapshot(time.time(), depth, parked, numbers, stats)

    def _depth(self, queue: str) -> dict[str, int]:
        wanted = {name: f"ApproximateNumberOfMessages{end}" for name, end in _COUNTS.items()}
        attributes = self._sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=list(wanted.values()))["Attributes"]
        return {name: int(attributes[attribute]) for name, attribute in wanted.items()}

    def _lines(self) -> Iterator[Line]:
        """Yield the lines that came since the last look.

        An invocation's lines come at its end, in a stream of their own.
        """
        group = self.stack.outputs["DeliverLogGroup"]
        for _ in range(PAGES):
            events = self._logs.filter_log_events(logGroupName=group, startTime=self._since, limit=PAGE)["events"]
            whole = events
            if len(events) == PAGE:  # the last stream may be cut: it comes again
                whole = [event for event in events if event["logStreamName"] != events[-1]["logStreamName"]]
            for event in whole:
                if event["logStreamName"] not in self._seen and event["message"].startswith("{"):
                    yield json.loads(event["message"])
            self._remember(whole)
            if len(events) < PAGE:
                return

    def _remember(self, lines: list[dict[str, Any]]) -> None:
        for stream, at in {line["logStreamName"]: line["timestamp"] for line in lines}.items():
            if stream not in self._seen:
                self._seen.add(stream)
                self._recent.append((at, stream))
            self._since = max(self._since, at - OVERLAP_MS)
        while self._recent and self._recent[0][0] < self._since:
            self._seen.discard(self._recent.popleft()[1])

    def _read_requests(self) -> None:
        if not self.has_standin:
            self.requests = deque(self.trail.jobs)
            return
        offset: int | None = self._requests_read
        while offset is not None:
            page = self.stack.standin(f"requests?offset={offset}")
            if page["total"] < self._requests_read:  # it was emptied
                self.requests.clear()
                self._requests_read = 0
            self.requests.extend(
                SentJob(request["at"], request["status"] or None, request["events"], request["bytes"], request)
                for request in page["requests"]
            )
            self._requests_read = page["total"]
            offset = page["next"]
