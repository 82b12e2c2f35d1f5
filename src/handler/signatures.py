"""Who sent it: one verifier for every sender, told by the ``[signature]`` table of its TOML file.

The vocabulary (docs/adding-a-sender.md has it with examples)::

    scheme     = "hmac" | "token"
    digest     = "sha256" | "sha1"                 the hash of the HMAC
    encoding   = "hex" | "base64"
    header     = "stripe-signature"                one name, or alternatives
    layout     = "plain" | "pairs" | "list"        "sha256=…" | "t=1,v1=…" | "v1,… v1,…"
    prefix     = "sha256="                         of a plain value
    separator  = ","                               between pairs
    value      = "v1"                              which pair, or which version in a list
    timestamp  = "t"                               which pair holds the time ...
    timestamp_header = "webhook-timestamp"         ... or which header
    timestamp_format = "s" | "ms" | "iso"
    id_header  = "webhook-id"
    signed     = "{timestamp}.{body}"              also {id} {url} {method} {uri}
    key        = "text" | "base64"                 what the secret is
    key_prefix = "whsec_"                          taken off before decoding
    tolerance  = 300                               seconds, both ways
    batches    = "token"                           arrays need a token in the URL

A token scheme, for senders that sign nothing, takes ``?token=`` in the URL.
Everything is compared in constant time as encoded text, so that no second
spelling of a signature passes. Bytes that make no sense are a refusal, never
another exception.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import values
from .errors import NotVerified

TOKEN = "token"  # noqa: S105 (the name of a query parameter and of a scheme)
TOKEN_SECRET = "token:"  # noqa: S105 (prefix of a secret that is a URL token beside signing ones)
_PARTS = re.compile(r"\{(body|timestamp|id|url|method|uri)\}")


@dataclass(frozen=True, slots=True)
class Scheme:
    """A sender's way to sign; the fields are the vocabulary above."""

    scheme: str = "hmac"
    digest: str = "sha256"
    encoding: str = "hex"
    header: tuple[str, ...] = ()
    layout: str = "plain"
    prefix: str = ""
    separator: str = ","
    value: str = "v1"
    timestamp: str = ""
    timestamp_header: tuple[str, ...] = ()
    timestamp_format: str = "s"
    id_header: tuple[str, ...] = ()
    signed: str = "{body}"
    key: str = "text"
    key_prefix: str = ""
    tolerance: int = 300
    batches: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a sender may sign: header names in lower case, ``body`` the exact bytes."""

    method: str
    url: str
    uri: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


def verify(scheme: Scheme, delivery: Delivery, secrets: Sequence[str], *, now: float) -> None:
    """Return if one of ``secrets`` made the signature, else raise.

    Raises
    ------
    NotVerified
        ``no_secret``, ``signature_missing``, ``signature_malformed``,
        ``signature_wrong``, ``timestamp_malformed``, ``timestamp_stale`` or
        ``timestamp_future``; the detail names the header and the age.
    """
    tokens = [secret.removeprefix(TOKEN_SECRET) for secret in secrets if secret.startswith(TOKEN_SECRET)]
    keys = [secret for secret in secrets if secret and not secret.startswith(TOKEN_SECRET)]
    if scheme.scheme == TOKEN:
        return _check_token(delivery, [*keys, *tokens])
    if scheme.batches == TOKEN and tokens and delivery.body.lstrip()[:1] == b"[":
        return _check_token(delivery, tokens)
    if not keys:
        raise NotVerified("no_secret", "no signing secret is configured for this source")
    written, stamp = _read_signature(scheme, delivery.headers)
    identity = _header(scheme.id_header, delivery.headers, "signature_missing") if scheme.id_header else ""
    content = _content(scheme.signed, delivery, stamp, identity)
    if not any(_matches(_sign(scheme, key, content), written) for key in keys):
        raise NotVerified("signature_wrong", f"{scheme.header[0]} was not made with a configured secret over this body")
    _check_age(scheme, stamp, now)
    return None


def signature(
    scheme: Scheme, secret: str, delivery: Delivery, *, timestamp: str = "", identity: str = ""
) -> str | None:
    """The encoded signature that ``secret`` makes over ``delivery``; ``None`` if the secret is not a key."""
    return _sign(scheme, secret, _content(scheme.signed, delivery, timestamp, identity))


def _check_token(delivery: Delivery, tokens: Sequence[str]) -> None:
    usable = [token for token in tokens if token]
    if not usable:
        raise NotVerified("no_secret", "no URL token is configured for this source")
    given = delivery.query.get(TOKEN, "")
    if not given:
        raise NotVerified("token_missing", "the URL has no token parameter")
    if not any(_equal(token, given) for token in usable):
        raise NotVerified("token_wrong", "the URL's token is not a configured one")


def _equal(ours: str, theirs: str) -> bool:
    return hmac.compare_digest(ours.encode("utf-8", "surrogatepass"), theirs.encode("utf-8", "surrogatepass"))


def _matches(ours: str | None, theirs: Sequence[str]) -> bool:
    return ours is not None and any(_equal(ours, candidate) for candidate in theirs)


def _header(names: Sequence[str], headers: Mapping[str, str], reason: str) -> str:
    for name in names:
        if value := headers.get(name):
            return value
    raise NotVerified(reason, f"the header {' or '.join(names)} is missing")


def _read_signature(scheme: Scheme, headers: Mapping[str, str]) -> tuple[list[str], str]:
    """The candidates in the signature header, and the timestamp's text."""
    written = _header(scheme.header, headers, "signature_missing")
    if scheme.layout == "plain":
        found = [written.removeprefix(scheme.prefix)] if written.startswith(scheme.prefix) else []
    elif scheme.layout == "list":
        found = [rest for name, _, rest in (item.partition(",") for item in written.split(" ")) if name == scheme.value]
    else:
        found = list(_pairs(written, scheme.separator, scheme.value))
    stamp = ""
    if scheme.timestamp:
        stamp = next(_pairs(written, scheme.separator, scheme.timestamp), "")
    elif scheme.timestamp_header:
        stamp = _header(scheme.timestamp_header, headers, "timestamp_missing")
    if not found or (scheme.timestamp and not stamp):
        raise NotVerified("signature_malformed", f"the header {scheme.header[0]} is not in this sender's form")
    return found[:16], stamp


def _pairs(written: str, separator: str, wanted: str) -> Iterator[str]:
    for pair in written.split(separator):
        name, equals, value = pair.strip().partition("=")
        if equals and name == wanted:
            yield value


def _content(template: str, delivery: Delivery, stamp: str, identity: str) -> bytes:
    known = {"timestamp": stamp, "id": identity, "url": delivery.url, "method": delivery.method, "uri": delivery.uri}
    pieces = _PARTS.split(template)
    return b"".join(
        (delivery.body if piece == "body" else known[piece].encode("utf-8", "surrogatepass"))
        if index % 2
        else piece.encode()
        for index, piece in enumerate(pieces)
    )


def _key(scheme: Scheme, secret: str) -> bytes | None:
    if scheme.key == "text":
        return secret.encode("utf-8", "surrogatepass")
    encoded = secret.removeprefix(scheme.key_prefix)
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    # The last character of base64 may have spare bits: only the one canonical spelling is the secret.
    return key if key and base64.b64encode(key).decode() == encoded else None


def _sign(scheme: Scheme, secret: str, content: bytes) -> str | None:
    key = _key(scheme, secret)
    if key is None:
        return None
    made = hmac.new(key, content, getattr(hashlib, scheme.digest)).digest()
    return made.hex() if scheme.encoding == "hex" else base64.b64encode(made).decode()


def _check_age(scheme: Scheme, stamp: str, now: float) -> None:
    if not stamp or not scheme.tolerance:
        return
    at = values.time(stamp) if scheme.timestamp_format == "iso" else _epoch(stamp, scheme.timestamp_format)
    if at is None:
        raise NotVerified("timestamp_malformed", "the signature's timestamp is not a time")
    age = now - at
    if abs(age) > scheme.tolerance:
        reason = "timestamp_stale" if age > 0 else "timestamp_future"
        raise NotVerified(reason, f"the signature is {age:.0f} s old, {scheme.tolerance} s either way are accepted")


def _epoch(stamp: str, unit: str) -> float | None:
    if not re.fullmatch(r"[0-9]{1,16}", stamp):
        return None
    return int(stamp) / (1000 if unit == "ms" else 1)
