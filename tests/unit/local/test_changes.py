"""An edited sender's file reaches the functions of `make local`, and one that cannot be read does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import changes

FILE = 'extends = "hmac"\ntitle = "Acme"\n[signature]\nheader = "acme-signature"\n'


class Watched:
    """The watch over a folder of its own, and what it did."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "acme.toml"
        self.stopped = threading.Event()
        self.said: list[str] = []
        self.redeployed = 0
        self._news = threading.Semaphore(0)

    def save(self, text: str) -> None:
        """Save the file at once, as editors do: written in place it could be read when half of it is there."""
        whole = self.file.with_suffix(".new")
        whole.write_text(text)
        whole.replace(self.file)

    def run(self, known: changes.Stamps) -> None:
        changes.watch(known, self.redeploy, self.stopped, self.say, 0.005)

    def redeploy(self) -> None:
        self.redeployed += 1

    def say(self, text: str) -> None:
        self.said.append(text)
        self._news.release()

    def heard(self) -> str:
        """The next thing that is said."""
        assert self._news.acquire(timeout=60)
        return self.said[-1]


@pytest.fixture
def watched(custom_senders: Path) -> Iterator[Watched]:
    watched = Watched(custom_senders)
    watched.file.write_text(FILE)
    thread = threading.Thread(target=watched.run, args=(changes.stamps(),))
    thread.start()
    yield watched
    watched.stopped.set()
    thread.join()


def test_an_edited_file_reaches_the_functions_and_is_named(watched: Watched) -> None:
    watched.save(FILE.replace("Acme", "Acme Ltd"))
    assert watched.heard() == "acme.toml changed: reloaded"
    assert watched.redeployed == 1
    watched.file.unlink()
    assert "acme.toml" in watched.heard()
    assert watched.redeployed == 2


def test_a_file_that_cannot_be_read_reaches_no_function(watched: Watched) -> None:
    watched.save(FILE + "[[event]]\ntopic = \n")
    assert "acme.toml" in watched.heard()
    assert "was not reloaded: " in watched.said[-1]
    assert watched.redeployed == 0
    watched.save(FILE + "# corrected\n")
    assert "changed: reloaded" in watched.heard()
    assert watched.redeployed == 1
