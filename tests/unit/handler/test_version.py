"""One version: in pyproject.toml, in the code that is packaged without it, and in the changelog."""

from __future__ import annotations

import io
import json
import re
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from handler.delivery.klaviyo import Connection
from handler.pauses import PAUSES
from handler.telemetry import logger
from handler.version import VERSION

ROOT = Path(__file__).parents[3]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
RELEASES = re.findall(r"^## (?!Unreleased$)(.*)$", CHANGELOG, re.MULTILINE)


def test_pyproject_and_the_functions_have_the_same_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == VERSION


def test_the_latest_release_of_the_changelog_is_the_version() -> None:
    assert RELEASES[0].split(" - ")[0] == VERSION


def test_each_release_has_a_version_and_a_date() -> None:
    for release in RELEASES:
        version, day = release.split(" - ")
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), release
        date.fromisoformat(day)


def test_each_release_has_sections_of_known_names() -> None:
    sections = re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)
    assert sections
    assert set(sections) <= {"Added", "Changed", "Fixed", "Removed"}


def test_a_log_line_has_the_version(log: io.StringIO) -> None:
    logger.warning("webhook")
    assert json.loads(log.getvalue())["version"] == VERSION


@contextmanager
def klaviyo() -> Iterator[tuple[str, list[str]]]:
    """The URL of a server that accepts everything, and the names of its clients."""
    names: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            names.append(self.headers["User-Agent"])
            self.send_response(202)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", names
        thread.join()


def test_klaviyo_is_asked_under_a_name_with_the_version() -> None:
    with klaviyo() as (url, names):
        connection = Connection(url, "2026-10-15", pauses=PAUSES)
        assert connection.open() is None
        assert connection.post(b"{}", "pk_test").kind == "delivered"
        connection.close()
    assert names == [f"klaviyo-webhook-relay/{VERSION}"]
