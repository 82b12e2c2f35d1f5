"""``make local``: the relay and its console until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator

from . import changes
from .console.ledger import Ledger
from .console.server import Console
from .stack import RUNNING, SECRETS_FILE, Stack, read_secrets, secrets_path


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Be the one relay of this folder, and take its address away at the end: the other tools read it.

    Raises
    ------
    ValueError
        Another one runs here.
    """
    RUNNING.parent.mkdir(parents=True, exist_ok=True)
    with RUNNING.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError("`make local` runs here already: end that one first, or use another clone") from None
        try:
            yield
        finally:
            RUNNING.unlink(missing_ok=True)


def main() -> int:
    """Run the stack until Ctrl-C."""
    argparse.ArgumentParser(prog="make local", description=__doc__).parse_args()
    rate = os.environ.get("REQUESTS_PER_MINUTE")
    ledger = Ledger()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        secrets = read_secrets(secrets_path())
        known = changes.stamps()
        print("starting ...", flush=True)
        with (
            alone(),
            Stack(
                klaviyo_url=os.environ.get("KLAVIYO_URL", ""),
                parameters={"RequestsPerMinute": rate} if rate else {},
                properties={"LongPoll": os.environ.get("LONG_POLL") or 0},
                secrets=secrets,
                port=int(os.environ.get("PORT") or 0),
                ledger=ledger,
                made_up=secrets_path() == SECRETS_FILE,
            ) as stack,
            Console(stack, ledger, int(os.environ.get("CONSOLE_PORT") or 0)) as console,
        ):
            print("left out: " + ", ".join(f"{count} {kind}" for kind, count in stack.left_out.items()))
            print(f"klaviyo: {stack.klaviyo_url}")
            print(f"aws: {stack.aws.url}")
            print(f"webhooks: {stack.url('{source}')}")
            print(
                f"tunnel: cloudflared tunnel --url {stack.url('')[: -len('/webhooks/')]}, say; it shows /webhooks/ only"
            )
            print(f"console: {console.url}")
            print("ready", flush=True)
            state = {
                "webhooks": stack.url("{source}"),
                "known_as": stack.known_as,
                "aws": stack.aws.url,
                "outputs": stack.outputs,
                "parameters": stack.parameters,
            }
            RUNNING.write_text(json.dumps(state))
            changes.watch(known, stack.redeploy, stopped, lambda text: print(text, flush=True))
    except (ValueError, RuntimeError, OSError) as error:
        print(f"local: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
