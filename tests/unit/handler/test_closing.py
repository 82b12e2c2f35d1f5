"""Why the relay is closed, as versions and stacks that share the pacing table read it."""

from __future__ import annotations

import pytest

from handler import closing
from handler.closing import BRAKE, Closing
from handler.delivery import klaviyo

# As versions before ``Closing`` wrote them.
STORED = {
    "throttled: Klaviyo asked to wait": ("throttled", "throttled"),
    "outage: status_503": ("outage", "outage"),
    "key_refused: Klaviyo refuses the key: put a valid private key into the Klaviyo secret": (
        "key_refused",
        "configuration",
    ),
    "refused_alike: Klaviyo refuses everything alike, so it is not the events; see the runbook": (
        "refused_alike",
        "configuration",
    ),
    "status_418: an answer that the API does not give": ("status_418", "configuration"),
    "outage": ("outage", "outage"),
}


@pytest.mark.parametrize(("text", "expected"), STORED.items())
def test_closing_stored_by_an_older_version_is_read_and_written_alike(text: str, expected: tuple[str, str]) -> None:
    read = Closing.parse(text)
    assert (read.code, read.kind) == expected
    assert str(read) == text


@pytest.mark.parametrize(
    "text", ["", "somebody closed it", "throttling: of another kind", "a_new_code: see the manual"]
)
def test_text_without_a_known_code_reads_as_configuration(text: str) -> None:
    read = Closing.parse(text)
    assert (read.code, read.kind, read.detail) == ("configuration", "configuration", text)


def test_brake_is_stored_as_older_versions_compare_it() -> None:
    assert str(BRAKE) == "refused_alike: Klaviyo refuses everything alike, so it is not the events; see the runbook"


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410, 415, 418, 451])
def test_closing_for_an_answer_of_klaviyo_survives_the_table(status: int) -> None:
    answer = klaviyo.sort_answer(status, {}, b"")
    stored = Closing(answer.reason, answer.detail)
    assert answer.kind == "configuration"
    assert Closing.parse(str(stored)) == stored


@pytest.mark.parametrize("code", [closing.NO_KEY, closing.NO_TABLE, closing.THROTTLED, closing.OUTAGE])
def test_alarms_tell_this_code_apart(code: str) -> None:
    assert Closing(code, "words").kind == code
