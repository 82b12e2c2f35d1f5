"""CPU time of small pieces of work, taken in turns so that noise meets all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Work = Callable[[], object]
Rows = Sequence[Sequence[object]]


@dataclass(frozen=True, slots=True)
class Timing:
    """CPU seconds of one call: median and 99th percentile of ``calls`` calls."""

    median: float
    p99: float
    calls: int

    def document(self) -> dict[str, Any]:
        """Return it as it is in results.json, in microseconds."""
        return {"median_us": round(self.median * 1e6, 1), "p99_us": round(self.p99 * 1e6, 1), "calls": self.calls}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` (0 to 1) of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def timing(samples: Sequence[float]) -> Timing:
    """Summarise CPU seconds."""
    return Timing(percentile(samples, 0.5), percentile(samples, 0.99), len(samples))


def once(work: Work) -> float:
    """Return the CPU seconds of one call: other processes on the machine don't count."""
    begun = time.process_time_ns()
    work()
    return (time.process_time_ns() - begun) / 1e9


def compare(contenders: Mapping[str, Work], *, seconds: float, least: int = 5) -> dict[str, Timing]:
    """Call each contender in turn until ``seconds`` of CPU have gone by and each was timed ``least`` times.

    A turn is one call that is not timed, since it pays for the memory that the
    contender before it left scattered, and three that are.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.freeze()  # else every collection walks the other contenders' data, too
    spent = 0.0
    while spent < seconds or len(next(iter(samples.values()))) < least:
        for name, work in contenders.items():
            spent += once(work)
            samples[name] += [once(work) for _ in range(3)]
            spent += sum(samples[name][-3:])
    gc.unfreeze()
    return {name: timing(times) for name, times in samples.items()}


def table(title: str, head: Sequence[str], rows: Rows) -> str:
    """Return ``rows`` in columns under ``head``; all but the first column are set to the right."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    written = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join([title, "-" * len(title), *(line.rstrip() for line in written), ""])
