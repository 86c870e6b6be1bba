"""Seeded bugs of verification: each lets something count as confirmed that nobody has confirmed."""

from __future__ import annotations

from tests.faults.seeded_bugs import Mutant, bug, change

SPEC = "test_verification.py::test_"

VERIFICATION_MUTANTS: dict[str, Mutant] = {
    "separation not checked": bug(
        f"{SPEC}a_verifier_that_is_the_proposer_is_refused_before_the_start",
        "DID NOT RAISE",
        change("        found = _same(check.identity.models, proposers)", "        found = None"),
    ),
    "a broken verifier counts as yes": bug(
        f"{SPEC}an_outage_of_a_verifier_is_no_yes",
        "DID NOT RAISE",
        change(
            'Verdict(passed=False, reason=f"verifier unavailable: {why}", unavailable=True)',
            'Verdict(passed=True, reason=f"verifier unavailable: {why}", unavailable=True)',
        ),
    ),
    "another name is another model": bug(
        f"{SPEC}a_model_is_known_by_its_aliases",
        "assert False",
        change("return bool(forms(one) & forms(other))", "return one == other"),
    ),
    "the run's own models are not looked up": bug(
        f"{SPEC}what_an_earlier_part_of_the_run_has_called_counts",
        "DID NOT RAISE",
        change("    known.called.update(found)", "    del found"),
    ),
    "edits are not judged anew": bug(
        f"{SPEC}an_amount_that_an_approver_raises_is_held_to_the_threshold",
        "DID NOT RAISE",
        change(
            "        changed.step, changed.first, changed.edits = intent.step, intent.first, edits",
            "        changed.step, changed.first, changed.edits = intent.step, intent.first, edits",
            "        changed.refusal = None",
        ),
    ),
    "a rule sends the model away": bug(
        f"{SPEC}a_final_yes_of_a_rule_does_not_replace_the_model_that_is_demanded",
        "assert 0 == 1",
        change("        if verdict.final and may_end(check):", "        if verdict.final:"),
    ),
    "an unsure yes is a yes": bug(
        f"{SPEC}a_yes_that_is_not_sure_is_a_no",
        "DID NOT RAISE",
        change("if check.minimum is not None and sure < check.minimum:", "if False:"),
    ),
    "an outage undoes": bug(
        f"{SPEC}an_outage_undoes_nothing",
        "undo done a",
        change(
            '    if undone and tool.effect == "write" and not found.refuted.unavailable:',
            '    if undone and tool.effect == "write":',
        ),
    ),
    "the body begins unseen": bug(
        f"{SPEC}nothing_begins_that_cannot_be_compared",
        "DID NOT RAISE",
        change("        return unseen\n", "        pass\n"),
    ),
    "a run's no is not its end": bug(
        f"{SPEC}a_run_that_is_not_confirmed_has_failed",
        "'succeeded' == 'failed'",
        change("            status, why, kind = self._ending(no)", "            pass"),
    ),
    "a model sees what is sensitive": bug(
        "test_verifiers.py::test_a_model_sees_nothing_sensitive",
        "'007'",
        change("{n: (HIDDEN if n in asking.sensitive else v) for n, v in plain.items()}", "plain"),
    ),
    "any answer is an answer": bug(
        "test_verifiers.py::test_an_answer_in_no_form_is_no_answer",
        "DID NOT RAISE",
        change(
            '    model_config = ConfigDict(extra="ignore", strict=True)\n\n    passed: bool',
            "    passed: bool",
        ),
    ),
}
