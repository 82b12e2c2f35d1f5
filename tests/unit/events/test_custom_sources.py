"""A user's own sources, in files of their own: two stores of one sender, and a sender that nobody knows."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from handler.door import signatures
from handler.errors import NotVerified
from handler.events import senders
from handler.events.webhook import Webhook
from tests.unit.support_senders import custom_folder
from tools import commands, paths
from tools.senders import lint, payload, sign
from tools.senders.preview import preview

ORDER = paths.SAMPLES / "shopify/orders.create.json"
URL = "https://relay.example/webhooks/x"

STORE_DE = """
extends = "shopify"
title = "Shop DE"
only = ["orders/*"]

[webhook]
region = "DE"
when = "!test"
otherwise = "a test order"

[metrics]
"Placed Order" = "Placed Order DE"
"""

STORE_UK = """
extends = "shopify"
title = "Shop UK"

[webhook]
region = "GB"
currency = "GBP"

# In place of the event of the same topic and metric.
[[event]]
topic = "orders/create"
metric = "Placed Order"
agrees = "order_number"
key = "id"
value = "money(current_total_price)"
[event.properties]
OrderNumber = "order_number"
Channel = "source_name"
"""

ACME = """
extends = "hmac"
title = "Acme"

[signature]
header = "acme-signature"
digest = "sha512"
encoding = "base64"
prefix = ""
signed = "{timestamp}:{body}"
timestamp_header = "acme-time"

[metrics]
"Order Created" = "Placed Order"
"""


@pytest.fixture(autouse=True)
def custom(custom_senders: Path) -> Path:
    for name, text in (("shop_de", STORE_DE), ("shop_uk", STORE_UK), ("acme", ACME)):
        (custom_senders / f"{name}.toml").write_text(text, "utf-8")
    return custom_senders


def order(**change: Any) -> tuple[dict[str, str], bytes]:
    headers, body = payload.read(ORDER)
    return headers, json.dumps(json.loads(body) | change).encode()


def became(name: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """The one event that a webhook became under a source, with its profile."""
    shown = preview(name, headers, body, 1_795_500_000)
    placed = [entry["attributes"] for entry in shown["events"]]
    event: dict[str, Any] = placed[0]["events"]["data"][0]["attributes"]
    return event | {"profile": placed[0]["profile"]["data"]["attributes"]}


def test_each_store_has_its_own_names_ids_and_phones() -> None:
    local = {"phone": "030 901820", "billing_address": None, "shipping_address": None, "customer": None}
    de, plain = became("shop_de", *order(**local)), became("shopify", *order(**local))
    assert de["metric"]["data"]["attributes"] == {"name": "Placed Order DE", "service": "Shop DE"}
    assert plain["metric"]["data"]["attributes"]["name"] == "Placed Order"
    assert de["profile"]["phone_number"] == "+4930901820"
    assert "phone_number" not in plain["profile"]
    assert de["unique_id"] != plain["unique_id"]
    assert plain["properties"].pop("RelayDropped") == ["phone_number: invalid_phone"]
    assert (de["value"], de["properties"]) == (plain["value"], plain["properties"])


def test_a_store_relays_what_it_names_and_says_why_not_the_rest() -> None:
    headers, body = payload.read(paths.SAMPLES / "shopify/checkouts.create.json")
    assert preview("shop_de", headers, body, 0)["ignored"] == "not among the topics that this source relays"
    assert preview("shop_de", *order(test=True), 0)["ignored"] == "a test order"


def test_a_store_may_replace_an_event_and_set_a_currency() -> None:
    uk = became("shop_uk", *order(source_name="pos", currency="EUR"))
    assert uk["value_currency"] == "GBP"
    assert {"OrderNumber", "Channel"} <= set(uk["properties"]) <= {"OrderNumber", "Channel", "RelayDropped"}


def signed(name: str, secret: str, body: bytes) -> dict[str, str]:
    return sign.sign(name, secret, body=body, headers={}, url=URL, now=1_795_500_000)[1]


@pytest.mark.parametrize("name", ["shop_de", "shop_uk", "acme"])
def test_each_source_has_its_own_secret(name: str) -> None:
    body = order()[1]
    delivery = Webhook("POST", URL, "/webhooks/x", signed(name, "its own", body), {}, body)
    schemes = senders.load(name).schemes
    assert signatures.verify(schemes, delivery, ["its own"], now=1_795_500_100) == "its own"
    with pytest.raises(NotVerified):
        signatures.verify(schemes, delivery, ["of the other"], now=1_795_500_100)


def test_the_development_secrets_of_two_stores_differ() -> None:
    secrets = sign.development_secrets(["shop_de", "shop_uk"])["sources"]
    assert secrets["shop_de"] != secrets["shop_uk"]


def test_a_test_that_fails_leaves_no_sender_of_its_own_behind(tmp_path: Path) -> None:
    (tmp_path / "stripe.toml").write_text('extends = "hmac"\ntitle = "Own"\n', "utf-8")
    with suppress(ZeroDivisionError), custom_folder(tmp_path):
        assert senders.load("stripe").title == "Own"
        raise ZeroDivisionError
    assert senders.load("stripe").title == "Stripe"


def test_what_a_source_ignores_by_name_is_no_event_of_a_pattern(custom: Path) -> None:
    ignoring = ACME + '\n[ignore]\n"cart.touched" = "nothing is bought"\n"cart.*" = "too small"\n'
    (custom / "acme.toml").write_text(ignoring, "utf-8")
    senders.load.cache_clear()
    body = {"id": 1, "email": "noor@letters.example"}
    reasons = {
        topic: preview("acme", {}, json.dumps(body | {"type": topic}).encode(), 1_795_500_000)["ignored"]
        for topic in ("cart.touched", "cart.emptied", "order.created")
    }
    assert reasons == {"cart.touched": "nothing is bought", "cart.emptied": "too small", "order.created": None}


def test_a_scheme_of_ones_own_needs_a_few_lines() -> None:
    headers = signed("acme", "s", b'{"type":"order.created","id":1,"email":"noor@letters.example","total":"5.00"}')
    assert set(headers) == {"acme-signature", "acme-time"}
    event = became(
        "acme", {}, b'{"type":"order.created","id":1,"email":"noor@letters.example","total":"5.00","currency":"eur"}'
    )
    assert event["metric"]["data"]["attributes"] == {"name": "Placed Order", "service": "Acme"}
    assert (event["value"], event["value_currency"]) == (5, "EUR")
    assert event["unique_id"].startswith("acme:placed-order:")


FINISHED = b'{"metric":"Quiz Taken","profile":{"email":"noor@letters.example"}}'
SVIX_FIRST = """
extends = "custom"
title = "Quiz"

[signature]
header = ["svix-signature", "webhook-signature"]
timestamp_header = ["svix-timestamp", "webhook-timestamp"]
id_header = ["svix-id", "webhook-id"]
"""
KEPT_ONLY = """
format = "klaviyo"
title = "Quiz"

[signature]
header = "quiz-signature"

[webhook]
keep_headers = ["webhook-id"]
"""


@pytest.mark.parametrize(("file", "sent"), [(SVIX_FIRST, {"svix-id": "msg_1"}), (KEPT_ONLY, {})])
def test_an_id_header_that_is_not_signed_makes_no_new_event(custom: Path, file: str, sent: dict[str, str]) -> None:
    (custom / "quiz.toml").write_text(file, "utf-8")
    names = {
        became("quiz", sent | more, FINISHED)["unique_id"] for more in ({}, {"webhook-id": "a"}, {"webhook-id": "b"})
    }
    assert len(names) == 1
    assert not sent or names == {"msg_1:0"}


@pytest.mark.parametrize("name", ["shop_de", "acme"])
def test_the_files_pass_the_check_without_samples_of_their_own(name: str) -> None:
    assert [str(problem) for problem in lint.problems(name)] == []


def test_a_misspelt_key_shows_in_the_preview(custom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "order.json").write_text(
        json.dumps({"type": "order.created", "id": 1, "email": "noor@letters.example"})
    )
    arguments = ["acme", str(tmp_path / "order.json")]
    assert commands.main(["preview", *arguments]) == 0
    assert not capsys.readouterr().err
    (custom / "acme.toml").write_text(STORE_UK.replace("agrees =", "agres ="), "utf-8")
    senders.load.cache_clear()
    assert commands.main(["preview", *arguments]) == 1
    printed = capsys.readouterr()
    assert "acme.toml:" in printed.err
    assert "unknown 'agres'" in printed.err
    assert json.loads(printed.out)["events"] == []
