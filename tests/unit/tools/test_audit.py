"""What cannot be looked up is no clean bill."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tools import audit

ROOT = Path(__file__).parents[3]
CLEAN = {"name": "urllib3", "version": "2.8.0", "vulns": []}
FLAWED = {"name": "jmespath", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
SKIPPED = {"name": "phonenumberslite", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("listed", "status", "words"),
    [
        ([CLEAN], 0, "no known vulnerabilities in urllib3"),
        ([CLEAN, FLAWED], 1, "jmespath 1.0: PYSEC-1, fixed in 1.1"),
        ([CLEAN, SKIPPED], 2, "phonenumberslite; not checked"),
    ],
)
def test_the_verdict_says_what_is_known_and_what_is_not(listed: list[dict[str, Any]], status: int, words: str) -> None:
    exit_status, text = audit.verdict(json.dumps({"dependencies": listed}))
    assert exit_status == status
    assert words in text


def test_no_answer_is_no_clean_bill() -> None:
    assert audit.verdict("") == (2, "The advisories cannot be reached from here; nothing was checked")


def test_everything_that_is_packed_is_pinned_with_hashes() -> None:
    lines = audit.REQUIREMENTS.read_text().replace("\\\n", " ").splitlines()
    pinned = {line.split("==")[0] for line in lines}
    assert all(line.count("==") == 1 and "--hash=sha256:" in line for line in lines)
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    named = {requirement.split(">=")[0] for requirement in wanted}
    assert named - pinned == {"boto3"}  # the Lambda runtime has it
