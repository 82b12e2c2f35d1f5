"""What `make local` does when a sender's file is edited: the running functions get it at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from handler.errors import SourceError, UnknownSource
from handler.events import senders

Stamps = dict[Path, tuple[int, int]]
LOOK_SECONDS = 1.0


def stamps() -> Stamps:
    """Return time and size of every sender's file."""
    states = {path: path.stat() for folder in (senders.SHIPPED, senders.CUSTOM) for path in folder.glob("*.toml")}
    return {path: (state.st_mtime_ns, state.st_size) for path, state in states.items()}


def watch(
    known: Stamps,
    redeploy: Callable[[], None],
    stopped: threading.Event,
    say: Callable[[str], None],
    seconds: float = LOOK_SECONDS,
) -> None:
    """Call ``redeploy`` each time senders' files change after ``known``, until ``stopped``; say which changed.

    A file that cannot be read stays out of the functions until it can be read.
    Otherwise its sender's webhooks would get a 503.
    """
    while not stopped.wait(seconds):
        current = stamps()
        changed = sorted(path for path in {*known, *current} if known.get(path) != current.get(path))
        known = current
        if not changed:
            continue
        senders.load.cache_clear()
        names = ", ".join(path.name for path in changed)
        if wrong := _unreadable([path.stem for path in changed if path in current]):
            say(f"{names} was not reloaded: {wrong}")
            continue
        redeploy()
        say(f"{names} changed: reloaded")


def _unreadable(names: list[str]) -> str:
    for name in names:
        try:
            senders.load(name)
        except (SourceError, UnknownSource) as error:
            return str(error)
    return ""
