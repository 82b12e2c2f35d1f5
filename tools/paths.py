"""Where things are in the project's folder."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "events"
LOCAL = ROOT / ".local"  # what `make local` and the tests of the running stack write


def shown(path: Path) -> str:
    """Return ``path`` as it reads from the project's folder."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
