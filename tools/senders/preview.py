"""``make preview``: what a payload becomes, without any stack."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from handler.errors import Unmapped
from handler.events import handshakes, mapping, senders
from handler.events.mapping import Defaults
from handler.events.webhook import Webhook
from tools.terminal import say

from . import names, payload, rules, sign
from .payload import Payload

SILENT = 204  # the answer to senders that would act on any words


def preview_request(source: str, sent: Payload, received: float) -> dict[str, Any]:
    """Return ``preview``, or ``handshake`` (the answer's document) if the request is a sender's check of its URL."""
    try:
        answer = greeting(source, sent)
    except Unmapped as error:
        return _nothing() | {"unmapped": str(error)}
    return preview(source, sent.headers, sent.body, received) if answer is None else _nothing() | {"handshake": answer}


def greeting(source: str, sent: Payload) -> Any:
    """Return the answer's document if the request is a sender's check of its URL; otherwise ``None``.

    Raises
    ------
    Unmapped
        ``not_a_handshake``: the request does not hold what the answer is made of.
    """
    loaded = senders.load(source)
    delivery = Webhook(sent.method, "", "", sent.headers, sent.query, sent.body)
    for signed in (False, True):
        if check := handshakes.find(loaded, delivery, signed=signed):
            return handshakes.answer(*check, secret=sign.development_secret(source, loaded.schemes[0]))
    return "ok" if sent.method in ("GET", "HEAD") else None


def event_ids(status: int, answer: dict[str, Any], shown: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of a sample's events: from the answer, or from its preview if the sender gets no document."""
    if status != SILENT:
        return tuple(answer.get("event_ids", []))
    events = (event for entry in shown["events"] for event in entry["attributes"]["events"]["data"])
    return tuple(event["attributes"]["unique_id"] for event in events)


def _nothing() -> dict[str, Any]:
    return {"events": [], "ignored": None, "unmapped": None}


def preview(source: str, headers: dict[str, str], body: bytes, received: float) -> dict[str, Any]:
    """Return ``events`` (event-bulk-create entries), ``ignored`` and ``unmapped`` (``None`` or why)."""
    try:
        outcome = mapping.understand(
            senders.load(source), Webhook.posted(headers, body), received=received, defaults=Defaults()
        )
    except Unmapped as error:
        return _nothing() | {"unmapped": str(error)}
    reasons = dict.fromkeys(f"{parked.reason}: {parked.detail}" for parked in outcome.parked)
    return {
        "events": [json.loads(event.entry) for event in outcome.events],
        "ignored": outcome.ignored,
        "unmapped": "; ".join(reasons) or None,
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``make preview``."""
    parser.add_argument("source", help="the source's name in the webhook URL")
    parser.add_argument("file", help=payload.FILE_HELP)
    parser.add_argument("headers", nargs="?", help=payload.HEADERS_HELP)


def run(asked: argparse.Namespace) -> int:
    """Print the preview as JSON, and mistakes in the sender's file to standard error; return 1 if there are any."""
    payload.check_given("source", asked.source, asked.file)
    names.known(asked.source)
    wrong, _ = rules.mistakes(asked.source)
    shown = preview_request(
        asked.source, payload.request(asked.file, asked.headers or None, source=asked.source), time.time()
    )
    say(*json.dumps(shown, indent=2, ensure_ascii=False).split("\n"))
    say(*wrong, error=True)
    return 1 if wrong else 0
