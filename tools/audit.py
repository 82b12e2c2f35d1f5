"""``make audit``: check the libraries that are zipped with the functions for known vulnerabilities.

pip-audit asks PyPI's advisories. It skips what it cannot look up without a
word; here that is an error.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from .paths import ROOT
from .terminal import error, say

REQUIREMENTS = ROOT / "src" / "requirements.txt"


def verdict(output: str) -> tuple[int, str]:
    """Return exit status and text for pip-audit's JSON: 0 clean, 1 something is known, 2 not or only partly checked."""
    try:
        listed: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return 2, "The advisories cannot be reached from here; nothing was checked"
    known = [
        f"{package['name']} {package['version']}: {flaw['id']}, "
        f"fixed in {', '.join(flaw['fix_versions']) or 'no release yet'}"
        for package in listed
        for flaw in package.get("vulns", [])
    ]
    unchecked = [package["name"] for package in listed if "skip_reason" in package]
    if unchecked:
        known.append(f"No advisories available here for {', '.join(unchecked)}; not checked")
    if known:
        return 2 if unchecked else 1, "\n".join(known)
    return 0, f"no known vulnerabilities in {', '.join(package['name'] for package in listed)}"


def run(_: argparse.Namespace) -> int:
    """Run pip-audit over what the functions are packed with."""
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--format", "json"]
    command += ["--disable-pip", "--require-hashes", "--requirement", str(REQUIREMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own command line)
    status, text = verdict(done.stdout)
    (error if status else say)(*text.split("\n"))
    return status
