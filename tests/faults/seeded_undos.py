"""The seeded bugs of undos and rollbacks."""

from __future__ import annotations

from tests.faults.seeded_bugs import BELOW, Mutant, bug, change

STORE = "stores/test_contract.py::TestSqlite::test_"
UNDONE = "test_compensation.py::test_"
KILLED = "faults/test_rollback.py::test_an_undo_killed_anywhere_happens_once_or_its_doubt_is_listed"

UNDO_MUTANTS: dict[str, Mutant] = {
    "an undo starts though its effect is in doubt": bug(
        f"{STORE}an_undo_starts_only_in_a_transaction_that_sees_its_effect_as_succeeded[in_doubt]",
        "isinstance(answer, Refused)",
        change("    if row is not None and row.state in _MAYBE:", "    if False:"),
        change(
            "    if row is None or row.state is not EffectState.SUCCEEDED:", "    if row is None:"
        ),
    ),
    "an undone effect is replayed as done": bug(
        f"{UNDONE}an_undone_effect_is_never_replayed_as_done",
        "DID NOT RAISE",
        change(f"_persist.py{BELOW}    if effect.result_state == UNDONE:", "    if False:"),
        change(
            '    if effect.result_state == "stored":',
            '    if effect.result_state in ("stored", UNDONE):',
        ),
    ),
    "an undo is settled and its effect is not": bug(
        f"{KILLED}[refuted, sync, no hook]",
        "unreported: T-1 is refuted, its undo succeeded",
        change(
            "        row.result_state, row.undo = UNDONE, undo.key\n        row.update(tx)",
            "        pass",
        ),
        places="before the wish to start",
    ),
    "an undo in doubt is tried again": bug(
        f"{KILLED}[refuted, sync, no hook]",
        "duplicate: undo-T-1 happened",
        change(
            "            same_database=tool.same_database,",
            "            same_database=tool.same_database,",
            '            on_doubt="retry_same_key",',
            "            dedupe_seconds=86_400.0,",
        ),
        places="undo done",
    ),
    "an undo that was killed is not gone on with": bug(
        f"{KILLED}[refuted, sync, no hook]",
        "'verification_failed'",
        change(
            "            raise await self._undo(VerificationFailed(why))",
            "            raise VerificationFailed(why)",
        ),
        places="before the wish to start",
    ),
    "a ruling on an undo leaves its effect as it was": bug(
        f"{UNDONE}a_ruling_on_an_undo_is_a_ruling_on_both_rows[happened-undone-lines0]",
        "'refuted' == 'undone'",
        change(
            '{"reason": reason} if reason else None))\n    if row.key.startswith(compensating.UNDO):',
            '{"reason": reason} if reason else None))\n    if False:',
        ),
    ),
    "a rollback begins with the first effect": bug(
        f"{UNDONE}a_rollback_goes_from_the_last_effect_to_the_first",
        "At index 0 diff",
        change("sorted(wrote, key=_completed, reverse=True)", "sorted(wrote, key=_completed)"),
    ),
    "a rollback goes on past an undo that failed": bug(
        f"{UNDONE}a_rollback_stops_at_a_failed_undo_and_goes_on_later",
        "At index 1 diff",
        change(
            "        if found.stopped is None and told.what == _AHEAD:",
            "        if told.what == _AHEAD:",
        ),
    ),
    "who wants a rollback may approve its undos": bug(
        f"{UNDONE}who_asks_for_a_rollback_does_not_approve_its_undos",
        "DID NOT RAISE",
        change(
            "who = Principal(agent=by, tenant=info.tenant)", "who = Principal(tenant=info.tenant)"
        ),
    ),
    "an agent's undo starts in a stopped run": bug(
        f"{STORE}only_people_undo_in_a_run_that_was_stopped[agent:bot-False]",
        "is False",
        change(
            'by_person = intent.undoes is not None and log.ref.actor.startswith("person:")',
            "by_person = intent.undoes is not None",
        ),
    ),
}
