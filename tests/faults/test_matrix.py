"""The short form of the fault matrix, one test a row; `python3 run.py faults` shows it as a table."""

from __future__ import annotations

import pytest

from tests.faults.forms import is_quick
from tests.faults.matrix import ROWS, Row
from tests.faults.rows.approval_attacks import ATTACKS, BASELINE
from tests.faults.suites import has_test
from tests.faults.trials import make

SEED = 1
AT_NIGHT = {
    "F9 postgres", "F12 postgres_hosts", "F12 postgres_same", "F13 postgres", "F15 postgres",
    "F17 sqlite", "F18 postgres", "F23 postgres", "F24 postgres",
}  # fmt: skip
"""These take long, and CI has their like on SQLite or in a story that is killed less often."""
TRIED = [row for row in ROWS if not row.tests and not (is_quick() and str(row) in AT_NIGHT)]


@pytest.mark.parametrize("node", [*(n for nodes in ATTACKS.values() for n in nodes), BASELINE])
def test_an_attack_is_a_test_that_is_there(node: str) -> None:
    """Every attack on approvals that the matrix names is a test."""
    assert has_test(node)


@pytest.mark.parametrize("row", [row for row in ROWS if row.tests], ids=str)
def test_a_row_that_is_not_tried_here_is_tried_by_other_tests(row: Row) -> None:
    """The tests that a row names in its place are there."""
    assert has_test(row.tests)


@pytest.mark.parametrize("row", TRIED, ids=str)
def test_a_fault_leaves_nothing_twice_lost_stuck_or_untold(row: Row) -> None:
    """Under this fault no effect happens twice, none is lost, and every doubt is told."""
    ended = make(row, long=False, seed=SEED)
    if ended.status == "skipped":
        pytest.skip(ended.words)
    assert ended.status == "passed", ended.words
