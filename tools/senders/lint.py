"""Check the file and the samples of every sender; each mistake is one line, ``file:line: what was expected``."""

from __future__ import annotations

import argparse
from pathlib import Path

from handler.errors import SourceError
from handler.events import senders
from tools import paths
from tools.terminal import say

from . import coverage, rules


def problems(name: str, samples: Path = paths.SAMPLES) -> list[SourceError]:
    """Return every mistake in a source's file and samples; empty if there is none."""
    mistakes, checked = rules.mistakes(name)
    if mistakes or checked is None:
        return mistakes
    return [checked.problem(place, text, coverage.NO_SAMPLE) for place, text in coverage.unseen(name, checked, samples)]


def run(_: argparse.Namespace) -> int:
    """Print what is wrong, or nothing; return 1 if something is wrong."""
    mistakes = [problem for name in senders.names() for problem in problems(name)]
    say(*mistakes, error=True)
    return 1 if mistakes else 0
