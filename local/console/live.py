"""The page of webhooks as they come in, and the page of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from flask import Blueprint, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from handler.events import senders
from tools.errors import CommandError
from tools.senders.payload import Payload

from . import curl, signing, story
from .exchanges import MASKED, Exchange
from .state import console, defaults, frame

pages = Blueprint("live", __name__)
ROWS = 60
_HOPS = ("content-length", "accept-encoding", "transfer-encoding")
OUTCOMES = ("accepted", "delivered", "waiting", "parked", "ignored", "handshake", "refused")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list; ``state`` is the door's outcome, or what its events have come to since."""

    exchange: Exchange
    state: str
    topics: tuple[str, ...]
    metrics: tuple[str, ...]


def state_of(exchange: Exchange) -> str:
    """Return the state of one webhook, as ``story.state_of``."""
    return story.state_of(exchange, console().watch.trail, defaults())


def _row(exchange: Exchange) -> Row:
    outcome = story.outcome_of(exchange, defaults())
    return Row(exchange, state_of(exchange), tuple(outcome.topics), tuple(dict.fromkeys(outcome.metrics)))


def _wanted(source: str, outcome: str, name: str) -> Iterator[Exchange]:
    for exchange in console().exchanges.newest_first():
        if source and exchange.source != source:
            continue
        if name and not _named(exchange, name):
            continue
        if outcome and outcome not in (exchange.outcome, state_of(exchange)):
            continue
        yield exchange


def _named(exchange: Exchange, name: str) -> bool:
    """Return whether an id, a header, the payload, the reason or a metric holds ``name``, in any case of letters."""
    wanted = name.casefold()
    texts = (*exchange.event_ids, *exchange.headers.values(), exchange.reason.replace("_", " "), exchange.detail)
    if any(wanted in text.casefold() for text in (*texts, exchange.reason)):
        return True
    if wanted in exchange.body.decode("utf-8", "replace").casefold():
        return True
    # Only what may become such a metric is looked at: thousands of webhooks are kept.
    rules = exchange.mapping.rules if exchange.mapping else ()
    if not any(wanted in rule.metric.casefold() for rule in rules):
        return False
    return any(wanted in metric.casefold() for metric in story.outcome_of(exchange, defaults()).metrics)


def _rows() -> dict[str, Any]:
    chosen = {name: request.args.get(name, "").strip()[:200] for name in ("source", "outcome", "id")}
    before = request.args.get("before", type=int)
    matches = _wanted(chosen["source"], chosen["outcome"], chosen["id"])
    last = console().exchanges.find(before) if before else None
    if last:
        matches = (exchange for exchange in matches if (exchange.at, exchange.number) < (last.at, last.number))
    page = list(islice(matches, ROWS + 1))
    rows = [_row(exchange) for exchange in page[:ROWS]]
    kept = {key: value for key, value in chosen.items() if value}
    return {
        "rows": rows,
        "chosen": chosen,
        "filtered": bool(kept),
        "older": f"/?{urlencode(kept | {'before': rows[-1].exchange.number})}" if len(page) > ROWS else "",
        "newest": f"/?{urlencode(kept)}" if before else "",
        "total": console().exchanges.total,
        "kept": len(console().exchanges),
    }


@pages.get("/")
def index() -> str:
    """Render the page of webhooks as they come in."""
    names = sorted({*senders.names(), *(known.source for known in console().exchanges.newest_first() if known.mapping)})
    return render_template("live.html", page="live", names=names, outcomes=OUTCOMES, **_rows(), **frame())


@pages.get("/rows")
def rows() -> str:
    """Render the list alone, for a page that is open."""
    return render_template("rows.html", **_rows(), **frame())


def _kept(number: int) -> Exchange:
    exchange = console().exchanges.find(number)
    if exchange is None:
        abort(404, "that webhook is no longer kept")
    return exchange


def _story_of(number: int) -> dict[str, Any]:
    exchange = _kept(number)
    state = state_of(exchange)  # before the events: these may be delivered meanwhile, and must be if it says so
    events, outcome = story.events_of(exchange, console().watch.trail, defaults(), console().watch.stored)
    return {
        "exchange": exchange,
        "state": state,
        "again": console().exchanges.find(console().exchanges.again.get(number, 0)),
        "events": events,
        "outcome": outcome,
        "explained": story.explained,
        "plain": story.plain,
        "late_hours": console().stack.parameters.get("LateAfterHours", "24"),
        "signing": signing.described(exchange, console().stack.known_as, _secrets(exchange.source)),
        "older": console().exchanges.find(number - 1),
        "newer": console().exchanges.find(number + 1),
        "changed": console().changed(),
        "unknown": story.unknown_topics(exchange, defaults()) if exchange.reason == "unknown_topic" else [],
    }


def _secrets(source: str) -> list[str]:
    listed = console().stack.secrets["sources"].get(source, [])
    return [listed] if isinstance(listed, str) else listed


@pages.get("/webhooks/<int:number>")
def webhook(number: int) -> str:
    """Render one webhook: the request, the events, Klaviyo."""
    return render_template("webhook.html", page="live", **_story_of(number), **frame())


@pages.get("/webhooks/<int:number>/raw")
def raw(number: int) -> Response:
    """Return the body as it came, to be saved or copied: a browser shows none of it."""
    exchange = _kept(number)
    kept = {"Content-Disposition": f"attachment; filename=webhook-{number}.txt"}
    return Response(exchange.body, content_type="text/plain; charset=utf-8", headers=kept)


@pages.get("/webhooks/<int:number>/curl")
def as_curl(number: int) -> Response:
    """Return the request as a command: its headers as they came, credentials masked."""
    exchange = _kept(number)
    door = console().stack.url("").removesuffix("/webhooks/")
    return Response(curl.command(exchange, door), content_type="text/plain; charset=utf-8")


@pages.get("/webhooks/<int:number>/story")
def webhook_story(number: int) -> str:
    """Render the webhook without the page around it, for one that is open."""
    return render_template("story.html", **_story_of(number), **frame())


@pages.post("/webhooks/<int:number>/again")
def again(number: int) -> Response:
    """Send a webhook once more as its sender would, signed now; a changed mapping is deployed first."""
    exchange = console().exchanges.find(number)
    if exchange is None or exchange.mapping is None:
        abort(404, "that webhook is no longer kept, or its source does not exist")
    if console().changed():
        console().deploy()
    headers = {name: value for name, value in exchange.headers.items() if name not in _HOPS and MASKED not in value}
    query = {name: value for name, value in parse_qsl(urlsplit(exchange.path).query) if value != MASKED}
    try:
        sent = console().send(exchange.source, Payload(exchange.method, query, headers, exchange.body))
    except CommandError as error:
        abort(409, str(error))
    console().exchanges.again[sent] = number
    return redirect(url_for("live.webhook", number=sent), 303)
