"""One verifier for all senders, configured by the ``[signature]`` table of each TOML file.

The vocabulary (docs/adding-a-sender.md has it with examples)::

    scheme     = "hmac" | "token" | "digest" | "ecdsa"
    digest     = "sha256" | "sha1" | "sha512"      the hash of the HMAC
    encoding   = "hex" | "base64"                  of a token: "basic"
    header     = "stripe-signature"                one name, or alternatives
    layout     = "plain" | "pairs" | "list"        "sha256=…" | "t=1,v1=…" | "v1,… v1,…"
    prefix     = "sha256="                         of a plain value
    separator  = ","                               between pairs
    value      = "v1"                              which pair, or which version in a list
    timestamp  = "t"                               which pair holds the time ...
    timestamp_header = "webhook-timestamp"         ... or which header ...
    timestamp_body   = "webhookTimestamp"          ... or an expression over the signed body
    timestamp_format = "s" | "ms" | "iso"
    id_header  = "webhook-id"
    signed     = "{timestamp}.{body}"              also {id} {url} {method} {uri} {form}
    key        = "text" | "base64"                 what the secret is
    key_prefix = "whsec_"                          taken off before decoding
    tolerance  = 300                               seconds of age, and at most 300 in the future; 0: any time
    batches    = "token"                           arrays need a token in the URL

``hmac`` is keyed with the secret; ``digest`` is the plain hash of secret and
content; ``ecdsa`` is P-256 with SHA-256, its secret the sender's public key.
``token`` is for senders that sign nothing: the secret is in the URL as
``?token=`` or in ``header``, after ``prefix`` or, as ``basic``, as user and
password. ``{form}`` is every form field, sorted, name and value joined.

Everything is compared in constant time as encoded text, so that no second
spelling of a signature passes. (A secret in base64 is read as the reference
library of Standard Webhooks reads it: its spelling is compared to nothing.)
Malformed bytes are refused; they never raise another exception.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import NotVerified, Unmapped
from ..events import bodies, values
from ..events.bodies import Body
from ..events.expressions import Expression, ExpressionFailed
from ..events.senders import Handshake, Scheme
from ..events.webhook import Webhook

TOKEN = "token"  # noqa: S105 (the name of a query parameter and of a scheme)
TOKEN_SECRET = "token:"  # noqa: S105 (prefix of a URL token among signing secrets)
_NO_BASE64 = re.compile(r"[^A-Za-z0-9+/]")
_METHOD_AND_URL = re.compile(rb"[A-Z]+https?://")
_PARTS = re.compile(r"\{(body|timestamp|id|url|method|uri|form)\}")


_IN_URL = Scheme(scheme=TOKEN)


def verify(
    schemes: Sequence[Scheme], webhook: Webhook, secrets: Sequence[str], *, now: float, body: Body = bodies.ANY_JSON
) -> str:
    """Return the secret that made the signature, or raise.

    ``body`` says how a body that holds the time is read.

    Of several ``schemes``, those whose header (or token) is present are tried in
    order: anyone who can leave a header out could choose among them anyway.

    Raises
    ------
    NotVerified
        ``no_secret``, ``signature_missing``, ``signature_malformed``,
        ``signature_wrong``, ``token_missing``, ``token_wrong``,
        ``timestamp_missing``, ``timestamp_malformed``, ``timestamp_stale`` or
        ``timestamp_future``; the detail names the header and the age.
    """
    refused: NotVerified | None = None
    contents: dict[tuple[str, ...], bytes] = {}  # the signed content of each scheme: several may sign the same
    for scheme in [candidate for candidate in schemes if _presented(candidate, webhook)] or schemes[:1]:
        try:
            return _verify(scheme, webhook, secrets, now, body, contents, alone=len(schemes) == 1)
        except NotVerified as error:
            refused = refused or error
    raise refused or NotVerified("no_secret", "this source has no [signature]")


def _verify(
    scheme: Scheme,
    webhook: Webhook,
    secrets: Sequence[str],
    now: float,
    body: Body,
    contents: dict[tuple[str, ...], bytes],
    *,
    alone: bool,
) -> str:
    tokens = url_tokens(secrets)
    keys = [secret for secret in secrets if secret and not secret.startswith(TOKEN_SECRET)]
    if scheme.scheme == TOKEN:
        # Together with a scheme that signs, a signing secret must not pass as a token.
        return _check_token(scheme, webhook, [*keys, *tokens] if alone else tokens)
    if scheme.batches == TOKEN and tokens and webhook.body.lstrip()[:1] == b"[":
        return _check_token(_IN_URL, webhook, tokens)
    if not keys:
        raise NotVerified("no_secret", "no signing secret is configured for this source")
    written, stamp = read_signature(scheme, webhook.headers)
    identity = _header(scheme.id_header, webhook.headers, "signature_missing") if scheme.id_header else ""
    of = (scheme.signed, stamp, identity)
    if of not in contents:
        contents[of] = content(scheme.signed, webhook, stamp, identity)
    signed = contents[of]
    if scheme.scheme == "digest":
        _check_one_text(webhook.body)
    made_with = next((key for key in keys if _matches(scheme, key, signed, written)), None)
    if made_with is None:
        detail = f"{scheme.header[0]} does not match this body under any configured secret"
        raise NotVerified("signature_wrong", detail)
    if scheme.timestamp_body is not None:
        stamp = _stamp_in_body(scheme, scheme.timestamp_body, webhook, body)
    _check_age(scheme, stamp, now)
    return made_with


def url_tokens(secrets: Sequence[str]) -> list[str]:
    """Return those of ``secrets`` that are written as ``token:…``, without that prefix."""
    tokens = (secret.removeprefix(TOKEN_SECRET) for secret in secrets if secret.startswith(TOKEN_SECRET))
    return [token for token in tokens if token]


def check_token(handshake: Handshake, document: dict[str, Any], secrets: Sequence[str]) -> None:
    """Check that the token of a handshake, if it has one, is among ``secrets``, where it is written as ``token:…``.

    Raises
    ------
    NotVerified
        ``no_secret``, ``token_missing`` or ``token_wrong``.
    """
    if handshake.token is None:
        return
    tokens = url_tokens(secrets)
    if not tokens:
        raise NotVerified("no_secret", "no URL token (token:…) is configured for this source")
    try:
        claimed = handshake.token.of(document)
    except ExpressionFailed:
        claimed = None
    if not isinstance(claimed, str) or not claimed:
        raise NotVerified("token_missing", "the URL verification request has no token")
    if not any(same(token, claimed) for token in tokens):
        raise NotVerified("token_wrong", "the token of the URL verification request matches no configured secret")


def same(ours: str, theirs: str) -> bool:
    """Return whether two texts are equal, in constant time."""
    return hmac.compare_digest(ours.encode("utf-8", "surrogatepass"), theirs.encode("utf-8", "surrogatepass"))


def signature(scheme: Scheme, secret: str, webhook: Webhook, *, timestamp: str = "", identity: str = "") -> str | None:
    """Return the encoded signature that ``secret`` makes over ``webhook``; ``None`` if the secret is not a key."""
    return _sign(scheme, secret, content(scheme.signed, webhook, timestamp, identity))


def _presented(scheme: Scheme, webhook: Webhook) -> bool:
    in_url = scheme.scheme == TOKEN and bool(webhook.query.get(TOKEN))
    return in_url or any(webhook.headers.get(name) for name in scheme.header)


def _check_token(scheme: Scheme, webhook: Webhook, tokens: Sequence[str]) -> str:
    usable = [token for token in tokens if token]
    if not usable:
        raise NotVerified("no_secret", "no URL token is configured for this source")
    in_query = webhook.query.get(TOKEN, "")
    written = [value for name in scheme.header if (value := webhook.headers.get(name))]
    if not in_query and not written:
        places = " or ".join(["the token parameter of the URL", *scheme.header])
        raise NotVerified("token_missing", f"{places} is missing")
    matching = [token for token in usable if same(token, in_query)]
    matching += [token for token in usable for value in written if same(*_in_header(scheme, token, value))]
    if not matching:
        raise NotVerified("token_wrong", "the token matches no configured secret")
    return matching[0]


def _in_header(scheme: Scheme, token: str, written: str) -> tuple[str, str]:
    """Return ``token`` in the header's form, and the header's value; names of HTTP schemes are case-insensitive."""
    prefix = "Basic " if scheme.encoding == "basic" else scheme.prefix
    if written[: len(prefix)].lower() == prefix.lower():
        written = prefix + written[len(prefix) :]
    if scheme.encoding == "basic":
        token = base64.b64encode(token.encode("utf-8", "surrogatepass")).decode()
    return prefix + token, written


def _matches(scheme: Scheme, key: str, signed: bytes, written: Sequence[str]) -> bool:
    if scheme.scheme == "ecdsa":
        from . import ecdsa  # curve arithmetic: only for the senders that need it

        return any(ecdsa.verifies(key, signed, candidate) for candidate in written)
    computed = _sign(scheme, key, signed)
    return computed is not None and any(same(computed, candidate) for candidate in written)


def _check_one_text(body: bytes) -> None:
    """Refuse bodies for which a plain hash of secret and content proves nothing.

    Anyone who has seen such a hash can compute that of the same text with more appended. The hash's own padding
    (FIPS 180-4, 5.1) comes between the two. It starts with 0x80, which starts no character of UTF-8. HubSpot's
    version 2 signs method, URL and body: that has the same hash as a body of version 1 that starts with method and URL.
    """
    if _METHOD_AND_URL.match(body):
        raise NotVerified(
            "signature_malformed", "the body starts with a method and a URL, which another scheme of the sender signs"
        )
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise NotVerified(
            "signature_malformed", "the body is not valid UTF-8, which this signature scheme requires"
        ) from None


def _header(names: Sequence[str], headers: Mapping[str, str], reason: str) -> str:
    for name in names:
        if value := headers.get(name):
            return value
    raise NotVerified(reason, f"the header {' or '.join(names)} is missing")


def read_signature(scheme: Scheme, headers: Mapping[str, str]) -> tuple[list[str], str]:
    """Return the candidates in the signature header, and the timestamp's text.

    Raises
    ------
    NotVerified
        A header is missing or not in the scheme's form.
    """
    written = _header(scheme.header, headers, "signature_missing")
    if scheme.layout == "plain":
        candidates = [written.removeprefix(scheme.prefix)] if written.startswith(scheme.prefix) else []
    elif scheme.layout == "list":
        candidates = [
            rest for name, _, rest in (item.partition(",") for item in written.split(" ")) if name == scheme.value
        ]
    else:
        candidates = list(_pairs(written, scheme.separator, scheme.value))
    stamp = ""
    if scheme.timestamp:
        stamp = next(_pairs(written, scheme.separator, scheme.timestamp), "")
    elif scheme.timestamp_header:
        stamp = _header(scheme.timestamp_header, headers, "timestamp_missing")
    if not candidates or (scheme.timestamp and not stamp):
        raise NotVerified("signature_malformed", f"the header {scheme.header[0]} is not in this sender's form")
    return candidates[:16], stamp


def _pairs(written: str, separator: str, wanted: str) -> Iterator[str]:
    for pair in written.split(separator):
        name, equals, value = pair.strip().partition("=")
        if equals and name == wanted:
            yield value


def content(template: str, webhook: Webhook, stamp: str, identity: str) -> bytes:
    """Return what is signed, by the template ``signed``.

    Raises
    ------
    NotVerified
        The template has ``{form}``, and the body is not a form.
    """
    known = {"timestamp": stamp, "id": identity, "url": webhook.url, "method": webhook.method, "uri": webhook.uri}
    pieces = _PARTS.split(template)
    if "form" in pieces[1::2]:
        known["form"] = _form(webhook)
    return b"".join(
        (webhook.body if piece == "body" else known[piece].encode("utf-8", "surrogatepass"))
        if index % 2
        else piece.encode()
        for index, piece in enumerate(pieces)
    )


def _form(webhook: Webhook) -> str:
    """Return every field of a form, sorted. Refuse any other body, which would not be signed at all."""
    try:
        return "".join(name + value for name, value in sorted(bodies.plain_fields(webhook.body)))
    except Unmapped as error:
        detail = f"expected a form-encoded body, since this sender signs form fields: {error.detail}"
        raise NotVerified("signature_malformed", detail) from None


def _key(scheme: Scheme, secret: str) -> bytes | None:
    if scheme.key == "text":
        return secret.encode("utf-8", "surrogatepass")
    # As its libraries for Python, PHP and Ruby do: characters outside the alphabet are ignored, and so is padding.
    encoded = _NO_BASE64.sub("", secret.strip().removeprefix(scheme.key_prefix))
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4)) or None
    except binascii.Error:
        return None


def _sign(scheme: Scheme, secret: str, signed: bytes) -> str | None:
    key = _key(scheme, secret)
    if key is None:
        return None
    algorithm = getattr(hashlib, scheme.digest)
    hashed = algorithm(key + signed) if scheme.scheme == "digest" else hmac.new(key, signed, algorithm)
    return hashed.hexdigest() if scheme.encoding == "hex" else base64.b64encode(hashed.digest()).decode()


def _stamp_in_body(scheme: Scheme, place: Expression, webhook: Webhook, body: Body) -> str:
    """Return the time that the body gives; empty if it gives none that can be read. Only the sender can cause that."""
    try:
        stated = place.of(webhook.document(body)[0])
    except (ExpressionFailed, Unmapped):
        return ""
    stamp = values.text(stated) or ""
    return "" if _signed_at(scheme, stamp) is None else stamp


def _check_age(scheme: Scheme, stamp: str, now: float) -> None:
    if not stamp or not scheme.tolerance:
        return
    at = _signed_at(scheme, stamp)
    if at is None:
        raise NotVerified("timestamp_malformed", "the signature timestamp is not a valid time")
    age = now - at
    if age > scheme.tolerance:
        detail = f"the signature timestamp is {age:.0f} s old; the limit is {scheme.tolerance} s"
        raise NotVerified("timestamp_stale", detail)
    if -age > scheme.ahead:
        detail = f"the signature timestamp is {-age:.0f} s in the future; the limit is {scheme.ahead} s"
        raise NotVerified("timestamp_future", detail)


def _signed_at(scheme: Scheme, stamp: str) -> float | None:
    return values.time(stamp) if scheme.timestamp_format == "iso" else _epoch(stamp, scheme.timestamp_format)


def _epoch(stamp: str, unit: str) -> float | None:
    if not re.fullmatch(r"[0-9]{1,16}", stamp):
        return None
    return int(stamp) / (1000 if unit == "ms" else 1)
