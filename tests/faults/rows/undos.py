"""F23: SIGKILL in undos and rollbacks, and what the next worker finds and does."""

from __future__ import annotations

from tests.faults.matrix import Count, Result
from tests.faults.rows.postgres_kills import STEP, kill
from tests.faults.suites import of_tests
from tests.faults.test_kills import Variant
from tests.faults.test_rollback import EVERY, is_as_promised

SHORT = [
    Variant("refuted", is_async=True),
    Variant("kept"),
    Variant("rolled_back"),
]


def sqlite(long: bool, seed: int) -> Result:
    """Kill a worker at each place that can be told apart, in every story with an undo."""
    return of_tests("F23", "sqlite", ["faults/test_rollback.py"], long=long, seed=seed)


def postgres(long: bool, seed: int) -> Result:
    """Do the same on a server; the short form tries each sixth place."""
    count = Count("F23", "postgres", seed)
    return kill(count, EVERY if long else SHORT, is_as_promised, short=2 * STEP)
