"""``make bench``: every part, or those named; tables on the terminal, figures in results.json, pictures in docs/."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local import aws

from . import coldstart, cost, delivery, growth, job, latency, pictures, stories, virtual, webhook

RESULTS = Path(__file__).parent / "results.json"
SIMPLE = {
    "job": job.run,
    "webhook": webhook.run,
    "delivery": delivery.run,
    "coldstart": coldstart.run,
    "growth": growth.run,
    "latency": latency.run,
    "ten_million": growth.ten_million,
}
PARTS = ("job", "webhook", "delivery", "coldstart", "virtual", "growth", "latency", "cost")
ON_DEMAND = ("ten_million", "stories")  # each takes minutes


def measured(figures: dict[str, Any]) -> cost.Measured:
    """Return the cost model's sizes and durations, out of what was measured."""
    typical = figures["webhook"]["shopify"]
    single, thousand = figures["delivery"]["one event"], figures["delivery"]["1,000 messages of one"]
    return cost.Measured(
        event_bytes=figures["job"]["bytes"] / figures["job"]["events"],
        receive_cpu=typical["whole"]["median_us"] / 1e6,
        receive_cpu_event=figures["growth"]["door_batched"]["us_an_event"] / 1e6,
        receive_log=typical["log_bytes"],
        deliver_cpu=single["median_us"] / 1e6,
        deliver_cpu_event=(thousand["median_us"] - single["median_us"]) / 999e6,
        deliver_log=single["log_bytes"],
        deliver_log_event=(thousand["log_bytes"] - single["log_bytes"]) / 999,
        receive_start=figures["coldstart"]["receive"]["median_ms"] / 1e3,
        deliver_start=figures["coldstart"]["deliver"]["median_ms"] / 1e3,
    )


def known() -> dict[str, Any]:
    """Return the figures of the last run: parts that are not measured now are kept."""
    try:
        results: dict[str, Any] = json.loads(RESULTS.read_text())
    except FileNotFoundError:
        return {}
    return results


def machine() -> dict[str, Any]:
    """Return on what machine and versions the figures were measured."""
    return {"python": platform.python_version(), "machine": platform.machine(), "processors": os.cpu_count()}


def run(part: str) -> None:
    """Measure ``part``, write what came of it and draw its picture."""
    figures = known()
    shown: virtual.Result | None = None
    if part == "virtual":
        figures[part], shown = virtual.run()
    elif part == "cost":
        figures[part] = cost.run(measured(figures))
    else:
        figures[part] = SIMPLE[part]()
    figures["measured"] = {"at": datetime.now(UTC).strftime("%Y-%m-%d"), **machine()}
    RESULTS.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    for path in pictures.write({part: figures[part]}, shown):
        print(f"wrote {path.relative_to(aws.ROOT)}\n")


def apart(parts: list[str]) -> int:
    """Run each part in a process of its own, since some put their answers in place of AWS's; a failure ends it."""
    for number, part in enumerate(parts, 1):
        print(f"[{number}/{len(parts)}] {part} ...", file=sys.stderr, flush=True)
        if status := subprocess.run([sys.executable, "-m", "bench", part], check=False).returncode:  # noqa: S603 (our own)
            return status
    print(f"wrote {RESULTS.relative_to(aws.ROOT)}")
    return 0


def main() -> int:
    """Measure the parts; return exit status 0 if everything could be measured."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    known_parts = ", ".join(PARTS + ON_DEMAND)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of {known_parts}; default: all but the last two")
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := set(parts) - {*PARTS, *ON_DEMAND}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if len(parts) > 1:
        return apart(parts)
    if parts == ["stories"]:
        return stories.main([])  # bounds that are kept or not: no figures for results.json
    run(parts[0])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
