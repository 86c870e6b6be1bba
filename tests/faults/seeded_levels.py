"""The seeded bugs of service levels: counted wrongly, enforced late, given back too early."""

from __future__ import annotations

from tests.faults.seeded_bugs import APART, Mutant, bug, change

DEMOTION = "enforcement/test_demotion.py::test_"
COUNTING = "enforcement/test_counting.py::test_"
SERVER = (
    "enforcement/test_races.py::"
    "test_on_a_server_the_demotion_waits_for_starts_that_have_looked_already"
)
KILLED = "faults/test_error_budgets.py::test_an_outcome_and_what_it_takes_away_stand_together"

LEVEL_MUTANTS: dict[str, Mutant] = {
    "a demotion waits for no start": bug(
        SERVER,
        "while a start was on its way",
        change(
            "    if watch is not None and _may_be_bad(watch, status):\n"
            "        switches.hold_up(tx)\n",
            "",
        ),
        change(
            '            switches.hold_up(tx)\n            return move(tx, slo, head, to, f"slo',
            '            return move(tx, slo, head, to, f"slo',
        ),
    ),
    "a run is counted once more for each resume": bug(
        f"{COUNTING}a_run_counts_once_for_each_end",
        "== (0, 1)",
        change("            or (ended.again and _was_counted(tx, head, log, counted))\n", ""),
    ),
    "an override does not end": bug(
        f"{DEMOTION}an_override_lifts_a_demotion_until_it_is_over[sqlite]",
        "isinstance('done pay",
        change("            if until <= tx.now:\n", "            if not until:\n"),
    ),
    "the demotion of a workflow is not looked at": bug(
        f"{DEMOTION}a_process_that_knows_no_service_level_is_held_all_the_same[sqlite]",
        "isinstance('done pay",
        change(
            '    places = over("tool", tool), over("workflow", workflow)\n',
            '    places = over("tool", tool), over("workflow", "")\n',
        ),
    ),
    "autonomy comes back after any good outcome": bug(
        f"{DEMOTION}one_bad_outcome_begins_the_count_of_good_ones_anew",
        "== 'approve'",
        change("    return (0 if found is None else found[1]) == head.bad\n", "    return True\n"),
    ),
    "an outcome is counted in another transaction": bug(
        f"{KILLED}[burnt, sync, no hook]",
        "outcomes counted",
        change(
            "        slos.record(tx, log, end.watch, slos.fact_of(end), end.step)\n    return True",
            f"        log.save(); tx.{APART.format('tx')}",
            "        slos.record(tx, log, end.watch, slos.fact_of(end), end.step)\n    return True",
        ),
        places="settle:",
    ),
    "a retry counts as often as it is tried": bug(
        f"{COUNTING}of_attempts_the_last_one_counts",
        "== (1, 0)",
        change("(retries or self._is_apart(end, end.watch))", "self._is_apart(end, end.watch)"),
    ),
    "what was allowed before is tried again unasked": bug(
        f"{DEMOTION}what_was_allowed_before_is_asked_about_when_it_is_tried_again",
        "isinstance(",
        change("intent.plan or intent.demoted or _is_new(", "intent.plan or _is_new("),
    ),
    "drafts give autonomy back": bug(
        f"{DEMOTION}a_demotion_does_not_feed_itself",
        "(0, 5)",
        change(
            "            _says_nothing(tx, log, head, fact, ended)\n            or (ended.again",
            "            (ended.again",
        ),
    ),
    "drafts over outcomes wait for outcomes": bug(
        f"{DEMOTION}drafts_end_also_where_no_time_is_declared[outcomes]",
        "action_drafted",
        change("or slo.window.seconds or _CALM\n", "or slo.window.seconds or 10**9\n"),
    ),
    "drafts end while runs still fail": bug(
        f"{DEMOTION}what_runs_prove_beside_their_drafts_does_not_hold_them_at_drafts",
        "approval_required",
        change("tx.now >= _last_bad(tx, head) +", "tx.now >= (head.since or 0) +"),
    ),
    "demote: off holds what was taken": bug(
        f"{DEMOTION}a_level_that_shall_demote_nothing_gives_back_what_it_took[runs]",
        "action_drafted",
        change(
            "    rule = slo.demote\n    if rule is None:\n        return True\n",
            "    rule = slo.demote\n    if rule is None:\n        return False\n",
        ),
    ),
    "a run that was killed counts for nothing": bug(
        f"{COUNTING}an_abandoned_run_counts_after_the_declared_time[sqlite-a review]",
        "== (0, 1)",
        change("        self.count_abandoned(where)\n", ""),
    ),
    "an abandoned run that fails counts twice": bug(
        f"{COUNTING}an_abandoned_run_that_ends_counts_as_it_ends[badly-counted1]",
        "== (0, 1)",
        change(" or any(slo.abandoned for slo in watch.slos)\n", "\n"),
    ),
    "a pin lifts a demotion": bug(
        f"{DEMOTION}a_pin_does_not_lift_a_demotion",
        "isinstance('done pay",
        change(
            "    stage = own if demoted is None else lowest(own, demoted[0])\n",
            "    stage = own if demoted is None or earned else lowest(own, demoted[0])\n",
        ),
    ),
    "a process that died counts for nothing": bug(
        f"{COUNTING}an_effect_whose_owner_died_counts_wherever_it_is_found[calling]",
        "== (0, 1)",
        change(
            "        if row.state is EffectState.IN_DOUBT:\n"
            "            slos.record(tx, log, watch, slos.LOST, row.step)\n",
            "",
        ),
    ),
    "a batch starts by what it asked before the demotion": bug(
        "enforcement/test_races.py::test_a_demotion_is_seen_by_the_starts_of_its_own_batch",
        "'Started' == 'Waiting'",
        change("changed in tables(key[0]) and (", "table(key[0]) == changed and ("),
    ),
    "an agent by another spelling is a person": bug(
        "enforcement/test_demotion.py::test_an_override_needs_a_person_a_reason_and_an_end",
        "DID NOT RAISE",
        change(
            "    name = same_person(by)\n    return bool(name)",
            "    name = by\n    return bool(name)",
        ),
    ),
}
