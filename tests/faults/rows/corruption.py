"""F17: files that are not as they were written."""

from __future__ import annotations

from collections import Counter

from tests.faults.matrix import Count, Result
from tests.faults.rows.asking import answers


def sqlite(long: bool, seed: int) -> Result:
    """Flip bits in the store's file and log, cut the log off, lose it, put older copies back."""
    count = Count("F17", "sqlite", seed)
    kinds = Counter[str]()
    for turn in range(10 if long else 1):
        kinds.update(answers(count, "flips", "", flips=1500, turn=turn)["kinds"])
    notes = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    return count.result(notes)
