"""SQS in memory: one ``Queue`` for each queue, and ``Sqs``, a client of several.

Facts: Amazon SQS API reference, SendMessageBatch (10 entries, 1 MiB in all with
attributes, whole delays up to 900 s) and ReceiveMessage; developer guide,
"Amazon SQS message quotas" (120,000 in flight) and "dead-letter queues".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from botocore.exceptions import ClientError

from .hooks import Call, nothing
from .time import Time

MOST_ENTRIES = 10
MOST_BYTES = 1_048_576
MOST_DELAY = 900
MOST_IN_FLIGHT = 120_000
TRACE = "AWSTraceHeader"
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)
_REFUSED_CHARACTER = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Entry = Mapping[str, Any]
Refuse = Callable[[Entry], bool]


def never(entry: Entry) -> bool:  # noqa: ARG001 (as it is called)
    """Return the chance that refuses no entry."""
    return False


@dataclass(slots=True)
class Message:
    """A message in a queue.

    ``attributes`` are as they were sent; ``trace`` is the request's trace header; ``delay`` is in
    seconds, ``sent_at`` and ``visible_at`` are epoch seconds.
    """

    id: str
    body: str
    group: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    trace: str = ""
    delay: float = 0
    sent_at: float = 0.0
    visible_at: float = 0.0
    receives: int = 0

    @property
    def texts(self) -> dict[str, str]:
        """The message attributes' texts, by name."""
        return {name: value["StringValue"] for name, value in self.attributes.items()}

    @property
    def handle(self) -> str:
        """The receipt handle; each receive has its own."""
        return f"{self.id}#{self.receives}"

    def system_attributes(self) -> dict[str, str]:
        """Return what SQS itself says of a received message."""
        known = {"MessageGroupId": self.group, TRACE: self.trace}
        attributes = {"ApproximateReceiveCount": str(self.receives), "SentTimestamp": str(round(self.sent_at * 1000))}
        return attributes | {name: value for name, value in known.items() if value}

    def record(self) -> dict[str, Any]:
        """Return the message in the shape in which Lambda hands it over, as far as the functions read it."""
        return {
            "messageId": self.id,
            "receiptHandle": self.handle,
            "body": self.body,
            "attributes": self.system_attributes(),
            "messageAttributes": {
                name: {"stringValue": value["StringValue"], "dataType": value["DataType"]}
                for name, value in self.attributes.items()
            },
        }


class Queue:
    """One standard queue; ids begin with its ``name``.

    Parameters
    ----------
    time : Time
        Delays and visibility pass in it.
    visibility : float
        Seconds for which a received message is hidden.
    max_receives, dead : int, Queue, optional
        A message that was received so often goes to ``dead``. SQS moves it at the next receive; here it goes as
        soon as it is visible again, which looks the same to a receiver.
    most_in_flight : int
        So many may be received and not deleted; more are not given out.
    shown : callable, optional
        Told of each message that can be received from now on.

    Attributes
    ----------
    messages : dict
        All that wait, are delayed or in flight, by id and in the order in which they came.
    moved : list
        What went to ``dead`` for its receives.
    in_flight : set
        Ids of what was received and neither deleted nor shown again.
    """

    def __init__(
        self,
        name: str,
        time: Time,
        *,
        visibility: float = 30.0,
        max_receives: int | None = None,
        dead: Queue | None = None,
        most_in_flight: int = MOST_IN_FLIGHT,
        shown: Callable[[Message], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.messages: dict[str, Message] = {}
        self.moved: list[Message] = []
        self.in_flight: set[str] = set()
        self.most_in_flight = most_in_flight
        self.shown = shown
        self._visibility = visibility
        self._time = time
        self._max_receives = max_receives
        self._dead = dead
        self._visible: dict[str, Message] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self.messages)

    def put(
        self,
        body: str,
        group: str = "",
        delay: float = 0,
        *,
        attributes: Mapping[str, Any] | None = None,
        trace: str = "",
        receives: int = 0,
    ) -> Message:
        """Add a message, to be seen after ``delay`` seconds; as if it had been received so often already."""
        self._number += 1
        name = f"{self.name}-{self._number}"
        sent_at = self._time.now
        message = Message(name, body, group, attributes or {}, trace, delay, sent_at, receives=receives)
        self._keep(message, delay)
        return message

    def receive(self, limit: int = MOST_ENTRIES, *, visibility: float | None = None) -> list[Message]:
        """Receive up to ``limit`` messages; they are hidden for ``visibility`` seconds, or for the queue's."""
        room = max(0, self.most_in_flight - len(self.in_flight))
        received = list(islice(self._visible.values(), min(limit, room)))
        for message in received:
            self.take(message, visibility=visibility)
        return received

    def take(self, message: Message, *, visibility: float | None = None) -> None:
        """Receive this message, which is visible."""
        message.receives += 1
        self.in_flight.add(message.id)
        self.hide(message.id, self._visibility if visibility is None else visibility)

    def hide(self, name: str, seconds: float) -> None:
        """Hide a message for ``seconds`` from now, if it is there (ChangeMessageVisibility)."""
        if message := self.messages.get(name):
            self._visible.pop(name, None)
            self._wait(message, seconds)

    def delete(self, name: str) -> None:
        """Delete a message, if it is there."""
        self.messages.pop(name, None)
        self._visible.pop(name, None)
        self.in_flight.discard(name)

    def attributes(self) -> dict[str, str]:
        """The queue's attributes that the relay and its tools read."""
        waiting = len(self.messages) - len(self._visible) - len(self.in_flight)
        return {
            "QueueArn": f"arn:aws:sqs:us-east-1:000000000000:{self.name}",
            "VisibilityTimeout": f"{self._visibility:.0f}",
            "ApproximateNumberOfMessages": str(len(self._visible)),
            "ApproximateNumberOfMessagesNotVisible": str(len(self.in_flight)),
            "ApproximateNumberOfMessagesDelayed": str(waiting),
        }

    def next_visible(self) -> float | None:
        """Return when the next message can be received (epoch seconds); ``None`` if the queue is empty."""
        return min((message.visible_at for message in self.messages.values()), default=None)

    def _keep(self, message: Message, delay: float) -> None:
        self.messages[message.id] = message
        self._wait(message, delay)

    def _wait(self, message: Message, seconds: float) -> None:
        message.visible_at = self._time.now + seconds
        if seconds > 0:
            self._time.call(message.visible_at, lambda: self._show(message))
        else:
            self._show(message)

    def _show(self, message: Message) -> None:
        """Let ``message`` be received, unless it is gone, was hidden for longer meanwhile, or is to be seen already."""
        if message.id not in self.messages or message.id in self._visible or message.visible_at > self._time.now:
            return
        self.in_flight.discard(message.id)
        if self._dead is not None and self._max_receives is not None and message.receives >= self._max_receives:
            self.delete(message.id)
            self.moved.append(message)
            self._dead._keep(message, 0)
            return
        self._visible[message.id] = message
        self.shown(message)


class Sqs:
    """The client's calls that the functions and the tests make, for ``queues`` by URL.

    Parameters
    ----------
    refuse : callable
        Whether an entry is listed as ``Failed`` though nothing is wrong with it, as SQS does at times.
    before, after : callable
        Called with the operation and what is asked, before it takes effect and before it is answered: to
        raise, to count, to listen.
    trace : callable
        The header ``X-Amzn-Trace-Id`` of a request that sends.

    Attributes
    ----------
    mistakes : list of str
        Codes of what was refused because it breaks a rule of SQS's: no part of a run without mistakes.
    """

    def __init__(
        self,
        queues: Mapping[str, Queue],
        *,
        refuse: Refuse = never,
        before: Call = nothing,
        after: Call = nothing,
        trace: Callable[[], str] = str,
    ) -> None:
        self.queues = dict(queues)
        self.refuse = refuse
        self.before = before
        self.after = after
        self.trace = trace
        self.mistakes: list[str] = []

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[Entry]) -> dict[str, Any]:  # noqa: N803
        """Do SendMessageBatch; raise ``ClientError`` for a batch that SQS refuses as a whole."""

        def send(entry: Entry) -> dict[str, Any]:
            delay = entry.get("DelaySeconds", 0)
            attributes = entry.get("MessageAttributes")
            message = queue.put(
                entry["MessageBody"], entry.get("MessageGroupId", ""), delay, attributes=attributes, trace=self.trace()
            )
            return {"Id": entry["Id"], "MessageId": message.id}

        queue = self._queue("SendMessageBatch", QueueUrl)
        too_long = sum(map(size, Entries)) > MOST_BYTES
        return self._batch("SendMessageBatch", QueueUrl, Entries, send, mistake, too_long=too_long)

    def delete_message_batch(self, *, QueueUrl: str, Entries: Sequence[Entry]) -> dict[str, Any]:  # noqa: N803
        """Do DeleteMessageBatch; a handle that is not the latest deletes nothing, and is no failure (API reference)."""

        def delete(entry: Entry) -> dict[str, Any]:
            message = queue.messages.get(_name(entry["ReceiptHandle"]))
            if message and message.handle == entry["ReceiptHandle"]:
                queue.delete(message.id)
            return {"Id": entry["Id"]}

        queue = self._queue("DeleteMessageBatch", QueueUrl)
        return self._batch("DeleteMessageBatch", QueueUrl, Entries, delete)

    def change_message_visibility_batch(self, *, QueueUrl: str, Entries: Sequence[Entry]) -> dict[str, Any]:  # noqa: N803
        """Do ChangeMessageVisibilityBatch; what is not in flight, or has another handle by now, is listed as failed."""

        def out_of_reach(entry: Entry) -> str:
            message = queue.messages.get(_name(entry["ReceiptHandle"]))
            if not message or message.handle != entry["ReceiptHandle"]:
                return "ReceiptHandleIsInvalid"
            return "" if message.id in queue.in_flight else "MessageNotInflight"

        def hide(entry: Entry) -> dict[str, Any]:
            queue.hide(_name(entry["ReceiptHandle"]), entry["VisibilityTimeout"])
            return {"Id": entry["Id"]}

        queue = self._queue("ChangeMessageVisibilityBatch", QueueUrl)
        return self._batch("ChangeMessageVisibilityBatch", QueueUrl, Entries, hide, out_of_reach)

    def send_message(self, *, QueueUrl: str, **entry: Any) -> None:  # noqa: N803
        """Do SendMessage; raise ``ClientError`` where a batch would list the entry as failed."""
        self._one("SendMessage", self.send_message_batch(QueueUrl=QueueUrl, Entries=[{"Id": "0", **entry}]))

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> None:  # noqa: N803
        """Do DeleteMessage; raise as ``send_message`` does."""
        entry = {"Id": "0", "ReceiptHandle": ReceiptHandle}
        self._one("DeleteMessage", self.delete_message_batch(QueueUrl=QueueUrl, Entries=[entry]))

    def receive_message(
        self,
        *,
        QueueUrl: str,  # noqa: N803
        MaxNumberOfMessages: int = 1,  # noqa: N803
        VisibilityTimeout: int | None = None,  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        """Do ReceiveMessage, at once and with all attributes, whatever the request says."""
        queue = self._queue("ReceiveMessage", QueueUrl)
        if not 1 <= MaxNumberOfMessages <= MOST_ENTRIES:
            raise self._error("ReceiveMessage", "InvalidParameterValue")
        shapes = [
            {"MessageId": message.id, "ReceiptHandle": message.handle, "Body": message.body}
            | {"Attributes": message.system_attributes()}
            | ({"MessageAttributes": dict(message.attributes)} if message.attributes else {})
            for message in queue.receive(MaxNumberOfMessages, visibility=VisibilityTimeout)
        ]
        return {"Messages": shapes} if shapes else {}

    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: Sequence[str]) -> dict[str, Any]:  # noqa: N803
        """GetQueueAttributes, of the attributes that ``Queue.attributes`` has."""
        known = self._queue("GetQueueAttributes", QueueUrl).attributes()
        if not known.keys() | {"All"} >= set(AttributeNames):
            raise self._error("GetQueueAttributes", "InvalidAttributeName")
        return {"Attributes": {name: known[name] for name in known if {name, "All"} & set(AttributeNames)}}

    def _one(self, operation: str, answer: Mapping[str, Any]) -> None:
        for failed in answer.get("Failed", []):
            raise self._error(operation, failed["Code"])

    def _queue(self, operation: str, url: str) -> Queue:
        if url not in self.queues:
            raise self._error(operation, "AWS.SimpleQueueService.NonExistentQueue")
        return self.queues[url]

    def _batch(
        self,
        operation: str,
        url: str,
        entries: Sequence[Entry],
        work: Callable[[Entry], dict[str, Any]],
        wrong: Callable[[Entry], str] = lambda _: "",
        *,
        too_long: bool = False,
    ) -> dict[str, Any]:
        asked = {"QueueUrl": url, "Entries": entries}
        self.before(operation, asked)
        if code := _whole([entry["Id"] for entry in entries], too_long=too_long):
            raise self._error(operation, code)
        answer: dict[str, Any] = {}
        for entry in entries:
            if code := wrong(entry):
                self.mistakes.append(code)
                answer.setdefault("Failed", []).append({"Id": entry["Id"], "Code": code, "SenderFault": True})
            elif self.refuse(entry):
                failed = {"Id": entry["Id"], "Code": "InternalError", "SenderFault": False}
                answer.setdefault("Failed", []).append(failed)
            else:
                answer.setdefault("Successful", []).append(work(entry))
        self.after(operation, asked)
        return answer

    def _error(self, operation: str, code: str) -> ClientError:
        self.mistakes.append(code)
        return ClientError({"Error": {"Code": code}}, operation)


def _name(handle: str) -> str:
    """Return the id of the message that a receipt handle is of."""
    return handle.partition("#")[0]


def size(entry: Entry) -> int:
    """Return a message's bytes as SQS counts them: its body, and its attributes' names, types and values."""
    attributes = entry.get("MessageAttributes", {})
    texts = (part for name, value in attributes.items() for part in (name, value["DataType"], value["StringValue"]))
    return len(entry["MessageBody"].encode()) + sum(len(text.encode()) for text in texts)


def mistake(entry: Entry) -> str:
    """Return the code with which SQS lists an entry as ``Failed``; empty if SQS accepts it."""
    delay = entry.get("DelaySeconds", 0)
    if not entry["MessageBody"]:
        return "MissingParameter"
    if _REFUSED_CHARACTER.search(entry["MessageBody"]):
        return "InvalidMessageContents"
    if not (isinstance(delay, int) and 0 <= delay <= MOST_DELAY):
        return "InvalidParameterValue"
    return ""


def _whole(ids: Sequence[str], *, too_long: bool) -> str:
    """Return the code with which SQS refuses a whole batch; empty if it does not."""
    checks = {
        "EmptyBatchRequest": not ids,
        "TooManyEntriesInBatchRequest": len(ids) > MOST_ENTRIES,
        "BatchEntryIdsNotDistinct": len(set(ids)) < len(ids),
        "InvalidBatchEntryId": not all(map(_ID.fullmatch, ids)),
        "BatchRequestTooLong": too_long,
    }
    code = next((code for code, wrong in checks.items() if wrong), "")
    return f"AWS.SimpleQueueService.{code}" if code else ""
