"""``make local``: the relay and its console until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from tools import loopback
from tools.errors import CommandError
from tools.terminal import say

from . import changes, trigger
from .console.exchanges import Exchanges
from .console.server import Console
from .stack import SECRETS_FILE, Stack, read_secrets, secrets_path

MOST_PORTS = 65_535


@contextlib.contextmanager
def alone(running: Path) -> Iterator[None]:
    """Be the one relay of this folder, and take its address away at the end: the other tools read it from ``running``.

    Raises
    ------
    CommandError
        Another one runs here.
    """
    running.parent.mkdir(parents=True, exist_ok=True)
    with running.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                "`make local` is already running in this folder. Stop it first, or use another clone"
            ) from None
        try:
            yield
        finally:
            running.unlink(missing_ok=True)


def _number(variable: str) -> int:
    """Return the port number in a variable of the environment, 0 if it is not set."""
    text = os.environ.get(variable) or "0"
    if not text.isdecimal() or int(text) > MOST_PORTS:
        raise CommandError(f"{variable}={text} is not a port. Set a number up to {MOST_PORTS}, or leave it out")
    return int(text)


def addresses(stack: Stack, console_url: str) -> Iterator[str]:
    """Yield where everything that runs is, and with ``VERBOSE`` what does not run; a line each."""
    if os.environ.get("VERBOSE"):
        kinds = ", ".join(f"{count} {kind}" for kind, count in stack.left_out.items())
        yield f"not emulated here: {kinds} (the event source mapping: ours runs instead)"
    yield f"Klaviyo{' stand-in' if stack.has_standin else ''}: {stack.klaviyo_url}"
    yield f"aws: {stack.aws.url}"
    yield f"webhooks: {stack.url('{source}')}"
    address = stack.url("")[: -len("/webhooks/")]
    yield f"tunnel (optional): cloudflared tunnel --url {address} (exposes /webhooks/ only)"
    yield f"console: {console_url}"


def run(_: argparse.Namespace) -> int:
    """Run the stack until Ctrl-C."""
    rate = os.environ.get("REQUESTS_PER_MINUTE")
    exchanges = Exchanges()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    secrets = read_secrets(secrets_path())
    known = changes.stamps()
    say("starting ...")
    with (
        alone(loopback.RUNNING),
        Stack(
            klaviyo_url=os.environ.get("KLAVIYO_URL", ""),
            parameters={"RequestsPerMinute": rate} if rate else {},
            properties={trigger.LONG_POLL: os.environ.get("LONG_POLL") or 0},
            secrets=secrets,
            port=_number("PORT"),
            exchanges=exchanges,
            made_up=secrets_path() == SECRETS_FILE,
        ) as stack,
        Console(stack, exchanges, _number("CONSOLE_PORT")) as console,
    ):
        loopback.Running(stack.url("{source}"), stack.known_as, stack.aws.url, stack.outputs, stack.parameters).write()
        say(*addresses(stack, console.url), "ready")
        changes.watch(known, stack.redeploy, stopped, say)
    return 0
