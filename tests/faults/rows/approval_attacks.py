"""F21: ways to get a call past the people who have to allow it, by name; each is a test."""

from __future__ import annotations

from tests.faults.matrix import Result
from tests.faults.suites import of_tests

HERE, GRAPH = "test_approvals.py::test_", "langgraph/test_approvals.py::test_"
CROWDS, DURABLE = "faults/test_crowds.py::test_", "langgraph/test_durability.py::test_"

ATTACKS: dict[str, tuple[str, ...]] = {
    "the payload is changed after the yes": (
        f"{HERE}an_approval_is_for_its_payload_only",
        f"{HERE}another_effect_needs_its_own_approval",
    ),
    "the contract is changed after the yes": (f"{HERE}a_new_contract_needs_a_new_approval",),
    "the rule or the policy is changed after the yes": (
        f"{HERE}a_new_rule_needs_a_new_approval",
        f"{HERE}a_new_policy_needs_a_new_approval",
    ),
    "the policy is loosened instead of a yes": (
        f"{HERE}a_loosened_policy_does_not_decide_for_people",
    ),
    "whoever asked says yes": (
        f"{HERE}whoever_asked_may_not_approve",
        f"{HERE}the_person_it_is_done_for_may_not_approve",
        f"{HERE}nobody_runs_a_call_under_an_approval_of_their_own",
    ),
    "somebody who was not named says yes": (
        f"{HERE}only_named_people_decide",
        f"{HERE}a_decision_needs_the_role",
        f"{HERE}a_quorum_is_made_of_people_with_a_role",
    ),
    "one person votes twice": (
        f"{HERE}two_people_have_to_be_two",
        "faults/test_promises.py::test_a_person_counts_once_whatever_they_call_themselves",
    ),
    "the yes comes, or is used, too late": (
        f"{HERE}an_approval_that_nobody_gave_in_time_expires",
        f"{HERE}an_approval_that_nobody_used_in_time_expires",
        f"{HERE}a_retry_after_its_time_asks_again",
    ),
    "the clock is set back": (f"{HERE}a_clock_that_is_set_back_revives_nothing",),
    "a used yes is used again": (
        f"{HERE}a_used_approval_takes_no_more_decisions",
        f"{HERE}a_failure_for_good_ends_the_approval",
        f"{DURABLE}an_old_interrupt_answered_twice",
        f"{DURABLE}an_old_checkpoint_resumed_twice",
    ),
    "a yes for another call": (
        f"{GRAPH}a_misdelivered_answer_counts_for_the_call_it_names",
        f"{HERE}an_intent_of_one_run_is_not_approved_for_another",
        f"{GRAPH}deciding_elsewhere_does_not_shift_the_users_own_answers",
    ),
    "a yes after a no, and both at once": (
        f"{HERE}a_decision_is_final",
        f"{HERE}a_rejected_payload_stays_rejected_after_another_one",
        f"{CROWDS}of_people_who_approve_and_reject_at_once_one_wins",
    ),
    "a split into parts below the threshold after a no": (
        f"{HERE}nobody_gets_around_a_rejection_below_the_threshold",
    ),
    "many workers use one yes": (
        f"{HERE}many_callers_use_an_approval_once",
        f"{CROWDS}eight_callers_of_one_approval_start_it_once",
    ),
    "the predicate changes its mind, or breaks": (
        f"{HERE}a_rule_that_changes_its_mind_changes_nothing",
        f"{HERE}anything_but_a_plain_false_asks",
        f"{HERE}a_rule_that_breaks_asks",
        f"{GRAPH}a_rejected_call_never_runs_whatever_the_predicate_says_on_resume",
    ),
    "resumed without a decision": (f"{GRAPH}being_resumed_is_not_being_approved",),
    "edited after the votes": (
        f"{HERE}an_edit_voids_the_votes_before_it",
        f"{HERE}a_decision_may_name_the_generation_it_saw",
    ),
    "the editor says yes to the edit": (
        f"{HERE}an_editor_may_not_approve",
        f"{HERE}no_editor_may_approve_after_another_edit",
    ),
    "an edit of what must not be edited": (
        f"{HERE}what_must_not_be_edited_is_refused",
        f"{HERE}edits_have_to_be_allowed",
    ),
    "a yes of another tenant": (f"{HERE}an_approval_does_not_cross_tenants",),
}
BASELINE = f"{GRAPH}langchains_own_middleware_runs_the_rejected_call"
"""That it runs it is what its own test says; if it fails one day, the note below is wrong."""


def sqlite(long: bool, seed: int) -> Result:
    """Try each attack."""
    nodes = [node for tests in ATTACKS.values() for node in tests]
    notes = f"{len(ATTACKS)} attacks; LangChain's own middleware runs a rejected call (measured)"
    return of_tests("F21", "sqlite", [*nodes, BASELINE], long=long, seed=seed, notes=notes)
