"""The short form of the fault matrix, one test a row; `python3 run.py faults` shows it as a table."""

from __future__ import annotations

import pytest

from tests.faults.matrix import ROWS, Row
from tests.faults.trials import make

SEED = 1


@pytest.mark.parametrize("row", [row for row in ROWS if not row.tests], ids=str)
def test_a_fault_leaves_nothing_twice_lost_stuck_or_untold(row: Row) -> None:
    """Under this fault no effect happens twice, none is lost, and every doubt is told."""
    ended = make(row, long=False, seed=SEED)
    if ended.status in ("skipped", "missing"):
        pytest.skip(f"{ended.status}: {ended.words}")
    assert ended.status == "passed", ended.words
