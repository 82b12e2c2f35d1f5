"""Payload files: a bare body with its headers beside it, or a sample of ``events/``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

JSON = "application/json"


def read(file: str | Path, headers_file: str | Path | None = None) -> tuple[dict[str, str], bytes]:
    """Headers (names in lower case) and exact body of a payload file.

    A file that is an object with ``headers`` and ``body`` only is a sample; its
    body is sent as it stands if it is text, else as JSON. Of any other file the
    bytes themselves are the body. Headers in ``headers_file`` go over others.

    Raises
    ------
    ValueError
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
        raw = body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()
    if headers_file:
        headers |= _headers(Path(headers_file))
    headers.setdefault("content-type", JSON)
    headers.pop("content-length", None)
    headers.pop("accept-encoding", None)
    return headers, raw


def _headers(path: Path) -> dict[str, str]:
    try:
        given = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path} is not a JSON object of headers")
    return {name.lower(): str(value) for name, value in given.items()}


def _sample(raw: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(raw)
    except ValueError:
        return None
    if isinstance(document, dict) and set(document) == {"headers", "body"} and isinstance(document["headers"], dict):
        return document
    return None
