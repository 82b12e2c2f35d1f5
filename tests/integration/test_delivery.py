"""From the door to the stand-in and back: what Klaviyo may answer, and what becomes of events."""

from __future__ import annotations

import json
from typing import Any

from local.stack import Stack
from tests.integration.support import arrived, custom, event, until


def all_arrived(stack: Stack, names: set[str]) -> None:
    until(lambda: names <= arrived(stack), f"{len(names)} events delivered")


def emptied(stack: Stack) -> None:
    until(lambda: stack.waiting() == 0, "an empty queue")


def requests(stack: Stack) -> list[dict[str, Any]]:
    return list(stack.standin("requests")["requests"])


def test_an_event_goes_through_with_everything_that_was_sent(stack: Stack) -> None:
    profile = {
        "email": "ada@mail.example",
        "phone_number": "+447911123456",
        "external_id": "customer-1",
        "first_name": "Ada",
        "location": {"city": "London", "country": "gb", "latitude": "51.5", "longitude": -0.12},
        "properties": {"plan": "pro"},
        "meta": {"patch_properties": {"append": {"tags": "new"}, "unset": ["old"]}},
    }
    sent = event(
        "whole",
        profile=profile,
        metric={"name": "Placed Order", "service": "shop"},
        properties={"OrderId": "1", "Items": [{"SKU": "a", "Quantity": 2}]},
        time="2026-11-01T10:00:00+02:00",
        value=19.99,
        value_currency="eur",
        backfill=True,
    )
    assert custom(stack, sent)[0] == 200
    all_arrived(stack, {"whole"})
    entry = stack.arrived()[0]["entry"]["attributes"]
    got = entry["events"]["data"][0]["attributes"]
    assert (got["time"], got["value"], got["value_currency"]) == ("2026-11-01T08:00:00Z", 19.99, "EUR")
    assert got["metric"]["data"]["attributes"] == {"name": "Placed Order", "service": "shop"}
    assert entry["backfill"] is True
    assert entry["profile"]["data"]["attributes"]["external_id"] == "customer-1"


def test_a_live_event_keeps_its_whole_profile(stack: Stack) -> None:
    profile = {"email": "ada@mail.example", "first_name": "Ada", "location": {"country": "gb"}}
    meta = {"patch_properties": {"append": {"tags": "new"}, "unset": ["old"]}}
    assert custom(stack, event("live", profile=profile | {"meta": meta}))[0] == 200
    all_arrived(stack, {"live"})
    data = stack.arrived()[0]["entry"]["attributes"]["profile"]["data"]
    assert data["attributes"] == {"email": "ada@mail.example", "first_name": "Ada", "location": {"country": "GB"}}
    assert data["meta"] == meta


def test_a_large_webhook_becomes_full_jobs_in_order_of_time(stack: Stack) -> None:
    names = {f"many-{number:04}" for number in range(2_500)}
    status, answer = custom(stack, *[event(name) for name in sorted(names)])
    assert (status, answer["accepted"]) == (200, 2_500)
    all_arrived(stack, names)
    sizes = [request["events"] for request in requests(stack)]
    assert max(sizes) <= 1_000
    assert len(sizes) <= 6
    assert stack.standin("stats")["repeats"] == 0


def test_repeats_of_a_webhook_count_once(stack: Stack) -> None:
    for _ in range(5):
        assert custom(stack, event("once"))[0] == 200
    emptied(stack)
    assert [event["unique_id"] for event in stack.arrived()] == ["once"]


def test_after_a_429_nobody_posts_until_retry_after(stack: Stack) -> None:
    stack.standin("faults", [{"times": 1, "status": 429, "headers": {"Retry-After": "4"}}])
    custom(stack, event("waited"))
    all_arrived(stack, {"waited"})
    first, second = [request["at"] for request in requests(stack)][:2]
    assert second - first >= 4
    assert stack.parked() == []


def test_an_outage_delays_and_loses_nothing(stack: Stack) -> None:
    stack.standin("faults", [{"times": 1, "status": 503, "body": "<html>"}])
    custom(stack, event("delayed"))
    all_arrived(stack, {"delayed"})
    emptied(stack)
    assert stack.parked() == []


def test_an_answer_that_never_came_repeats_and_collapses(stack: Stack) -> None:
    stack.standin("faults", [{"times": 1, "drop": True, "store": True}])
    custom(stack, event("twice"))
    until(lambda: stack.standin("stats")["repeats"] == 1, "the second delivery")
    emptied(stack)
    assert len(stack.arrived()) == 1
    assert stack.parked() == []


def test_a_refused_key_keeps_everything_and_raises_the_alarm_at_once(stack: Stack) -> None:
    """How it goes on with the next key, on a clock that needs no waiting: ``tests/unit/delivery/test_answers.py``."""
    stack.standin("key", {"api_key": "pk_another"})
    try:
        custom(stack, event("kept"))
        until(lambda: any(request["status"] == 401 for request in requests(stack)), "the refusal")
        until(lambda: any("Closed" in line and line["reason"] == "configuration" for line in stack.logs()), "the alarm")
    finally:
        stack.standin("key", stack.secrets["klaviyo"])
    assert arrived(stack) == set()
    assert stack.parked() == []
    until(lambda: stack.waiting() == 1, "its copy alone in the queue")


def test_a_row_that_klaviyo_points_at_is_parked_and_its_neighbours_go(stack: Stack) -> None:
    stack.standin("faults", [{"point": True, "matching": "bad-7@", "detail": "Invalid email bad-7@mail.example"}])
    good = {f"good-{number}" for number in range(40)}
    custom(stack, *[event(name) for name in sorted(good)], event("bad-7"))
    all_arrived(stack, good)
    (parked,) = until(stack.parked, "the parked event")
    assert parked["reason"] == "refused_by_klaviyo"
    assert "Invalid email" in parked["detail"]
    assert "bad-7@mail" not in parked["detail"]
    assert json.loads(parked["body"].split("\n")[0])["events"][0][0] == "bad-7"


def test_a_refusal_without_a_pointer_is_narrowed_down_to_its_row(stack: Stack) -> None:
    refusal = {"errors": [{"id": "1", "code": "invalid", "title": "Invalid input.", "detail": "No."}]}
    stack.standin("faults", [{"status": 400, "body": refusal, "matching": "bad-9@"}])
    good = {f"kept-{number}" for number in range(60)}  # each is accepted between two refusals of the bad one
    custom(stack, event("bad-9"), *[event(name) for name in sorted(good)])
    all_arrived(stack, good)
    (parked,) = until(stack.parked, "the parked event")
    assert json.loads(parked["body"].split("\n")[0])["events"][0][0] == "bad-9"


def redrive(stack: Stack) -> None:
    """As AWS's redrive does: every parked message goes back with its attributes, under a new id."""
    sqs = stack.aws.client("sqs")
    queue = stack.outputs["DeadLetterQueueUrl"]
    # Looking at parked messages has hidden them for some seconds.
    parked = until(
        lambda: sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get(
            "Messages"
        ),
        "the parked messages",
    )
    for message in parked:
        attributes = {
            name: {"DataType": value["DataType"], "StringValue": value["StringValue"]}
            for name, value in message["MessageAttributes"].items()
        }
        sqs.send_message(
            QueueUrl=stack.outputs["EventsQueueUrl"],
            MessageBody=message["Body"],
            MessageAttributes=attributes,
            MessageGroupId="redrive",
        )
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


def test_a_redriven_event_is_delivered_once_its_cause_is_gone(stack: Stack) -> None:
    stack.standin("faults", [{"times": 1, "point": True, "matching": "again@"}])
    custom(stack, event("again"))
    until(stack.parked, "the parked event")
    redrive(stack)
    all_arrived(stack, {"again"})
    assert stack.parked() == []


def test_a_redriven_webhook_that_still_has_no_mapping_is_parked_once_more(stack: Stack) -> None:
    custom(stack, event("nobody", profile={}))
    assert stack.parked()[0]["reason"] == "no_identifier"
    redrive(stack)
    until(lambda: stack.waiting() == 0 and stack.parked(), "the webhook parked again")
    (parked,) = stack.parked()
    assert parked["reason"] == "no_identifier"
    assert requests(stack) == []


def test_a_message_that_is_no_message_is_parked_with_the_reason(stack: Stack) -> None:
    queue = stack.outputs["EventsQueueUrl"]
    stack.aws.client("sqs").send_message(QueueUrl=queue, MessageBody="not a message", MessageGroupId="garbage")
    (parked,) = until(stack.parked, "the parked message")
    assert parked["body"] == "not a message"
    assert parked["reason"]
