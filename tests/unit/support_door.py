"""``receive`` whole in ``sim``, with the sources' files as a test says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from botocore.exceptions import ClientError

from handler.door.function import Receive
from handler.door.refusals import Refusals
from handler.events import senders
from handler.events.senders import Source
from handler.pauses import PAUSES
from handler.secret import Secret
from handler.settings import for_receive
from handler.telemetry import metrics
from sim import environment
from sim.queue import Message, Queue, Sqs
from sim.secrets import Secrets
from sim.time import Time
from tests.unit.support_delivery import DEAD, EVENTS
from tools.senders import sign

SECRETS = sign.development_secrets(["stripe", "custom", "shopify"])["sources"]
ENVIRONMENT = environment.receive()
_SECRET = ENVIRONMENT["SOURCES_SECRET"]


class Door:
    """The function and its surroundings.

    The queue refuses the next ``refuse`` entries; ``down`` names what does not answer: ``sqs``, ``secrets``.
    ``load`` may be replaced; for the secrets, time passes only in ``clock``. The function is ``late`` seconds late.
    """

    def __init__(
        self,
        secrets: Any = SECRETS,
        *,
        environment: Mapping[str, str] = ENVIRONMENT,
        refusals: Refusals | None = None,
    ) -> None:
        self.clock = Time()
        self.refuse = 0
        self.late = 0.0
        self.down: set[str] = set()
        self.queues = {EVENTS: Queue("events", self.clock), DEAD: Queue("dead", self.clock)}
        self.sqs = Sqs(self.queues, refuse=self._refuses, before=lambda operation, _: self._check("sqs", operation))
        self.secrets = Secrets({_SECRET: secrets}, before=lambda operation: self._check("secrets", operation))
        self.load: Callable[[str], Source] = senders.load
        self.handler: Callable[[Any, Any], dict[str, Any]] = metrics.log_metrics(
            Receive(
                settings=for_receive(environment),
                sqs=cast("Any", self.sqs),
                secrets=Secret(cast("Any", self.secrets), _SECRET, self.clock, kept=PAUSES.kept, reread=PAUSES.reread),
                refusals=refusals or Refusals(time.time),
                clock=lambda: time.time() + self.late,
                load=lambda name: self.load(name),
            )
        )

    def _refuses(self, _: object) -> bool:
        self.refuse -= 1
        return self.refuse >= 0

    def _check(self, service: str, operation: str) -> None:
        if service in self.down:
            raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, operation)

    def hold(self, document: Any) -> None:
        """From now on the secret is this."""
        self.secrets.documents[_SECRET] = document

    def forget(self) -> None:
        """The secrets are read again before they are used again."""
        self.clock.sleep(PAUSES.kept)

    def taken(self, *urls: str) -> list[tuple[str, Message]]:
        """What is in these queues, or in both."""
        return [(url, message) for url in urls or self.queues for message in self.queues[url].messages.values()]

    def bodies(self, url: str) -> list[str]:
        return [message.body for _, message in self.taken(url)]

    def empty(self) -> None:
        """Forget what was queued."""
        for _, message in self.taken():
            self.queues[EVENTS].delete(message.id)
            self.queues[DEAD].delete(message.id)
