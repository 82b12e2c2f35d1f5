"""Which events and topics of a sender's file no sample shows."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from handler.events import senders
from tools.paths import shown

from .outcome import understood
from .places import Checked, Place, listed

NO_SAMPLE = "no_sample"  # the code of a mistake that wants a sample, and no change to the file


def unseen(name: str, checked: Checked, samples: Path) -> Iterator[tuple[Place, str]]:
    """Yield the events of a file that no sample shows."""
    outcomes = [understood(name, path) for path in sorted((samples / name).glob("*.json"))]
    where = f"a sample in {shown(samples / name)}"
    source = senders.load(name)
    if source.klaviyo_format and "extends" not in checked.own and not any(outcome.events for outcome in outcomes):
        yield (), f"expected {where}"
    for index, event in enumerate(checked.own.get("event", [])):
        metric = source.metrics.get(event.get("metric", ""), event.get("metric", ""))
        covered = [topic for outcome in outcomes for topic in outcome.topics if not metric or metric in outcome.metrics]
        seen = [topic for outcome in outcomes if outcome.events for topic in outcome.topics]
        for topic in listed(event["topic"]):
            if not any(fnmatchcase(sample, topic) for sample in seen):
                yield ("event", index, "topic"), f"expected {where} for the topic {topic}"
        elsewise = any(fnmatchcase(sample, topic) for sample in seen for topic in listed(event["topic"]))
        if elsewise and not any(fnmatchcase(sample, topic) for sample in covered for topic in listed(event["topic"])):
            yield ("event", index, "metric"), f"expected {where} that becomes {metric or 'this event'}"
