"""``make secrets``: write what is pasted into the secrets of a deployed stack, without showing it."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.errors import CommandError
from tools.senders import names, secret_forms
from tools.terminal import say, visible, warning

from . import target
from .target import Deployed

Say = Callable[[str], None]


def listed(document: Mapping[str, Any], source: str) -> list[str]:
    """Return the secrets of ``source``, the newest first."""
    secrets = document.get(source, [])
    return [secrets] if isinstance(secrets, str) else list(secrets)


def overview(stack: Deployed) -> str:
    """Return which secrets there are, and how many; none of them is shown."""
    key = "set" if stack.secret("KlaviyoSecretName").get("api_key") else "NOT SET"
    document = stack.secret("SourcesSecretName")
    counts = ", ".join(f"{visible(source)} ({len(listed(document, source))})" for source in sorted(document))
    return f"Klaviyo key: {key}\nsources with secrets: {counts or 'NONE'}"


def write_key(stack: Deployed, ask: Callable[[str], str], say: Say) -> None:
    """Ask for the Klaviyo key; an empty answer keeps what is there."""
    typed = ask("Klaviyo private key with the scope events:write (Enter to keep the current one): ").strip()
    if not typed:
        return
    if not (typed.isascii() and typed.isprintable() and " " not in typed):
        raise CommandError("not a valid API key: it contains spaces or non-ASCII characters. Nothing was written")
    if not typed.startswith("pk_"):
        say("note: Klaviyo's private keys begin with pk_, and this one does not")
    stack.write("KlaviyoSecretName", stack.secret("KlaviyoSecretName") | {"api_key": typed})
    say("Klaviyo key written")


def write_source(
    stack: Deployed, source: str, ask: Callable[[str], str], confirm: Callable[[str], str], say: Say
) -> None:
    """Ask for a secret of ``source``, to be put before the older ones.

    They stay until the sender has switched.
    """
    names.known(source)
    typed = ask(f"Signing secret of {source} (Enter to add none): ").strip()
    if typed and (wrong := secret_forms.wrong(source, typed)):
        again = f"make secrets STACK={stack.name} SOURCE={source}"
        raise CommandError(f"Not a secret of {source}: {wrong}. Nothing was written. Enter the right one with: {again}")
    document = stack.secret("SourcesSecretName")
    kept = list(dict.fromkeys([*([typed] if typed else []), *listed(document, source)]))
    if len(kept) > 1 and confirm(f"Keep the {len(kept) - 1} older, until the sender has switched? [Y/n] ") in (
        "n",
        "N",
    ):
        kept = kept[:1]
    written = document | ({source: kept} if kept else {})
    if kept:
        stack.write("SourcesSecretName", written)
    say(f"{source}: {len(kept)} secret(s), the newest first; in use within a minute")
    for sharing in secret_forms.shared(written):
        if source in sharing:
            warning(crossing(sharing))


def crossing(sharing: Sequence[str]) -> str:
    """Return what it means that sources share a secret."""
    return (
        f"{' and '.join(sharing)} list the same secret, so a webhook of one is accepted at the URL of another and read "
        "by that one's file. Give each a secret of its own if their senders can"
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``make secrets``."""
    target.argument(parser)
    parser.add_argument("--source", help="write a secret of this source only")


def run(asked: argparse.Namespace) -> int:
    """Ask for the Klaviyo key and for secrets of sources, until none is named; or for one of ``--source``."""
    stack = target.deployed(asked.stack)
    say(*overview(stack).split("\n"))
    if asked.source:
        write_source(stack, asked.source, getpass.getpass, input, say)
        return 0
    write_key(stack, getpass.getpass, say)
    while name := input("Source name (Enter to finish): ").strip():
        write_source(stack, name, getpass.getpass, input, say)
    say(*overview(stack).split("\n"))
    return 0
