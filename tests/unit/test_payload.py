"""Payload files that `make send` and `make preview` are given."""

from __future__ import annotations

import pytest

from tools import commands


@pytest.mark.parametrize("file", ["order.json", ""])
def test_missing_file_is_named_with_where_samples_are(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["preview", "stripe", file]) == 2
    assert capsys.readouterr().err == f"error: there is no file {file!r}; the senders' samples are in events/\n"
