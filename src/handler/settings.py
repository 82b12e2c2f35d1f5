"""The settings that the template passes to the functions as environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo

from . import zones


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that both functions share.

    Attributes
    ----------
    events_queue_url, dead_letter_queue_url : str
        The two queues.
    requests_per_minute : int
        Klaviyo's steady limit for this account and endpoint (150).
    phone_region : str
        ISO 3166 code for phone numbers without a country, ``""`` for none.
    time_zone : tzinfo
        Zone of times without one.
    """

    events_queue_url: str
    dead_letter_queue_url: str
    requests_per_minute: int
    phone_region: str
    time_zone: tzinfo


@dataclass(frozen=True, slots=True)
class ReceiveSettings(Settings):
    """Settings of ``receive``.

    ``sources_secret`` is a Secrets Manager name or ARN. ``metrics_by_source`` has the
    sources that are also counted by name; ``*`` stands for all.
    """

    sources_secret: str
    metrics_by_source: frozenset[str]


@dataclass(frozen=True, slots=True)
class DeliverSettings(Settings):
    """Settings of ``deliver``.

    ``arrival_spread`` and ``late_after`` are in seconds; ``late_after`` 0 turns
    late events off. ``klaviyo_url`` has no path.
    """

    klaviyo_secret: str
    klaviyo_url: str
    klaviyo_revision: str
    pacing_table: str
    pacing_account: str
    arrival_spread: float
    late_after: float


def _shared(env: Mapping[str, str]) -> tuple[str, str, int, str, tzinfo]:
    return (
        env["EVENTS_QUEUE_URL"],
        env["DEAD_LETTER_QUEUE_URL"],
        int(env["REQUESTS_PER_MINUTE"]),
        env["PHONE_REGION"],
        _zone(env["TIME_ZONE"]),
    )


def _zone(name: str) -> tzinfo:
    try:
        return zones.load(name)
    except ValueError as error:
        raise ValueError(
            f"the parameter TimeZone is not valid: {error}. Set it with sam deploy --parameter-overrides TimeZone=…"
        ) from None


def for_receive(env: Mapping[str, str]) -> ReceiveSettings:
    """Read the settings of ``receive``; ``KeyError`` names a missing variable, ``ValueError`` an unknown zone."""
    return ReceiveSettings(
        *_shared(env),
        sources_secret=env["SOURCES_SECRET"],
        metrics_by_source=frozenset(env["METRICS_BY_SOURCE"].split(",")),
    )


def for_deliver(env: Mapping[str, str]) -> DeliverSettings:
    """Read the settings of ``deliver``; ``KeyError`` names a missing variable, ``ValueError`` an unknown zone."""
    return DeliverSettings(
        *_shared(env),
        klaviyo_secret=env["KLAVIYO_SECRET"],
        klaviyo_url=env["KLAVIYO_URL"].rstrip("/"),
        klaviyo_revision=env["KLAVIYO_REVISION"],
        pacing_table=env["PACING_TABLE"],
        pacing_account=env["PACING_ACCOUNT"],
        arrival_spread=float(env["ARRIVAL_SPREAD"]),
        late_after=float(env["LATE_AFTER_HOURS"]) * 3600,
    )
