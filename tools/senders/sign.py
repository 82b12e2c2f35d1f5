"""Sign a payload as its sender would, by the same TOML that the door verifies with.

ECDSA is signed with the library ``cryptography``, so that ``handler.door.ecdsa`` is tested against others' code.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handler.door import ecdsa, signatures
from handler.errors import NotVerified
from handler.events import senders
from handler.events.senders import Scheme, Source
from handler.events.webhook import Webhook
from tools.errors import CommandError

DEVELOPMENT_TOKEN = "development_token"  # noqa: S105 (for one machine)


def development_secret(name: str, scheme: Scheme) -> str:
    """Return a secret for one machine, in the form that the sender's secrets have."""
    key = hashlib.sha256(f"development secret of {name}".encode()).digest()[:24]
    if scheme.scheme == "ecdsa":
        public = _private_key(name).public_key()
        return base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    if scheme.encoding == "basic":
        return f"development:{key.hex()}"
    if scheme.key == "base64":
        return scheme.key_prefix + base64.b64encode(key).decode()
    return f"development_{key.hex()}"


def development_secrets(names: Iterable[str]) -> dict[str, Any]:
    """Return the secrets document of one machine: a made-up key, and a signing secret for each source."""
    return {
        "klaviyo": {"api_key": "pk_development"},
        "sources": {name: _secrets(senders.load(name)) for name in names},
    }


def _secrets(source: Source) -> list[str]:
    secrets = [development_secret(source.name, source.schemes[0])]
    with_token = any(handshake.token for handshake in source.handshakes)
    if with_token or any(signatures.TOKEN in (scheme.batches, scheme.scheme) for scheme in source.schemes[1:]):
        secrets.append(signatures.TOKEN_SECRET + DEVELOPMENT_TOKEN)
    return secrets


def sign(
    source: str, secret: str, *, body: bytes, headers: dict[str, str], url: str, now: float, method: str = "POST"
) -> tuple[str, dict[str, str]]:
    """Return ``url`` and ``headers`` as ``source`` would send them with ``body``, signed at ``now`` (epoch seconds).

    A given header keeps its value (a webhook id, say); the signature and its
    timestamp are always new.

    Raises
    ------
    UnknownSource
        No such source.
    CommandError
        ``secret`` is not a key in this sender's form, or a public key whose
        private half only the sender has, or this sender cannot sign such a body.
    """
    scheme = senders.load(source).schemes[0]
    signed = {name.lower(): value for name, value in headers.items()}
    if scheme.scheme == signatures.TOKEN:
        return _with_token(scheme, secret.removeprefix(signatures.TOKEN_SECRET), url, signed)
    stamp = _stamp(scheme, now)
    identity = ""
    if scheme.id_header:
        identity = next((signed[name] for name in scheme.id_header if name in signed), "")
        identity = identity or "msg_" + hashlib.sha256(body).hexdigest()[:24]
        signed[scheme.id_header[0]] = identity
    parts = urlsplit(url)
    uri = parts.path + (f"?{parts.query}" if parts.query else "")
    delivery = Webhook(method, url, uri, signed, dict(parse_qsl(parts.query)), body)
    if scheme.scheme == "ecdsa":
        if secret != development_secret(source, scheme):
            raise CommandError(
                f"the private half of this key is {source}'s alone: only a development key can sign here"
            )
        written: str | None = ecdsa_signature(source, signatures.content(scheme.signed, delivery, stamp, identity))
    else:
        try:
            written = signatures.signature(scheme, secret, delivery, timestamp=stamp, identity=identity)
        except NotVerified as error:
            raise CommandError(f"{source} could not have sent this: {error.detail}") from None
    if written is None:
        raise CommandError(f"the secret of {source} is not in this sender's form")
    if scheme.timestamp_header:
        signed[scheme.timestamp_header[0]] = stamp
    signed[scheme.header[0]] = _written(scheme, written, stamp)
    return url, signed


def fresh(source: str, body: bytes, now: float) -> bytes:
    """Return ``body`` as if made at ``now``.

    It changes only if its sender writes the time of signing into it (at the top, in JSON).
    """
    scheme = senders.load(source).schemes[0]
    if scheme.timestamp_body is None:
        return body
    document = json.loads(body)
    stamp = _stamp(scheme, now)
    document[scheme.timestamp_body.text] = int(stamp) if stamp.isdigit() else stamp
    return json.dumps(document, ensure_ascii=False).encode()


def _with_token(scheme: Scheme, token: str, url: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    if scheme.encoding == "basic":
        written = "Basic " + base64.b64encode(token.encode()).decode()
        return url, headers | {scheme.header[0]: written}
    if scheme.header:
        return url, headers | {scheme.header[0]: scheme.prefix + token}
    joint = "&" if urlsplit(url).query else "?"
    return f"{url}{joint}{urlencode({signatures.TOKEN: token})}", headers


def _private_key(name: str) -> ec.EllipticCurvePrivateKey:
    number = int.from_bytes(hashlib.sha256(f"development key of {name}".encode()).digest(), "big") % (ecdsa.N - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


def ecdsa_signature(name: str, content: bytes) -> str:
    """Return a signature in base64 DER by a source's development key; the same each time (RFC 6979)."""
    signature = _private_key(name).sign(content, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return base64.b64encode(signature).decode()


def _stamp(scheme: Scheme, now: float) -> str:
    if scheme.timestamp_format == "iso":
        return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(int(now * 1000) if scheme.timestamp_format == "ms" else int(now))


def _written(scheme: Scheme, written: str, stamp: str) -> str:
    if scheme.layout == "list":
        return f"{scheme.value},{written}"
    if scheme.layout == "pairs":
        pairs = [f"{scheme.timestamp}={stamp}"] if scheme.timestamp else []
        return scheme.separator.join([*pairs, f"{scheme.value}={written}"])
    return scheme.prefix + written
