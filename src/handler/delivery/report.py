"""The log lines and metrics of ``deliver``: one line for each request, and what was parked or deferred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from aws_lambda_powertools import single_metric
from aws_lambda_powertools.metrics import MetricUnit

from ..cleaning import clean
from ..closing import NO_SLOT, Closing
from ..errors import NoSlot
from ..messages import Message, Outgoing
from ..telemetry import NAMESPACE, SERVICE, by_line, crash, event_id, logger, metrics
from .dispatch import Post, Result
from .jobs import Job, Row
from .returns import RefusedRows
from .scrub import scrub

_TITLE = 200
_NOT_SETTLED = Closing("not_settled", "Klaviyo did not say which event it refuses; each is tried again between others")


def _ids(rows: tuple[Row, ...], messages: Mapping[int, Message]) -> list[str]:
    return [event_id(row.event.unique_id, private=messages[row.owner].private_ids) for row in rows]


def posted(post: Post, messages: Mapping[int, Message], now: float) -> None:
    """Log one request with its events and Klaviyo's answer; ``now`` in epoch seconds."""
    job, answer = post.job, post.answer
    owners = [messages[row.owner] for row in job.rows]
    age = now - min(message.received for message in owners)
    line = {
        "outcome": answer.kind,
        "status": answer.status,
        "reason": answer.reason,
        # A refusal's is Klaviyo's title, which may quote any of the events.
        "detail": scrub(answer.detail, *(row.entry for row in job.rows))[:_TITLE]
        if answer.kind in ("rows", "refused")
        else answer.detail,
        "klaviyo_request_id": answer.request_id,
        "events": len(job.rows),
        "bytes": post.bytes,
        "sources": sorted({message.source for message in owners}),
        "slot_wait_ms": round(post.waited * 1000),
        "answer_ms": round(post.took * 1000),
        "age_seconds": round(age, 1),
        "probe": post.slot.lease is not None,
        "suspect": job.suspect,
    }
    first, *rest = by_line(_ids(job.rows, messages))
    write = logger.info if answer.kind == "delivered" else logger.warning
    write("job", extra=line | {"event_ids": first})
    for more in rest:
        write("job continued", extra={"outcome": answer.kind, "event_ids": more})
    metrics.add_metric("Jobs", MetricUnit.Count, 1)
    metrics.add_metric("SlotWait", MetricUnit.Milliseconds, round(post.waited * 1000))
    if answer.kind == "delivered":
        metrics.add_metric("JobEvents", MetricUnit.Count, len(job.rows))
        metrics.add_metric("AgeAtDelivery", MetricUnit.Seconds, round(age, 3))
    elif answer.kind == "throttled":
        metrics.add_metric("Throttled", MetricUnit.Count, 1)


def finished(result: Result, messages: Mapping[int, Message]) -> None:
    """Count what was delivered; log and count what was parked or deferred, and count a closed relay."""
    metrics.add_metric("Delivered", MetricUnit.Count, result.delivered)
    for parked in result.parked:
        _parked(parked, messages)
    if result.left:
        _deferred(result.left, result.cause, messages)


def crashed(error: Exception) -> str:
    """Log an unexpected exception by its class and place, since its text may quote an event; return both."""
    cause, place = crash(error)
    logger.error("delivery crashed", extra={"cause": cause, "place": place})
    return f"{cause} at {place}"


def resent(messages: int) -> None:
    """Count messages sent to the events queue again: together with the queue's depth this shows a loop."""
    if messages:
        metrics.add_metric("Resent", MetricUnit.Count, messages)


def _parked(parked: RefusedRows, messages: Mapping[int, Message]) -> None:
    line = {
        "reason": parked.reason,
        "detail": parked.detail,
        "sources": sorted({messages[row.owner].source for row in parked.rows}),
    }
    for ids in by_line(_ids(parked.rows, messages)):
        logger.warning("parked", extra=line | {"event_ids": ids})
    _count("Parked", parked.reason, len(parked.rows))


def dead_letter(outgoing: Outgoing, *, webhook_id: str = "", sender_ids: Sequence[str] = ()) -> None:
    """Log and count a message that was parked unchanged; the ids are those of the webhook's line, where known."""
    reason, detail, source = (outgoing.attributes[name] for name in ("reason", "detail", "source"))
    ids = {name: value for name, value in (("webhook_id", webhook_id), ("sender_ids", list(sender_ids))) if value}
    logger.warning("parked", extra={"reason": reason, "detail": detail, "sources": [source], **ids})
    _count("Parked", reason, 1)


def _deferred(left: list[Job], cause: NoSlot | None, messages: Mapping[int, Message]) -> None:
    by_source = Counter(messages[row.owner].source for job in left for row in job.rows)
    logger.warning(
        "deferred",
        extra={
            "reason": str(cause.closing if cause else _NOT_SETTLED),
            "cause": type(cause).__name__ if cause else "",
            "sources": dict(by_source),
        },
    )
    metrics.add_metric("Deferred", MetricUnit.Count, by_source.total())
    if cause is not None and cause.closing.code != NO_SLOT:  # ``no_slot`` is busy, not closed
        _count("Closed", cause.closing.kind, 1)


def _count(name: str, reason: str, value: int) -> None:
    with single_metric(
        name=name, unit=MetricUnit.Count, value=value, namespace=NAMESPACE, default_dimensions={"service": SERVICE}
    ) as metric:
        metric.add_dimension("reason", clean(reason))
