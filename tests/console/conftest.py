"""One relay with its console, and one browser, for the tests that need them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from local.console.exchanges import Exchanges
from local.console.pictures import CHROMIUM, FLAGS
from local.console.server import Console
from local.stack import Stack
from tests.unit.support_senders import custom_folder
from tools import paths


@pytest.fixture(scope="session")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """The console of a running relay that does not wait for batches; what is saved goes into a folder of the test's."""
    exchanges, folder = Exchanges(), tmp_path_factory.mktemp("saved")
    shutil.copytree(paths.SAMPLES, folder / "events")
    properties = {"MaximumBatchingWindowInSeconds": 0, "ScalingConfig": {"MaximumConcurrency": 2}}
    with (
        custom_folder(folder / "custom"),
        Stack(exchanges=exchanges, properties=properties) as stack,
        Console(stack, exchanges, samples=folder / "events") as running,
    ):
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    if CHROMIUM is None:
        reason = "no Chromium on this machine: the console's pages were not tested (apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, console: Console) -> Iterator[Page]:
    """A page of the console, open at the webhooks; it fails the test that makes it complain."""
    # Both processors may be busy: a call that times out closes the relay for half a minute, or defers an event.
    expect.set_options(timeout=120_000)
    context = browser.new_context(base_url=console.url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto("/")
    yield page
    context.close()
    assert not complaints
