"""``python -m tools``."""

from __future__ import annotations

import sys

from .commands import main

raise SystemExit(main(sys.argv[1:]))
