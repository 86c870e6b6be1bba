"""F24: SIGKILL in outcomes that take autonomy away, and what the next worker finds and does."""

from __future__ import annotations

from tests.faults.matrix import Count, Result
from tests.faults.rows.postgres_kills import STEP, kill
from tests.faults.suites import of_tests
from tests.faults.test_error_budgets import EVERY, SHORT, is_as_promised


def sqlite(long: bool, seed: int) -> Result:
    """Kill a worker at each place that can be told apart, before, in and after the demotion."""
    return of_tests("F24", "sqlite", ["faults/test_error_budgets.py"], long=long, seed=seed)


def postgres(long: bool, seed: int) -> Result:
    """Do the same on a server; the short form tries each sixth place."""
    count = Count("F24", "postgres", seed)
    return kill(count, EVERY if long else SHORT, is_as_promised, short=2 * STEP)
