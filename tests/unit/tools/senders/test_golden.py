"""The ids of the samples' events: none changes unnoticed, and the file that keeps them is not rewritten by accident."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tools import commands
from tools.senders import golden, outcome


def asked(*arguments: str) -> argparse.Namespace:
    parsed: argparse.Namespace = commands.parser("golden")[0].parse_args(arguments)
    return parsed


@pytest.fixture(scope="module")
def produced() -> dict[str, list[str]]:
    return golden.current()


def test_no_samples_id_has_changed(produced: dict[str, list[str]]) -> None:
    gone = list(golden.changed(golden.read(golden.KEPT), produced))
    assert not gone, "\n".join(["ids have changed:", *gone, golden.MEANING])


def test_every_samples_ids_are_kept(produced: dict[str, list[str]]) -> None:
    kept = golden.read(golden.KEPT)
    assert golden.added(kept, produced) == kept, f"new samples or events: run {golden.ADD}"


def test_a_changed_id_is_named_with_what_it_became() -> None:
    kept = {"shop/order": ["shop:a:1", "shop:b:1"], "shop/refund": ["shop:c:1"], "shop/same": ["shop:d:1"]}
    now = {"shop/order": ["shop:a:1", "shop:b:2"], "shop/same": ["shop:e:1", "shop:d:1"], "shop/new": ["shop:f:1"]}
    assert list(golden.changed(kept, now)) == [
        "shop/order: shop:b:1 is gone; now: shop:b:2",
        "shop/refund: shop:c:1 is gone; now: none",
    ]


@pytest.fixture
def altered(tmp_path: Path, produced: dict[str, list[str]]) -> Path:
    """A file in which the first sample had another id, and to which the last is new."""
    first, *between, _ = produced
    path = tmp_path / "ids.json"
    path.write_text(json.dumps({first: ["shop:other:1"], **{name: produced[name] for name in between}}))
    return path


def test_a_changed_id_is_not_replaced_without_the_flag(
    altered: Path, produced: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    before = altered.read_text()
    assert golden.run(asked(), altered) == 1
    assert altered.read_text() == before
    said = capsys.readouterr().err
    assert f"{next(iter(produced))}: shop:other:1 is gone" in said
    assert "second event in Klaviyo" in said
    assert "CHANGELOG.md" in said
    assert golden.run(asked("--replace"), altered) == 0
    assert golden.read(altered) == produced


def test_ids_of_new_samples_are_added(tmp_path: Path, produced: dict[str, list[str]]) -> None:
    path = tmp_path / "golden/ids.json"
    path.parent.mkdir()
    path.write_text(json.dumps({name: ids for name, ids in produced.items() if not name.startswith("stripe/")}))
    assert golden.run(asked(), path) == 0
    assert golden.read(path) == produced


def test_writing_the_outcomes_leaves_the_ids_alone(tmp_path: Path) -> None:
    before = golden.KEPT.read_bytes()
    outcome.write_expected(tmp_path)
    assert list(tmp_path.glob("*/*.json"))
    assert golden.KEPT.read_bytes() == before
