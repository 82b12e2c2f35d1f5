"""``sim.queue`` compared with boto3's client on MiniStack: the same answers, the same messages, the same records.

Known differences, in which ``sim`` goes by the API reference: MiniStack takes delays over
900 s (``DelaySeconds``), leaves the attributes out of a batch's 1 MiB, and lists an
outdated receipt handle as failed (DeleteMessage: "the request succeeds, but the message
will not be deleted"), and hides what is not in flight (ChangeMessageVisibility:
MessageNotInflight). Ids, handles and words are each one's own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local import trigger
from sim.queue import TRACE, Queue, Sqs
from sim.time import Time
from tests.conformance.support import refused

pytestmark = pytest.mark.xdist_group("conformance")
Client = Callable[[str], Any]
SECONDS = 30.0
KEPT = ("ApproximateReceiveCount", "MessageGroupId")
TEXT = {"DataType": "String", "StringValue": "größer"}


@dataclass
class Side:
    """A client with two queues; what is received often goes from the first to the second."""

    client: Any
    events: str
    dead: str
    clock: Callable[[], float]
    wait: Callable[[float], None]

    def send(self, *entries: dict[str, Any]) -> dict[str, Any]:
        """Send; the answer's codes by id, or the error's code."""
        try:
            answer = self.client.send_message_batch(QueueUrl=self.events, Entries=list(entries))
        except ClientError as error:
            return {"error": code(error.response["Error"]["Code"])}
        failed = {entry["Id"]: (code(entry["Code"]), entry["SenderFault"]) for entry in answer.get("Failed", [])}
        return failed | {entry["Id"]: "taken" for entry in answer.get("Successful", [])}

    def receive(self, number: int = 1, *, visibility: int = 1) -> list[dict[str, Any]]:
        """``number`` messages as soon as so many have been given, in order of their bodies."""
        messages: list[dict[str, Any]] = []
        end = time.monotonic() + SECONDS
        while len(messages) < number and time.monotonic() < end:
            asked = {"MaxNumberOfMessages": 10, "VisibilityTimeout": visibility} | self.asked()
            messages += self.client.receive_message(QueueUrl=self.events, **asked).get("Messages", [])
            if len(messages) < number:
                self.wait(0.05)
        assert len(messages) == number
        return sorted(messages, key=lambda message: str(message["Body"]))

    def delete(self, message: dict[str, Any]) -> list[str]:
        """Delete ``message`` by its handle; the entries that succeeded."""
        entries = [{"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}]
        answer = self.client.delete_message_batch(QueueUrl=self.events, Entries=entries)
        return [entry["Id"] for entry in answer.get("Successful", [])]

    def dead_letter(self) -> dict[str, Any]:
        """What was received too often; SQS moves it when somebody looks for it once more."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            assert self.empty()
            if messages := self.client.receive_message(QueueUrl=self.dead, **self.asked()).get("Messages"):
                (message,) = messages
                return dict(message)
            self.wait(0.05)
        raise AssertionError("nothing in the dead-letter queue")

    def asked(self) -> dict[str, Any]:
        """What to ask of boto3 for what ``sim`` always gives."""
        return {} if isinstance(self.client, Sqs) else {"MessageAttributeNames": ["All"], "AttributeNames": ["All"]}

    def empty(self) -> bool:
        """Whether nothing can be received now."""
        return not self.client.receive_message(QueueUrl=self.events, VisibilityTimeout=0).get("Messages")


def code(text: str) -> str:
    """An error's code without the prefix that clients of the query protocol see."""
    return text.rpartition(".")[2]


@pytest.fixture
def sides(ministack: Client, name: str) -> list[Side]:
    """The simulated pair of queues, and one on MiniStack: visible again after a second, dead after two receives."""
    clock = Time()
    dead = Queue("dead", clock)
    events = Queue("events", clock, visibility=1, max_receives=2, dead=dead)
    simulated = Side(Sqs({"events": events, "dead": dead}), "events", "dead", clock, clock.sleep)
    client = ministack("sqs")
    dead_url = client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    attributes = {"VisibilityTimeout": "1", "RedrivePolicy": redrive, "MaximumMessageSize": "1048576"}
    url = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return [simulated, Side(client, url, dead_url, time.monotonic, time.sleep)]


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"Id": name, "MessageBody": f"body of {name}", "MessageGroupId": "shop"} | more


def comparable(message: dict[str, Any]) -> dict[str, Any]:
    """What both sides say of a received message."""
    return {
        "body": message["Body"],
        "attributes": {name: message["Attributes"][name] for name in KEPT if name in message["Attributes"]},
        "message attributes": {
            name: {part: value[part] for part in TEXT} for name, value in message.get("MessageAttributes", {}).items()
        },
    }


SENDS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "ten": ([entry(str(number)) for number in range(10)], {str(number): "taken" for number in range(10)}),
    "none": ([], {"error": "EmptyBatchRequest"}),
    "eleven": ([entry(str(number)) for number in range(11)], {"error": "TooManyEntriesInBatchRequest"}),
    "an id twice": ([entry("a"), entry("a")], {"error": "BatchEntryIdsNotDistinct"}),
    "an id with a space": ([entry("a b")], {"error": "InvalidBatchEntryId"}),
    "an id of 81 characters": ([entry("a" * 81)], {"error": "InvalidBatchEntryId"}),
    "1 MiB": ([entry("a", MessageBody="x" * 1_048_576)], {"a": "taken"}),
    "over 1 MiB": ([entry("a", MessageBody="x" * 1_048_577)], {"error": "BatchRequestTooLong"}),
    "over 1 MiB together": (
        [entry(name, MessageBody="x" * 600_000) for name in "ab"],
        {"error": "BatchRequestTooLong"},
    ),
    "over 1 MiB in bytes": ([entry("a", MessageBody="ü" * 524_289)], {"error": "BatchRequestTooLong"}),
    "an empty body among others": (
        [entry("a"), entry("b", MessageBody=""), entry("c")],
        {"a": "taken", "b": ("MissingParameter", True), "c": "taken"},
    ),
    "a character that is none": (
        [entry("a", MessageBody="\x00"), entry("b")],
        {"a": ("InvalidMessageContents", True), "b": "taken"},
    ),
}


@pytest.mark.parametrize("case", SENDS)
def test_each_batch_is_taken_or_refused_alike(case: str, sides: list[Side]) -> None:
    entries, answer = SENDS[case]
    assert [side.send(*entries) for side in sides] == [answer, answer]


@pytest.mark.parametrize("delay", [901, -1])
def test_a_delay_that_sqs_does_not_have_is_refused_in_sim(delay: int, sides: list[Side]) -> None:
    assert sides[0].send(entry("a", DelaySeconds=delay), entry("b", DelaySeconds=900)) == {
        "a": ("InvalidParameterValue", True),
        "b": "taken",
    }


def test_attributes_count_into_a_megabyte_in_sim(sides: list[Side]) -> None:
    def sent(length: int) -> dict[str, Any]:
        return sides[0].send(entry("a", MessageBody="x" * length, MessageAttributes={"reason": TEXT}))

    rest = len("reason" + "String") + len("größer".encode())
    assert sent(1_048_576 - rest) == {"a": "taken"}
    assert sent(1_048_576 - rest + 1) == {"error": "BatchRequestTooLong"}


def test_what_was_sent_is_received_with_all_its_attributes(sides: list[Side]) -> None:
    with_some = entry("b", MessageAttributes={"reason": TEXT, "at": TEXT | {"StringValue": "now"}})
    answers = []
    for side in sides:
        side.send(entry("a"), with_some)
        answers.append(list(map(comparable, side.receive(2))))
    assert answers[0] == answers[1]
    assert answers[0][1]["message attributes"]["reason"] == TEXT


def test_a_trace_header_goes_with_the_message(sides: list[Side]) -> None:
    header = "Root=1-00000000-000000000000000000000000;Lineage=1:a5a0ab34:3"
    simulated, real = sides
    simulated.client.trace = lambda: header
    real.client.meta.events.register(
        "before-call.sqs.SendMessageBatch", lambda params, **_: params["headers"].update({"X-Amzn-Trace-Id": header})
    )
    for side in sides:
        side.send(entry("a"))
        assert side.receive()[0]["Attributes"][TRACE] == header


def test_records_are_those_that_lambda_hands_over(sides: list[Side]) -> None:
    simulated, real = sides
    sent = entry("a", MessageAttributes={"reason": TEXT})
    for side in sides:
        side.send(sent)
    (message,) = simulated.client.queues["events"].receive()
    record = message.record()
    (received,) = real.receive()
    expected = trigger.record(received, "arn:aws:sqs:us-east-1:0:events")
    assert record.keys() <= expected.keys()
    assert record["body"] == expected["body"]
    assert {name: record["attributes"][name] for name in KEPT} == {name: expected["attributes"][name] for name in KEPT}
    assert record["attributes"].keys() <= expected["attributes"].keys()
    named, other = record["messageAttributes"]["reason"], expected["messageAttributes"]["reason"]
    assert named.items() <= other.items()


def test_a_delayed_message_comes_when_its_delay_is_over(sides: list[Side]) -> None:
    for side in sides:
        began = side.clock()
        side.send(entry("a", DelaySeconds=1))
        (message,) = side.receive()
        assert message["Body"] == "body of a"
        assert side.clock() - began >= 1


def test_a_received_message_is_hidden_and_counted_and_ends_in_the_dead_letters(sides: list[Side]) -> None:
    outcomes = []
    for side in sides:
        side.send(entry("a", MessageAttributes={"reason": TEXT}))
        began = side.clock()
        receipts = [comparable(message) for _ in range(2) for message in side.receive(visibility=1)]
        assert side.clock() - began >= 1
        moved = side.dead_letter()
        outcomes.append((receipts, moved["Body"], moved["MessageAttributes"]["reason"]["StringValue"]))
    assert outcomes[0] == outcomes[1]
    assert [receipt["attributes"]["ApproximateReceiveCount"] for receipt in outcomes[0][0]] == ["1", "2"]


def test_what_is_deleted_does_not_come_again(sides: list[Side]) -> None:
    for side in sides:
        side.send(entry("a"), entry("b"))
        first, _ = side.receive(2)
        assert side.delete(first) == ["0"]
        (left,) = side.receive()
        assert left["Body"] == "body of b"


def test_an_outdated_handle_deletes_nothing(sides: list[Side]) -> None:
    for side in sides:
        side.send(entry("a"))
        (first,) = side.receive()
        (again,) = side.receive()
        side.delete(first)
        assert side.dead_letter()["MessageId"] == again["MessageId"]
    assert sides[0].delete(first) == ["0"]


def test_one_message_is_sent_and_deleted_alike(sides: list[Side]) -> None:
    for side in sides:
        for body in ("one", "two"):
            side.client.send_message(QueueUrl=side.events, MessageBody=body, MessageGroupId="shop")
        first, _ = side.receive(2)
        side.client.delete_message(QueueUrl=side.events, ReceiptHandle=first["ReceiptHandle"])
        (left,) = side.receive()
        assert (first["Body"], left["Body"]) == ("one", "two")


def test_one_message_that_a_batch_would_list_as_failed_is_an_error(sides: list[Side]) -> None:
    said = [refused(side.client.send_message, QueueUrl=side.events, MessageBody="\x00") for side in sides]
    assert said == ["InvalidMessageContents"] * 2


def test_what_is_shown_again_can_be_received_at_once(sides: list[Side]) -> None:
    for side in sides:
        began = side.clock()
        side.send(entry("a"))
        (message,) = side.receive(visibility=60)
        assert side.empty()
        entries = [{"Id": "0", "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}]
        answer = side.client.change_message_visibility_batch(QueueUrl=side.events, Entries=entries)
        assert [changed["Id"] for changed in answer["Successful"]] == ["0"]
        (again,) = side.receive()
        assert side.clock() - began < 60
        assert again["Attributes"]["ApproximateReceiveCount"] == "2"


def test_only_what_is_in_flight_is_shown_again(sides: list[Side]) -> None:
    def failed(side: Side, message: dict[str, Any]) -> list[str]:
        entries = [{"Id": "0", "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}]
        answer = side.client.change_message_visibility_batch(QueueUrl=side.events, Entries=entries)
        return [entry["Code"] for entry in answer.get("Failed", [])]

    for side in sides:
        side.send(entry("a"), entry("b"))
        first, second = side.receive(2)
        side.delete(first)
        assert failed(side, first) == ["ReceiptHandleIsInvalid"]
        assert not failed(side, second)
        assert failed(side, second) == ([] if side is sides[1] else ["MessageNotInflight"])
        side.receive()
        assert failed(side, second) == ["ReceiptHandleIsInvalid"]


def test_a_queue_counts_what_is_ready_in_flight_and_delayed(sides: list[Side]) -> None:
    counts = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "NotVisible", "Delayed")]
    answers = []
    for side in sides:
        side.send(entry("a"))
        side.receive(visibility=60)
        side.send(entry("b"), entry("c"), *(entry(name, DelaySeconds=60) for name in "def"))
        asked = {"QueueUrl": side.events, "AttributeNames": [*counts, "VisibilityTimeout"]}
        answers.append(side.client.get_queue_attributes(**asked)["Attributes"])
    assert answers[0] == answers[1] == dict(zip(counts, "213", strict=True)) | {"VisibilityTimeout": "1"}
    for side in sides:
        asked = {"QueueUrl": side.events, "AttributeNames": ["QueueArn"]}
        assert side.client.get_queue_attributes(**asked)["Attributes"]["QueueArn"].startswith("arn:aws:sqs:us-east-1:")


def test_an_unknown_attribute_of_a_queue_is_an_error(sides: list[Side], moto: Client, name: str) -> None:
    # MiniStack leaves it out.
    client = moto("sqs")
    url = client.create_queue(QueueName=name)["QueueUrl"]
    for side in (sides[0], Side(client, url, "", time.monotonic, time.sleep)):
        said = refused(side.client.get_queue_attributes, QueueUrl=side.events, AttributeNames=["NoSuch"])
        assert code(said) == "InvalidAttributeName"


def test_an_unknown_queue_is_an_error(sides: list[Side]) -> None:
    simulated, real = (
        refused(side.client.send_message_batch, QueueUrl=f"{side.events}-none", Entries=[entry("a")]) for side in sides
    )
    assert simulated == real
