"""SNS in memory: topics and their subscriptions.

Facts: SNS API reference, ListSubscriptionsByTopic. A subscription that was not confirmed yet is listed
with ``PendingConfirmation`` in place of its ARN (seen in published answers of SNS).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from .pages import Paged

PENDING = "PendingConfirmation"


class Topics(Paged):
    """The client's ``list_subscriptions_by_topic``, ``per_page`` in each answer.

    ``topics`` are the subscriptions' ARNs (or ``PENDING``) by address, by topic's ARN.
    """

    def __init__(self, topics: Mapping[str, Mapping[str, str]], *, per_page: int = 100) -> None:
        super().__init__(per_page)
        self._topics = topics

    def list_subscriptions_by_topic(self, *, TopicArn: str, NextToken: str = "0") -> dict[str, Any]:  # noqa: N803
        """Do ListSubscriptionsByTopic; raise ``ClientError`` with ``NotFound`` without such a topic."""
        if TopicArn not in self._topics:
            raise ClientError({"Error": {"Code": "NotFound"}}, "ListSubscriptionsByTopic")
        subscriptions = [
            {"SubscriptionArn": arn, "TopicArn": TopicArn, "Protocol": "email", "Endpoint": address}
            for address, arn in self._topics[TopicArn].items()
        ]
        return self._page("Subscriptions", subscriptions, NextToken)
