"""The HTTP edge: an API Gateway event in, an answer out (payload format 2.0)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import NotParseable, NotVerified
from ..events.webhook import Webhook


@dataclass(frozen=True, slots=True)
class Request:
    """One request to ``receive``: the source's name from the path, and the webhook."""

    webhook_id: str
    source: str
    webhook: Webhook


def read(event: Mapping[str, Any]) -> Request:
    """Return the request in an HTTP API event, with its body as the exact bytes received.

    Raises
    ------
    NotParseable
        ``isBase64Encoded`` is set and the body is not base64.
    """
    http = event["requestContext"]["http"]
    uri = event.get("rawPath", "/")
    if query := event.get("rawQueryString"):
        uri += f"?{query}"
    body = event.get("body") or ""
    try:
        raw = base64.b64decode(body, validate=True) if event.get("isBase64Encoded") else body.encode("utf-8")
    except (binascii.Error, ValueError):
        raise NotParseable("not_base64", "the request body is not valid base64") from None
    return Request(
        webhook_id=event["requestContext"].get("requestId", ""),
        source=(event.get("pathParameters") or {}).get("source", ""),
        webhook=Webhook(
            method=http["method"].upper(),
            url=f"https://{event['requestContext'].get('domainName', '')}{uri}",
            uri=uri,
            headers={name.lower(): value for name, value in (event.get("headers") or {}).items()},
            query=event.get("queryStringParameters") or {},
            body=raw,
        ),
    )


def check_not_klaviyo(webhook: Webhook) -> None:
    """Refuse Klaviyo's own webhooks: as events they could trigger the flow that sent them.

    Raises
    ------
    NotVerified
        The request carries Klaviyo's signature header.
    """
    if "klaviyo-signature" in webhook.headers:
        raise NotVerified(
            "klaviyo_webhook", "klaviyo-signature is present: Klaviyo's own webhooks are not relayed back to Klaviyo"
        )


def answer(status: int, document: Any, *, silent: bool = False) -> dict[str, Any]:
    """Return an HTTP API answer: JSON for objects, plain text for strings.

    With ``silent`` a success is a 204 without a body, for senders that act on any text.
    """
    if silent and 200 <= status < 300:
        return {"statusCode": 204, "headers": {"cache-control": "no-store"}}
    plain = isinstance(document, str)
    body = document if plain else json.dumps(document, ensure_ascii=False, default=str)
    return {
        "statusCode": status,
        "headers": {"content-type": "text/plain" if plain else "application/json", "cache-control": "no-store"},
        # A challenge may hold half a surrogate pair, and the runtime crashes if a response does.
        "body": body.encode("utf-8", "replace").decode(),
    }
