"""``sim.topics`` compared with boto3's client on MiniStack.

MiniStack takes every address as confirmed: a subscription that waits for it is compared with the service's model only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sim.topics import PENDING, Topics
from tests.conformance.support import has_the_shape, refused

pytestmark = pytest.mark.xdist_group("conformance")
Client = Callable[[str], Any]
ADDRESSES = ("one@mail.example", "two@mail.example")


@pytest.fixture
def topic(ministack: Client, name: str) -> str:
    """A topic's ARN; each of ``ADDRESSES`` has subscribed."""
    client = ministack("sns")
    arn = str(client.create_topic(Name=name)["TopicArn"])
    for address in ADDRESSES:
        client.subscribe(TopicArn=arn, Protocol="email", Endpoint=address)
    return arn


@pytest.fixture
def sides(ministack: Client, topic: str) -> list[Any]:
    """Both have ``topic``, the simulated one with one subscription on each page."""
    subscribed = {address: f"{topic}:{number}" for number, address in enumerate(ADDRESSES)}
    return [Topics({topic: subscribed}, per_page=1), ministack("sns")]


def test_pages_have_every_subscription_once(sides: list[Any], topic: str) -> None:
    answers = []
    for side in sides:
        pages = side.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
        subscriptions = [subscription for page in pages for subscription in page["Subscriptions"]]
        assert all(subscription["SubscriptionArn"].startswith(f"{topic}:") for subscription in subscriptions)
        answers.append([tuple(one[name] for name in ("TopicArn", "Protocol", "Endpoint")) for one in subscriptions])
    assert answers[0] == answers[1] == [(topic, "email", address) for address in ADDRESSES]


def test_an_unconfirmed_subscription_has_the_shape_of_the_model(sides: list[Any], topic: str) -> None:
    answer = Topics({topic: {ADDRESSES[0]: PENDING}}).list_subscriptions_by_topic(TopicArn=topic)
    assert has_the_shape(answer, sides[1], "list_subscriptions_by_topic")


def test_a_missing_topic_is_the_same_error(sides: list[Any], topic: str) -> None:
    codes = [refused(side.list_subscriptions_by_topic, TopicArn=f"{topic}-none") for side in sides]
    assert codes == ["NotFound"] * 2
