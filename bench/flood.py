"""``make costs FLOOD=500``: what an hour of forged webhooks at so many requests a second costs, by part.

A forgery is refused before anything is queued. AWS bills the request to the
API, ``receive`` and what both log; not what the API refuses with 429 (AWS's
answers on re:Post, of REST APIs). Refusals beyond the first few a minute have no
line of their own (``handler.door.refusals``), but each is counted, and counts are log
lines in embedded metric format.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from .cost import AS_OF, PRICES, Setup

HOUR = 3_600
# Bytes of each refusal. The first is measured, and a test holds it to that; the second, for Lambda's START, END and
# REPORT, is counted from the example in its guide ("Viewing CloudWatch logs for Lambda functions").
METRICS, LAMBDA_LINES = 353, 300
SECONDS = 0.002  # billed; a forgery takes some 0.2 ms of a whole processor, and receive has 0.29 of one


def dollars(rate: float) -> dict[str, tuple[float, float]]:
    """Return the amount and dollars of each part in an hour of ``rate`` forged requests a second."""
    setup, requests = Setup(), rate * HOUR
    logged = requests * (METRICS + LAMBDA_LINES + setup.access_log) / 1e9
    compute = requests * SECONDS * setup.receive_mb / 1_024
    return {
        "requests to the API": (requests, requests * PRICES["http_api_request"]),
        "requests to Lambda": (requests, requests * PRICES["lambda_request"]),
        "GB-seconds of receive": (compute, compute * PRICES["lambda_gb_second"]),
        "GB of logs": (logged, logged * PRICES["logs_gb"]),
    }


def bill(rate: float) -> Iterator[str]:
    """Yield the lines of the bill."""
    parts = dollars(rate)
    total = sum(cost for _, cost in parts.values())
    yield f"An hour of {rate:g} forged webhooks a second: {total:.2f} dollars, a day {24 * total:.0f}"
    for name, (amount, cost) in parts.items():
        yield f"{name:25}{amount:>15,.1f}{cost:>8.2f}"
    yield f"Calculated: list prices of {AS_OF} in us-east-1, no free tier; {SECONDS * 1e3:g} ms billed for each."


def main(arguments: Sequence[str]) -> int:
    """Print the bill; return exit status 2 if the rate is not a positive number."""
    try:
        (rate,) = map(float, arguments)
        if not 0 < rate < float("inf"):
            raise ValueError
    except ValueError:
        print("error: FLOOD is not a number of requests a second: make costs FLOOD=500", file=sys.stderr)
        return 2
    print("\n".join(bill(rate)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
