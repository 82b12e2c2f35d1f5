"""Where the functions' log lines go in place of standard output."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from handler import telemetry

_Stream = TypeVar("_Stream")


@contextmanager
def into(stream: _Stream) -> Iterator[_Stream]:
    """Write the functions' log lines into ``stream`` meanwhile, whichever stream the logger was made with."""
    handler = cast("logging.StreamHandler[Any]", telemetry.logger.registered_handler)
    before = handler.stream
    handler.stream = stream  # not setStream, which flushes the one before: an earlier run may have closed it
    try:
        yield stream
    finally:
        handler.stream = before
