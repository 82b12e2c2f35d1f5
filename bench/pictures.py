"""The pictures of docs/performance.md, out of one run's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from local import aws
from sim.klaviyo import PER_MINUTE, PER_SECOND

from . import svg, virtual

FOLDER = aws.ROOT / "docs" / "pictures"
SHOWN_SECONDS = 300.0


def rate(result: virtual.Result) -> str:
    """Draw the arrivals in the last second and the last minute, with Klaviyo's limits."""
    first = result.arrivals[0]
    arrivals = [at - first for at in result.arrivals if at - first <= SHOWN_SECONDS]
    shown = [
        svg.Panel(f"requests in the last {name}", arrivals, trailing(arrivals, length), limit)
        for name, length, limit in (("second", 1.0, PER_SECOND), ("60 seconds", 60.0, PER_MINUTE))
    ]
    title = f"Full backlog, {result.senders} senders, arrivals spread by {result.spread:g} s: Klaviyo's limits in red"
    return svg.panels(title, shown, unit="seconds")


def trailing(arrivals: list[float], length: float) -> list[float]:
    """Return for each arrival how many came in the ``length`` seconds up to it."""
    counts: list[float] = []
    start = 0
    for end, at in enumerate(arrivals):
        while at - arrivals[start] >= length:
            start += 1
        counts.append(end - start + 1)
    return counts


def cpu(job: dict[str, Any]) -> str:
    """Draw the CPU of one full job, by contender."""
    rows = {name: {"CPU": timing["median_us"] / 1e3} for name, timing in job["timings"].items()}
    return svg.bars("CPU to build one request of 1,000 orders (2 MB)", rows, unit="ms", digits=1)


def cost(bills: dict[str, dict[str, float]], as_of: str) -> str:
    """Draw the dollars by part and traffic."""
    rows = {name: {part: amount for part, amount in bill.items() if part != "all"} for name, bill in bills.items()}
    return svg.bars(f"Dollars for a million events (us-east-1, list prices of {as_of})", rows, unit="$")


def latency(parts: dict[str, dict[str, float]]) -> str:
    """Draw the seconds from webhook to Klaviyo by part."""
    return svg.bars("From webhook to Klaviyo on the local stack, median by part", parts, unit="s")


def write(figures: dict[str, Any], shown: virtual.Result | None, folder: Path = FOLDER) -> list[Path]:
    """Write the pictures that ``figures`` holds the data for."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, str] = {}
    if shown is not None:
        pictures["rate"] = rate(shown)
    if "job" in figures:
        pictures["cpu"] = cpu(figures["job"])
    if "cost" in figures:
        pictures["cost"] = cost(figures["cost"]["by_traffic"], figures["cost"]["prices_as_of"])
    if "latency" in figures:
        pictures["latency"] = latency(figures["latency"]["parts_s"])
    paths = []
    for name, picture in pictures.items():
        paths.append(folder / f"{name}.svg")
        paths[-1].write_text(picture, "utf-8")
    return paths
