"""A kept request as a command line, to be sent from elsewhere."""

from __future__ import annotations

import base64
import shlex

from .ledger import Exchange

_OWN = ("content-length", "accept-encoding", "transfer-encoding", "host", "user-agent", "accept")


def command(exchange: Exchange, door: str) -> str:
    """``curl`` with the method, the headers and the exact body; bytes that are no text go through base64."""
    parts = ["curl", "-i", "-X", exchange.method, door + exchange.path]
    for name, value in exchange.headers.items():
        if name not in _OWN:
            parts += ["-H", f"{name}: {value}"]
    try:
        text = exchange.body.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        encoded = base64.b64encode(exchange.body).decode()
        return f"echo {encoded} | base64 -d | {shlex.join([*parts, '--data-binary', '@-'])}\n"
    if exchange.body:
        # curl reads a file where the text begins with an at sign.
        parts += ["--data-raw" if text.startswith("@") else "--data-binary", text]
    return shlex.join(parts) + "\n"
