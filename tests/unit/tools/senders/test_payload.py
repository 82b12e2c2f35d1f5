"""Payload files that `make send` and `make preview` are given."""

from __future__ import annotations

import pytest

from tools import commands


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("order.json", "order.json not found. Samples of stripe are in events/stripe/"),
        ("", "No file given. Set FILE=; samples of stripe are in events/stripe/"),
    ],
)
def test_missing_file_is_named_with_where_samples_are(
    file: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["preview", "stripe", file]) == 2
    assert capsys.readouterr().err == f"error: {words}\n"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("shopfy", "Unknown source 'shopfy'. Did you mean 'shopify'?"),
        ("qqqq", "Unknown source 'qqqq'. docs/metrics.md has them"),
        ("", "No source given. Set SOURCE= to a sender's name; docs/metrics.md lists them"),
    ],
)
def test_unknown_source_is_named_with_one_like_it(source: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("preview", "send"):
        assert commands.main([command, source, "order.json"]) == 2
        assert capsys.readouterr().err == f"error: {words}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["new-sender", "", ""], "No name and no file given. Set NAME= and FILE=; the senders' samples are in events/"),
        (["new-sender", "", "x.json"], "No name given. Set NAME= to the new sender's name, such as NAME=acme"),
        (["new-sender", "acme", ""], "No file given. Set FILE=; the senders' samples are in events/"),
        (
            ["preview", "", ""],
            "No source and no file given. Set SOURCE= and FILE=; the senders' samples are in events/",
        ),
        (["send", "", ""], "No source and no file given. Set SOURCE= and FILE=; the senders' samples are in events/"),
    ],
)
def test_each_missing_variable_of_make_is_named(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(arguments) == 2
    assert capsys.readouterr().err == f"error: {words}\n"
