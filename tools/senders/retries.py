"""What senders count as delivered and how they retry: the ``[retries]`` tables, checked, and as docs/retries.md."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from typing import Any

from handler.events import senders
from handler.events.senders import Scheme
from tools.terminal import say

CALLER = "the caller decides"
GRADES = ("documented", "observed", "not known", CALLER)
SIGNED_AGAIN = ("yes", "no", "unknown")
TEXTS = ("not_retried", "switches_off", "by_hand")
NEEDED = ("known", "accepts", "switches_off", "by_hand")
FIELDS = {*NEEDED, *TEXTS, "source", "tries", "lasts", "signed_again"}
DAY = 86_400  # what a tolerance covers at least where neither the schedule nor the signing of retries is known
_ACCEPTS = re.compile(r"(\d{3}|\dxx)(( or | to |, )(\d{3}|\dxx))*|not known")
_STAMPS = ("timestamp", "timestamp_header", "timestamp_body")

Place = tuple[str | int, ...]
Mistake = tuple[Place, str]


def mistakes(own: Mapping[str, Any], whole: Mapping[str, Any], *, shipped: bool) -> Iterator[Mistake]:
    """Yield what is wrong with a file's ``[retries]``, and with a tolerance that does not cover them."""
    table = whole.get("retries", {})
    if shipped and not own.get("retries"):
        yield (), "expected [retries]: what the sender counts as delivered, and how it retries"
    if not table or not isinstance(table, Mapping):
        return
    yield from _form(table)
    signature = whole.get("signature", {})
    several = isinstance(signature, list)
    for index, scheme in enumerate(signature if several else [signature]):
        if any(scheme.get(name) for name in _STAMPS) and table.get("known") != CALLER:
            place: Place = ("signature", index, "tolerance") if several else ("signature", "tolerance")
            yield from _too_short(place, table, scheme.get("tolerance", Scheme().tolerance))


def _form(table: Mapping[str, Any]) -> Iterator[Mistake]:
    for name in NEEDED:
        if name not in table:
            yield ("retries",), f"expected {name!r}"
    for name, choices in (("known", GRADES), ("signed_again", SIGNED_AGAIN)):
        if name in table and table[name] not in choices:
            yield ("retries", name), f"expected {' or '.join(map(repr, choices))}"
    if not re.fullmatch(r"https://\S+", str(table.get("source", "https://x"))):
        yield ("retries", "source"), "expected the https address where this is written"
    if table.get("known") in ("documented", "observed") and "source" not in table:
        yield ("retries",), "expected 'source': the address where this is written"
    if not _ACCEPTS.fullmatch(str(table.get("accepts", "2xx"))):
        yield ("retries", "accepts"), "expected statuses, such as 200, 200 or 204, 2xx, or: not known"
    for name in TEXTS:
        if name in table and not (isinstance(table[name], str) and table[name].strip()):
            yield ("retries", name), "expected a text"
    for name in ("tries", "lasts"):
        if name in table and (isinstance(table[name], bool) or not isinstance(table[name], int) or table[name] < 1):
            yield ("retries", name), "expected a whole number, 1 or more"
    if table.get("tries") == 1 and "lasts" in table:
        yield ("retries", "lasts"), "expected no 'lasts': the sender tries once"


def _too_short(place: Place, table: Mapping[str, Any], tolerance: Any) -> Iterator[Mistake]:
    signed_again, lasts = table.get("signed_again"), table.get("lasts")
    if signed_again is None:
        yield ("retries",), "expected 'signed_again': whether a retry has a timestamp and signature of its own"
    elif signed_again != "yes" and table.get("tries") != 1:
        least = lasts if isinstance(lasts, int) else DAY
        if isinstance(tolerance, int) and 0 < tolerance < least:
            why = "the last retry" if lasts else "how long it retries is not known: a day's retry"
            yield place, f"expected {least} s or more: {why} may carry the first try's signature"


def uncommented(where: Mapping[Place, int], lines: list[str]) -> Iterator[Mistake]:
    """Yield the tolerances that do not have their reason on the same line."""
    for place in where:
        if place[:1] == ("signature",) and place[-1] == "tolerance" and "#" not in lines[where[place] - 1]:
            yield place, "expected the reason as a comment on the line of 'tolerance'"


# --------------------------------------------------------------------- page
_HEAD = (
    "| sender | source | counts as delivered | tries | over | switches the webhook off | to redeliver by hand "
    "| known |\n|---|---|---|---|---|---|---|---|"
)
_INTRO = """# What senders accept, and how they retry

Written by `python -m tools retries` from the `[retries]` table of each file in `src/handler/sources/`.

The relay answers 200 (to Twilio 204) to everything authentic that a message can hold. A sender meets another answer
when its secret is not set or wrong (401), when the body is too large (413), when the queue can't take the event (503),
and when the API or the function is overloaded (429, 5xx). Whether it then tries again, and for how long, is the
sender's decision. **What it gives up on is lost, unless you redeliver it by hand.** A repeat does no harm: it has the
same `unique_id`, and Klaviyo drops it.

- *documented*: the sender's own documents say so; the link leads there. *observed*: its open source code shows it, or
  others report it. *not known*: neither was found.
- *not documented* and *no way documented*: the documents that were read do not say it. Do not rely on a retry there.
- Senders change this without notice. If you know better, correct the file.
"""


def page() -> str:
    """Return docs/retries.md: how each shipped sender retries, and which ages of its signatures are accepted."""
    names = sorted(_shipped(), key=lambda name: senders.load(name).title.lower())
    tables = {name: senders.document(name)["retries"] for name in names}
    once = [_code(name) for name, table in tables.items() if table.get("tries") == 1]
    picky = [f"{_code(name)} ({table['not_retried']})" for name, table in tables.items() if "not_retried" in table]
    gone = [_code(name) for name, table in tables.items() if _ends_at_401(table)]
    strict = [
        _code(name) + (f" ({table['accepts']})" if table["accepts"] != "200" else "")
        for name, table in tables.items()
        if table["accepts"] in ("200", "200 or 204")
    ]
    stamped = [name for name in names if any(map(_has_stamp, senders.load(name).schemes))]
    return "\n".join(
        [
            _INTRO,
            f"**Never try again**, whatever the answer: {', '.join(once)}.",
            "",
            f"**Try again after some answers only** (in brackets: after which they do not): {', '.join(picky)}.",
            "",
            "**A webhook that met a 401**, such as one before its secret was set, does not come again from: "
            f"{', '.join(gone)}.",
            "",
            f"**Count nothing but 200 as delivered**: {', '.join(strict)}.",
            "",
            _HEAD,
            *(f"| {' | '.join(_row(name, table))} |" for name, table in tables.items()),
            "",
            "## How old a signature may be",
            "",
            "For senders that sign the time. Where no document says that a retry is signed again, the limit covers the",
            "whole schedule. No signature may be more than 300 s in the future.",
            "",
            "| source | retries signed again | oldest signature that is taken |",
            "|---|---|---|",
            *(f"| {_code(name)} | {tables[name]['signed_again']} | {_oldest(name)} |" for name in stamped),
            "",
        ]
    )


def _shipped() -> list[str]:
    return [path.stem for path in senders.SHIPPED.glob("*.toml")]


def _code(name: str) -> str:
    return f"`{name}`"


def _ends_at_401(table: Mapping[str, Any]) -> bool:
    """Return whether the sender gives a webhook up after a 401: as after any answer, any but some, or any 4xx."""
    return table.get("tries") == 1 or table.get("not_retried", "").startswith(("4xx", "any"))


def _has_stamp(scheme: Scheme) -> bool:
    return bool(scheme.timestamp or scheme.timestamp_header or scheme.timestamp_body)


def _oldest(name: str) -> str:
    return span(max(scheme.tolerance for scheme in senders.load(name).schemes if _has_stamp(scheme)))


def _row(name: str, table: Mapping[str, Any]) -> tuple[str, ...]:
    unknown = CALLER if table["known"] == CALLER else "not documented"
    tries = {None: unknown, 1: "once"}.get(table.get("tries"), str(table.get("tries")))
    over = span(table["lasts"]) if "lasts" in table else "" if table.get("tries") == 1 else unknown
    known = f"[{table['known']}]({table['source']})" if "source" in table else table["known"]
    title = senders.load(name).title
    return title, _code(name), table["accepts"], tries, over, table["switches_off"], table["by_hand"], known


def span(seconds: int) -> str:
    """Return ``seconds`` for people, rounded down: ``155 s``, ``85 min``, ``27 h 35 min``, ``3 days 6 h 38 min``."""
    if seconds < 600:
        return f"{seconds} s"
    if seconds < 4 * 3_600 and seconds % 3_600:
        return f"{seconds // 60} min"
    days, hours = divmod(seconds // 3_600, 24) if seconds >= 3 * DAY else (0, seconds // 3_600)
    minutes = seconds % 3_600 // 60
    parts = [f"{days} days" * bool(days), f"{hours} h" * bool(hours), f"{minutes} min" * bool(minutes)]
    return " ".join(part for part in parts if part)


def run(_: argparse.Namespace) -> int:
    """Print the page."""
    say(*page().splitlines())
    return 0
