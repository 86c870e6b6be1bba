"""The document shows the rows that there are, and numbers of a run in which nothing was found."""

from __future__ import annotations

import re

import pytest

from tests.faults.matrix import COLUMNS, ROWS, Row
from tests.support import ROOT

TABLE = re.findall(
    rf"^(F\d+) +(\w+) +(.*?) +([\d,]+)((?: +\d+){{{len(COLUMNS)}}}) +[\d.]+$",
    (ROOT / "docs" / "faults.md").read_text("utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_fault_has_its_row(row: Row) -> None:
    """The document shows each row of the matrix with what is done, and how many points were tried."""
    shown = [(fault, store, what) for fault, store, what, *_ in TABLE]
    assert (row.fault, row.store, row.what) in shown


def test_no_row_is_shown_that_found_something_or_is_not_there() -> None:
    """The numbers in the middle of the document's table are noughts, and it shows no other rows."""
    assert len(TABLE) == len(ROWS)
    for *_, numbers in TABLE:
        assert numbers.split() == ["0"] * len(COLUMNS)
