"""Sign a payload as its sender would, by the same TOML that the door verifies with."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from handler import signatures, sources
from handler.signatures import Delivery, Scheme


def development_secret(name: str, scheme: Scheme) -> str:
    """A secret for one machine, in the form that the sender's secrets have."""
    key = hashlib.sha256(f"development secret of {name}".encode()).digest()[:24]
    if scheme.key == "base64":
        return scheme.key_prefix + base64.b64encode(key).decode()
    return f"development_{key.hex()}"


def development_secrets(names: Iterable[str]) -> dict[str, Any]:
    """The secrets document of one machine: a made-up key, and a signing secret for each source."""
    return {
        "klaviyo": {"api_key": "pk_development"},
        "sources": {name: [development_secret(name, sources.load(name).scheme)] for name in names},
    }


def sign(
    source: str, secret: str, *, body: bytes, headers: dict[str, str], url: str, now: float, method: str = "POST"
) -> tuple[str, dict[str, str]]:
    """``url`` and ``headers`` as ``source`` would send them with ``body``, signed at ``now`` (epoch seconds).

    A given header keeps its value (a webhook id, say); the signature and its
    timestamp are always made anew.

    Raises
    ------
    UnknownSource
        No such source.
    ValueError
        ``secret`` is not a key in this sender's form.
    """
    scheme = sources.load(source).scheme
    if scheme.scheme == signatures.TOKEN:
        joint = "&" if urlsplit(url).query else "?"
        return f"{url}{joint}{urlencode({signatures.TOKEN: secret.removeprefix(signatures.TOKEN_SECRET)})}", headers
    signed = {name.lower(): value for name, value in headers.items()}
    stamp = _stamp(scheme, now)
    identity = ""
    if scheme.id_header:
        identity = next((signed[name] for name in scheme.id_header if name in signed), "")
        identity = identity or "msg_" + hashlib.sha256(body).hexdigest()[:24]
        signed[scheme.id_header[0]] = identity
    parts = urlsplit(url)
    uri = parts.path + (f"?{parts.query}" if parts.query else "")
    delivery = Delivery(method, url, uri, signed, {}, body)
    made = signatures.signature(scheme, secret, delivery, timestamp=stamp, identity=identity)
    if made is None:
        raise ValueError(f"the secret of {source} is not in this sender's form")
    if scheme.timestamp_header:
        signed[scheme.timestamp_header[0]] = stamp
    signed[scheme.header[0]] = _written(scheme, made, stamp)
    return url, signed


def _stamp(scheme: Scheme, now: float) -> str:
    if scheme.timestamp_format == "iso":
        return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(int(now * 1000) if scheme.timestamp_format == "ms" else int(now))


def _written(scheme: Scheme, made: str, stamp: str) -> str:
    if scheme.layout == "list":
        return f"{scheme.value},{made}"
    if scheme.layout == "pairs":
        pairs = [f"{scheme.timestamp}={stamp}"] if scheme.timestamp else []
        return scheme.separator.join([*pairs, f"{scheme.value}={made}"])
    return scheme.prefix + made
