"""The playground: a payload and a sender's file side by side, and what becomes of them as one types."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, abort, redirect, render_template, request
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from handler.door import signatures
from handler.errors import UnknownSource, Unmapped
from handler.events import bodies, senders
from tools.errors import CommandError
from tools.paths import shown
from tools.senders import new_sender, payload
from tools.senders.payload import Payload

from . import render, worker
from .exchanges import CREDENTIALS, MASKED
from .state import console, defaults, frame

pages = Blueprint("playground", __name__)
NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
FIRST = "stripe"
LARGEST = 1_000_000  # characters of a payload or a file
# What the tools write themselves, or what means nothing to others.
_LEFT_OUT = ("content-length", "accept-encoding", "transfer-encoding", "host", "user-agent", "accept", "connection")


@pages.get("/playground")
def index() -> str:
    """Render a sender's file with one of its samples, or with a webhook that came in."""
    number = request.args.get("webhook", type=int)
    exchange = console().exchanges.find(number) if number else None
    if exchange is not None:
        headers = {name: value for name, value in exchange.headers.items() if name not in _LEFT_OUT}
        sent = Payload(exchange.method, {}, headers, exchange.body)
        toml = _file(exchange.source)
        if toml and (topic := request.args.get("add", "")):
            toml += worker.stub(topic[:100])
        return _page(exchange.source if _exists(exchange.source) else "", toml, sent)
    source = request.args.get("source", FIRST)
    if source == "":
        return _page("", "", Payload("POST", {}, {"content-type": payload.JSON}, b""))
    if not _exists(source):
        abort(404, "no source of that name")
    names = _samples(source)
    chosen = request.args.get("sample", "")
    chosen = chosen if chosen in names else next(iter(names), "")
    sent = Payload("POST", {}, {"content-type": payload.JSON}, b"")
    if chosen:
        sent = payload.request(console().samples / source / f"{chosen}.json")
    return _page(source, _file(source), sent, chosen)


def _exists(source: str) -> bool:
    try:
        senders.path_of(source)
    except UnknownSource:
        return False
    return True


def _file(source: str) -> str:
    return senders.path_of(source).read_text("utf-8") if _exists(source) else ""


def _mark(source: str) -> str:
    """Return a digest of a source's file, by which a changed text is noticed; empty if there is no such file."""
    return hashlib.sha256(senders.path_of(source).read_bytes()).hexdigest() if _exists(source) else ""


def _samples(source: str) -> list[str]:
    return sorted(path.stem for path in (console().samples / source).glob("*.json"))


def _page(source: str, toml: str, sent: Payload, sample: str = "", wrong: str = "", name: str = "") -> str:
    result = _tried(source or name, toml, sent) if toml and (source or name) else None
    return render_template(
        "playground.html",
        page="playground",
        source=source,
        name=source or name,
        names=senders.names(),
        samples=_samples(source) if source else [],
        sample=sample,
        toml=toml,
        headers=json.dumps(_shown(sent), indent=2, ensure_ascii=False),
        body=_body(sent.body),
        opened=_mark(source or name),
        wrong=wrong,
        saved=request.args.get("saved", ""),
        tried=result,
        steps=steps(source or name, toml, sent.body.decode("utf-8", "replace")),
        path=_where(source),
        **frame(),
    )


def steps(name: str, toml: str, body: str) -> list[tuple[bool, str]]:
    """Return what a new sender needs before an event can be seen: whether it is there, and what to do."""
    named = NAME.fullmatch(name) is not None
    form = "lower-case letters, digits and underscores, a letter first"
    return [
        (bool(body.strip()), "Paste a webhook of the sender as payload, and its headers, if you have them."),
        (named, f"Name the source: {form}. Its webhooks go to /webhooks/{name if named else '…'}."),
        (bool(toml.strip()), "Draft its file from the payload, or write it."),
    ]


def _where(source: str) -> str:
    """Return in a sentence which file is shown, and what saving does to it."""
    if not source:
        return "Saved as a file of your own, which no release touches."
    path = senders.path_of(source)
    if path.parent == senders.CUSTOM:
        return f"custom/{path.name}, your own file."
    return f"{path.name} ships with the relay. Saved, it becomes custom/{path.name}, which takes its place."


def _shown(sent: Payload) -> dict[str, Any]:
    extra: dict[str, Any] = {"query": sent.query} if sent.query else {}
    return dict(sent.headers) | ({":method": sent.method} if sent.method != "POST" else {}) | extra


def _body(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return render.indented(text) if "\n" not in text.strip() else text


def read(form: Mapping[str, str]) -> tuple[str, str, Payload]:
    """Return source, file and payload of a form.

    Raises
    ------
    CommandError
        The name is not valid, the headers are not a JSON object, or a part is too large; the text says which.
    """
    source, toml, body = form.get("name", "").strip(), form.get("toml", ""), form.get("body", "")
    if not NAME.fullmatch(source):
        raise CommandError("a source's name: lower-case letters, digits and underscores, a letter first")
    if len(toml) > LARGEST or len(body) > LARGEST:
        raise CommandError("payload and file have at most a million characters")
    try:
        document = json.loads(form.get("headers", "") or "{}")
    except (ValueError, RecursionError):
        raise CommandError("the headers are not JSON") from None
    if not isinstance(document, dict):
        raise CommandError("the headers are not a JSON object")
    method, query = document.pop(":method", "POST"), document.pop("query", {})
    headers = {str(name).lower(): str(value) for name, value in document.items()}
    query = {str(name): str(value) for name, value in query.items()} if isinstance(query, dict) else {}
    # A form's text has CRLF line ends whatever was entered.
    return source, toml.replace("\r\n", "\n"), Payload(str(method), query, headers, body.replace("\r\n", "\n").encode())


def _tried(source: str, toml: str, sent: Payload) -> dict[str, Any]:
    known = defaults()
    return console().sandbox.ask(
        {
            "source": source,
            "toml": toml,
            "method": sent.method,
            "query": sent.query,
            "headers": sent.headers,
            "body": sent.body.decode("utf-8", "replace"),
            "received": time.time(),
            "region": known.phone_region,
            "zone": str(known.time_zone),
            "late_hours": console().stack.parameters.get("LateAfterHours", "24"),
        }
    )


@pages.post("/playground/try")
def attempt() -> str:
    """Render what becomes of the form's payload under its file."""
    form = request.form
    todo = steps(form.get("name", "").strip(), form.get("toml", ""), form.get("body", ""))
    if not todo[1][0] or not todo[2][0]:
        return render_template("tried.html", tried=None, steps=todo)
    try:
        name, toml, sent = read(form)
        result = _tried(name, toml, sent) | {"unreadable": unreadable(sent)}
        if not todo[0][0]:
            result["parked"] = []
    except CommandError as error:
        result = {"mistakes": [], "trouble": str(error)}
    return render_template("tried.html", tried=result, steps=todo)


def unreadable(sent: Payload) -> dict[str, Any] | None:
    """Return where a payload that starts as JSON does stops being JSON; ``None`` if it doesn't."""
    if bodies.looks(sent.body) != bodies.JSON:
        return None
    try:
        json.loads(sent.body, strict=False)
    except json.JSONDecodeError as error:
        return {"line": error.lineno, "text": f"{error.msg[:1].lower()}{error.msg[1:]}, column {error.colno}"}
    except (ValueError, RecursionError):
        return {"line": 1, "text": "nested too deep, or not text"}
    return None


@pages.post("/playground/draft")
def draft() -> Response:
    """Return a first file for a new sender, guessed from the payload."""
    try:
        source, _, sent = read(request.form)
        read_as, document = new_sender.read(sent.body)
        if not isinstance(document, dict):
            raise CommandError("the payload is neither a JSON object nor a form")
        toml = new_sender.written(source, new_sender.guess(document, sent.headers, read_as), sent.headers)
    except Unmapped as error:
        return Response(f"no file could be drafted: {error.detail}", 422, content_type="text/plain; charset=utf-8")
    except CommandError as error:
        return Response(f"no file could be drafted: {error}", 422, content_type="text/plain; charset=utf-8")
    return Response(toml, content_type="text/plain; charset=utf-8")


@pages.post("/playground/save")
def save() -> Response | str:
    """Write the file and the sample, hand both to the functions, and send the payload if that is wished."""
    form: MultiDict[str, str] = request.form
    try:
        source, toml, sent = read(form)
    except CommandError as error:
        return _page(
            "",
            form.get("toml", ""),
            Payload("POST", {}, {}, form.get("body", "").encode()),
            wrong=f"Nothing was saved: {error}",
        )
    shown = source if _exists(source) else ""
    if form.get("opened", "") != _mark(source):
        other = "has changed since this page was opened" if form.get("opened") else "is there already"
        wrong = f"Nothing was saved: {source}.toml {other}. Save again to have this in its place."
        return _page(shown, toml, sent, wrong=wrong, name=source)
    result = _tried(source, toml, sent)
    wrong = result.get("trouble") or next((bad["text"] for bad in result["mistakes"] if not bad["missing"]), "")
    if wrong:
        return _page(shown, toml, sent, wrong=f"Nothing was saved: {wrong}", name=source)
    saved = [_save_file(source, toml)]
    if topic := next(iter(result.get("topics", [])), form.get("sample", "")):
        saved.append(_save_sample(source, topic, sent))
    console().deploy()
    if form.get("action") == "send":
        try:
            return redirect(f"/webhooks/{console().send(source, sent)}", 303)
        except CommandError as error:
            return _page(source, toml, sent, wrong=f"Saved {' and '.join(saved)}, and not sent: {error}")
    query = {"source": source, "sample": Path(saved[-1]).stem, "saved": " and ".join(saved)}
    return redirect(f"/playground?{urlencode(query)}", 303)


def _save_file(source: str, toml: str) -> str:
    senders.CUSTOM.mkdir(parents=True, exist_ok=True)
    path = senders.CUSTOM / f"{source}.toml"
    # Whole or not at all, and never through a link to somewhere else.
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", dir=senders.CUSTOM, delete=False) as file:
        file.write(toml)
    Path(file.name).replace(path)
    path.chmod(0o644)
    return shown(path)


def _save_sample(source: str, topic: str, sent: Payload) -> str:
    """Add the payload to the samples, unless it is there; a name that is taken gets a number."""
    left_out = {*_LEFT_OUT, *CREDENTIALS}
    kept = {name: value for name, value in sent.headers.items() if name not in left_out and MASKED not in value}
    query = {name: value for name, value in sent.query.items() if name != signatures.TOKEN and value != MASKED}
    for scheme in senders.build(source, senders.document(source)).schemes:
        for name in (*scheme.header, *scheme.timestamp_header):
            kept.pop(name, None)  # samples are unsigned: the tools sign them
    text = worker.sample(Payload(sent.method, query, kept, sent.body)) + "\n"
    folder = console().samples / source
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^A-Za-z0-9_.-]+", ".", topic)[:80].strip(".") or "sample"
    for number in range(1, 1000):
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}.{number}.json")
        if not path.exists():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            break
        if payload.request(path).body == payload_body(text):
            break
    return shown(path)


def payload_body(text: str) -> bytes:
    """Return the body that a sample's text means, as the tools send it."""
    body = json.loads(text)["body"]
    return body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()
