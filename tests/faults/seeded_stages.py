"""The seeded bugs of staged autonomy."""

from __future__ import annotations

from tests.faults.seeded_bugs import APART, Mutant, bug, change

AUTONOMY = "test_autonomy.py::test_"
KILLED = "faults/test_drafts.py::test_a_draft_killed_anywhere_is_executed_at_most_once"

STAGE_MUTANTS: dict[str, Mutant] = {
    "a demotion is seen one call late": bug(
        f"{AUTONOMY}a_failed_verdict_takes_a_tool_down_at_once",
        '"error": "verification_failed"',
        change(
            "    return Standing(halted, earned, demoted)\n",
            "    late = globals().setdefault('_LATE', {})",
            "    seen = late.get((tenant, tool), earned)",
            "    late[tenant, tool] = earned",
            "    return Standing(halted, seen, demoted)\n",
        ),
    ),
    "a draft can be executed without approval": bug(
        f"{AUTONOMY}a_draft_that_nobody_approved_is_not_executed",
        "isinstance('done T-1 75', DecisionRefused)",
        change(
            '    if approval.status == "pending":\n        return asking.waiting',
            '    if approval.status == "pending" and intent.executes is None:',
            "        return asking.waiting",
        ),
        change(
            '    if approval.status == "approved":\n        return _approved(',
            '    if approval.status in ("approved", "pending"):',
            "        return _approved(",
        ),
    ),
    "an agent starts its draft once it is approved": bug(
        f"{AUTONOMY}the_agent_never_starts_its_draft",
        "done T-1 75",
        change(
            "    if approval.stage is not None and intent.executes != approval.id:", "    if False:"
        ),
    ),
    "a draft is executed by whatever key its arguments make": bug(
        f"{AUTONOMY}a_call_of_the_models_is_executed_as_that_call",
        "note was written down as a draft and did not happen",
        change(
            "    call.executes, call.idempotency_key = execution, execution.key\n",
            "    call.executes = execution\n",
        ),
    ),
    "what one process has counted another forgets": bug(
        f"{AUTONOMY}a_tool_moves_up_after_verified_outcomes",
        "isinstance",
        change(
            "    counts = now.passed + (not failed), now.failed + failed\n",
            "    counts = 0 + (not failed), 0 + failed\n",
        ),
    ),
    "an outcome is counted in a transaction of its own": bug(
        f"{KILLED}[earned, sync, no hook]",
        "outcomes counted",
        change(
            "        autonomy.count(tx, log, end, end.ladder)\n",
            f"        log.save(); tx.{APART.format('tx')}",
            "        autonomy.count(tx, log, end, end.ladder)\n",
        ),
        places="settle:",
    ),
    "an outage of a verifier takes a tool down": bug(
        f"{AUTONOMY}a_verifier_that_did_not_answer_counts_for_nothing",
        "Standing(",
        change(
            'any(not v["passed"] and not v.get("unavailable") for v in end.verdicts)',
            'any(not v["passed"] for v in end.verdicts)',
        ),
    ),
}
