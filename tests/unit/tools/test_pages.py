"""The pages for contributors say what is there: modules, names, decisions, and every other page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import pages, paths
from tools.errors import CommandError

ROOT = paths.ROOT
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))


def test_generated_tables_are_up_to_date() -> None:
    stale = [page.name for page, text in pages.pages() if page.read_text("utf-8") != text]
    assert stale == [], "run: PYTHONPATH=src:. .venv/bin/python -m tools pages"


def test_every_name_of_the_architecture_page_is_defined_where_it_links() -> None:
    links = pages.LINK.findall((ROOT / pages.ARCHITECTURE).read_text("utf-8"))
    assert len(links) >= 15
    assert [link for link in links if link[0] not in pages.defined(ROOT / link[1])] == []


def module(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_new_module_has_a_line_with_its_docstring(tmp_path: Path) -> None:
    module(tmp_path / "local/new.py", '"""What it is for,\nin ``two`` lines.\n\nMore.\n"""\n')
    assert "| [`new.py`](../local/new.py) | What it is for, in `two` lines. |" in pages.modules(tmp_path)


def test_a_module_without_docstring_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="bare"):
        pages.about(module(tmp_path / "local/bare.py", "x = 1\n"))


def test_a_link_follows_a_name_to_its_new_module(tmp_path: Path) -> None:
    module(tmp_path / "local/old.py", '"""Old."""\n')
    module(tmp_path / "tools/new.py", '"""New."""\ndef wanted(): ...\n')
    assert pages.followed("[`wanted`](../local/old.py)", tmp_path) == "[`wanted`](../tools/new.py)"
    assert pages.followed("[`gone`](../local/old.py)", tmp_path) == "[`gone`](../local/old.py)"


def test_a_link_to_a_name_that_two_modules_define_is_left_for_a_person(tmp_path: Path) -> None:
    for name in ("one", "two"):
        module(tmp_path / f"tools/{name}.py", '"""New."""\ndef wanted(): ...\n')
    assert pages.followed("[`wanted`](../local/old.py)", tmp_path) == "[`wanted`](../local/old.py)"


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem[:4])
def test_a_decision_has_the_form_of_all(path: Path) -> None:
    decision, text = pages.decision(path), path.read_text("utf-8")
    assert path.name.startswith(f"{decision.number}-")
    assert re.fullmatch(r"accepted|replaced (in part )?by \[\d{4}\]\([\w.-]+\)", decision.status)
    labels = re.findall(r"^\*\*([^*]+)\.\*\*", text, re.MULTILINE)
    assert labels[0] == "Decision", "a decision begins with **Decision.**"
    assert {"Why", "Alternatives"} & set(labels), "a decision says **Why.** or names **Alternatives.**"


def test_decisions_have_numbers_of_their_own() -> None:
    numbers = [path.name[:4] for path in DECISIONS]
    assert sorted(set(numbers)) == numbers


def anchors(page: Path) -> set[str]:
    """The names under which GitHub links to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)\s]*?)(?:#([^)\s]*))?\)", page.read_text("utf-8"))
    for target, anchor in links:
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text("utf-8")
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"({path.name})" not in index[1:]] == ["README.md"]
