"""CloudWatch Logs in memory: groups of events, and the call that searches one.

Facts: CloudWatch Logs API reference, FilterLogEvents; user guide, "Filter pattern syntax":
a term in double quotes is matched exactly, with its case and between any characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from .hooks import Call, nothing
from .pages import Paged

AT = 1_795_543_201_123  # epoch milliseconds of an event that has no time of its own
_FIELD = re.compile(r'\{ \$\.(\w+) = ("(?:[^"\\]|\\.)*") \}')


class Logs(Paged):
    """The client's ``filter_log_events``, alone and in pages.

    Parameters
    ----------
    groups : mapping
        Each log group's events in their order: a message, or its time in epoch milliseconds and the message.
    filters : bool
        Whether filter patterns are followed. MiniStack and moto answer with all events to a pattern of JSON.
    per_page : int
        Events in an answer; the rest follows with the token.
    before : callable
        Called with the operation and what is asked, before it is answered.
    """

    CONTINUES = "nextToken"

    def __init__(
        self,
        groups: Mapping[str, Sequence[str | tuple[int, str]]],
        *,
        filters: bool = True,
        per_page: int = 10_000,
        before: Call = nothing,
    ) -> None:
        super().__init__(per_page)
        self._groups = {
            name: [(AT, event) if isinstance(event, str) else event for event in events]
            for name, events in groups.items()
        }
        self._filters = filters
        self._before = before

    def filter_log_events(
        self,
        *,
        logGroupName: str,  # noqa: N803 (boto3's name)
        startTime: int = 0,  # noqa: N803
        filterPattern: str = "",  # noqa: N803
        nextToken: str = "0",  # noqa: N803
    ) -> dict[str, Any]:
        """Do FilterLogEvents; raise ``ClientError`` with ``ResourceNotFoundException`` without such a group."""
        asked = {"logGroupName": logGroupName, "startTime": startTime, "filterPattern": filterPattern}
        self._before("FilterLogEvents", {name: value for name, value in asked.items() if value})
        if logGroupName not in self._groups:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "FilterLogEvents")
        events = [
            {"timestamp": at, "message": message}
            for at, message in self._groups[logGroupName]
            if at >= startTime and (not self._filters or _matches(message, filterPattern))
        ]
        return self._page("events", events, nextToken)


def _matches(message: str, pattern: str) -> bool:
    """Return whether ``pattern`` fits: empty, one term in quotes, or one field of JSON that equals a text."""
    if not pattern:
        return True
    if field := _FIELD.fullmatch(pattern):
        try:
            document = json.loads(message)
        except ValueError:
            return False
        return isinstance(document, dict) and document.get(field[1]) == json.loads(field[2])
    return str(json.loads(pattern)) in message
