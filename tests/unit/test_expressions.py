"""The functions that the senders' files call."""

from __future__ import annotations

from typing import Any

import pytest

from handler.expressions import Expression


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("Kim Lee <kim@mail.example>", "kim@mail.example"),
        ('"Lee, Kim" <kim@mail.example> ', "kim@mail.example"),
        (" kim@mail.example ", "kim@mail.example"),
        ("<kim@mail.example> (office)", "<kim@mail.example> (office)"),
        ("<" * 5_000, "<" * 5_000),
        ("", None),
        (["kim@mail.example"], None),
        (None, None),
    ],
)
def test_the_address_is_taken_out_of_a_mail_header(written: Any, found: str | None) -> None:
    assert Expression("address(x)").of({"x": written}) == found
