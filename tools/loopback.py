"""The relay that ``make local`` runs: where it says what it is, and clients that reach this machine only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3

from tools.errors import CommandError

from . import paths

REGION = "us-east-1"
RUNNING = paths.LOCAL / "running.json"


@dataclass(frozen=True)
class Running:
    """The addresses of the local relay: ``webhooks`` with ``{source}``, ``known_as`` to the functions, and ``aws``."""

    webhooks: str
    known_as: str
    aws: str
    outputs: dict[str, str]
    parameters: dict[str, str]

    def write(self) -> None:
        """Leave it for the other commands."""
        RUNNING.write_text(json.dumps(asdict(self)))


def running(other: str) -> Running:
    """Return the relay that runs here; ``other`` is the option that names one elsewhere.

    Raises
    ------
    CommandError
        None runs in this folder.
    """
    if not RUNNING.exists():
        raise CommandError(f"No relay is running here. Start one with `make local`, or set {other} to another")
    return Running(**json.loads(RUNNING.read_text()))


def client(service: str, url: str, **options: Any) -> Any:
    """Return a boto3 client for the MiniStack at ``url``; ``CommandError`` for any address but 127.0.0.1."""
    parts = urlsplit(url)
    if (parts.scheme, parts.hostname) != ("http", "127.0.0.1"):  # the text before an @ is not a host
        raise CommandError("local tools speak to 127.0.0.1 only")
    return boto3.client(
        service,  # type: ignore[call-overload]  # the services' names are literals in the stubs
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 (invented)
        **options,
    )
