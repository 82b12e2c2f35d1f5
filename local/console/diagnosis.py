"""Why a signature did not fit: what came, what was expected, and which known mistake it is.

The mistakes are tried out, with the secrets of this machine: a body that
something on the way rewrote fits once it is written so. No secret is
shown, and what a secret makes only where it is a development one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from handler.door import signatures
from handler.errors import NotVerified
from handler.events import values
from handler.events.senders import Scheme
from handler.events.webhook import Webhook
from tools.senders.sign import development_secret

from .exchanges import Exchange

Row = tuple[str, str]
HEX, CAPITALS, BASE64, OTHER = "hexadecimal", "hexadecimal with capitals", "base64", "neither hexadecimal nor base64"
_SHOWN = 140  # characters of a header
# Reasons of refusals that a comparison of the signature explains.
EXPLAINED = (
    "signature_missing",
    "signature_malformed",
    "signature_wrong",
    "timestamp_missing",
    "timestamp_malformed",
    "timestamp_stale",
    "timestamp_future",
)
_TIME_IS_ALL = ("timestamp_stale", "timestamp_future")


def compared(exchange: Exchange, scheme: Scheme, secrets: Sequence[str], known_as: str) -> Iterator[Row]:
    """Yield pairs of a term and its text: received, expected, the timestamp's age, and what may be wrong."""
    delivery = _delivery(exchange, known_as)
    name = next((header for header in scheme.header if header in exchange.headers), "")
    try:
        written, stamp = signatures.read_signature(scheme, exchange.headers)
    except NotVerified:
        written, stamp = [], ""
    if name:
        header = exchange.headers[name]
        yield "received", f"{name}: {_short(header)}"
        yield "its form", str(form(written[0])) if written else "not this sender's: no signature can be read out of it"
    if scheme.scheme != "ecdsa":
        yield "expected", f"{_expected_form(scheme)}{_expected(exchange, scheme, secrets, delivery, stamp)}"
    if stamp and (age := _age(scheme, stamp, exchange.at)):
        yield "timestamp", age
    if exchange.reason == "signature_wrong" and written and scheme.scheme != "ecdsa":
        yield "likely", "; ".join(_hints(scheme, secrets, delivery, written[0], exchange.at))


@dataclass(frozen=True, slots=True)
class Form:
    """Length and alphabet of a signature: ``64 characters, hexadecimal``."""

    size: int
    alphabet: str

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.size} character{'' if self.size == 1 else 's'}, {self.alphabet}"


def form(text: str) -> Form:
    """Return the form of a signature."""
    if re.fullmatch(r"[0-9a-f]+", text):
        alphabet = HEX
    elif re.fullmatch(r"[0-9A-Fa-f]+", text):
        alphabet = CAPITALS
    elif re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", text) and len(text) % 4 == 0:
        alphabet = BASE64
    else:
        alphabet = OTHER
    return Form(len(text), alphabet)


def _expected_form(scheme: Scheme) -> Form:
    size = hashlib.new(scheme.digest).digest_size
    if scheme.encoding == "hex":
        return Form(2 * size, HEX)
    return Form((size + 2) // 3 * 4, BASE64)


def _expected(exchange: Exchange, scheme: Scheme, secrets: Sequence[str], delivery: Webhook, stamp: str) -> str:
    """Return what the development secret makes of this request, with the timestamp that it has."""
    secret = development_secret(exchange.source, scheme)
    needs_stamp = "{timestamp}" in scheme.signed and not stamp
    if secret not in secrets or needs_stamp:
        return ""
    identity = next((exchange.headers[name] for name in scheme.id_header if name in exchange.headers), "")
    try:
        written = signatures.signature(scheme, secret, delivery, timestamp=stamp, identity=identity)
    except NotVerified:
        return ""
    return f": {written}, by the development secret" if written else ""


def _age(scheme: Scheme, stamp: str, received: float) -> str:
    if scheme.timestamp_format == "iso":
        at = values.time(stamp)
    else:
        unit = 1000 if scheme.timestamp_format == "ms" else 1
        at = int(stamp) / unit if re.fullmatch(r"[0-9]{1,16}", stamp) else None
    if at is None or at > 253_402_300_799:
        return f"{_short(stamp)}, which is not a time in this sender's form"
    when = datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    age = received - at
    side, limit = ("before", scheme.tolerance) if age >= 0 else ("after", scheme.ahead)
    return f"{stamp}, which is {when}: {abs(age):,.0f} s {side} it came in; the limit is {limit} s"


def _hints(scheme: Scheme, secrets: Sequence[str], delivery: Webhook, written: str, now: float) -> Iterator[str]:
    actual, expected = form(written), _expected_form(scheme)
    size = len(written) // 2 if actual.alphabet in (HEX, CAPITALS) else len(written.rstrip("=")) * 3 // 4
    digest = next((name for name in ("sha1", "sha256", "sha512") if hashlib.new(name).digest_size == size), "")
    if actual == replace(expected, alphabet=CAPITALS):
        yield "this sender uses lowercase hex"
    elif actual != expected and digest and digest != scheme.digest:
        yield f"it is as long as {digest.upper()} makes it, and {scheme.digest.upper()} is expected"
    elif actual != expected:
        yield f"it is not of the form that {scheme.digest.upper()} in {scheme.encoding} has"
    else:
        tried = (text for text, changed, sent in _mistakes(scheme, delivery) if _fits(changed, sent, secrets, now))
        yield next(
            tried,
            "the form is right: another secret made it, or the body (or what else is signed) changed on the way",
        )


def _mistakes(scheme: Scheme, delivery: Webhook) -> Iterator[tuple[str, Scheme, Webhook]]:
    """Yield each common mistake: its text, and the scheme and the request with which the signature would fit."""
    for text, body in _rewritten(delivery.body):
        yield f"it fits the body {text}: something on the way rewrote the body", scheme, replace(delivery, body=body)
    if scheme.signed != "{body}":
        plain = replace(scheme, signed="{body}")
        yield f"it was made over the body alone, and {scheme.signed} is signed", plain, delivery
    if scheme.key == "base64":
        yield "the secret was used as text: it is base64, to be decoded first", replace(scheme, key="text"), delivery


def _rewritten(body: bytes) -> Iterator[tuple[str, bytes]]:
    yield "without the line end after it", body.rstrip(b"\r\n")
    yield "with a line end after it", body + b"\n"
    yield "with CRLF line ends", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield "with LF line ends", body.replace(b"\r\n", b"\n")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return
    for text, separators, indent in (
        ("without spaces", (",", ":"), None),
        ("with a space after each comma", (", ", ": "), None),
        ("indented by two", (",", ": "), 2),
    ):
        for plain in (False, True):
            written = json.dumps(document, separators=separators, indent=indent, ensure_ascii=not plain)
            yield text, written.encode("utf-8", "surrogatepass")


def _fits(scheme: Scheme, delivery: Webhook, secrets: Sequence[str], now: float) -> bool:
    try:
        signatures.verify([scheme], delivery, secrets, now=now)
    except NotVerified as error:
        return error.reason in _TIME_IS_ALL
    return True


def _delivery(exchange: Exchange, known_as: str) -> Webhook:
    query = dict(parse_qsl(urlsplit(exchange.path).query))
    return Webhook(exchange.method, known_as + exchange.path, exchange.path, exchange.headers, query, exchange.body)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} … ({len(text)} characters)"
