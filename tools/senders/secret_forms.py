"""Whether a text can be a source's secret, found out before it is written.

Most wrong ones are another credential of the same sender, such as an API key.
A source's ``[secret]`` table says what its own look like: ``form``, a regular
expression for the whole text, and ``hint``, the same for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from handler.door import ecdsa, signatures
from handler.door.signatures import TOKEN, TOKEN_SECRET
from handler.events import senders
from handler.events.senders import Scheme, Source
from handler.events.webhook import Webhook

FIELDS = {"form", "hint"}
_NOTHING = Webhook("POST", "", "", {}, {}, b"")


def mistakes(table: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong with a file's ``[secret]``: where, and what was expected."""
    for name in FIELDS & set(table):
        if not isinstance(table[name], str) or not table[name].strip():
            yield ("secret", name), "expected a text"
    if table and "hint" not in table:
        yield ("secret",), "expected 'hint': what a secret of this sender looks like"
    try:
        re.compile(str(table.get("form", "")))
    except re.error:
        yield ("secret", "form"), "expected a regular expression"


def wrong(name: str, secret: str) -> str | None:
    """Return why ``secret`` cannot be one of the source ``name``, and what is expected; ``None`` if it can.

    The text holds nothing of the secret.
    """
    source, table = senders.load(name), senders.document(name).get("secret", {})
    if secret.startswith(TOKEN_SECRET):
        return _wrong_token(source, secret.removeprefix(TOKEN_SECRET))
    schemes = [scheme for scheme in source.schemes if scheme.scheme != TOKEN] or source.schemes
    problems = [_unusable(scheme, secret) for scheme in schemes]
    hint = f"expected {table['hint']}" if "hint" in table else None
    if problems[0] is not None and None not in problems:
        why, form = problems[0]
        return f"{why}; {hint or f'expected {form}'}"
    if "form" in table and not re.fullmatch(table["form"], secret):
        return hint
    return None


def shared(document: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield each group of two or more sources that list the same secret.

    Each of them verifies webhooks that were sent to another.
    """
    holders: dict[str, set[str]] = {}
    for source, secrets in document.items():
        for secret in [secrets] if isinstance(secrets, str) else secrets if isinstance(secrets, list) else []:
            holders.setdefault(str(secret), set()).add(source)
    yield from sorted({tuple(sorted(names)) for names in holders.values() if len(names) > 1})


def _wrong_token(source: Source, token: str) -> str | None:
    taken = any(TOKEN in (scheme.scheme, scheme.batches) for scheme in source.schemes)
    if not taken and not any(handshake.token for handshake in source.handshakes):
        return "it is a URL token (token:…), and this sender's webhooks are verified by their signature alone"
    return None if token.strip() else "token: has nothing after it; expected token: and the token"


def _unusable(scheme: Scheme, secret: str) -> tuple[str, str] | None:
    """Return why ``scheme`` can do nothing with ``secret``, and what it can use; ``None`` if it can."""
    if scheme.scheme == "ecdsa" and ecdsa.public_point(secret) is None:
        return "it is not an ECDSA public key", "a P-256 public key in base64 (DER), without the lines BEGIN and END"
    if scheme.encoding == "basic" and ":" not in secret:
        return "it has no colon", "user:password as the sender sends them, or token:… for a token in the URL"
    if scheme.scheme in ("hmac", "digest") and signatures.signature(_plain(scheme), secret, _NOTHING) is None:
        return "nothing is left of it when it is read as base64", f"base64, such as {scheme.key_prefix}…"
    return None


def _plain(scheme: Scheme) -> Scheme:
    """Return the same key over a body alone, since an address or a form's fields are not at hand here."""
    return Scheme(scheme=scheme.scheme, digest=scheme.digest, key=scheme.key, key_prefix=scheme.key_prefix)
