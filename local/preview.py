"""``make preview``: what a payload becomes, without any stack."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from handler import mapping, sources
from handler.errors import Refused, SourceError, Unmapped
from handler.mapping import Defaults

from . import payload


def preview(source: str, headers: dict[str, str], body: bytes, received: float) -> dict[str, Any]:
    """``events`` (event-bulk-create entries), ``ignored`` and ``unmapped`` (``None`` or why)."""
    try:
        outcome = mapping.understand(
            sources.load(source), headers=headers, body=body, received=received, defaults=Defaults()
        )
    except (Unmapped, Refused) as error:
        return {"events": [], "ignored": None, "unmapped": f"{error.reason}: {error.detail}"}
    reasons = dict.fromkeys(f"{parked.reason}: {parked.detail}" for parked in outcome.parked)
    return {
        "events": [json.loads(event.entry) for event in outcome.events],
        "ignored": outcome.ignored,
        "unmapped": "; ".join(reasons) or None,
    }


def main(arguments: list[str]) -> int:
    """Print the preview as JSON; what is wrong with the call goes to standard error."""
    parser = argparse.ArgumentParser(prog="make preview", description=__doc__)
    parser.add_argument("source")
    parser.add_argument("file")
    parser.add_argument("headers", nargs="?")
    options = parser.parse_args(arguments)
    try:
        if options.source not in sources.names():
            raise ValueError(f"no source {options.source!r}; there are: {', '.join(sources.names())}")
        headers, body = payload.read(options.file, options.headers or None)
        found = preview(options.source, headers, body, time.time())
    except (OSError, ValueError, SourceError) as error:
        print(f"preview: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
