"""multipart/form-data; a module of its own, since few senders post it and its parser is a twentieth of a cold start."""

from __future__ import annotations

from email.parser import BytesParser
from email.policy import Compat32
from typing import Any


class _PlainHeaders(Compat32):
    """A part's headers as UTF-8 text; the policy ``HTTP`` parses each by its grammar, ten times as slow."""

    def header_fetch_parse(self, _name: str, value: str) -> str:
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def fields(body: bytes, content_type: str, *, most: int) -> list[tuple[str, str]] | None:
    """Names and texts of the first ``most`` parts, files left out; ``None`` if it cannot be read as multipart."""
    try:
        return _fields(body, content_type, most)
    except (TypeError, ValueError, LookupError, RecursionError):
        # email.parser raises these on malformed parameters (name*=a; name*0=b) and on parts nested 500 deep.
        return None


def _fields(body: bytes, content_type: str, most: int) -> list[tuple[str, str]] | None:
    head = b"Content-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n"
    parts: Any = BytesParser(policy=_PlainHeaders()).parsebytes(head + body).get_payload()
    if not isinstance(parts, list):
        return None
    found: list[tuple[str, str]] = []
    for part in parts[:most]:
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes) and not part.get_filename():
            found.append((name, content.decode("utf-8", "replace")))
    return found
