"""``make secrets``: write what is pasted into the secrets of a deployed stack, without showing it."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from handler import sources
from tools.senders import secret_forms
from tools.terminal import say, visible

from . import target
from .target import Deployed

Say = Callable[[str], None]


def listed(document: Mapping[str, Any], source: str) -> list[str]:
    found = document.get(source, [])
    return [found] if isinstance(found, str) else list(found)


def overview(stack: Deployed) -> str:
    """Which secrets there are, and how many; none of them."""
    key = "set" if stack.secret("KlaviyoSecretName").get("api_key") else "NOT SET"
    document = stack.secret("SourcesSecretName")
    counts = ", ".join(f"{visible(source)} ({len(listed(document, source))})" for source in sorted(document))
    return f"Klaviyo key: {key}\nsources with secrets: {counts or 'NONE'}"


def write_key(stack: Deployed, ask: Callable[[str], str], say: Say) -> None:
    """Ask for the Klaviyo key; an empty answer keeps what is there."""
    typed = ask("Klaviyo private key, with the scope events:write (empty keeps what is there): ").strip()
    if not typed:
        return
    if not (typed.isascii() and typed.isprintable() and " " not in typed):
        raise ValueError("that is no key: it holds spaces or characters that no key has")
    if not typed.startswith("pk_"):
        say("note: private keys begin with pk_; this does not, so Klaviyo may refuse it")
    stack.write("KlaviyoSecretName", stack.secret("KlaviyoSecretName") | {"api_key": typed})
    say("Klaviyo key written")


def write_source(
    stack: Deployed, source: str, ask: Callable[[str], str], confirm: Callable[[str], str], say: Say
) -> None:
    """Ask for a secret of ``source``; it goes before the older ones, which stay until the sender has switched."""
    if source not in sources.names():
        raise ValueError(f"no source {source!r}; there are: {', '.join(sources.names())}")
    typed = ask(f"signing secret of {source} (empty adds none): ").strip()
    if typed and (wrong := secret_forms.wrong(source, typed)):
        again = f"make secrets STACK={stack.name} SOURCE={source}"
        raise ValueError(
            f"this is not a secret of {source}: {wrong}. Nothing was written. Paste the right one: {again}"
        )
    document = stack.secret("SourcesSecretName")
    kept = list(dict.fromkeys([*([typed] if typed else []), *listed(document, source)]))
    if len(kept) > 1 and confirm(f"keep the {len(kept) - 1} older, until the sender has switched? [Y/n] ") in (
        "n",
        "N",
    ):
        kept = kept[:1]
    written = document | ({source: kept} if kept else {})
    if kept:
        stack.write("SourcesSecretName", written)
    say(f"{source}: {len(kept)} secret(s), the newest first; in use within a minute")
    for names in secret_forms.shared(written):
        if source in names:
            say(f"warning: {crossing(names)}")


def crossing(names: Sequence[str]) -> str:
    return (
        f"{' and '.join(names)} list the same secret, so a webhook of one is accepted at the URL of another and read "
        "by that one's file; give each a secret of its own if their senders can"
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``make secrets``."""
    target.argument(parser)
    parser.add_argument("--source", help="write a secret of this sender only")


def run(asked: argparse.Namespace) -> int:
    """Ask for the Klaviyo key and for secrets of sources, until none is named; or for one of ``--source``."""
    stack = target.deployed(asked.stack)
    say(*overview(stack).split("\n"))
    if asked.source:
        write_source(stack, asked.source, getpass.getpass, input, say)
        return 0
    write_key(stack, getpass.getpass, say)
    while name := input("source to write a secret for (empty ends): ").strip():
        write_source(stack, name, getpass.getpass, input, say)
    say(*overview(stack).split("\n"))
    return 0
