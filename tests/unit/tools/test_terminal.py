"""Reading is safe: no command passes on what moves a cursor, turns a line around, or cannot be seen."""

from __future__ import annotations

import ast
import json
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from handler.events import senders
from local import changes, demo
from local.demo import Sent
from sim.cloudwatch import Alarm, CloudWatch
from sim.functions import Function, Functions
from sim.logs import Logs
from sim.queue import Queue, Sqs
from sim.secrets import Secrets
from sim.stacks import Stack, Stacks
from sim.time import Time
from sim.topics import Topics
from tools import commands, loopback, paths, terminal
from tools.errors import CommandError
from tools.operate import redrive, target
from tools.senders import sign

ROOT = Path(__file__).parents[3]
UNSEEN = (
    "\x1b[2J\x1b]0;owned\x07\x9b31m\x08\x7f\x85\r\n\t\v\f\x1c"  # controls, escape sequences, line breaks
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"  # directions
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u2028\u2029\u034f\u3164\ufe0f\U000e0041"  # without width
)
FORBIDDEN = {char for char in UNSEEN if not (char.isascii() and char.isprintable())} - {"\n"}
# If a line break got out, the last of it would be a line of its own.
HOSTILE = f"evt{UNSEEN}\nFORGED  webhook  shop accepted 202"
EVENT = f"shop:placed-order:{HOSTILE}"
AT = "2026-11-24T18:00:01.123+00:00"
LINE = {"timestamp": AT, "source": "shop", "sources": ["shop", HOSTILE], "topics": [HOSTILE], "event_ids": [EVENT]}
LINES = [
    LINE | {"message": "webhook", "outcome": "accepted", "status": 202, "webhook_id": HOSTILE, HOSTILE: HOSTILE},
    LINE | {"message": "webhook", "outcome": "refused", "status": 401, "reason": HOSTILE, "detail": HOSTILE},
    LINE | {"message": "webhook", "outcome": "ignored", "event_ids": [], "detail": HOSTILE, "parked": {HOSTILE: 1}},
    LINE | {"message": "parked", "reason": HOSTILE, "detail": HOSTILE, "event_ids": [f"{EVENT}2"]},
    LINE
    | {"message": "job", "outcome": "delivered", "status": 202, "klaviyo_request_id": HOSTILE}
    | {"events": 1, "age_seconds": 1.0, "slot_wait_ms": 5, "reason": HOSTILE, "detail": HOSTILE},
    {"timestamp": AT, "message": "deferred", "reason": HOSTILE, "cause": HOSTILE, "sources": {HOSTILE: 3}},
]
OUTPUTS = {
    **{name: name for name in ("ReceiveLogGroup", "DeliverLogGroup", "EventsQueueUrl", "DeadLetterQueueUrl")},
    **{name: name for name in ("SourcesSecretName", "KlaviyoSecretName")},
    "WebhookUrl": "https://relay.example/webhooks/{source}",
}
PARKED = {name: {"DataType": "String", "StringValue": HOSTILE} for name in ("reason", "detail", "source", "parked_at")}
SAMPLE = {"headers": {"x-topic": HOSTILE}, "body": {"type": HOSTILE, "id": HOSTILE, "email": "a@mail.example"}}
EVERYONE = {"AlarmEmail": HOSTILE, "WatchedSource1": HOSTILE, "MaximumConcurrency": "2", "TimeZone": HOSTILE}


class Cloud:
    """AWS with a relay in it whose logs, dead letters and parameters a stranger wrote."""

    def __init__(self) -> None:
        secret = sign.development_secret("stripe", senders.load("stripe").schemes[0])
        events, dead = (Queue(name, Time()) for name in ("events", "dead"))
        for _ in range(2):
            dead.put(json.dumps(HOSTILE, ensure_ascii=False), attributes=PARKED)
        lines = [(int(time.time() * 1000), json.dumps(line)) for line in LINES]  # a deployed stack's are read of a day
        self.sqs = Sqs({"EventsQueueUrl": events, "DeadLetterQueueUrl": dead})
        self.services = {
            "secretsmanager": Secrets(
                {"SourcesSecretName": {"stripe": [secret], HOSTILE: ["x"]}, "KlaviyoSecretName": {}}
            ),
            "sqs": self.sqs,
            "logs": Logs({"ReceiveLogGroup": lines, "DeliverLogGroup": lines}),
            "cloudformation": Stacks(
                Stack(HOSTILE, EVERYONE, OUTPUTS, dict.fromkeys(("DeliverFunction", "AlarmTopic"), HOSTILE))
            ),
            "lambda": Functions(
                Function(HOSTILE, queue=events.attributes()["QueueArn"], trigger=HOSTILE, loops=HOSTILE),
                total=10,
                unreserved=10,
            ),
            "cloudwatch": CloudWatch(
                Alarm(f"{HOSTILE}-", "ALARM", HOSTILE, {"actionState": "Failed", "error": HOSTILE})
            ),
            "sns": Topics({HOSTILE: {}}),
        }

    def __call__(self, name: str, *_: Any) -> Any:
        """The client of that service; for a stack's name, its clients by service."""
        return self.services.get(name, self)


def answer(_: str, url: str, **__: Any) -> Any:
    """What a door answers: JSON, or any other content at that address."""
    answer = {"event_ids": ["shop:placed-order"], "detail": HOSTILE}
    text = json.dumps(answer, ensure_ascii=False) if "relay.example" in url else HOSTILE
    return SimpleNamespace(status=202, data=text.encode())


@pytest.fixture(autouse=True)
def hostile_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A local and a deployed relay, the door's answers, samples and a sender's file: all of them a stranger's."""
    cloud = Cloud()
    running = tmp_path / "running.json"
    state = {
        "aws": "http://127.0.0.1:1",
        "outputs": OUTPUTS,
        "parameters": {},
        "webhooks": "http://127.0.0.1:1/webhooks/",
        "known_as": "http://127.0.0.1:1",
    }
    running.write_text(json.dumps(state))
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps(sign.development_secrets(["stripe"])))
    monkeypatch.setenv("SECRETS_FILE", str(secrets))
    monkeypatch.setattr(loopback, "RUNNING", running)
    monkeypatch.setattr(loopback, "client", cloud)
    monkeypatch.setattr(target, "clients", cloud)
    monkeypatch.setattr(urllib3, "request", answer)
    monkeypatch.setattr("builtins.input", lambda _: "")
    monkeypatch.setattr(senders, "CUSTOM", tmp_path / "custom")
    monkeypatch.setattr(paths, "SAMPLES", tmp_path / "events")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "custom").mkdir()
    name = json.dumps(HOSTILE.translate(dict.fromkeys(map(ord, "\x7f\U000e0041"))))  # TOML has no such escape
    (tmp_path / "custom/odd.toml").write_text(f'title = "x"\n{name} = 1\n[signature]\nheader = "x"\n')
    (tmp_path / "sample.json").write_text(json.dumps(SAMPLE))
    (tmp_path / "event.json").write_text(json.dumps({"profile": {"email": "a@mail.example"}, "metric": HOSTILE}))
    yield
    assert cloud.sqs.mistakes == []


COMMANDS: dict[str, Callable[[], object]] = {
    "logs": lambda: commands.main(["logs"]),
    "logs of an id": lambda: commands.main(["logs", "--id", "shop:placed-order"]),
    "logs of a webhook": lambda: commands.main(["logs", "--id", "shop"]),
    "logs of nothing": lambda: commands.main(["logs", "--id", "none such"]),
    "logs of what was refused": lambda: commands.main(["logs", "--refused"]),
    "logs of what was parked": lambda: commands.main(["logs", "--parked"]),
    "logs of the rate": lambda: commands.main(["logs", "--rate"]),
    "logs of a stack": lambda: commands.main(["logs", "--stack", HOSTILE, "--id", "shop"]),
    "redrive": lambda: commands.main(["redrive"]),
    "redrive, go": lambda: commands.main(["redrive", "--go", "--rate", "1000000"]),
    "redrive, drop": lambda: commands.main(["redrive", "--drop", "--source", HOSTILE]),
    "redrive of a stack": lambda: commands.main(["redrive", "--stack", HOSTILE]),
    "check": lambda: commands.main(["check", "--stack", HOSTILE]),
    "try": lambda: commands.main(["try", "--stack", HOSTILE]),
    "try, no such source": lambda: commands.main(["try", "--stack", HOSTILE, "--source", HOSTILE]),
    "secrets": lambda: commands.main(["secrets", "--stack", HOSTILE, "--source", HOSTILE]),
    "send": lambda: commands.main(["send", "stripe", "event.json"]),
    "send, no such source": lambda: commands.main(["send", HOSTILE, "event.json"]),
    "send, no such file": lambda: commands.main(["send", "stripe", HOSTILE]),
    "preview": lambda: commands.main(["preview", "custom", "event.json"]),
    "preview, no such source": lambda: commands.main(["preview", HOSTILE, "event.json"]),
    "preview of a wrong file": lambda: commands.main(["preview", "odd", "event.json"]),
    "new-sender": lambda: commands.main(["new-sender", "mine", "sample.json"]),
    "new-sender, no name": lambda: commands.main(["new-sender", HOSTILE, "sample.json"]),
    "lint of a wrong file": lambda: commands.main(["lint"]),
    "demo": lambda: terminal.say(
        *terminal.table(demo.outcomes([Sent("shop", HOSTILE, 202, {"ignored": HOSTILE}, (EVENT,), metrics=(HOSTILE,))]))
    ),
    "local": lambda: _edited(HOSTILE.replace("/", "")),
}


QUIET = ("logs of nothing", "logs of the rate", "new-sender")  # they say nothing of a stranger's


def _edited(name: str) -> None:
    """A sender's file of that name appears while ``make local`` runs, and cannot be read."""
    stopped = threading.Event()
    (senders.CUSTOM / f"{name}.toml").write_text("x")

    def note(text: str) -> None:
        terminal.say(text)
        stopped.set()

    changes.watch({}, lambda: None, stopped, note, seconds=0.001)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_prints_what_cannot_be_seen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    COMMANDS[name]()
    said = "".join(capsys.readouterr())
    assert said.strip()
    assert not FORBIDDEN.intersection(said)
    assert not [line for line in said.splitlines() if line.startswith("FORGED")]
    assert ("\\u202e" in said.lower()) is (name not in QUIET)


def test_redrive_that_deletes_asks_at_the_terminal() -> None:
    asked = commands.parser("redrive")[0].parse_args(["--drop", "--source", HOSTILE])
    with pytest.raises(CommandError, match="Not confirmed"):
        redrive.run(asked)


def test_only_the_terminal_prints() -> None:
    printing = []
    for path in sorted(path for folder in ("tools", "local") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("print", "sys.stdout.write", "sys.stderr.write", "pprint"):
                printing.append(path.relative_to(ROOT).as_posix())
    assert set(printing) == {"tools/terminal.py"}


def test_each_character_that_cannot_be_seen_is_shown_as_its_escape() -> None:
    for code in range(0x110000):
        char = chr(code)
        shown = terminal.visible(char)
        if char in UNSEEN or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            assert shown.isascii(), hex(code)
            assert json.loads(f'"{shown}"') == char
        elif shown != char:
            assert json.loads(f'"{shown}"') == char
    assert terminal.visible("Zoë 李 € 🎉 a\tb") == "Zoë 李 € 🎉 a\\u0009b"
    assert terminal.visible("a\tb\n\u202e", keep="\t\n") == "a\tb\n\\u202e"


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_json_stays_the_same_document(value: Any) -> None:
    assert json.loads(terminal.visible(json.dumps(value, ensure_ascii=False))) == value


def test_a_table_stays_in_line() -> None:
    assert terminal.table([("AGE", "B"), ("1,000", "c\n")]) == ["AGE    B", "1,000  c\\u000a"]
    assert terminal.table([]) == []


def test_output_that_nobody_reads_on_ends_the_command_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:  # which is flushed once more as the program ends
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as ended:
            terminal.say("one")
    assert ended.value.code == 141
