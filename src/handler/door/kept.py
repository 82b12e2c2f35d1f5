"""Headers that a parked webhook keeps: mapping's own, and those that a corrected file may need.

A header is not kept if it may hold a secret or is the transport's own, such as the
sender's address (docs/decisions/0038).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..events.senders import Source

MOST_BYTES = 8_000  # of names and values
_SECRET = re.compile(
    "auth|bearer|cert|cookie|credential|csrf|digest|hash|hmac|jwt|key|pass|proof|secret|session|sign|token|xsrf"
    r"|(?:^|[-_])(?:mac|otp|pin|pwd|sid|sig)(?:$|[-_0-9])"
)
_SECRET_VALUE = re.compile(r"\s*(?:(?:bearer|basic|digest|token|hmac|apikey)\s|(?:sha\d+|v\d)=)", re.IGNORECASE)
_TRANSPORT = re.compile(
    # RFC 9110 and 9112: how this request was sent, by which program, and what it accepts as an answer. A body is not
    # read by its labels (docs/decisions/0032).
    "accept.*|cache-control|connection|content-.*|dnt|expect|forwarded|from|host|if-.*|keep-alive|max-forwards"
    "|origin|pragma|priority|proxy-.*|range|referer|sec-.*|te|trailer|transfer-encoding|upgrade.*|user-agent|via"
    # What proxies add. Amazon SNS names the kind of its message in a header, which stays.
    "|(?:.*-)?ip(?:-.*)?|x-forwarded-.*|x-original-.*|x-amz(?!-sns-).*|(?:cf|cdn|fastly|fly)-.*"
    "|x-(?:akamai|azure|envoy|vercel)-.*"
    # What tracing adds.
    "|baggage|newrelic|sentry-trace|traceparent|tracestate|x-(?:b3|cloud-trace|datadog)-.*"
)


def needed(source: Source, came: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that mapping with this file reads, and the ids for the log line."""
    return {name: came[name] for name in source.kept_headers if name in came}


def headers(source: Source, came: Mapping[str, str]) -> dict[str, str]:
    """Return the ``needed`` headers, and as many others as ``MOST_BYTES`` have room for; ``came`` is in lower case."""
    kept = needed(source, came)
    proofs = {name for scheme in source.schemes for name in scheme.header}
    room = MOST_BYTES - sum(map(_weight, kept.items()))
    for name, value in came.items():
        if name in kept or name in proofs or not _is_harmless(name, value):
            continue
        if (weight := _weight((name, value))) <= room:
            kept[name] = value
            room -= weight
    return kept


def _weight(header: tuple[str, str]) -> int:
    name, value = header
    return len(name.encode("utf-8", "replace")) + len(value.encode("utf-8", "replace"))


def _is_harmless(name: str, value: str) -> bool:
    return not (_TRANSPORT.fullmatch(name) or _SECRET.search(name) or _SECRET_VALUE.match(value))
