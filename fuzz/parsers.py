"""``make fuzz``: atheris against everything that reads a stranger's bytes, guided by what code they reach.

Each input goes to the one parser that its first byte picks. Only the errors that
a parser documents may come out of it. Memory is looked at on the way: past a
start it may grow by libFuzzer's corpus, and by no more.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["handler"]):
    from handler import bodies, klaviyo, messages, scrub, signatures, sources, values
    from handler.errors import MessageError, NotVerified, Unmapped

SETTLED = 20_000  # runs after which memory is looked at for the first time ...
LOOK = 10_000  # ... and then again
GROWTH_KB = 150_000
SCHEMES = [(name, sources.load(name).schemes) for name in sources.names()]
KINDS = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
)


def body(data: atheris.FuzzedDataProvider) -> None:
    """A webhook's body in any coding and content type."""
    coding, kind = data.PickValueInList(["", "gzip", "br"]), data.PickValueInList(list(KINDS))
    with contextlib.suppress(Unmapped):
        bodies.parse(bodies.unpack(data.ConsumeBytes(4_000), coding), kind)


def message(data: atheris.FuzzedDataProvider) -> None:
    """A message of the queue."""
    with contextlib.suppress(MessageError):
        messages.decode(data.ConsumeUnicode(4_000))


def headed(data: atheris.FuzzedDataProvider) -> None:
    """A message with a header in the right form around anything."""
    event = messages.Event("u", 1, data.ConsumeUnicodeNoSurrogates(50).replace("\n", ""))
    text = messages.encode(messages.Message("shop", (event,), 1.0))
    place = data.ConsumeIntInRange(0, len(text))
    with contextlib.suppress(MessageError):
        messages.decode(text[:place] + data.ConsumeUnicode(20) + text[place + data.ConsumeIntInRange(0, 5) :])


def answer(data: atheris.FuzzedDataProvider) -> None:
    """Klaviyo's answer, and its words without what they quote."""
    names = ["content-type", "retry-after", "date", "ratelimit-remaining", "ratelimit-reset", "cf-mitigated"]
    headers = {data.PickValueInList(names): data.ConsumeUnicode(30) for _ in range(3)}
    found = klaviyo.sort_answer(data.ConsumeIntInRange(100, 599), headers, data.ConsumeBytes(2_000), now=1.8e9)
    scrub.scrub(found.words, data.ConsumeUnicode(200))


def signature(data: atheris.FuzzedDataProvider) -> None:
    """A signature header in any sender's form."""
    _, schemes = data.PickValueInList(SCHEMES)
    names = [name for scheme in schemes for name in (*scheme.header, *scheme.timestamp_header, *scheme.id_header)]
    headers = {name: data.ConsumeUnicode(100) for name in names}
    query = {"token": data.ConsumeUnicode(40)} if data.ConsumeBool() else {}
    delivery = signatures.Delivery("POST", "https://a.example/w", "/w", headers, query, data.ConsumeBytes(500))
    try:
        signatures.verify(schemes, delivery, ["a secret that nobody guesses"], now=1.8e9)
    except NotVerified:
        return
    raise AssertionError("a forged signature was taken")


def value(data: atheris.FuzzedDataProvider) -> None:
    """The values of an event."""
    text = data.ConsumeUnicode(300)
    values.phone(text, ["GB", text[:2]])
    values.minor(data.ConsumeInt(8), text)
    for read in (values.email, values.time, values.money, values.currency, values.country, values.names, values.plain):
        read(text)


TARGETS: tuple[Callable[[atheris.FuzzedDataProvider], None], ...] = (body, message, headed, answer, signature, value)


def main() -> None:
    """Run until libFuzzer's own arguments (``-max_total_time=60``) end it."""
    runs = 0
    settled = 0

    def one(raw: bytes) -> None:
        nonlocal runs, settled
        runs += 1
        if runs % LOOK == 0 and runs >= SETTLED:
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            settled = settled or used
            if used - settled > GROWTH_KB:
                raise MemoryError(f"{used - settled} KB more than after {SETTLED} runs")
        if raw:
            TARGETS[raw[0] % len(TARGETS)](atheris.FuzzedDataProvider(raw[1:]))

    print(f"began {time.strftime('%H:%M:%S')}", flush=True)
    atheris.Setup([*sys.argv, "-rss_limit_mb=1000", "-print_final_stats=1"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
