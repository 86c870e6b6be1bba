"""F5: power cuts at every moment of a worker's life, on a disk that forgets what was not synced."""

from __future__ import annotations

from tests.faults.matrix import Count, Result
from tests.faults.rows.asking import answers

STORIES = ("plain", "retried", "doubted", "approved")


def sqlite(long: bool, seed: int) -> Result:
    """Cut the power after everything that a worker asked of the kernel; open what is left."""
    count = Count("F5", "sqlite", seed)
    for story in STORIES if long else STORIES[:1]:
        answers(count, "power", story, story=story, rounds=12 if long else 2)
    return count.result(notes="a point is an image of the disk, each another one")
