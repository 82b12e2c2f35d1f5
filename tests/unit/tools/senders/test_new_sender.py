"""A first file for a sender, guessed from one delivery, is one that works."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.support_senders import custom_folder
from tools import paths
from tools.errors import CommandError
from tools.senders import lint, new_sender, payload
from tools.senders.payload import Payload
from tools.senders.preview import preview

# One delivery of each sender, the longest.
SAMPLES = [
    max(folder.glob("*.json"), key=lambda path: path.stat().st_size) for folder in sorted(paths.SAMPLES.iterdir())
]
JSON = {"content-type": "application/json"}


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    with custom_folder(tmp_path / "custom") as custom:  # the command makes it
        yield custom, tmp_path / "events"


def make(folders: tuple[Path, Path], body: Any, headers: dict[str, str] | None = None) -> tuple[str, dict[str, Any]]:
    """The file that is made of a delivery, and what the delivery becomes under it."""
    sent = Payload("POST", {}, JSON | (headers or {}), json.dumps(body).encode())
    toml, sample = new_sender.create("acme", sent, *folders)
    assert [str(problem) for problem in lint.problems("acme", folders[1])] == []
    return toml.read_text("utf-8"), preview("acme", *payload.read(sample), 1_795_500_000)


def attributes(shown: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Profile and event of the one event of a preview."""
    (entry,) = shown["events"]
    profile = entry["attributes"]["profile"]["data"]["attributes"]
    return profile, entry["attributes"]["events"]["data"][0]["attributes"]


ORDER = {
    "event": "order.created",
    "occurred_at": "2026-11-20T10:00:00Z",
    "order": {
        "id": "o_1",
        "number": 1001,
        "total": "59.80",
        "currency": "eur",
        "status": "paid",
        "lines": [{"sku": "T-1", "name": "Teapot", "qty": 2, "price": "29.90", "image": "https://acme.example/t.jpg"}],
    },
    "customer": {
        "id": "c_9",
        "email": "noor@letters.example",
        "phone": "+31 20 794 7000",
        "firstName": "Noor",
        "lastName": "Haddad",
        "address": {"city": "Utrecht", "postcode": "3511 AA", "country": "nl"},
    },
    "store": {"email": "shop@acme.example", "phone": "+31207947001"},
    "api_token": "hidden",
}


def test_an_orders_fields_are_found(folders: tuple[Path, Path]) -> None:
    text, shown = make(folders, ORDER)
    profile, event = attributes(shown)
    assert profile == {
        "email": "noor@letters.example",
        "phone_number": "+31207947000",
        "first_name": "Noor",
        "last_name": "Haddad",
        "location": {"city": "Utrecht", "zip": "3511 AA", "country": "NL"},
        "properties": {"Acme Customer ID": "c_9"},
    }
    assert event["metric"]["data"]["attributes"]["name"] == "Order Created"
    assert (event["value"], event["value_currency"], event["time"]) == (59.8, "EUR", "2026-11-20T10:00:00Z")
    assert event["unique_id"] == "acme:order-created:o_1"
    properties = event["properties"]
    assert properties["ItemNames"] == ["Teapot"]
    assert properties["Items"] == [
        {
            "SKU": "T-1",
            "ProductName": "Teapot",
            "Quantity": 2,
            "ItemPrice": 29.9,
            "ImageURL": "https://acme.example/t.jpg",
        }
    ]
    assert (properties["Number"], properties["OrderStatus"]) == (1001, "paid")
    assert "hidden" not in json.dumps(shown)
    assert "shop@acme.example" not in json.dumps(shown)
    assert "read every line" in text


@pytest.mark.parametrize(
    ("header", "written", "lines"),
    [
        ("acme-signature", "9f" * 32, ['header = "acme-signature"']),
        ("acme-hmac", "9f" * 20, ['digest = "sha1"']),
        ("acme-signature", "sha256=" + "9f" * 32, ['prefix = "sha256="']),
        ("acme-signature", "n5+" * 14 + "n=", ['encoding = "base64"']),
        ("acme-signature", "t=1795500000,v1=" + "9f" * 32, ['layout = "pairs"', 'signed = "{timestamp}.{body}"']),
        ("acme-signature", "v1,n5==", ['layout = "list"', 'encoding = "base64"']),
        ("user-agent", "Acme/1", ['header = "x-acme-signature"']),
    ],
)
def test_the_signatures_form_is_recognised_from_its_header(
    folders: tuple[Path, Path], header: str, written: str, lines: list[str]
) -> None:
    text, _ = make(folders, ORDER, {header: written})
    block = text.split("[signature]\n")[1].split("\n\n")[0].split("\n")
    assert set(lines) <= set(block)


def test_a_topic_in_a_header_is_checked_against_the_body(folders: tuple[Path, Path]) -> None:
    body = {"id": 5, "email": "noor@letters.example", "plan": "Plus"}
    text, shown = make(folders, body, {"x-acme-topic": "plan/changed", "x-acme-event-id": "e_1"})
    assert 'topic_header = "x-acme-topic"' in text
    assert attributes(shown)[1]["metric"]["data"]["attributes"]["name"] == "Plan Changed"


def test_a_topic_that_the_body_holds_too_is_taken_from_there_for_it_is_signed(folders: tuple[Path, Path]) -> None:
    text, _ = make(folders, ORDER | {"event": "order.created"}, {"x-acme-event": "order.created"})
    assert 'topic = "event"' in text.split("\n")
    assert "topic_header" not in text
    assert "agrees" not in text


def test_a_time_next_to_the_signature_is_pointed_out(folders: tuple[Path, Path]) -> None:
    text, _ = make(folders, ORDER, {"x-acme-signature": "9f" * 32, "x-acme-timestamp": "1795500000"})
    assert '# timestamp_header = "x-acme-timestamp"' in text.split("\n")


def test_what_is_a_cards_is_no_property(folders: tuple[Path, Path]) -> None:
    text, _ = make(folders, ORDER | {"payment": {"card_last4": "4242", "cardExpiry": "12/29", "postcard": "yes"}})
    assert "CardLast" not in text
    assert "CardExpiry" not in text
    assert "Postcard" in text


def test_email_and_phone_are_of_one_person(folders: tuple[Path, Path]) -> None:
    teacher, student = {"email": "noor@letters.example"}, {"phone": "+31 20 794 7000"}
    lesson = {"type": "lesson.booked", "id": 1, "teacher": teacher, "student": student}
    text, shown = make(folders, lesson)
    assert "student.phone" not in text
    assert attributes(shown)[0] == {"email": "noor@letters.example"}
    assert "7947000" not in json.dumps(shown).replace(" ", "")


def test_cents_are_recognised_by_their_name(folders: tuple[Path, Path]) -> None:
    body = {"type": "paid", "id": 1, "email": "noor@letters.example", "amount_cents": 1999, "currency": "EUR"}
    assert attributes(make(folders, body)[1])[1]["value"] == 19.99


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("Acme", ORDER, "is not a valid source name"),
        ("stripe", ORDER, "Source stripe exists already"),
        ("acme", [1], "neither a JSON object"),
        ("acme", {"id": 1, "total": 5}, "says whose event it is"),
    ],
)
def test_what_cannot_be_made_is_said(folders: tuple[Path, Path], name: str, body: Any, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        new_sender.create(name, Payload("POST", {}, JSON, json.dumps(body).encode()), *folders)
    assert not list(folders[0].glob("*"))


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"type=order&id=1&email=kim%40mail.example", 'body = "form"\n'),
        (
            b'--b\r\nContent-Disposition: form-data; name="id"\r\n\r\n1\r\n'
            b'--b\r\nContent-Disposition: form-data; name="type"\r\n\r\norder\r\n'
            b'--b\r\nContent-Disposition: form-data; name="email"\r\n\r\nkim@mail.example\r\n--b--\r\n',
            'body = "multipart"\n',
        ),
        (b'{"type": "order", "id": 1, "email": "kim@mail.example"}', ""),
        (b"type=order&id=1&email=kim%40mail.example&name=Zo%EB", 'body = "form"\ncharset = "windows-1252"\n'),
    ],
)
def test_the_file_says_what_the_deliverys_body_is_whatever_its_label(
    folders: tuple[Path, Path], body: bytes, line: str
) -> None:
    toml, sample = new_sender.create("acme", Payload("POST", {}, JSON, body), *folders)
    assert f"[webhook]\n{line}topic = " in toml.read_text()
    assert payload.read(sample)[1] == body
    assert preview("acme", *payload.read(sample), 1_795_500_000)["events"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_guess_for_any_delivery_passes_and_becomes_an_event(folders: tuple[Path, Path], path: Path) -> None:
    try:
        new_sender.create("acme", payload.request(path), *folders)
    except CommandError as error:
        assert "whose event" in str(error) or "neither a JSON object" in str(error) or "not JSON" in str(error)  # noqa: PT017
        return
    assert [str(problem) for problem in lint.problems("acme", folders[1])] == []
    (sample,) = folders[1].glob("acme/*.json")
    assert preview("acme", *payload.read(sample), 1_795_500_000)["events"]


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"type": "plan.created"}, '"id"'),
        ({"type": "plan.updated"}, '"digest(@)"'),
        ({"type": "plan.updated", "updated_at": "2026-11-20T10:00:00Z"}, '"[id, updated_at]"'),
        ({"type": "plan.updated", "event_id": "e_1"}, '"event_id"'),
    ],
)
def test_what_changes_more_than_once_gets_ids_of_its_own(
    folders: tuple[Path, Path], more: dict[str, Any], key: str
) -> None:
    text, _ = make(folders, {"id": 1, "email": "noor@letters.example"} | more)
    assert f"\nkey = {key}\n" in text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("type=order&id=1&email=kim@mail.example&name=Zoë", 'body = "form"\n'),
        ('{"type": "order", "id": 1, "email": "kim@mail.example", "name": "Zoë"}', ""),
        (
            "".join(
                f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                for name, value in {"type": "order", "id": "1", "email": "kim@mail.example", "name": "Zoë"}.items()
            )
            + "--b--\r\n",
            'body = "multipart"\n',
        ),
    ],
)
def test_a_delivery_in_latin_1_gets_its_charset_and_a_sample_that_shows_its_text(
    folders: tuple[Path, Path], text: str, line: str
) -> None:
    sent = Payload("POST", {}, JSON, text.encode("latin-1"))
    toml, sample = new_sender.create("acme", sent, *folders)
    assert f'[webhook]\n{line}charset = "windows-1252"\n' in toml.read_text("utf-8")
    for body in (sent.body, payload.read(sample)[1]):
        (event,) = preview("acme", JSON, body, 1_795_500_000)["events"]
        assert "Zoë" in json.dumps(event, ensure_ascii=False)


def test_a_delivery_with_a_file_says_to_take_it_out(folders: tuple[Path, Path]) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="email"\r\n\r\nkim@mail.example\r\n'
    body += b'--b\r\nContent-Disposition: form-data; name="photo"; filename="me.png"\r\n\r\n\x89PNG\r\n--b--\r\n'
    with pytest.raises(CommandError, match="take them out"):
        new_sender.create("acme", Payload("POST", {}, JSON, body), *folders)
