"""What leaves for a reader's eyes: nothing in it moves the cursor, turns the line around, or cannot be seen.

Ids, topics and reasons come from strangers. Everything of ``tools`` and ``local``
that prints does so through ``say``; the console's pages pass through ``visible``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

# Unicode's Cc, Cf, Zl, Zp and Cs, and what else it has "Default_Ignorable_Code_Point" for (DerivedCoreProperties.txt).
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_READER_GONE = 128 + 13  # as a shell reports SIGPIPE


def visible(text: object, *, keep: str = "") -> str:
    """Return ``text`` with each unseen character, except those in ``keep``, as its escape in JSON: ``\\u202e``."""
    return _UNSEEN.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), str(text))


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def say(*lines: object, error: bool = False) -> None:
    """Print each of ``lines`` as one line, errors to standard error; a line break inside one is shown, not made.

    If the reader has gone, as ``head`` does, the program ends quietly (the library's note on SIGPIPE).
    """
    stream = sys.stderr if error else sys.stdout
    try:
        for line in lines:
            print(visible(line), file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is flushed at the end goes there
        raise SystemExit(_READER_GONE) from None


def error(*lines: object) -> None:
    """Print each of ``lines`` to standard error as an error: what was asked for did not happen."""
    say(*(f"error: {line}" for line in lines), error=True)


def warning(*lines: object) -> None:
    """Print each of ``lines`` to standard error as a warning: something is wrong, or may go wrong."""
    say(*(f"warning: {line}" for line in lines), error=True)


def progress(line: object) -> None:
    """Print ``line`` over the one before."""
    print(f"\r{visible(line)}   ", end="", flush=True)


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Return rows as lines of aligned columns."""
    shown = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in shown]
