"""A kept request as a command line, to be sent from elsewhere."""

from __future__ import annotations

import base64
import re
import shlex

from tools.terminal import visible

from .exchanges import Exchange

_OWN = ("content-length", "accept-encoding", "transfer-encoding", "host", "user-agent", "accept")
# A header name as HTTP has it (RFC 9110, 5.6.2). Another may be a file's name to curl: -H @file.
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def command(exchange: Exchange, door: str) -> str:
    """Return ``curl`` with the method, the headers and the exact body.

    A body that cannot be shown goes through base64.

    What a terminal would act on when it is pasted, an escape or Ctrl-C, is not in it; the shell expands nothing, nor
    does curl: no ``[1-9]`` in the URL, no file for ``@``.
    """
    parts = ["curl", "-i", "--globoff", "-X", exchange.method, _quoted(door + exchange.path)]
    for name, value in exchange.headers.items():
        if name not in _OWN and _NAME.fullmatch(name):
            # Without a value curl would leave the header out; a semicolon sends it empty.
            parts += ["-H", _quoted(f"{name}: {value}" if value.strip() else f"{name};")]
    text = exchange.body.decode("utf-8", "replace")
    if text.encode() != exchange.body or visible(text, keep="\n") != text:
        encoded = base64.b64encode(exchange.body).decode()
        return f"echo {encoded} | base64 -d | {' '.join([*parts, '--data-binary', '@-'])}\n"
    if exchange.body:
        parts += ["--data-raw", shlex.quote(text)]
    return " ".join(parts) + "\n"


def _quoted(text: str) -> str:
    """Return one word for the shell; where something in it cannot be seen, what prints the word."""
    if visible(text) == text:
        return shlex.quote(text)
    # Written in octal too: what printf reads, and what an interactive bash expands between double quotes.
    plain = frozenset(range(32, 127)) - frozenset(b"%\\-!")
    octal = "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode())
    return f'"$(printf {shlex.quote(octal)})"'
