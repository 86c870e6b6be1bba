"""F8 and F9: many callers of one key, in processes, threads and tasks; forks, spawns, interrupts."""

from __future__ import annotations

from tests.faults.matrix import Result
from tests.faults.suites import of_tests

PROCESSES = "faults/test_crowds.py::test_processes_with_fifty_equal_keys_make_fifty_effects"
TOGETHER = (
    "faults/test_crowds.py",
    "faults/test_cancellation.py",
    "faults/test_interrupts.py",
    "faults/test_ownership.py",
)


def sqlite(long: bool, seed: int) -> Result:
    """Let 2, 8 and 16 processes ask for the same fifty keys."""
    notes = "a point is a call by one process"
    return of_tests("F8", "sqlite", [PROCESSES], long=long, seed=seed, notes=notes)


def together(long: bool, seed: int) -> Result:
    """Share budgets and approvals, cancel at every await, interrupt, fork and spawn."""
    notes = "a point is an await, an instruction, or a scene of threads, forks or spawned processes"
    return of_tests("F9", "sqlite", TOGETHER, long=long, seed=seed, notes=notes)
