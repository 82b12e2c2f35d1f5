"""Senders' files of a test's own, and expressions that do what a test says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handler.events import senders
from handler.events.expressions import Expression
from handler.events.senders import Source


@contextmanager
def custom_folder(folder: Path) -> Iterator[Path]:
    """The user's own senders are the files of ``folder`` meanwhile; clear the cache of ``load`` after a change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(senders, "CUSTOM", folder)
        senders.load.cache_clear()
        try:
            yield folder
        finally:
            senders.load.cache_clear()


def toml(tables: Mapping[str, Any]) -> str:
    """The text of a sender's file with these tables."""
    return "".join(f"{json.dumps(name)} = {_value(value)}\n" for name, value in tables.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_value(inner)}" for name, inner in value.items()) + "}"
    return f"[{', '.join(map(_value, value))}]" if isinstance(value, list) else json.dumps(value)


class Does(Expression):
    """An expression whose value is what ``do`` returns, whatever the document is; ``do`` may raise."""

    def __init__(self, do: Callable[[], Any]) -> None:
        super().__init__("body")
        self._do = do

    def of(self, _: Any) -> Any:
        return self._do()


def raising(error: BaseException) -> Does:
    """An expression that fails as only a fault in our code does."""

    def fail() -> Any:
        raise error.with_traceback(None)  # otherwise its place is where it was first raised, in another test

    return Does(fail)


def unmappable(name: str, error: BaseException) -> Source:
    """The source of that name, whose webhooks cannot be mapped: that raises ``error``."""
    return replace(senders.load(name), klaviyo_format=False, items=raising(error))
