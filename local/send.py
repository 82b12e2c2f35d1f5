"""``make send``: sign a payload as its sender would and post it to a running relay."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from tools import loopback, paths
from tools.errors import CommandError
from tools.senders import names, payload, recent, sign
from tools.terminal import say

from .stack import read_secrets, secrets_path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``make send``."""
    parser.add_argument("source", help="the source's name in the webhook URL")
    parser.add_argument("file", help=payload.FILE_HELP)
    parser.add_argument("--headers", help=payload.HEADERS_HELP)
    parser.add_argument("--url", help="the webhook URL to post to; the relay of `make local` if not given")


def run(asked: argparse.Namespace) -> int:
    """Post one payload and print status and body; return 0 for a 2xx."""
    status, body = send(asked.source, asked.file, asked.headers, asked.url)
    say(status, body)
    return 0 if 200 <= status < 300 else 1


def send(source: str, file: str, headers_file: str | None, url: str | None) -> tuple[int, str]:
    """Send the file to ``source``; return status and body of the answer.

    ``{source}`` in ``url`` stands for the source's name; a URL without a path
    of its own gets ``/webhooks/<source>``.

    Raises
    ------
    CommandError
        No such source, no secret for it, no relay running; the text says what to do.
    """
    payload.check_given("source", source, file)
    names.known(source)
    here = None if url else loopback.running("URL=")
    target = _target(here.webhooks if here else str(url), source)
    parts = urlsplit(target)
    door = f"{parts.scheme}://{parts.netloc}"
    known_as = here.known_as if here else door
    path = secrets_path()
    listed = read_secrets(path)["sources"].get(source, [])
    secret = listed if isinstance(listed, str) else next(iter(listed), "")
    if not secret:
        raise CommandError(f"{path} has no secret for {source}. Add one to it, or unset SECRETS_FILE")
    sent = payload.request(file, headers_file or None, source=source)
    now = time.time()
    if Path(file).resolve().is_relative_to(paths.SAMPLES):
        dated = recent.dated_now(source, sent, now)
        if dated is not sent:
            say("note: the sample's timestamp was moved to now, because old events trigger no flows", error=True)
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


def _target(url: str, source: str) -> str:
    if "{source}" in url:
        return url.replace("{source}", source)
    return url if "/webhooks/" in url else f"{url.rstrip('/')}/webhooks/{source}"
