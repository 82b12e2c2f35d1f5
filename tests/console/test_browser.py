"""The console in a real browser, over a running relay."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
from typing import Literal
from urllib.parse import urlencode

import pytest
import urllib3
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from handler.events import senders
from local.console.server import Console
from tools import paths
from tools.senders import payload, sign

pytestmark = pytest.mark.xdist_group("browser")

JSON = {"content-type": "application/json"}
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
MARKUP = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&amp;\u202e"


def send(console: Console, unique_id: str, **change: object) -> None:
    event = {"profile": {"email": f"{unique_id}@letters.example"}, "metric": "Visited", "unique_id": unique_id} | change
    status, _ = console.stack.send("custom", json.dumps(event).encode(), JSON)
    assert status == 200


def newest(page: Page, text: str) -> None:
    """Open the page of the newest webhook in the list, once it shows ``text``."""
    expect(page.locator(".list tbody tr").first).to_contain_text(text)
    page.locator(".list tbody a").first.click()


def test_a_webhook_appears_without_reloading_and_arrives(page: Page, console: Console) -> None:
    expect(page.get_by_role("heading", name="Webhooks")).to_be_visible()
    send(console, "first", metric="Came in first")
    row = page.locator(".list tbody tr", has_text="Came in first")
    expect(row).to_be_visible()
    expect(row).to_contain_text("delivered")


def test_a_wrong_signature_says_why(page: Page, console: Console) -> None:
    stack, body = console.stack, b'{"id": "evt_1"}'
    secret = stack.secrets["sources"]["stripe"][0]
    _, stale = sign.sign("stripe", secret, body=body, headers=JSON, url=stack.url("stripe"), now=time.time() - 900)
    assert stack.post(stack.url("stripe"), body, stale)[0] == 401
    newest(page, "timestamp stale")
    expect(page.locator(".reason")).to_contain_text(re.compile(r"timestamp is 9\d\d s old; the limit is 300 s"))
    expect(page.locator(".signing")).to_contain_text("HMAC-SHA256 in hex, over {timestamp}.{body}")
    assert stack.post(stack.url("stripe"), body, JSON)[0] == 401
    refused = console.exchanges.total
    page.goto(f"/webhooks/{refused}")
    page.get_by_role("button", name="Sign and send again").click()
    expect(page.locator("#title")).to_contain_text(f"Sent again from #{refused}, which was refused")
    assert stack.post(stack.url("stripe"), body, JSON)[0] == 401
    page.goto("/")
    newest(page, "signature missing")
    expect(page.locator(".reason")).to_contain_text("the header stripe-signature is missing")
    expect(page.locator(".signing")).to_contain_text("has no stripe-signature")


def test_request_event_and_answer_are_shown_side_by_side(page: Page, console: Console) -> None:
    send(console, "side", metric="Side by side", value=19.99)
    newest(page, "Side by side")
    expect(page.get_by_role("region", name="Request")).to_contain_text('"unique_id": "side"')
    expect(page.get_by_role("region", name="Event")).to_contain_text('"value": 19.99')
    klaviyo = page.get_by_role("region", name="Klaviyo")
    expect(klaviyo).to_contain_text("202, delivered")
    expect(klaviyo).to_contain_text("Stored as it was sent")


def test_sending_again_is_a_webhook_of_its_own_and_a_repeat_at_klaviyo(page: Page, console: Console) -> None:
    send(console, "again", metric="Sent again")
    newest(page, "Sent again")
    number = int(page.url.rsplit("/", 1)[1])
    klaviyo = page.get_by_role("region", name="Klaviyo")
    expect(klaviyo).to_contain_text("202, delivered")
    console.stack.stop_trigger()  # what is sent again waits
    try:
        page.get_by_role("button", name="Sign and send again").click()
        expect(page).to_have_url(f"{console.url}/webhooks/{number + 1}")
        expect(page.locator("#title")).to_contain_text(f"Sent again from #{number}")
        expect(klaviyo).to_contain_text(f"A repeat of #{number}")
        expect(klaviyo).to_contain_text("on its way")
        expect(klaviyo).not_to_contain_text("Stored")
    finally:
        console.stack.start_trigger()
    expect(klaviyo).to_contain_text("202, delivered")
    expect(klaviyo).to_contain_text(f"Stored once, the same as that of #{number}")
    page.goto(f"/webhooks/{number}")
    expect(klaviyo.locator(".job")).to_have_count(1)


def test_events_of_one_id_and_two_profiles_are_not_mixed_up(page: Page, console: Console) -> None:
    for who in ("ada", "grace"):
        send(console, "shared", metric="Two people", profile={"email": f"{who}@letters.example"})
    newest(page, "Two people")
    klaviyo = page.get_by_role("region", name="Klaviyo")
    for number, who in ((console.exchanges.total, "grace"), (console.exchanges.total - 1, "ada")):
        page.goto(f"/webhooks/{number}")
        expect(klaviyo).to_contain_text("202, delivered")
        expect(klaviyo.locator("pre")).to_contain_text(f"{who}@letters.example")


def test_what_was_parked_and_sent_back_does_not_contradict_itself(page: Page, console: Console) -> None:
    body = json.dumps({"id": "late_1", "type": "order", "who": "ada@letters.example"}).encode()
    senders.CUSTOM.mkdir(parents=True, exist_ok=True)
    path = senders.CUSTOM / "corrected.toml"
    path.write_text(TOML.replace('topic = "order"', 'topic = "other"'))
    console.deploy()
    assert console.stack.send("corrected", body, JSON)[1]["parked"]
    path.write_text(TOML)
    page.goto("/parked")
    page.locator(".group", has_text="corrected").get_by_role("button").click()
    expect(page.locator("#moved")).to_contain_text("1 message re-queued")
    page.goto(f"/webhooks/{console.exchanges.total}")
    expect(page.locator("#title")).to_contain_text("It was parked (unknown topic:")
    expect(page.locator("#title")).to_contain_text("re-queued; Klaviyo accepted it at")


def test_a_payload_full_of_markup_stays_text(page: Page, console: Console) -> None:
    send(console, "markup", metric=f"M {MARKUP}", properties={MARKUP: MARKUP})
    newest(page, "M <script>")
    expect(page.get_by_role("region", name="Event")).to_contain_text("<img src=x onerror=")
    assert page.locator("main img, main script").count() == 0
    assert "taken" not in page.title()


def test_parked_webhooks_are_sent_back_by_reason(page: Page, console: Console) -> None:
    body = json.dumps({"id": "evt_1", "type": "customer.created", "data": {"object": {"name": "Ada"}}}).encode()
    assert console.stack.send("stripe", body, JSON)[0] == 200
    page.goto("/parked")
    group = page.locator(".group", has_text="no identifier")
    expect(group).to_contain_text("the event names no email, phone or other identifier")
    group.get_by_role("button").click()
    expect(page.locator("#moved")).to_contain_text("1 message re-queued")


def test_the_filters_and_the_keyboard(page: Page, console: Console) -> None:
    send(console, "keys-1", metric="By keyboard")
    send(console, "keys-2", metric="By keyboard")
    page.get_by_label("Id or text in it").fill("keys-1")
    page.keyboard.press("Enter")
    expect(page.locator(".list tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Live").click()
    page.wait_for_url("**/")
    page.locator(".list tbody a").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Request")).to_contain_text("keys-1")


def test_what_one_remembers_of_a_webhook_finds_it(page: Page, console: Console) -> None:
    send(console, "Found-1", metric="Looked For")
    console.stack.post(console.stack.url("stripe"), b"{}", JSON)
    for text, count in (("looked for", 1), ("found-1", 1), ("SIGNATURE missing", None)):
        page.get_by_label("Id or text in it").fill(text)
        page.keyboard.press("Enter")
        expect(page.get_by_label("Id or text in it")).to_have_value(text)
        rows = page.locator(".list tbody tr")
        expect(rows.first).to_be_visible()
        assert count is None or rows.count() == count


def test_an_unknown_topic_is_named_where_it_is_parked(page: Page, console: Console) -> None:
    body = json.dumps({"type": "order.vanished", "id": 1, "who": "ada@letters.example"}).encode()
    senders.CUSTOM.mkdir(parents=True, exist_ok=True)
    (senders.CUSTOM / "topics.toml").write_text(TOML)
    console.deploy()
    assert console.stack.send("topics", body, JSON)[1]["parked"]
    page.goto("/parked")
    group = page.locator(".group", has_text="topics")
    expect(group).to_contain_text("order.vanished")
    group.get_by_role("link", name="Add an [[event]]").click()
    expect(page.locator("#tried").get_by_role("heading", name="Order Vanished")).to_be_visible()
    expect(page.get_by_label("The file in TOML")).to_have_value(re.compile(r'topic = "order\.vanished"'))


def test_a_body_is_copied_as_it_came(page: Page, console: Console) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    body = b'{"id":"evt_1" ,  "type": "x"}'
    console.stack.post(console.stack.url("stripe"), body, JSON)
    page.goto(f"/webhooks/{console.exchanges.total}")
    page.get_by_role("button", name="Copy body").click()
    expect(page.locator("#said")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == body.decode()
    page.get_by_role("button", name="Copy as curl").click()
    written = "curl -i -X POST http://127.0.0.1:"
    page.wait_for_function(f"navigator.clipboard.readText().then((text) => text.startsWith('{written}'))")


def test_the_rate_page_shows_the_jobs(page: Page, console: Console) -> None:
    send(console, "rated", metric="Rated")
    page.goto("/rate")
    expect(page.locator("#jobs tbody tr").first).to_contain_text("202 delivered")
    expect(page.get_by_text("of 150 jobs")).to_be_visible()
    expect(page.locator("#share")).to_have_count(0)


def test_a_share_of_the_limit_is_shown_with_it(page: Page, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(console.stack.parameters, "RequestsPerMinute", "30")
    page.goto("/rate")
    expect(page.locator("#share")).to_contain_text("30 of them")


TOML = """\
title = "Shop"

[signature]
header = "x-shop-signature"

[webhook]
topic = "type"
key = "id"

[profile]
email = "who"

[[event]]
topic = "order"
metric = "Placed Order"
[event.properties]
Number = "number"
"""
ORDER = '{"type": "order", "id": 7, "who": "ada@letters.example", "number": 19.90}'


def edit(page: Page, old: str, new: str) -> None:
    """Change the file in the editor as if typed."""
    editor = page.get_by_label("The file in TOML")
    editor.fill(editor.input_value().replace(old, new, 1))


def test_a_change_to_the_file_changes_the_event(page: Page) -> None:
    page.goto("/playground?source=")
    page.get_by_label("Name of the source").fill("typed")
    page.get_by_label("Body").fill(ORDER)
    page.get_by_label("The file in TOML").fill(TOML)
    event = page.locator("#tried")
    expect(event.get_by_role("heading", name="Placed Order")).to_be_visible()
    expect(event).to_contain_text("profile matched or created by email")
    edit(page, "Placed Order", "Settled Order")
    expect(event.get_by_role("heading", name="Settled Order")).to_be_visible()
    value = event.locator(".values > div", has=page.locator("dt", has_text="properties.Number"))
    expect(value).to_contain_text("19.9")
    value.get_by_role("link").click()
    chosen = page.evaluate("(e => e.value.slice(e.selectionStart, e.selectionEnd))(document.getElementById('toml'))")
    assert chosen == 'Number = "number"'
    edit(page, '"number"', '"numbr(number)"')
    expect(event.locator(".mistakes")).to_contain_text("unknown function numbr()")
    line = event.locator("[data-mistake]").first.get_attribute("data-mistake")
    expect(page.locator("#gutter .bad")).to_have_text(str(line))
    expect(event.get_by_role("heading", name="Settled Order")).to_be_visible()


def test_an_inherited_value_leads_to_the_file_that_it_comes_from(page: Page) -> None:
    page.goto("/playground?source=")
    page.get_by_label("Name of the source").fill("tally_eu")
    page.get_by_label("Body").fill(payload.request(paths.SAMPLES / "tally" / "FORM_RESPONSE.json").body.decode())
    page.get_by_label("The file in TOML").fill('extends = "tally"\ntitle = "Tally EU"\n')
    link = page.locator("#tried .values > div", has_text="unique_id").get_by_role("link", name="tally, line")
    with page.expect_popup() as opened:
        link.click()
    parent = opened.value
    expect(parent.locator("#band")).to_be_visible()
    chosen = parent.evaluate("(e => e.value.slice(e.selectionStart, e.selectionEnd))(document.getElementById('toml'))")
    assert chosen.startswith("key = ")
    assert chosen in senders.path_of("tally").read_text()
    expect(page.get_by_label("The file in TOML")).to_have_value(re.compile("extends"))


def test_a_new_sender_is_led_from_step_to_step(page: Page) -> None:
    page.goto("/playground")
    page.get_by_role("link", name="New sender").click()
    page.wait_for_url("**/playground?source=")  # the page before it has such a field too
    tried = page.locator("#tried")
    page.get_by_label("Body").fill(ORDER)
    expect(tried.locator(".steps .done")).to_have_count(1)
    expect(tried.locator(".s-refused")).to_have_count(0)
    page.get_by_label("Name of the source").fill("led")
    expect(tried.locator(".steps .done")).to_have_count(2)
    page.get_by_role("button", name="Draft it from the payload").click()
    expect(tried.locator(".event")).to_be_visible()
    page.get_by_label("The file in TOML").fill(TOML.replace('"number"', '"numbre"'))
    expect(tried.locator(".c-changed")).to_contain_text("properties.Number line 17 did you mean number for numbre?")
    expect(page.locator("#gutter .idle")).to_have_text("17")
    page.get_by_label("Body").fill(ORDER.replace('"order"', '"order.lost"'))
    expect(tried).to_contain_text("unknown topic: order.lost")
    tried.get_by_role("button", name="Add an [[event]]").click()
    expect(tried.get_by_role("heading", name="Order Lost")).to_be_visible()
    page.get_by_label("Body").fill('{"type": "order",\n "id": }')
    expect(tried.locator("#unreadable")).to_contain_text("the payload is not JSON: expecting value, column 8 line 2")
    page.get_by_label("Body").fill(ORDER.replace('"order"', '"order.lost"'))
    expect(tried.get_by_role("heading", name="Order Lost")).to_be_visible()
    page.keyboard.press("Control+s")
    expect(page.get_by_role("status").filter(has_text="the functions have it")).to_be_visible()
    assert "order.lost" in (senders.CUSTOM / "led.toml").read_text()


def test_what_is_saved_is_deployed_and_sent(page: Page, console: Console) -> None:
    page.goto("/playground?source=")
    page.get_by_label("Name of the source").fill("shop")
    page.get_by_label("Body").fill(ORDER)
    page.get_by_label("The file in TOML").fill(TOML)
    expect(page.locator("#tried")).to_contain_text("Placed Order")
    page.get_by_role("button", name="Save and send").click()
    expect(page.get_by_role("region", name="Klaviyo")).to_contain_text("202, delivered")
    expect(page.get_by_role("region", name="Event")).to_contain_text('"Number": 19.9')
    assert (senders.CUSTOM / "shop.toml").read_text() == TOML
    sample = json.loads((console.samples / "shop" / "order.json").read_text())
    assert sample["body"]["who"] == "ada@letters.example"
    assert "x-shop-signature" not in sample["headers"]
    page.goto("/playground?source=shop")
    edit(page, 'Number = "number"', 'Count = "number"')
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="the functions have it")).to_be_visible()
    page.goto("/")
    newest(page, "Placed Order")
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_role("region", name="Event")).to_contain_text('"Count": 19.9')
    expect(page.get_by_role("region", name="Klaviyo")).to_contain_text("a repeat")


def save(console: Console, **form: str) -> urllib3.BaseHTTPResponse:
    """What the playground's form sends."""
    headers = {"Origin": console.url, "Content-Type": "application/x-www-form-urlencoded"}
    address = f"{console.url}/playground/save"
    return urllib3.request("POST", address, body=urlencode(form), headers=headers, redirect=False)


def test_a_file_that_is_another_by_now_is_not_overwritten_unasked(page: Page, console: Console) -> None:
    path = senders.CUSTOM / "met.toml"
    assert save(console, name="met", toml=TOML, body=ORDER, opened="").status == 303
    page.goto("/playground?source=met")
    edited = TOML.replace("Placed Order", "Edited elsewhere")
    path.write_text(edited)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("met.toml has changed since this page was opened")
    assert path.read_text() == edited
    # Nor is one that somebody takes for new.
    assert b"met.toml is there already" in save(console, name="met", toml=TOML, body=ORDER, opened="").data
    assert path.read_text() == edited
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="the functions have it")).to_be_visible()
    assert path.read_text() == TOML


def test_what_is_saved_holds_no_credentials_and_leaves_no_folder(console: Console) -> None:
    for name in ("../shop", "a/b", "a.b", "", "Shop", "a\x00"):
        assert b"Nothing was saved" in save(console, name=name, toml=TOML, body=ORDER, opened="").data, name
    elsewhere = senders.CUSTOM.parent / "elsewhere.txt"
    elsewhere.write_text("mine")
    senders.CUSTOM.mkdir(exist_ok=True)
    (senders.CUSTOM / "linked.toml").symlink_to(elsewhere)
    headers = json.dumps(
        {"authorization": "Bearer hidden", "cookie": "hidden", "x-kept": "1", "query": {"token": "hidden"}}
    )
    body = json.dumps(json.loads(ORDER) | {"type": "../../order"})
    toml = TOML.replace('topic = "order"', 'topic = "../../order"')
    mark = hashlib.sha256(b"mine").hexdigest()
    assert save(console, name="linked", toml=toml, body=body, headers=headers, opened=mark).status == 303
    assert elsewhere.read_text() == "mine"
    (sample,) = (console.samples / "linked").iterdir()
    assert "hidden" not in sample.read_text()
    assert "x-kept" in sample.read_text()


def test_a_file_with_a_mistake_is_not_saved(page: Page) -> None:
    page.goto("/playground?source=tally")
    edit(page, 'metric = "Submitted Form"', "metric = ")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was saved: expected TOML")
    expect(page.get_by_label("The file in TOML")).to_have_value(re.compile(r"metric = \n"))
    assert not (senders.CUSTOM / "tally.toml").exists()


def test_of_five_thousand_webhooks_the_newest_sixty_are_shown(page: Page, console: Console) -> None:
    headers, body = payload.read(paths.SAMPLES / "stripe" / "invoice.paid.json")
    answer = {"accepted": 1, "event_ids": ["stripe:paid-invoice:evt_0"]}
    for number in range(5_000):
        answer["event_ids"] = [f"stripe:paid-invoice:evt_{number}"]
        console.exchanges.add(
            at=time.time(),
            method="POST",
            target="/webhooks/stripe",
            headers=headers,
            body=body,
            status=200,
            answer=json.dumps(answer).encode(),
            milliseconds=1.0,
        )
    for address in ("/?outcome=delivered&id=no-such-id", "/rate"):
        page.goto(address)
    page.goto("/")
    expect(page.locator(".list tbody tr")).to_have_count(60)
    send(console, "after-many", metric="After many")
    expect(page.locator(".list tbody tr", has_text="After many")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_pages_are_accessible(page: Page, console: Console, scheme: Literal["light", "dark"]) -> None:
    send(console, f"axe-{scheme}", profile={"email": "ada@example.com", "phone_number": "1"})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    number = console.exchanges.total
    for address in ("/", "/?id=no-such-id", f"/webhooks/{number}", "/rate", "/parked", "/playground"):
        page.goto(address)
        # Only colours differ in the dark.
        rules = {"runOnly": ["color-contrast"]} if scheme == "dark" else {"runOnly": WCAG}
        results = Axe().run(page, options=rules)
        assert results.violations_count == 0, (address, results.generate_report())


def test_nothing_is_wider_than_a_phone(page: Page, console: Console) -> None:
    send(console, "narrow", properties={"long": "x" * 500})
    console.stack.post(console.stack.url("stripe"), b"{}", JSON)
    console.stack.post(console.stack.url("no-source-of-a-name-so-long-that-it-needs-a-line"), b"{}", JSON)
    lately = {"id": "evt_2", "type": "checkout.session.completed.lately"}
    console.stack.send("stripe", json.dumps(lately).encode(), JSON)
    page.set_viewport_size({"width": 360, "height": 740})
    for address in ("/", f"/webhooks/{console.exchanges.total}", "/rate", "/parked", "/playground"):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, address


def test_other_sites_pages_get_no_answer(console: Console) -> None:
    for method, path, headers in [
        ("GET", "/", {"Host": "attacker.example"}),
        ("POST", "/webhooks/1/again", {"Origin": "https://attacker.example"}),
        ("POST", "/playground/save", {}),
        ("POST", "/rate/empty", {"Origin": "null"}),
    ]:
        answer = urllib3.request(method, console.url + path, headers=headers, redirect=False, retries=False)
        assert answer.status == 403, (method, path)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_the_door_shows_no_console_and_nothing_of_aws(console: Console) -> None:
    host = console.stack.url("").split("/")[2]
    asks = {"X-Amz-Target": "secretsmanager.ListSecrets", "Content-Type": "application/x-amz-json-1.1"}
    for path in (
        "/",
        "/rate",
        "/static/console.js",
        "/webhooks/../rate",
        "/webhooks/../../../../..",
        "/_ministack/health",
    ):
        connection = http.client.HTTPConnection(host, timeout=60)  # sends the path unchanged
        connection.request("POST", path, b"{}", asks)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (404, {"message": "Not Found"}), path
        connection.close()
