"""F24: SIGKILL in outcomes that take autonomy away, and what the next worker finds and does."""

from __future__ import annotations

from tests.faults.forms import places
from tests.faults.matrix import Count, Result
from tests.faults.rows.postgres_kills import STEP, cases
from tests.faults.suites import of_tests
from tests.faults.test_error_budgets import EVERY, SHORT, is_as_promised
from tests.postgres.server import Server


def sqlite(long: bool, seed: int) -> Result:
    """Kill a worker at each place that can be told apart, before, in and after the demotion."""
    return of_tests("F24", "sqlite", ["faults/test_error_budgets.py"], long=long, seed=seed)


def postgres(long: bool, seed: int) -> Result:
    """Do the same on a server; the short form tries each sixth place."""
    count = Count("F24", "postgres", seed)
    variants = EVERY if long else SHORT
    with Server() as server:
        for number, variant in enumerate(variants):
            for case in cases(server, variant, **places((seed, number), 2 * STEP)):
                promised = [] if is_as_promised(variant, case) else [f"wrong: it ended as {case}"]
                count.add(case["problems"] + promised, place=f"{variant}, {case['point']}")
    return count.result(f"{len(variants)} stories; the client's process dies, the server's goes on")
