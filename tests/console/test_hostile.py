"""What strangers write is shown on the console's pages as text that can be seen, whatever it is made of."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
import urllib3

from handler.events import senders
from local.console.server import Console
from tests.unit.tools.test_terminal import FORBIDDEN, UNSEEN

pytestmark = pytest.mark.xdist_group("browser")

JSON = {"content-type": "application/json"}
HOSTILE = f"<script>alert(1)</script><b onclick=x>\"' {UNSEEN}"
TOML = """\
title = "Odd"
[signature]
header = "x-odd-signature"
[webhook]
topic = "type"
key = "id"
[profile]
email = "who"
[[event]]
topic = "order"
metric = "Placed Order"
"""


def get(console: Console, path: str, **form: str) -> urllib3.BaseHTTPResponse:
    """A page; with ``form`` what answers to that."""
    if not form:
        return urllib3.request("GET", console.url + path, redirect=False)
    headers = {"Origin": console.url, "content-type": "application/x-www-form-urlencoded"}
    return urllib3.request("POST", console.url + path, body=urlencode(form), headers=headers, redirect=False)


@pytest.fixture(scope="module")
def numbers(console: Console) -> list[int]:
    """Webhooks of a stranger's: accepted, refused and parked."""
    stack, before = console.stack, console.exchanges.total
    event = {"profile": {"email": "ada@letters.example", "first_name": HOSTILE}, "metric": HOSTILE}
    event |= {"unique_id": HOSTILE, "properties": {HOSTILE: HOSTILE}}
    assert stack.send("custom", json.dumps(event, ensure_ascii=False).encode(), JSON)[0] < 300
    odd = "\x1b]0;owned\x07\x9b31m\xad <script>alert(1)</script>"
    assert stack.post(f"{stack.url('stripe')}?topic={quote(HOSTILE)}", HOSTILE.encode(), {"x-odd": odd})[0] == 401
    senders.CUSTOM.mkdir(parents=True, exist_ok=True)
    (senders.CUSTOM / "odd.toml").write_text(TOML)
    console.deploy()
    webhook = {"type": HOSTILE, "id": HOSTILE, "who": "ada@letters.example"}
    assert stack.send("odd", json.dumps(webhook).encode(), JSON)[1]["parked"]
    assert stack.post(stack.url("odd"), json.dumps({HOSTILE: HOSTILE}).encode(), JSON)[0] == 401
    return list(range(before + 1, console.exchanges.total + 1))


def pages(console: Console, numbers: list[int]) -> Iterator[tuple[str, urllib3.BaseHTTPResponse]]:
    paths = ["/", "/rows", f"/rows?{urlencode({'id': HOSTILE})}", "/parked", "/parked/list", "/rate", "/rate/now"]
    paths += [f"/?{urlencode({'source': HOSTILE, 'outcome': HOSTILE})}", f"/{quote(HOSTILE)}", "/webhooks/999999"]
    paths += [f"/playground?{urlencode({'source': HOSTILE})}", f"/playground?{urlencode({'saved': HOSTILE})}"]
    for number in numbers:
        paths += [f"/webhooks/{number}", f"/webhooks/{number}/story", f"/webhooks/{number}/curl"]
        paths += [f"/playground?webhook={number}", f"/playground?{urlencode({'webhook': number, 'add': HOSTILE})}"]
    for path in paths:
        yield path, get(console, path)
    body = json.dumps({"type": HOSTILE, "id": HOSTILE, "who": HOSTILE, HOSTILE: HOSTILE})
    for toml in (TOML, TOML.replace("order", "o\u202e"), f'"{HOSTILE}'):
        for path in ("/playground/try", "/playground/draft", "/playground/save"):
            for name in ("odd", HOSTILE):
                yield path, get(console, path, name=name, toml=toml, body=body, headers=json.dumps({"x": HOSTILE}))


def test_no_page_holds_markup_or_what_cannot_be_seen_of_a_strangers(console: Console, numbers: list[int]) -> None:
    end = time.monotonic() + 60
    while "odd" not in get(console, "/parked/list").data.decode():
        assert time.monotonic() < end, "nothing was parked"
        time.sleep(0.1)
    seen = 0
    for path, page in pages(console, numbers):
        text = page.data.decode()
        assert page.status != 500, path
        assert not FORBIDDEN.difference("\t\r").intersection(text), path
        if page.headers["content-type"].startswith("text/html"):
            assert "<script>alert" not in text, path
            assert "<b onclick" not in text, path
            assert 'x>"' not in text, path
        seen += "\\u202e" in text
    assert seen > 20


def test_a_body_is_handed_out_as_it_came_and_not_shown(console: Console, numbers: list[int]) -> None:
    raw = get(console, f"/webhooks/{numbers[1]}/raw")
    assert raw.data == HOSTILE.encode()
    assert raw.headers["content-disposition"].startswith("attachment")
