"""The console in a real browser, over a running relay."""

from __future__ import annotations

import json
import re
import time

import pytest
from playwright.sync_api import Page, expect

from local import sign
from local.console.server import Console

pytestmark = pytest.mark.xdist_group("browser")

JSON = {"content-type": "application/json"}
MARKUP = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&amp;\u202e"


def send(console: Console, unique_id: str, **change: object) -> None:
    event = {"profile": {"email": f"{unique_id}@letters.example"}, "metric": "Visited", "unique_id": unique_id} | change
    status, _ = console.stack.send("custom", json.dumps(event).encode(), JSON)
    assert status == 202


def newest(page: Page, text: str) -> None:
    """Open the page of the newest webhook in the list, once it shows ``text``."""
    expect(page.locator(".list tbody tr").first).to_contain_text(text)
    page.locator(".list tbody a").first.click()


def test_a_webhook_appears_within_a_second_and_arrives(page: Page, console: Console) -> None:
    expect(page.get_by_role("heading", name="Webhooks")).to_be_visible()
    send(console, "first", metric="Came in first")
    sent = time.monotonic()
    row = page.locator(".list tbody tr", has_text="Came in first")
    expect(row).to_be_visible(timeout=1_000)
    assert time.monotonic() - sent < 1
    expect(row).to_contain_text("delivered", timeout=10_000)


def test_a_wrong_signature_says_why(page: Page, console: Console) -> None:
    stack, body = console.stack, b'{"id": "evt_1"}'
    secret = stack.secrets["sources"]["stripe"][0]
    _, stale = sign.sign("stripe", secret, body=body, headers=JSON, url=stack.url("stripe"), now=time.time() - 900)
    assert stack.post(stack.url("stripe"), body, stale)[0] == 401
    newest(page, "timestamp stale")
    expect(page.locator(".reason")).to_contain_text(re.compile(r"the signature is 90\d s old, 300 s either way"))
    expect(page.locator(".signing")).to_contain_text("HMAC-SHA256 in hex, over {timestamp}.{body}")
    assert stack.post(stack.url("stripe"), body, JSON)[0] == 401
    page.goto("/")
    newest(page, "signature missing")
    expect(page.locator(".reason")).to_contain_text("the header stripe-signature is missing")
    expect(page.locator(".signing")).to_contain_text("has no stripe-signature")


def test_request_event_and_klaviyo_stand_beside_each_other(page: Page, console: Console) -> None:
    send(console, "beside", metric="Stood beside", value=19.99)
    newest(page, "Stood beside")
    expect(page.get_by_role("region", name="Request")).to_contain_text('"unique_id": "beside"')
    expect(page.get_by_role("region", name="Event")).to_contain_text('"value": 19.99')
    klaviyo = page.get_by_role("region", name="Klaviyo")
    expect(klaviyo).to_contain_text("202, delivered", timeout=10_000)
    expect(klaviyo).to_contain_text("Stored as it was sent")


def test_sending_again_is_a_webhook_of_its_own_and_a_repeat_at_klaviyo(page: Page, console: Console) -> None:
    send(console, "again", metric="Sent again")
    newest(page, "Sent again")
    number = int(page.url.rsplit("/", 1)[1])
    page.get_by_role("button", name="Send again").click()
    expect(page).to_have_url(f"{console.url}/webhooks/{number + 1}")
    expect(page.get_by_role("region", name="Klaviyo")).to_contain_text("202, delivered", timeout=10_000)


def test_a_payload_full_of_markup_stays_text(page: Page, console: Console) -> None:
    send(console, "markup", metric=f"M {MARKUP}", properties={MARKUP: MARKUP})
    newest(page, "M <script>")
    expect(page.get_by_role("region", name="Event")).to_contain_text("<img src=x onerror=")
    assert page.locator("main img, main script").count() == 0
    assert "taken" not in page.title()


def test_parked_webhooks_are_sent_back_by_reason(page: Page, console: Console) -> None:
    body = json.dumps({"id": "evt_1", "type": "customer.created", "data": {"object": {"name": "Ada"}}}).encode()
    assert console.stack.send("stripe", body, JSON)[0] == 202
    page.goto("/parked")
    heap = page.locator(".heap", has_text="no identifier")
    expect(heap).to_contain_text("the event names no email, phone or other identifier")
    heap.get_by_role("button").click()
    expect(page.locator("#moved")).to_contain_text("1 message sent back")


def test_the_filters_and_the_keyboard(page: Page, console: Console) -> None:
    send(console, "keys-1", metric="By keyboard")
    send(console, "keys-2", metric="By keyboard")
    page.get_by_label("Id or text in it").fill("keys-1")
    page.keyboard.press("Enter")
    expect(page.locator(".list tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Live").click()
    page.locator(".list tbody a").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Request")).to_contain_text("keys-1")


def test_the_rate_page_shows_the_jobs(page: Page, console: Console) -> None:
    send(console, "rated", metric="Rated")
    page.goto("/rate")
    expect(page.locator("#jobs tbody tr").first).to_contain_text("202 delivered", timeout=10_000)
    expect(page.get_by_text("of 150 jobs")).to_be_visible()
