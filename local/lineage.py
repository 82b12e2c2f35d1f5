"""Lambda's count of recursive loops, as far as AWS and others describe it.

A function that sends to the queue which triggers it is a loop to Lambda: after
about 16 invocations in one chain it refuses the next, unless the function has
``RecursiveLoop: Allow`` (Lambda developer guide, "Use Lambda recursive loop
detection to prevent infinite loops"). The chain travels in the trace header:
Lambda puts it into ``_X_AMZN_TRACE_ID``, botocore copies that into
``X-Amzn-Trace-Id`` of each request, and SQS keeps it with the message as
``AWSTraceHeader``. The form, ``Root=…;Lineage=1:a5a0ab34:15``, is observed. Which
message's count a batch takes is not documented; here it is the highest.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

ROUNDS = 16  # invocations of one chain that run; AWS says "approximately"
HEADER = "X-Amzn-Trace-Id"
ATTRIBUTE = "AWSTraceHeader"
VARIABLE = "_X_AMZN_TRACE_ID"
_ROOT = "Root=1-00000000-000000000000000000000000"
_LINEAGE = re.compile(r";?Lineage=([^;]*)")


def rounds(header: str, function: str) -> int:
    """Return how often the chain in ``header`` has been through ``function``; 0 without a lineage."""
    match = re.search(rf"Lineage=(?:[^;]*[:|])?{_name(function)}:(\d+)", header)
    return int(match[1]) if match else 0


def following(headers: Iterable[str], function: str) -> str:
    """Return the trace header of an invocation of ``function`` by messages that carry ``headers``."""
    longest = max(headers, key=lambda header: rounds(header, function), default="")
    root = _LINEAGE.sub("", longest) or _ROOT
    return f"{root};Lineage=1:{_name(function)}:{rounds(longest, function) + 1}"


def refused(header: str, function: str) -> bool:
    """Return whether Lambda refuses the invocation that has this trace header."""
    return rounds(header, function) > ROUNDS


def _name(function: str) -> str:
    """Return eight hexadecimal digits that stand for a function."""
    return f"{zlib.crc32(function.encode()):08x}"
