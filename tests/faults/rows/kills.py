"""F1: SIGKILL at named places of the guarded call, and what the next worker finds and does."""

from __future__ import annotations

from tests.faults.matrix import Result
from tests.faults.suites import of_tests


def sqlite(long: bool, seed: int) -> Result:
    """Kill a worker at each place that can be told apart, in every story."""
    return of_tests("F1", "sqlite", ["faults/test_kills.py"], long=long, seed=seed)
