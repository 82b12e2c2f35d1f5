"""How a source signs, in words, and what came: a refusal can be read without the vendor's documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from handler.door import signatures
from handler.events.senders import Scheme

from . import diagnosis
from .exchanges import Exchange

_KINDS = {
    "hmac": "HMAC-{digest} in {encoding}, over {signed}",
    "digest": "{digest} of the secret and {signed}, in {encoding}",
    "ecdsa": "ECDSA P-256, over {signed}",
}


def described(exchange: Exchange, known_as: str, secrets: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return pairs of a term and its text; of several ways to sign, those that the request tries, otherwise all.

    ``known_as`` is the address that the relay takes for its own when a sender signs the URL, ``secrets`` are those
    that this machine has for the source.
    """
    if exchange.mapping is None:
        return []
    schemes = exchange.mapping.schemes
    tried = [scheme for scheme in schemes if _tries(scheme, exchange)] or schemes
    rows: list[tuple[str, str]] = []
    for scheme in tried:
        rows += _rows(scheme, exchange)
        if scheme.scheme != signatures.TOKEN and exchange.reason in diagnosis.EXPLAINED:
            rows += diagnosis.compared(exchange, scheme, secrets, known_as)
    if any("{url}" in scheme.signed for scheme in tried):
        rows.append(("url", f"{known_as}{exchange.path}; through a tunnel a sender signs another one, and is refused"))
    return rows


def _tries(scheme: Scheme, exchange: Exchange) -> bool:
    return any(name in exchange.headers for name in scheme.header)


def _rows(scheme: Scheme, exchange: Exchange) -> Iterator[tuple[str, str]]:
    if scheme.scheme == signatures.TOKEN:
        places = [f"?{signatures.TOKEN}= in the URL", *scheme.header]
        yield "scheme", f"nothing is signed; a token in {' or '.join(places)}"
        in_url = f"{signatures.TOKEN}=" in exchange.path
        yield "this request", "has one in the URL" if in_url else _came(scheme.header, exchange, "has none")
        return
    yield (
        "scheme",
        _KINDS[scheme.scheme].format(digest=scheme.digest.upper(), encoding=scheme.encoding, signed=scheme.signed),
    )
    yield "header", f"{' or '.join(scheme.header)}{_form(scheme)}"
    yield "this request", _came(scheme.header, exchange)
    for title, names in (("timestamp", scheme.timestamp_header), ("id", scheme.id_header)):
        if names:
            yield title, f"{' or '.join(names)}: this request {_came(names, exchange)}"
    if scheme.tolerance and (scheme.timestamp or scheme.timestamp_header or scheme.timestamp_body):
        yield "tolerance", f"{scheme.tolerance} s old, {scheme.ahead} s in the future"


def _form(scheme: Scheme) -> str:
    if scheme.layout == "pairs":
        stamp = f"{scheme.timestamp}=…{scheme.separator}" if scheme.timestamp else ""
        return f", as {stamp}{scheme.value}=…"
    if scheme.layout == "list":
        return f", as {scheme.value},…"
    return f", as {scheme.prefix}…" if scheme.prefix else ""


def _came(names: Iterable[str], exchange: Exchange, none: str = "") -> str:
    header = next((name for name in names if name in exchange.headers), None)
    return f"has {header}" if header else none or f"has no {' or '.join(names)}"
