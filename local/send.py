"""``make send``: sign a payload as its sender would and post it to a running relay."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from handler.errors import Refused
from handler.events import senders

from . import payload, recent, sign
from .check import SAMPLES
from .stack import RUNNING, read_secrets, secrets_path
from .terminal import say


def main(arguments: list[str]) -> int:
    """Post one payload; prints status and body, and returns 0 for a 2xx."""
    parser = argparse.ArgumentParser(prog="make send", description=__doc__)
    parser.add_argument("source")
    parser.add_argument("file")
    parser.add_argument("--headers", help="a JSON object of headers that the sender sends along")
    parser.add_argument("--url", help="where to; the relay that `make local` runs if not given")
    options = parser.parse_args(arguments)
    try:
        status, body = send(options.source, options.file, options.headers, options.url)
    except (OSError, ValueError, Refused, urllib3.exceptions.HTTPError) as error:
        say(f"send: {error}", error=True)
        return 2
    say(status, body)
    return 0 if 200 <= status < 300 else 1


def send(source: str, file: str, headers_file: str | None, url: str | None) -> tuple[int, str]:
    """Status and body of the answer.

    ``{source}`` in ``url`` stands for the source's name; a URL without a path
    of its own gets ``/webhooks/<source>``.

    Raises
    ------
    ValueError
        No such source, no secret for it, no relay running; the text says what to do.
    """
    if source not in senders.names():
        raise ValueError(f"no source {source!r}; there are: {', '.join(senders.names())}")
    running = {} if url else _running()
    target = _target(url or str(running["webhooks"]), source)
    parts = urlsplit(target)
    door = f"{parts.scheme}://{parts.netloc}"
    known_as = str(running.get("known_as", door))
    path = secrets_path()
    listed = read_secrets(path)["sources"].get(source, [])
    secret = listed if isinstance(listed, str) else next(iter(listed), "")
    if not secret:
        raise ValueError(f"{path} holds no secret for {source}")
    sent = payload.request(file, headers_file or None)
    now = time.time()
    if Path(file).resolve().is_relative_to(SAMPLES):
        dated = recent.dated_now(source, sent, now)
        if dated is not sent:
            say("send: the sample's event is dated now: as old as it is, it would trigger no flow", error=True)
        sent = dated
    body = sign.fresh(source, sent.body, now)
    target, signed = sign.sign(
        source,
        secret,
        body=body,
        headers=sent.headers,
        url=sent.at(target.replace(door, known_as, 1)),
        now=now,
        method=sent.method,
    )
    target = target.replace(known_as, door, 1)
    answer = urllib3.request(sent.method, target, body=body, headers=signed, retries=False, timeout=30)
    return answer.status, answer.data.decode("utf-8", "replace")


def _running() -> dict[str, Any]:
    if not RUNNING.exists():
        raise ValueError("no relay is running here: start one with `make local`, or name one with URL=")
    return dict(json.loads(RUNNING.read_text()))


def _target(url: str, source: str) -> str:
    if "{source}" in url:
        return url.replace("{source}", source)
    return url if "/webhooks/" in url else f"{url.rstrip('/')}/webhooks/{source}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
