"""F20: frameworks that resume, retry, replay and travel back, alone and guarded."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.faults.matrix import Result
from tests.faults.suites import of_tests

FILES = (
    "langgraph/test_durability.py",
    "semantic_kernel/test_durability.py",
    "llamaindex/test_durability.py",
)


def sqlite(long: bool, seed: int) -> Result:
    """Play each case on the bare framework, where it doubles its effect, and guarded."""
    return of_tests("F20", "sqlite", FILES, long=long, seed=seed, notes=figures)


def figures(passed: Sequence[str]) -> str:
    """Count the cases by what happened in them; the number is a part of each test's name."""
    bare = [node for node in passed if "[bare" in node or "-bare" in node]
    twice = [node for node in bare if not re.search(r"-1\b", node)]
    return (
        f"{len(bare)} cases on the bare framework, in {len(twice)} of them two effects or more;"
        f" {len(passed) - len(bare)} cases guarded, no effect twice"
    )
