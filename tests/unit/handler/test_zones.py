"""Time zones: what is packed, what is refused where it is set, and in which zone a time is read that names none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from handler import settings, zones
from handler.errors import SourceError
from handler.events import mapping, senders
from handler.events.expressions import Expression
from handler.events.mapping import Defaults, Outcome
from handler.events.webhook import Webhook
from tests.unit.handler.test_imports import ENVIRONMENT, SRC
from tools.senders import rules

PARIS, TOKYO = ZoneInfo("Europe/Paris"), ZoneInfo("Asia/Tokyo")
RECEIVED = 1_795_500_000.0
UNKNOWN = [
    *("Mars/Base", "Europe/Pariss", "europe/paris", "Europe", "CEST", "+02:00", "posix/Europe/Paris", "../UTC", ""),
    *("Factory", "Europe/Paris ", "UTC\n", "/Europe/Paris"),
]
SHOP = """
extends = "hmac"
title = "Shop"

[webhook]
{zone}

[[event]]
topic = "order.created"
metric = "Placed Order"
key = "id"
time = "at"
[event.properties]
PickedUpAt = "time(pickup)"
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    passed = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(  # noqa: S603 (our own command line)
        [sys.executable, "-c", code],
        env={**passed, **ENVIRONMENT, "PYTHONPATH": str(SRC), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ------------------------------------------------------------ what is packed
def test_the_package_brings_the_zones_along() -> None:
    written = (SRC / "requirements.txt").read_text("utf-8")
    assert re.search(r"^tzdata==\d+\.\d+ \\\n    --hash=sha256:[0-9a-f]{64}", written, re.M)


def test_the_packed_zones_suffice_where_the_system_has_none() -> None:
    code = "from handler import zones; import zoneinfo; print(zones.load('Europe/Paris'), zoneinfo.TZPATH)"
    done = python(code, PYTHONTZPATH="")
    assert done.stdout == "Europe/Paris ()\n", done.stderr


# ------------------------------------------------------ refused where it is set
@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_zone_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(repr(name))} is not an IANA time zone"):
        zones.load(name)


def test_known_zones_load() -> None:
    assert zones.load("UTC") is UTC
    for name in ("Europe/Paris", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "America/Port-au-Prince", "Etc/UTC"):
        assert str(zones.load(name)) == name


@pytest.mark.parametrize("read", [settings.for_receive, settings.for_deliver])
def test_the_functions_refuse_to_start_with_an_unknown_zone(read: Any) -> None:
    assert read(ENVIRONMENT | {"TIME_ZONE": "Europe/Paris"}).time_zone == PARIS
    with pytest.raises(ValueError, match=r"parameter TimeZone .*'Mars/Base' is not an IANA time zone.*sam deploy"):
        read(ENVIRONMENT | {"TIME_ZONE": "Mars/Base"})


@pytest.mark.parametrize("function", ["receive", "deliver"])
def test_a_function_that_cannot_start_names_the_parameter_in_its_log(function: str) -> None:
    done = python(f"import handler.{function}", TIME_ZONE="Mars/Base")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ValueError: the parameter TimeZone is not valid: 'Mars/Base'")


@pytest.mark.parametrize("base", ["hmac", "recharge", "custom"])
def test_a_senders_file_with_an_unknown_zone_is_not_loaded(custom_senders: Path, base: str) -> None:
    (custom_senders / "shop.toml").write_text(
        f'extends = "{base}"\ntitle = "Shop"\n[webhook]\nzone = "Mars/Base"\n', "utf-8"
    )
    with pytest.raises(SourceError, match=r"shop\.toml.*'Mars/Base' is not an IANA time zone"):
        senders.load("shop")
    mistakes = [str(mistake) for mistake in rules.mistakes("shop")[0]]
    assert any(
        mistake.endswith("shop.toml:4: expected an IANA time zone, such as Europe/Paris") for mistake in mistakes
    )


def test_every_zone_of_the_shipped_senders_loads() -> None:
    written = {name: senders.document(name).get("webhook", {}).get("zone") for name in senders.names()}
    assert {name: senders.load(name).zone for name, zone in written.items() if zone} == {
        "mailchimp": UTC,
        "pipedrive": UTC,
        "recharge": ZoneInfo("America/New_York"),
        "woocommerce": UTC,
    }


# -------------------------------------------------- times that name no zone
def understood(source: str, default: tzinfo, body: dict[str, Any]) -> Outcome:
    return mapping.understand(
        senders.load(source),
        Webhook.posted({}, json.dumps(body).encode()),
        received=RECEIVED,
        defaults=Defaults(time_zone=default),
    )


def order(**times: str) -> dict[str, Any]:
    return {"type": "order.created", "id": 1, "email": "noor@letters.example", **times}


def stored(outcome: Outcome) -> tuple[str, dict[str, Any]]:
    """The time and the properties of the one event."""
    (event,) = outcome.events
    attributes = json.loads(event.entry)["attributes"]["events"]["data"][0]["attributes"]
    return attributes["time"], attributes["properties"]


@pytest.mark.parametrize(
    ("zone", "default", "hour"),
    [("", UTC, 11), ("", PARIS, 9), ('zone = "Asia/Tokyo"', PARIS, 2), ('zone = ""', PARIS, 9)],
)
def test_times_without_a_zone_are_read_in_the_senders_else_the_stacks(
    custom_senders: Path, zone: str, default: tzinfo, hour: int
) -> None:
    (custom_senders / "shop.toml").write_text(SHOP.format(zone=zone), "utf-8")
    at, properties = stored(understood("shop", default, order(at="2026-10-12T11:15:27", pickup="2026-10-12T11:30:00")))
    assert at == f"2026-10-12T{hour:02}:15:27Z"
    assert properties["PickedUpAt"] == f"2026-10-12T{hour:02}:30:00Z"


def test_a_zone_ends_with_its_webhook(custom_senders: Path) -> None:
    (custom_senders / "shop.toml").write_text(SHOP.format(zone='zone = "Asia/Tokyo"'), "utf-8")
    (custom_senders / "other.toml").write_text(SHOP.format(zone=""), "utf-8")
    body = order(at="2026-10-12T11:15:27", pickup="2026-10-12T11:30:00")
    assert stored(understood("shop", UTC, body))[1]["PickedUpAt"] == "2026-10-12T02:30:00Z"
    assert Expression("time(@)").of("2026-10-12T11:30:00") == "2026-10-12T11:30:00Z"
    assert stored(understood("other", UTC, body))[1]["PickedUpAt"] == "2026-10-12T11:30:00Z"


def test_a_date_alone_stays_that_date_in_a_property(custom_senders: Path) -> None:
    (custom_senders / "shop.toml").write_text(SHOP.format(zone='zone = "Asia/Tokyo"'), "utf-8")
    _, properties = stored(understood("shop", UTC, order(at="2026-10-12T11:15:27", pickup="2026-10-12")))
    assert properties["PickedUpAt"] == "2026-10-12T00:00:00Z"


def test_a_time_in_an_unknown_zone_is_the_time_of_receipt_and_it_is_said(custom_senders: Path) -> None:
    (custom_senders / "shop.toml").write_text(SHOP.format(zone=""), "utf-8")
    written = "Mon, 12 Oct 2026 11:15:27 CEST"
    outcome = understood("shop", UTC, order(at=written, pickup=written))
    at, properties = stored(outcome)
    assert at == "2026-11-24T06:00:00Z"
    assert "PickedUpAt" not in properties
    assert ("time_of_receipt", "time") in [(note.code, note.where) for note in outcome.notes]


@pytest.mark.parametrize(("zone", "hour"), [("", 9), ('[webhook]\nzone = "Asia/Tokyo"', 2)])
def test_events_in_klaviyos_own_form_are_read_alike(custom_senders: Path, zone: str, hour: int) -> None:
    (custom_senders / "mine.toml").write_text(f'extends = "custom"\ntitle = "Mine"\n{zone}\n', "utf-8")
    body = {"profile": {"email": "noor@letters.example"}, "metric": "Visited", "unique_id": "v1"}
    at, _ = stored(understood("mine", PARIS, body | {"time": "2026-10-12T11:15:27"}))
    assert at == f"2026-10-12T{hour:02}:15:27Z"
