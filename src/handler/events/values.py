"""Single values: email, phone, time, money, names.

Every function here accepts a value of any type, as senders may send it, and
returns the clean value or ``None``. None raises on bad input. Klaviyo's rules: API
reference, "Bulk Create Events"; guides, "Profiles" and "Custom metrics".
"""

from __future__ import annotations

import hashlib
import html
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from typing import Any

from ..work import CHARACTERS, spend

EMAIL_LENGTH = 99
_PHONE_UNITS = 40  # to read a number as one of a region's
YEAR = 366 * 86_400
NUMBERS = (int, float, Decimal)  # here 0 and False are values, unlike "" and []
EARLIEST = 631_152_000  # 1990-01-01, before which Klaviyo refuses times

# RFC 5321/5322 without quoted local parts and address literals, which Klaviyo refuses.
_EMAIL = re.compile(
    r"(?=.{1,64}@)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+(?:[A-Za-z]{2,63}|xn--[A-Za-z0-9-]{2,59})"
)
# Klaviyo accepts events for these and drops them silently (guide "Test profiles").
_DROPPED_DOMAIN = re.compile(
    r"@(?:.*\.)?(?:example\.(?:com|net|org)|test\.com|[a-z0-9-]+\.(?:test|invalid|localhost))$"
)

# ISO 4217: currencies whose minor unit is not a hundredth.
_WHOLE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_EXPONENTS = (
    dict.fromkeys(_WHOLE.split(), 0)
    | dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3)
    | dict.fromkeys(["CLF", "UYW"], 4)
)
_JSON_NUMBERS = (int, float)
_CURRENCY = re.compile(r"[A-Z]{3}")
_MONEY = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?")
_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)?"
    r"(?: ?(?:Z|z|UTC|[+-]\d{2}:?\d{2}|[+-]\d{2}))?"
)
# What may follow the clock time in other texts: a zone (and its name as a comment), and a year. email.utils ignores any
# zone that it does not know ("CEST", "+02:00", "PM"), and the time would be read in another.
_CLOCK = re.compile(
    r"(?P<clock>\d:\d{2}(?::\d{2})?)"
    r"(?: ?(?:(?:GMT|UTC)?(?P<hours>[+-]\d{2})(?::?(?P<minutes>\d{2}))?|(?P<name>UTC?|GMT|Z|[AECMP][SD]T))"
    r"(?: \([^()]*\))?)?(?P<year> \d{4})?$",
    re.IGNORECASE,
)


def text(value: Any) -> str | None:
    """Return ``value`` as trimmed text; numbers as written, anything else and ``""`` as ``None``."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool) or not isinstance(value, _JSON_NUMBERS):
        return None
    return str(value)


def email(value: Any) -> str | None:
    """Return a valid address under 100 characters, trimmed and in lower case."""
    if not isinstance(value, str):
        return None
    address = value.strip().removeprefix("mailto:").lower()
    return address if len(address) <= EMAIL_LENGTH and _EMAIL.fullmatch(address) else None


def is_dropped(address: str) -> bool:
    """Return whether Klaviyo accepts events for this address and silently stores none."""
    return _DROPPED_DOMAIN.search(address) is not None


def phone(value: Any, regions: Iterable[Any]) -> str | None:
    """Return E.164 by the number's own country code, otherwise by the first of ``regions`` that fits.

    ``regions`` are ISO 3166 codes; others are skipped.
    """
    number = text(value)
    if number is None or len(number) > 40 or not any(char.isdigit() for char in number):
        return None
    import phonenumbers  # 2.8 MB of metadata: loaded at the first phone number, not at cold start

    if number.startswith("00"):
        number = "+" + number[2:]
    for region in [*(r.upper() for r in regions if isinstance(r, str) and len(r) == 2), None]:
        spend(_PHONE_UNITS)
        try:
            parsed = phonenumbers.parse(number, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(parsed):
            return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))
    return None


def time(value: Any, local: tzinfo = UTC) -> float | None:
    """Return the epoch seconds of an epoch number (s, ms, µs), or of ISO 8601 or RFC 2822 text.

    A time without a zone is read in ``local``. A zone must be an offset, UTC or
    one of RFC 2822's (``EST``, ``PDT``, …); otherwise the text is not a time.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _epoch(value)
    if not isinstance(value, str) or len(value) > 64:
        return None
    written = value.strip()
    if re.fullmatch(r"-?\d{9,17}(?:\.\d+)?", written):
        return _epoch(float(written))
    return _iso(written, local) if _ISO.fullmatch(written) else _rfc2822(written, local)


def _epoch(value: float) -> float | None:
    if isinstance(value, int) and abs(value) > 10**18:
        return None
    seconds = float(value)
    if not math.isfinite(seconds):
        return None
    for limit, unit in ((1e14, 1e6), (1e11, 1e3)):
        if abs(seconds) >= limit:
            return seconds / unit
    return seconds


def _iso(written: str, local: tzinfo) -> float | None:
    try:
        try:
            moment = datetime.fromisoformat(written)
        except ValueError:
            tidy = re.sub(r" ?(?:UTC|z)$", "Z", written.replace(",", ".")).replace(" +", "+").replace(" -", "-")
            moment = datetime.fromisoformat(re.sub(r"\.(\d{6})\d+", r".\1", tidy))
        return (moment if moment.tzinfo else moment.replace(tzinfo=local)).timestamp()
    except (ValueError, OverflowError):
        return None


def _rfc2822(written: str, local: tzinfo) -> float | None:
    folded = " ".join(written.split())
    clock = _CLOCK.search(folded)
    if clock is None:
        return None
    offset = f"{clock['hours']}{clock['minutes'] or '00'}" if clock["hours"] else clock["name"] or ""
    try:
        moment = parsedate_to_datetime(f"{folded[: clock.end('clock')]} {offset}{clock['year'] or ''}")
        # "-0000" is UTC without information about the zone (RFC 5322, section 3.3).
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC if offset else local)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def plausible(seconds: float, now: float) -> bool:
    """Return whether Klaviyo accepts this time: after 1990 and at most a year ahead."""
    return EARLIEST < seconds < now + YEAR - 86_400


def iso(seconds: float) -> str:
    """Return ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()[:19] + "Z"


def currency(value: Any) -> str | None:
    """Return an ISO 4217 code in upper case."""
    code = value.strip().upper() if isinstance(value, str) else ""
    return code if _CURRENCY.fullmatch(code) else None


def money(value: Any) -> Decimal | None:
    """Return a decimal amount from text (``"1,299.90"``) or a JSON number, digit for digit.

    A float's ``repr`` gives back the text it was parsed from up to 15 significant
    digits (IEEE 754), so amounts below ten trillion keep every cent.
    """
    if isinstance(value, str):
        written = value.strip()
        if len(value) > 40 or not _MONEY.fullmatch(written):
            return None
        written = written.replace(",", "")
    elif isinstance(value, Decimal):
        return value if value.is_finite() else None
    elif isinstance(value, _JSON_NUMBERS) and not isinstance(value, bool):
        written = repr(value)
    else:
        return None
    try:
        amount = Decimal(written) if len(written) <= 40 else None
    except InvalidOperation:
        return None
    return amount if amount is not None and amount.is_finite() else None


def minor(value: Any, code: Any) -> Decimal | None:
    """Return a decimal amount from minor units: ``minor(1999, "usd")`` is 19.99, ``minor(500, "JPY")`` is 500."""
    amount, unit = money(value), currency(code)
    if amount is None or unit is None:
        return None
    return amount.scaleb(-_EXPONENTS.get(unit, 2))


def number(amount: Decimal) -> int | float:
    """Return ``amount`` as a JSON number: whole amounts as ``int``, others as the nearest double."""
    whole = amount.to_integral_value()
    return int(whole) if whole == amount else float(amount)


def names(full: Any) -> tuple[str | None, str | None]:
    """Return given and family name from one field: ``"Ada King Lovelace"`` → ``("Ada", "King Lovelace")``.

    ``"Lovelace, Ada"`` is reversed. One word is a given name. An email address is
    not a name.
    """
    whole = text(full)
    if whole is None or "@" in whole:
        return None, None
    family, comma, given_name = (part.strip() for part in whole.partition(","))
    if comma and given_name and family and "," not in given_name:
        return given_name, family
    first, _, rest = " ".join(whole.split()).partition(" ")
    return first, rest or None


def country(value: Any) -> str | None:
    """Return a two-letter country code in upper case; other text as it is."""
    name = text(value)
    return name.upper() if name and len(name) == 2 and name.isalpha() else name


def plain(markup: Any) -> str | None:
    """Return the text without HTML tags and entities, with its white space folded."""
    if not isinstance(markup, str):
        return None
    bare = html.unescape(re.sub(r"<[^<>]{0,500}>", " ", markup[:100_000]))
    return " ".join(bare.split()) or None


def digest(*parts: Any) -> str:
    """Return 32 hexadecimal digits that stand for ``parts`` of any types."""
    joined = "\x1f".join(repr(part) for part in parts)
    spend(len(joined) >> CHARACTERS)
    return hashlib.sha256(joined.encode("utf-8", "backslashreplace")).hexdigest()[:32]
