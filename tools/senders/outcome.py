"""What becomes of the samples of ``events/``, and the reviewed copy of it in tests/unit/expected."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from handler.errors import Unmapped
from handler.events import mapping, senders
from handler.events.mapping import Defaults, Outcome
from handler.events.webhook import Webhook
from tools import paths

from . import payload
from .preview import preview_request

EXPECTED = paths.ROOT / "tests/unit/expected"
RECEIVED = 1_795_500_000.0  # a fixed time of receipt: the samples' outcome is the same on every day


def understood(name: str, path: Path) -> Outcome:
    """Return what becomes of a sample; a handshake, or a sample that cannot be read, makes nothing."""
    sent = payload.request(path)
    if "handshake" in preview_request(name, sent, RECEIVED):
        return Outcome()
    try:
        return mapping.understand(
            senders.load(name), Webhook.posted(sent.headers, sent.body), received=RECEIVED, defaults=Defaults()
        )
    except Unmapped:
        return Outcome()


def expected_of(path: Path) -> str:
    """Return what a sample becomes, as tests/unit/expected keeps it."""
    preview = preview_request(path.parent.name, payload.request(path), RECEIVED)
    return json.dumps(preview, indent=2, ensure_ascii=False) + "\n"


def write_expected(folder: Path = EXPECTED) -> None:
    """Write what every sample becomes into ``folder``; the difference is for a person to read."""
    for path in sorted(paths.SAMPLES.glob("*/*.json")):
        target = folder / path.relative_to(paths.SAMPLES)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(expected_of(path), "utf-8")


def run(_: argparse.Namespace) -> int:
    """Write them."""
    write_expected()
    return 0
