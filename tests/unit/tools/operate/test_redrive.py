"""``make redrive`` and AWS's own: what comes back, what is chosen, and that both end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handler import messages
from handler.events import senders
from handler.messages import Message, Raw
from sim.queue import Sqs
from tests.unit.support_delivery import DEAD, EVENTS, event
from tests.unit.support_queue import Delivery, delivery
from tools import commands, paths
from tools.errors import CommandError
from tools.operate import redrive
from tools.operate.target import Relay

OUTPUTS = {"EventsQueueUrl": EVENTS, "DeadLetterQueueUrl": DEAD}
LONG_AGO = "2026-09-21T10:00:00+00:00"


def make_redrive(
    world: Delivery, *arguments: str, sent: Callable[[], None] = lambda: None, ask: Callable[[str], str] = input
) -> None:
    """Run it over the queues in memory; ``sent`` is called after each message sent."""

    def after(operation: str, _: object) -> None:
        if operation == "SendMessageBatch":
            sent()

    client = Sqs(world.sqs.queues, after=after)
    asked = commands.parser("redrive")[0].parse_args([*arguments, "--rate", "1000000"])
    assert redrive.redrive(Relay(lambda _: client, OUTPUTS, {}), asked, world.clock, ask) == 0
    assert not client.mistakes


def park(world: Delivery, name: str, *, source: str = "shop", reason: str = "refused_by_klaviyo") -> None:
    like = Message(source, (event(name),), 1_789_999_990.0)
    parked = messages.parked(like, reason=reason, detail="Invalid input.", at=LONG_AGO)
    attributes = {key: {"DataType": "String", "StringValue": value} for key, value in parked.attributes.items()}
    world.dead.put(parked.body, group=parked.group, attributes=attributes)


def test_it_lists_what_is_parked_and_why_and_sends_nothing_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with delivery() as world:
        park(world, "a")
        park(world, "b", source="till", reason="crashed")
        make_redrive(world)
        out = capsys.readouterr().out
        assert [line.split()[:3] for line in out.splitlines()[1:3]] == [
            ["shop", "refused_by_klaviyo", "1"],
            ["till", "crashed", "1"],
        ]
        assert "GO=1" in out
        assert len(world.dead) == 2
        assert not world.events
        make_redrive(world)  # listing hides nothing from the next look
        assert "crashed" in capsys.readouterr().out


def test_runbook_shows_the_columns_that_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with delivery() as world:
        park(world, "a")
        make_redrive(world)
    columns = capsys.readouterr().out.splitlines()[0].split()
    shown = (paths.ROOT / "docs/runbook.md").read_text("utf-8").partition("$ make redrive STACK=klaviyo-relay\n")[2]
    assert shown.splitlines()[0].split() == columns


@pytest.mark.parametrize(
    ("choice", "delivered"),
    [
        ([], {"a", "b", "c"}),
        (["--source", "shop"], {"a", "c"}),
        (["--reason", "crashed"], {"b", "c"}),
        (["--source", "shop", "--reason", "crashed"], {"c"}),
    ],
)
def test_it_sends_back_what_is_chosen(choice: list[str], delivered: set[str]) -> None:
    with delivery() as world:
        park(world, "a")
        park(world, "b", source="till", reason="crashed")
        park(world, "c", reason="crashed")
        make_redrive(world, "--go", *choice)
        world.run()
        assert set(world.klaviyo.stored) == delivered
        assert len(world.dead) == 3 - len(delivered)


def test_it_ends_although_what_it_sends_back_is_parked_again_at_once() -> None:
    with delivery() as world:
        names = {f"bad{number}" for number in range(30)}
        world.klaviyo.bad = names
        for name in sorted(names):
            park(world, name)
            park(world, f"good-{name}")  # what Klaviyo accepts is the proof that the others are at fault
        make_redrive(world, "--go", sent=world.invoke)
        assert not world.events
        parked = [messages.decode(kept.body) for kept in world.dead.messages.values()]
        assert {event.unique_id for kept in parked if isinstance(kept, Message) for event in kept.events} == names


def test_what_cannot_be_corrected_is_deleted_only_when_chosen_and_only_as_it_was_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with delivery() as world:
        park(world, "a", reason="no_identifier")
        park(world, "b")

        def typed(answer: str) -> Any:
            def ask(_: str) -> str:
                park(world, "came-meanwhile", reason="no_identifier")
                return answer

            return ask

        with pytest.raises(CommandError, match="Not confirmed"):
            make_redrive(world, "--drop", "--reason", "no_identifier", ask=typed("y"))
        assert len(world.dead) == 3
        make_redrive(world, "--drop", "--reason", "no_identifier", ask=typed("2"))
        left = [messages.decode(kept.body) for kept in world.dead.messages.values()]
        names = {event.unique_id for kept in left if isinstance(kept, Message) for event in kept.events}
        assert names == {"b", "came-meanwhile"}
        assert capsys.readouterr().out.endswith("deleted 2 messages\n")
        make_redrive(world)  # what was kept is not hidden
        assert "came" not in (out := capsys.readouterr().out)
        assert "2026-09-21T10:00:00Z" in out
        assert out.count("Invalid input.") == 2
        assert commands.main(["redrive", "--drop"]) == 2


def test_what_sqs_itself_moved_comes_back_too() -> None:
    with delivery() as world:
        like = Message("shop", (event("a"),), 1_789_999_990.0)
        world.dead.put(messages.encode(like), group="shop")
        make_redrive(world, "--go")
        world.run()
        assert world.klaviyo.stored == ["a"]


CONTACT = """
title = "Contact form"
[signature]
header = "x-signature"
[webhook]
topic = "kind"
key = "id"
[profile]
email = "EMAIL"
[[event]]
topic = "message"
metric = "Wrote To Us"
"""


def test_a_webhook_is_mapped_by_the_corrected_file(custom_senders: Path) -> None:
    """Parked for a mistake in the mapping; once that is corrected, a redrive delivers it under the id it always had."""
    file = custom_senders / "contact.toml"
    body = json.dumps({"id": "c1", "kind": "message", "from": {"email": "ada@mail.example"}}).encode()
    webhook = Raw("contact", body, {"content-type": "application/json"}, 1_789_999_990.0)
    with delivery() as world:
        file.write_text(CONTACT.replace("EMAIL", "email"))
        world.put(webhook)
        world.run()
        (kept,) = world.dead.messages.values()
        assert kept.texts["reason"] == "no_identifier"
        assert world.klaviyo.requests == []
        file.write_text(CONTACT.replace("EMAIL", "from.email"))
        senders.load.cache_clear()
        for _ in range(2):  # even if somebody redrives a copy, too, the id is the same
            world.events.put(kept.body, group=kept.group, attributes=kept.attributes)
        world.run()
        assert set(world.klaviyo.stored) == {world.klaviyo.stored[0]}
        assert "c1" in world.klaviyo.stored[0]
