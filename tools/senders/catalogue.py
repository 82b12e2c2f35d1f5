"""docs/metrics.md: what each shipped sender's topics become."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from handler.events import senders
from handler.events.senders import Rule, Source
from tools.terminal import say


def metrics_table() -> str:
    """Return docs/metrics.md: each shipped source with how it signs, and each metric.

    A metric has who sends it and its properties.
    """
    listed = [(source.title, f"`{source.name}`", _proof(source)) for source in map(senders.load, _shipped())]
    return "\n".join(
        [
            "# Senders and metrics",
            "",
            "Written by `python -m tools catalogue` from `src/handler/sources/`. Each file says at its",
            "top where the sender's documentation is, and under `[ignore]` what is not relayed, and why.",
            "",
            "| sender | source | how it proves itself |",
            "|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in sorted(listed, key=lambda row: row[0].lower())),
            "",
            "What each sender's topics become. The same business event has the same metric and the same property names",
            "from every sender.",
            "",
            "| metric | sender | topics | value | properties |",
            "|---|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in sorted(_rows(), key=lambda row: row[:3])),
            "",
        ]
    )


def _proof(source: Source) -> str:
    """Return how a sender proves itself, and what its secret is where that is not plain."""
    proofs = []
    for scheme in source.schemes:
        header = " or ".join(f"`{name}`" for name in scheme.header)
        if scheme.encoding == "basic":
            proofs.append(f"user and password in {header}")
        elif scheme.scheme == "token":
            also = ", a secret written as `token:…`" if len(source.schemes) > 1 else ""
            proofs.append(f"a token, as `?token=` in the URL{f' or in {header}' if header else ''}{also}")
        elif scheme.scheme == "ecdsa":
            proofs.append(f"{header}, ECDSA; the secret is its public key")
        else:
            proofs.append(f"{header}, {'' if scheme.scheme == 'digest' else 'HMAC-'}{scheme.digest.upper()}")
    if any(scheme.batches and scheme.scheme != "token" for scheme in source.schemes):
        proofs.append("batches: a second secret `token:…` as `?token=` in the URL")
    if any(handshake.token for handshake in source.handshakes):
        proofs.append("a second secret `token:…` for its check of the URL")
    return "; ".join(proofs)


def _shipped() -> list[str]:
    return sorted(path.stem for path in senders.SHIPPED.glob("*.toml"))


def _rows() -> Iterator[tuple[str, ...]]:
    for source in map(senders.load, _shipped()):
        for rule in source.rules:
            yield _row(source, rule)


def _row(source: Source, rule: Rule) -> tuple[str, ...]:
    names = ", ".join(rule.properties)
    if rule.properties_from:
        names = f"what the sender gives{', ' if names else ''}{names}"
    topics = ", ".join(f"`{topic}`" for topic in rule.topics)
    return rule.metric or "(the sender's name for it)", source.title, topics, "yes" if rule.value else "", names


def run(_: argparse.Namespace) -> int:
    """Print the page."""
    say(*metrics_table().splitlines())
    return 0
