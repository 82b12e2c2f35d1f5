"""Payload files: a bare body with a file of its headers, or a sample of ``events/``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tools import paths
from tools.errors import CommandError

JSON = "application/json"
# Of commands that take a payload file.
FILE_HELP = "a file with the body of one webhook, or a sample of events/"
HEADERS_HELP = "a file with a JSON object of the headers that the sender sent"
_SAMPLE = {"headers", "body"}
_HANDSHAKE = {"method", "query"}


@dataclass(frozen=True)
class Payload:
    """One request: ``query`` by name, header names in lower case, the exact body."""

    method: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def at(self, url: str) -> str:
        """Return ``url`` with this request's query."""
        return f"{url}?{urlencode(self.query)}" if self.query else url


def request(file: str | Path, headers_file: str | Path | None = None, *, source: str = "") -> Payload:
    """Read a payload file of ``source``, with ``method`` and ``query`` of a handshake's sample; raise as ``read``."""
    if not str(file):
        raise CommandError(f"No file given. Set FILE=; {_where(source)}")
    if not Path(file).is_file():
        raise CommandError(f"{file} not found. {_where(source).capitalize()}")
    sample = _sample(Path(file).read_bytes()) or {}
    query = {name: str(value) for name, value in sample.get("query", {}).items()}
    return Payload(sample.get("method", "POST"), query, *read(file, headers_file))


def check_given(what: str, name: str, file: str) -> None:
    """Raise ``CommandError`` that names both if neither ``what`` (source, name) nor file is given."""
    if not name and not file:
        raise CommandError(f"No {what} and no file given. Set {what.upper()}= and FILE=; {_where('')}")


def _where(source: str) -> str:
    """Return where samples are: those of ``source`` if it has any."""
    if source and (paths.SAMPLES / source).is_dir():
        return f"samples of {source} are in events/{source}/"
    return "the senders' samples are in events/"


def read(file: str | Path, headers_file: str | Path | None = None) -> tuple[dict[str, str], bytes]:
    """Read the headers (names in lower case) and the exact body of a payload file.

    A file that is an object with ``headers`` and ``body`` (and ``method`` and
    ``query``, if it is a handshake) is a sample. Its
    body is sent unchanged if it is text, otherwise as JSON. Of any other file the
    bytes themselves are the body. Headers in ``headers_file`` go over others.

    Raises
    ------
    CommandError
        ``headers_file`` is not a JSON object; the text names the file.
    OSError
        A file cannot be read.
    """
    raw = Path(file).read_bytes()
    headers: dict[str, str] = {}
    sample = _sample(raw)
    if sample is not None:
        headers = {name.lower(): str(value) for name, value in sample["headers"].items()}
        body = sample["body"]
        body = "" if body is None else body
        raw = body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()
    if headers_file:
        headers |= _headers(Path(headers_file))
    headers.setdefault("content-type", JSON)
    headers.pop("content-length", None)
    headers.pop("accept-encoding", None)
    return headers, raw


def _headers(path: Path) -> dict[str, str]:
    try:
        document = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise CommandError(f"{path}:{error.lineno}: expected JSON (column {error.colno})") from None
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not text in UTF-8") from None
    if not isinstance(document, dict):
        raise CommandError(f"{path} is not a JSON object of headers")
    return {name.lower(): str(value) for name, value in document.items()}


def _sample(raw: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(document, dict) or not _SAMPLE <= set(document) <= _SAMPLE | _HANDSHAKE:
        return None
    if isinstance(document["headers"], dict) and isinstance(document.get("query", {}), dict):
        return document
    return None
