"""One document for all who read a webhook: nobody changes it."""

from __future__ import annotations

from copy import deepcopy

import pytest

from handler.errors import Unmapped
from handler.events import handshakes, mapping, senders
from handler.events.mapping import Defaults, Outcome
from handler.events.webhook import Webhook
from tests.mutations import samples
from tools.senders.outcome import RECEIVED


def understood(name: str, webhook: Webhook) -> Outcome | str:
    try:
        return mapping.understand(senders.load(name), webhook, received=RECEIVED, defaults=Defaults())
    except Unmapped as error:
        return str(error)


@pytest.mark.parametrize("name", senders.names())
def test_reading_a_webhook_leaves_its_document_as_it_was(name: str) -> None:
    source = senders.load(name)
    for sent in samples(name):
        webhook = Webhook(sent.method, "", "", sent.headers, sent.query, sent.body)
        before = deepcopy(webhook.document(source.body))
        handshakes.find(source, webhook, signed=True)
        outcome = understood(name, webhook)
        assert webhook.document(source.body) == before
        # From the document that others have read comes what comes of the bytes.
        assert outcome == understood(name, webhook) == understood(name, Webhook.posted(sent.headers, sent.body))
