"""``make mutants`` accepts no survivor without a reason, and no reason without its survivor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import mutants
from tools.mutants import Change, Mutant

SOURCE = """\
class Pacer:
    @property
    def turn(self):
        if self.late <= 1:
            return 1

    def wait(self):
        if self.late <= 1:
            return 2


def _ms(seconds):
    return round(
        seconds * 1000
    )
"""
SHOWN = """\
# handler.delivery.pacing.xǁPacerǁwait__mutmut_3: survived
--- src/handler/delivery/pacing.py
+++ src/handler/delivery/pacing.py
@@ -1,3 +1,3 @@
 def wait(self):
-    if self.late <= 1:
+    if self.late < 1:
         return 2
"""
SHOWN_LINES = """\
# handler.delivery.pacing.x__ms__mutmut_1: survived
@@ -1,4 +1,2 @@
 def _ms(seconds):
-    return round(
-        seconds * 1000
-    )
+    return None
"""
LATE = Change("pacing.Pacer.wait", "if self.late <= 1:", "if self.late < 1:")
REASONS = """
[[survivor]]
function = "pacing.Pacer.wait"
was = "if self.late <= 1:"
becomes = ["if self.late < 1:"]
reason = "Both are the same moment."
"""


def found(status: str = "survived") -> list[Mutant]:
    return [Mutant(LATE, "src/pacing.py:8", status)]


@pytest.mark.parametrize(
    ("name", "shown", "change", "line"),
    [
        ("handler.delivery.pacing.xǁPacerǁwait__mutmut_3", SHOWN, LATE, 8),
        (
            "handler.delivery.pacing.x__ms__mutmut_1",
            SHOWN_LINES,
            Change("pacing._ms", "return round( seconds * 1000 )", "return None"),
            13,
        ),
    ],
)
def test_survivor_is_shown_by_function_change_and_line(
    tmp_path: Path, name: str, shown: str, change: Change, line: int
) -> None:
    source = tmp_path / "pacing.py"
    source.write_text(SOURCE, "utf-8")
    assert mutants.mutant(name, shown, "survived", source) == Mutant(change, f"{source}:{line}", "survived")


def test_survivor_with_a_reason_is_accepted() -> None:
    assert mutants.faults(found(), mutants.reasons(REASONS)) == []


@pytest.mark.parametrize("known", [{}, {LATE: ""}], ids=["none", "empty"])
def test_survivor_without_a_reason_is_an_error_with_its_line(known: dict[Change, str]) -> None:
    (fault,) = mutants.faults(found(), known)
    assert fault.startswith("src/pacing.py:8: no test notices this change of pacing.Pacer.wait")


def test_reason_without_its_survivor_is_an_error() -> None:
    (fault,) = mutants.faults([], mutants.reasons(REASONS))
    assert "tests/mutants.toml: a test notices this change of pacing.Pacer.wait" in fault


def test_change_that_timed_out_needs_no_reason_and_keeps_one() -> None:
    assert mutants.faults(found("timeout"), {}) == []
    assert mutants.faults(found("timeout"), mutants.reasons(REASONS)) == []


def test_change_that_no_test_reaches_is_an_error() -> None:
    assert len(mutants.faults(found("no tests"), {})) == 1


def test_table_counts_the_mutants_of_each_module() -> None:
    names = ("killed", "killed", "timeout", "survived", "no tests")
    listed = "\n".join(f"    handler.delivery.pacing.x_f__mutmut_{n}: {status}" for n, status in enumerate(names))
    assert mutants.summary(mutants.statuses(listed))[1:] == [("pacing", "5", "2", "1", "2")]
