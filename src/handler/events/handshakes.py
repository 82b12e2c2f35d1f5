"""A sender's checks of its URL, answered as the ``[[handshake]]`` tables of its TOML file say.

Pure: a request in, the answer's document out. The expressions read ``method``,
``headers``, ``query`` and ``body``, and in an answer ``_hmac`` where ``hmac``
names the text to sign.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import Unmapped
from . import bodies
from .bodies import Body
from .expressions import Expression, ExpressionFailed, holds
from .senders import Handshake, Source
from .webhook import Webhook

# The most that is read of an unverified body: a check of the URL holds an id or a challenge.
UNSIGNED_BYTES = 2_000
ANSWER_CHARACTERS = 100_000  # in JSON; Lambda returns 6 MB at most, and a longer answer would be a 500


def find(source: Source, webhook: Webhook, *, signed: bool) -> tuple[Handshake, dict[str, Any]] | None:
    """Return the handshake that a request is, with the document that its expressions read."""
    wanted = [handshake for handshake in source.handshakes if handshake.signed is signed]
    if not wanted:
        return None
    document = _document(webhook, _read(source.body, wanted, signed=signed), within=None if signed else UNSIGNED_BYTES)
    return next(((handshake, document) for handshake in wanted if holds(handshake.when, document)), None)


def answer(handshake: Handshake, document: dict[str, Any], *, secret: str = "") -> Any:
    """Return the answer that the sender expects: text or an object.

    ``secret`` is the one that the request was signed with. Only a signed
    handshake is answered with an HMAC under it; otherwise strangers could have
    any text signed.

    Raises
    ------
    Unmapped
        ``not_a_handshake``: the request has no text or challenge to answer.
    """
    if handshake.answer is None:
        return "ok"
    if handshake.hmac:
        text = _of(handshake.hmac, document)
        digest = hmac.new(
            secret.encode("utf-8", "surrogatepass"), text.encode("utf-8", "surrogatepass"), hashlib.sha256
        )
        document = {**document, "_hmac": digest.hexdigest()}
    reply = _answer(handshake.answer, document)
    if not isinstance(reply, str | dict):
        raise Unmapped("not_a_handshake", "the URL verification request has no challenge to answer")
    if len(json.dumps(reply, default=str)) > ANSWER_CHARACTERS:
        raise Unmapped("not_a_handshake", f"the challenge is longer than {ANSWER_CHARACTERS:,} characters")
    return reply


def _read(body: Body, handshakes: Sequence[Handshake], *, signed: bool) -> Body | None:
    """Return how to read the body for ``handshakes``; ``None`` if none of their expressions reads it.

    An unverified body is read only as JSON or as a plain form.
    """
    kinds = body.kinds if signed else tuple(kind for kind in body.kinds if kind != bodies.MULTIPART)
    return replace(body, kinds=kinds) if kinds and any(handshake.reads_body for handshake in handshakes) else None


def _document(webhook: Webhook, read: Body | None, *, within: int | None) -> dict[str, Any]:
    """Return what the expressions read; ``body`` is ``null`` if it is unreadable or longer than ``within`` bytes."""
    parsed = None
    if read and (within is None or len(webhook.body) <= within):
        try:
            # An unverified body is not decompressed.
            parsed = webhook.document(read)[0] if within is None else bodies.parse(webhook.body, read)
        except Unmapped:
            parsed = None
    return {
        "method": webhook.method,
        "headers": dict(webhook.headers),
        "query": dict(webhook.query),
        "body": parsed,
    }


def _of(expression: Expression, document: dict[str, Any]) -> str:
    text = _answer(expression, document)
    if not isinstance(text, str):
        raise Unmapped("not_a_handshake", "the URL verification request has no text to sign")
    return text


def _answer(expression: Expression, document: dict[str, Any]) -> Any:
    try:
        return expression.of(document)
    except ExpressionFailed:
        raise Unmapped("not_a_handshake", "the URL verification request is not in this sender's form") from None
