"""The same business event reads alike from every sender: one spelling for each name, found in the files themselves."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import jmespath
import pytest

from handler.events import senders

SHIPPED = sorted(path.stem for path in senders.SHIPPED.glob("*.toml"))
RULES = [(name, rule) for name in SHIPPED for rule in senders.load(name).rules]

# The members of an order's item, in Klaviyo's own spelling for its e-commerce metrics.
ITEM = {
    *("ProductID", "VariantID", "SKU", "ProductName", "VariantName", "Quantity", "ItemPrice", "RowTotal"),
    *("ProductURL", "ImageURL", "Brand", "Categories"),
}
# What each event of these metrics says, from whichever sender.
ALIKE = {
    "(Placed|Paid|Fulfilled|Cancelled) Order": {"OrderId"},
    "(Started|Updated|Paused|Resumed|Cancelled|Expired) Subscription": {"SubscriptionId"},
    "Started Trial|Trial Ending": {"SubscriptionId", "TrialEndsAt"},
    "(Booked|Rescheduled|Cancelled|Missed) Appointment": {"AppointmentId", "StartsAt"},
    "(Opened|Updated|Solved|Rated) Support Ticket": {"TicketId", "Subject", "Status"},
    "(Created|Updated|Won|Lost) Deal": {"DealId", "DealName"},
    "Submitted Form": {"FormId"},
    "Clicked Email": {"ClickedUrl"},
    "(Delivered|Failed|Opened) SMS": {"MessageId"},
}


def members(expression: str) -> Iterator[str]:
    """The keys of every object that an expression makes."""

    def walk(tree: Any) -> Iterator[str]:
        if tree["type"] == "key_val_pair":
            yield tree["value"]
        for child in tree["children"]:
            if isinstance(child, dict):
                yield from walk(child)

    yield from walk(jmespath.compile(expression).parsed)


def test_each_property_and_metric_has_one_spelling() -> None:
    spelled: dict[str, set[str]] = defaultdict(set)
    for _, rule in RULES:
        for name in (rule.metric, *rule.properties):
            spelled[re.sub(r"[^a-z0-9]", "", name.lower()).replace("canceled", "cancelled")].add(name)
    assert [names for names in spelled.values() if len(names) > 1] == []


def test_names_of_properties_are_words_run_together() -> None:
    used = {(name, key) for name, rule in RULES for key in rule.properties}
    assert [use for use in used if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", use[1])] == []
    assert [use for use in used if re.search(r"ID$|URL$", use[1]) and use[1] not in ITEM] == []


def test_names_of_metrics_are_titles() -> None:
    small = {"for", "from", "to", "in", "out", "as", "of", "up", "and", "the"}
    words = {word for _, rule in RULES for word in rule.metric.split()}
    assert {word for word in words if not word[:1].isupper() and word not in small} == set()


@pytest.mark.parametrize("name", SHIPPED)
def test_items_have_the_same_keys(name: str) -> None:
    for owner, rule in RULES:
        if owner == name and "Items" in rule.properties:
            assert set(members(rule.properties["Items"].text)) <= ITEM


@pytest.mark.parametrize("pattern", ALIKE)
def test_events_of_one_kind_say_the_same(pattern: str) -> None:
    rules = [(name, rule.topics, set(rule.properties)) for name, rule in RULES if re.fullmatch(pattern, rule.metric)]
    assert rules
    assert [(name, topics) for name, topics, said in rules if not ALIKE[pattern] <= said] == []


def test_an_amount_has_a_currency() -> None:
    assert [(name, rule.topics) for name, rule in RULES if rule.value and not rule.currency] == []
