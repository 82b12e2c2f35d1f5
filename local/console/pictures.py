"""``make pictures``: the README's two pictures of the console, taken of a running relay by Debian's Chromium."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from local import aws
from local.stack import Stack
from tools.errors import CommandError
from tools.senders import payload
from tools.terminal import say

from .exchanges import Exchanges
from .server import Console

FOLDER = aws.ROOT / "docs/pictures"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# It connects to the console only.
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
FIRST = aws.ROOT / "events/stripe/invoice.paid.json"
SAMPLE = aws.ROOT / "events/stripe/checkout.session.completed.json"
WIDTH, HEIGHT = 1360, 850


def webhook(console: Console, page: Page) -> None:
    """Show one webhook from the request to what Klaviyo stored; it happened just now, or it would be late."""
    headers, body = payload.read(FIRST)
    console.stack.send("stripe", body, headers)  # so that the function has started when the one to show comes
    headers, body = payload.read(SAMPLE)
    document = json.loads(body) | {"created": int(time.time()) - 3}
    console.stack.send("stripe", json.dumps(document).encode(), headers)
    page.goto(f"{console.url}/webhooks/{console.exchanges.total}")
    expect(page.get_by_text("202, delivered").first).to_be_visible(timeout=20_000)


def playground(console: Console, page: Page) -> None:
    """Show a file with the event that it makes of a sample, one expression's line marked."""
    page.goto(f"{console.url}/playground?source=stripe&sample={SAMPLE.stem}")
    body = page.get_by_label("Body")
    body.fill(re.sub(r'("created": )\d+', rf"\g<1>{int(time.time()) - 3}", body.input_value(), count=0))
    body.evaluate("(area) => { area.scrollTop = 0; }")
    expect(page.locator("#tried")).not_to_contain_text("late events")
    page.locator(".values dt", has_text="value").first.get_by_role("link").click()


def run(_: argparse.Namespace) -> int:
    """Write both pictures; ``CommandError`` if there is no Chromium."""
    if CHROMIUM is None:
        raise CommandError("no Chromium on this machine (apt-get install chromium)")
    exchanges = Exchanges()
    properties = {"MaximumBatchingWindowInSeconds": 0}
    with (
        Stack(exchanges=exchanges, properties=properties) as stack,
        Console(stack, exchanges) as console,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        for take in (webhook, playground):
            take(console, page)
            path: Path = FOLDER / f"console-{take.__name__}.png"
            page.screenshot(path=path)
            say(path.relative_to(aws.ROOT))
        browser.close()
    return 0
