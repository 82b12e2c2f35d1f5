"""``make try``: send a deployed stack a signed sample and follow it to Klaviyo's answer."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from handler.events import senders
from tools import paths
from tools.errors import CommandError
from tools.senders import payload, sign
from tools.senders.payload import Payload
from tools.senders.preview import event_ids, preview_request
from tools.terminal import say

from . import target
from .logs import matching, readable
from .secrets import Say, listed
from .target import Deployed

FOLLOW_SECONDS = 90  # a batching window, a slot and Klaviyo's answer; logs arrive some seconds late
POLL_SECONDS = 2.0


@dataclass
class Trial:
    """One sample on its way; ``post`` sends it, ``clock`` and ``sleep`` are in seconds."""

    stack: Deployed
    say: Say
    post: Callable[[Payload, str, dict[str, str], bytes], tuple[int, str]]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    seconds: float = FOLLOW_SECONDS
    began: float = field(init=False, default=0.0)

    def run(self, source: str | None) -> bool:
        """Send a sample of ``source``, or of the first that has a secret; return whether Klaviyo accepted it."""
        self.began = self.clock()
        name, secret = self._choose(source)
        path = _sample(name)
        self.say(f"1. sending {path.relative_to(paths.ROOT)}, signed, to {self._url(name)}")
        sent = payload.request(path)
        status, text = self._send(name, secret, sent)
        self.say(f"2. the webhook endpoint answers {status}: {text[:300]}")
        answer = _document(text)
        ids = event_ids(status, answer, preview_request(name, sent, self.began))
        if not ids:
            self.say(f"   {_why(status, answer, self.stack.name)}")
            return False
        return self._follow(ids[0])

    def _choose(self, source: str | None) -> tuple[str, str]:
        document = self.stack.secret("SourcesSecretName")
        known = [name for name in senders.names() if listed(document, name)]
        named = [source] if source else [name for name in known if _can_sign(name) and (paths.SAMPLES / name).is_dir()]
        if not named or not listed(document, named[0]):
            what = f"{source} has no secret yet" if source else "No source with a sample has a secret yet"
            raise CommandError(f"{what}. Add one with: make secrets STACK={self.stack.name}")
        return named[0], listed(document, named[0])[0]

    def _url(self, name: str) -> str:
        return self.stack.outputs["WebhookUrl"].replace("{source}", name)

    def _send(self, name: str, secret: str, sent: Payload) -> tuple[int, str]:
        now = self.clock()
        body = sign.fresh(name, sent.body, now)
        url, headers = sign.sign(
            name, secret, body=body, headers=sent.headers, url=sent.at(self._url(name)), now=now, method=sent.method
        )
        return self.post(sent, url, headers, body)

    def _follow(self, event_id: str) -> bool:
        client = self.stack.client("logs")
        groups = [self.stack.outputs[name] for name in ("ReceiveLogGroup", "DeliverLogGroup")]
        shown: set[str] = set()
        while self.clock() < self.began + self.seconds:
            for line in matching(client, groups, event_id, since=self.began - 1):
                text = readable(line)
                if text in shown:
                    continue
                shown.add(text)
                self.say(f"{2 + len(shown)}. {text}")
                if line.get("message") == "job" and line.get("outcome") == "delivered":
                    self.say("Done: Klaviyo accepted the event. It created a test profile, which you can delete.")
                    return True
                if line.get("message") == "parked" or line.get("outcome") == "configuration":
                    self.say(f"Not delivered. See docs/runbook.md, and run: make check STACK={self.stack.name}")
                    return False
            self.sleep(POLL_SECONDS)
        self.say(f"Timed out after {self.seconds:.0f} s waiting for Klaviyo. {self._last_deferral(client, groups)}")
        return False

    def _last_deferral(self, client: Any, groups: list[str]) -> str:
        """Return the latest line about deferred events: they are counted and not named, so it has to do."""
        lines = [line for line in matching(client, groups[1:], "deferred", since=self.began - 1) if "cause" in line]
        if lines:
            return readable(lines[-1])
        return f"The logs may only be late. Otherwise run: make check STACK={self.stack.name}"


def _document(text: str) -> dict[str, Any]:
    """Return the answer as an object; empty if it is not one."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _why(status: int, answer: Mapping[str, Any], stack: str) -> str:
    """Return why no event came of a webhook: by its outcome if it is authentic, otherwise by the status."""
    if answer.get("parked"):
        return f"It was parked ({answer['parked'][0]['reason']}). To list what is parked: make redrive STACK={stack}"
    if answer.get("ignored"):
        return "This topic is deliberately not relayed."
    return _REFUSED.get(status, "No event was made of it; the answer says why.")


_REFUSED = {
    401: "The secret in the stack is not the one that signed this, or this machine's clock is wrong.",
    403: "There is no such path at this address, or something in front of it refuses the request.",
    404: "The deployed stack does not have this source. Deploy it with: sam build && sam deploy",
    500: "receive crashed; its log group says where.",
    503: "receive cannot read the secret or reach the queue (docs/runbook.md#door-unavailable).",
}


def _can_sign(name: str) -> bool:
    return senders.load(name).schemes[0].scheme != "ecdsa"  # the private half is the sender's


def _sample(name: str) -> Path:
    """Return the first sample of ``name`` that becomes an event."""
    for path in sorted((paths.SAMPLES / name).glob("*.json")):
        if preview_request(name, payload.request(path), time.time())["events"]:
            return path
    raise CommandError(f"events/{name}/ has no sample that becomes an event. Set another SOURCE=")


def post(sent: Payload, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    """Send it; return status and text of the answer."""
    answer = urllib3.request(sent.method, url, body=body, headers=headers, retries=False, timeout=30)
    return answer.status, answer.data.decode("utf-8", "replace")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``make try``."""
    target.argument(parser)
    parser.add_argument("--source", help="the source whose sample is sent; the first that has a secret if not given")


def run(asked: argparse.Namespace) -> int:
    """Send a sample and follow it; return 1 unless Klaviyo accepted the event."""
    return 0 if Trial(target.deployed(asked.stack), say, post).run(asked.source) else 1
