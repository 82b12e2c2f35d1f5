"""``make fuzz``: atheris against everything that reads a stranger's bytes, guided by what code they reach.

Each input goes to the one parser that its first byte picks. Only the errors that
a parser documents may come out of it. Memory is looked at on the way: past a
start it may grow by libFuzzer's corpus, and by no more.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import atheris

with atheris.instrument_imports(include=["handler", "multipart"]):
    from handler import messages, telemetry
    from handler.delivery import klaviyo
    from handler.delivery import scrub as cleaner
    from handler.door import signatures
    from handler.door.refusals import WINDOW, Refusals
    from handler.errors import MessageError, NotVerified, Unmapped
    from handler.events import bodies, handshakes, senders, values
    from handler.events import multipart as parts
    from handler.events.webhook import Webhook
    from tests.unit.support_door import Door
    from tools.senders import sign

SETTLED = 20_000  # runs after which memory is looked at for the first time ...
LOOK = 10_000  # ... and then again
GROWTH_KB = 150_000
SCHEMES = [(name, senders.load(name).schemes) for name in senders.names()]
CHECKING = [name for name in senders.names() if senders.load(name).handshakes]
KINDS = [
    *((kind,) for kind in bodies.KINDS),
    (bodies.JSON, bodies.FORM),
    (bodies.FORM, bodies.MULTIPART),
    bodies.KINDS,
]
PART = b"--x\r\nContent-Disposition: form-data"
# Time passes so quickly that each refusal has a line of its own.
DOOR = Door(
    sign.development_secrets(senders.names())["sources"],
    refusals=Refusals(map(float, itertools.count(step=2 * WINDOW)).__next__),
)
LOG = io.StringIO()
NOBODYS = "a secret that nobody guesses"
STATUSES = (200, 204, 400, 401, 404)


def body(data: atheris.FuzzedDataProvider) -> None:
    """Read a webhook's body of any kind, packed or not."""
    charset = data.PickValueInList(["", "latin-1", "shift_jis"])
    read = bodies.Body(data.PickValueInList(KINDS), ("payload", "a"), charset, once=data.ConsumeBool())
    raw = data.ConsumeBytes(4_000)
    for sent in (raw, gzip.compress(raw)):
        with contextlib.suppress(Unmapped):
            bodies.parse(bodies.unpack(sent), read)


def multipart(data: atheris.FuzzedDataProvider) -> None:
    """Read the header of a part, and what is behind it."""
    raw = PART + data.ConsumeBytes(2_000) + b"\r\n\r\n" + data.ConsumeBytes(200) + b"\r\n--x--\r\n"
    with contextlib.suppress(Unmapped):
        parts.fields(raw, most=10)


def handshake(data: atheris.FuzzedDataProvider) -> None:
    """Read a sender's check of its URL, with and without a signature."""
    source = senders.load(data.PickValueInList(CHECKING))
    query = {name: data.ConsumeUnicode(40) for name in ("hub.mode", "hub.verify_token", "hub.challenge", "MessageSid")}
    method = data.PickValueInList(["GET", "POST", "HEAD"])
    sent = Webhook(method, "https://a.example/w", "/w", {}, query, data.ConsumeBytes(2_000))
    for signed in (False, True):
        if check := handshakes.find(source, sent, signed=signed):
            with contextlib.suppress(Unmapped):
                handshakes.answer(*check, secret=NOBODYS)
            with contextlib.suppress(NotVerified):
                signatures.check_token(*check, ["token:t"])


def door(data: atheris.FuzzedDataProvider) -> None:
    """Post a whole request of a stranger: an answer, one line, and nothing goes on."""
    name, schemes = data.PickValueInList(SCHEMES)
    names = {name for scheme in schemes for name in (*scheme.header, *scheme.timestamp_header, *scheme.id_header)}
    headers = {name: data.ConsumeUnicode(60) for name in sorted({*names, "content-type", "content-encoding"})}
    start = data.PickValueInList([b"", PART, b"{", b"webhook_id=", b"\x1f\x8b"])
    event = {
        "requestContext": {
            "http": {"method": data.PickValueInList(["POST", "GET"])},
            "requestId": "r",
            "domainName": "d",
        },
        "rawPath": f"/webhooks/{name}",
        "rawQueryString": data.ConsumeUnicode(20),
        "queryStringParameters": {"token": data.ConsumeUnicode(20)},
        "pathParameters": {"source": name},
        "headers": headers,
        "body": base64.b64encode(start + data.ConsumeBytes(3_000)).decode(),
        "isBase64Encoded": True,
    }
    LOG.truncate(LOG.seek(0))
    answer = DOOR.handler(event, None)
    (line,) = [json.loads(text) for text in LOG.getvalue().splitlines()]
    if line["message"] != "webhook" or answer["statusCode"] not in STATUSES or line["outcome"] == "accepted":
        raise AssertionError(f"{answer['statusCode']} {line['message']} {line['outcome']}")


def scrub(data: atheris.FuzzedDataProvider) -> None:
    """Scrub Klaviyo's words about an event, which quote it."""
    entry = data.ConsumeUnicode(300)
    words = data.ConsumeUnicode(300) + entry[: data.ConsumeIntInRange(0, 300)] + json.dumps(entry)
    cleaner.scrub(words, entry)


def message(data: atheris.FuzzedDataProvider) -> None:
    """Decode a message of the queue."""
    with contextlib.suppress(MessageError):
        messages.decode(data.ConsumeUnicode(4_000))


def headed(data: atheris.FuzzedDataProvider) -> None:
    """Decode a message with a header in the right form around anything."""
    event = messages.Event("u", 1, data.ConsumeUnicodeNoSurrogates(50).replace("\n", ""))
    text = messages.encode(messages.Message("shop", (event,), 1.0))
    place = data.ConsumeIntInRange(0, len(text))
    with contextlib.suppress(MessageError):
        messages.decode(text[:place] + data.ConsumeUnicode(20) + text[place + data.ConsumeIntInRange(0, 5) :])


def answer(data: atheris.FuzzedDataProvider) -> None:
    """Read Klaviyo's answer, and its words without what they quote."""
    names = ["content-type", "retry-after", "date", "ratelimit-remaining", "ratelimit-reset", "cf-mitigated"]
    headers = {data.PickValueInList(names): data.ConsumeUnicode(30) for _ in range(3)}
    answer = klaviyo.sort_answer(data.ConsumeIntInRange(100, 599), headers, data.ConsumeBytes(2_000))
    cleaner.scrub(answer.words, data.ConsumeUnicode(200))


def signature(data: atheris.FuzzedDataProvider) -> None:
    """Read a signature header in any sender's form."""
    _, schemes = data.PickValueInList(SCHEMES)
    names = [name for scheme in schemes for name in (*scheme.header, *scheme.timestamp_header, *scheme.id_header)]
    headers = {name: data.ConsumeUnicode(100) for name in names}
    query = {"token": data.ConsumeUnicode(40)} if data.ConsumeBool() else {}
    delivery = Webhook("POST", "https://a.example/w", "/w", headers, query, data.ConsumeBytes(500))
    try:
        signatures.verify(schemes, delivery, [NOBODYS], now=1.8e9)
    except NotVerified:
        return
    raise AssertionError("a forged signature was taken")


def value(data: atheris.FuzzedDataProvider) -> None:
    """Read the values of an event."""
    text = data.ConsumeUnicode(300)
    values.phone(text, ["GB", text[:2]])
    values.minor(data.ConsumeInt(8), text)
    for read in (values.email, values.time, values.money, values.currency, values.country, values.names, values.plain):
        read(text)


TARGETS: tuple[Callable[[atheris.FuzzedDataProvider], None], ...] = (
    body,
    multipart,
    handshake,
    door,
    scrub,
    message,
    headed,
    answer,
    signature,
    value,
)


def main() -> None:
    """Run until libFuzzer's own arguments (``-max_total_time=60``) end it."""
    runs = 0
    settled = 0

    def fuzz(raw: bytes) -> None:
        nonlocal runs, settled
        runs += 1
        if runs % LOOK == 0 and runs >= SETTLED:
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            settled = settled or used
            if used - settled > GROWTH_KB:
                raise MemoryError(f"{used - settled} KB more than after {SETTLED} runs")
        if raw:
            TARGETS[raw[0] % len(TARGETS)](atheris.FuzzedDataProvider(raw[1:]))

    handler: Any = telemetry.logger.registered_handler
    handler.setStream(LOG)
    print(f"began {time.strftime('%H:%M:%S')}", flush=True)
    sys.stdout = io.TextIOWrapper(io.FileIO(os.devnull, "w"))  # metrics, which are printed
    atheris.Setup([*sys.argv, "-rss_limit_mb=1000", "-print_final_stats=1"], fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
