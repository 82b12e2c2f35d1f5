"""``receive`` whole, with SQS, Secrets Manager and the sources' files as a test says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from botocore.exceptions import ClientError

from handler import sources
from handler.door.function import Receive
from handler.keys import Secret
from handler.pauses import PAUSES
from handler.refusals import Refusals
from handler.settings import for_receive
from handler.sources import Source
from handler.telemetry import metrics
from local import sign

SECRETS = sign.development_secrets(["stripe", "custom", "shopify"])["sources"]
ENVIRONMENT = {
    "EVENTS_QUEUE_URL": "events",
    "DEAD_LETTER_QUEUE_URL": "dead-letters",
    "REQUESTS_PER_MINUTE": "150",
    "PHONE_REGION": "",
    "TIME_ZONE": "UTC",
    "SOURCES_SECRET": "sources",
    "METRICS_BY_SOURCE": "*",
}


class Queue:
    """An SQS client that takes messages, and fails as often as it is told."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.refuse = 0
        self.down = False

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        if self.down:
            raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, "SendMessageBatch")
        failed = []
        for entry in Entries:
            if self.refuse:
                self.refuse -= 1
                failed.append({"Id": entry["Id"], "Code": "InternalError", "SenderFault": False})
            else:
                self.taken.append((QueueUrl, entry))
        return {"Failed": failed} if failed else {}

    def bodies(self, queue: str) -> list[str]:
        return [entry["MessageBody"] for url, entry in self.taken if url == queue]


class SecretsManager:
    """Secrets Manager in memory."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.reads = 0
        self.down = False

    def get_secret_value(self, *, SecretId: str) -> dict[str, str]:  # noqa: N803
        self.reads += 1
        if self.down:
            raise ClientError({"Error": {"Code": "InternalServiceError"}}, "GetSecretValue")
        return {"SecretString": json.dumps(self.document)}


class Door:
    """The function and its surroundings.

    ``load`` may be replaced; for the secrets, time passes only in ``secrets_time`` (epoch seconds).
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str] = ENVIRONMENT,
        secrets: Any = None,
        sqs: Any = None,
        refusals: Refusals | None = None,
    ) -> None:
        self.sqs = cast("Any", sqs or Queue())
        self.secrets = cast("Any", secrets or SecretsManager(dict(SECRETS)))
        self.secrets_time = 1_000_000.0
        self.load: Callable[[str], Source] = sources.load
        self.handler: Callable[[Any, Any], dict[str, Any]] = metrics.log_metrics(
            Receive(
                settings=for_receive(environment),
                sqs=self.sqs,
                secrets=Secret(
                    self.secrets, "sources", lambda: self.secrets_time, kept=PAUSES.kept, reread=PAUSES.reread
                ),
                refusals=refusals or Refusals(time.time),
                clock=time.time,
                load=lambda name: self.load(name),
            )
        )

    def forget(self) -> None:
        """The secrets are read again before they are used again."""
        self.secrets_time += PAUSES.kept
