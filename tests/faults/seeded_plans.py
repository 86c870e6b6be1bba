"""The seeded bugs of plans: each makes a run do what its plan does not hold."""

from __future__ import annotations

from tests.faults.seeded_bugs import Mutant, bug, change

PLANS = "test_plans.py::test_"

PLAN_MUTANTS: dict[str, Mutant] = {
    "a call outside a refusing plan starts": bug(
        f"{PLANS}a_call_outside_a_refusing_plan_never_starts",
        "DID NOT RAISE",
        change('    if word is not None and plan.outside == "refuse":', "    if False:"),
    ),
    "a planned step is used twice": bug(
        f"{PLANS}a_planned_step_is_used_once",
        "'plan_violation'",
        change("if self._left(number) > 0 and step.fits", "if step.fits"),
    ),
    "a plan is held in memory only": bug(
        f"{PLANS}parallel_calls_do_not_share_a_step",
        "== 3",
        change(
            "    rows = tx.rows(_TOLD, (log.ref.tenant, log.ref.run_id, known.upto))",
            "    rows = []",
        ),
    ),
    "a plan binds only who has heard of it": bug(
        f"{PLANS}a_plan_holds_in_a_process_that_never_heard_of_it",
        "DID NOT RAISE",
        change(
            '    if log.plan is None or "/" in intent.key:',
            "    if intent.plans.progress is None or '/' in intent.key:",
        ),
    ),
    "a step may start before the one before it has happened": bug(
        f"{PLANS}an_ordered_plan_keeps_its_order",
        "DID NOT RAISE",
        change("return all(done.count(n) >= step.repeat for n, step in before)", "return True"),
    ),
    "an id is compared as a number": bug(
        f"{PLANS}a_text_is_only_itself",
        "== 'plan_violation'",
        change(
            "    return _hash(key, _number(value) if _is_number(value) else",
            "    return _hash(key, _number(value) if _AMOUNT.fullmatch(str(value)) else",
        ),
    ),
    "a decision costs nothing": bug(
        "test_costs.py::test_a_decision_from_elsewhere_costs_the_same",
        "Decimal('2.50')",
        change(
            "        costs.count_decision(tx, log, ruling.by, approval.step)\n", "        pass\n"
        ),
    ),
    "what is spent already is forgotten over the limit": bug(
        "test_costs.py::test_a_cost_that_is_spent_closes_the_budget",
        "750000000",
        change("    log.spent += cost.nanos or 0\n", "    log.spent += 0\n"),
    ),
}
