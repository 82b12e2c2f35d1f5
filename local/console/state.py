"""What the console's pages share: the stack, what came in, what is seen of it, and the playground's process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

from flask import current_app

from handler import zones
from handler.events import senders
from handler.events.mapping import Defaults
from local.stack import Stack
from tools.errors import CommandError
from tools.senders.payload import Payload

from .exchanges import Exchanges
from .sandbox import Sandbox
from .watch import Watch


class ConsoleState:
    """A running ``stack`` as the pages see it; what is saved goes into ``samples`` and ``senders.CUSTOM``."""

    def __init__(self, stack: Stack, exchanges: Exchanges, samples: Path) -> None:
        self.stack = stack
        self.exchanges = exchanges
        self.samples = samples
        self.watch = Watch(stack)
        self.sandbox = Sandbox(senders.CUSTOM, samples)
        self._deployed = _fingerprint()
        self._deploying = threading.Lock()

    def changed(self) -> bool:
        """Return whether a source's file differs from the one that the functions have."""
        return _fingerprint() != self._deployed

    def deploy(self) -> None:
        """Hand the functions the sources' files as they are now."""
        with self._deploying:
            fingerprint = _fingerprint()
            self.stack.redeploy()
            self._deployed = fingerprint

    def send(self, source: str, sent: Payload) -> int:
        """Send a webhook as its sender would, signed now; return its number among the exchanges.

        Raises
        ------
        CommandError
            There is no secret for the source.
        """
        if not self.stack.secrets["sources"].get(source):
            raise CommandError(f"the secrets file holds no secret for {source}")
        before = self.exchanges.total
        self.stack.send_payload(source, sent)
        return min(
            exchange.number
            for exchange in self.exchanges.newest_first()
            if exchange.number > before and exchange.source == source
        )

    def close(self) -> None:
        """Look no more, and end the playground's process."""
        self.watch.close()
        self.sandbox.close()


def _fingerprint() -> dict[str, bytes]:
    """Return every source's file and its content."""
    folders = (senders.SHIPPED, senders.CUSTOM)
    return {str(path): path.read_bytes() for folder in folders for path in folder.glob("*.toml")}


def console() -> ConsoleState:
    """Return the console that this request is for."""
    return cast("ConsoleState", current_app.extensions["console"])


def defaults() -> Defaults:
    """Return country and zone with which the running stack reads phones and times."""
    parameters = console().stack.parameters
    return Defaults(parameters.get("PhoneRegion", ""), zones.load(parameters.get("TimeZone", "UTC")))


def frame() -> dict[str, Any]:
    """Return what every page shows around its content."""
    running = console()
    return {
        "snapshot": running.watch.snapshot,
        "door": running.stack.url("{source}"),
        "has_standin": running.watch.has_standin,
    }
