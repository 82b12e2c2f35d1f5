"""``make audit``: what is known against the libraries that are zipped beside the functions.

pip-audit asks PyPI's advisories. It passes over what it cannot look up and
says nothing; here that is no clean bill.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from .paths import ROOT
from .terminal import say

REQUIREMENTS = ROOT / "src" / "requirements.txt"


def verdict(output: str) -> tuple[int, str]:
    """Exit status and text for pip-audit's JSON: 0 clean, 1 something is known, 2 not or only partly checked."""
    try:
        listed: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return 2, "audit: the advisories cannot be reached from here; nothing was checked"
    known = [
        f"{one['name']} {one['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no release yet'}"
        for one in listed
        for flaw in one.get("vulns", [])
    ]
    unchecked = [one["name"] for one in listed if "skip_reason" in one]
    if unchecked:
        known.append(f"audit: no advisories to be had from here for {', '.join(unchecked)}; these were not checked")
    if known:
        return 2 if unchecked else 1, "\n".join(known)
    return 0, f"nothing known against {', '.join(one['name'] for one in listed)}"


def run(_: argparse.Namespace) -> int:
    """Run pip-audit over what the functions are packed with."""
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--format", "json"]
    command += ["--disable-pip", "--require-hashes", "--requirement", str(REQUIREMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own command line)
    status, text = verdict(done.stdout)
    say(*text.split("\n"), error=bool(status))
    return status
