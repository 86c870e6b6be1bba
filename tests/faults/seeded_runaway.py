"""The seeded bugs of runaway control."""

from __future__ import annotations

from tests.faults.seeded_bugs import Mutant, bug, change

LOOP = "test_loops.py::test_a_loop_of_the_corpus_is_stopped"
REPEAT = "test_loops.py::test_a_legitimate_repeat_of_the_corpus_is_not_stopped"
CIRCUIT = "test_circuits.py::test_"

RUNAWAY_MUTANTS: dict[str, Mutant] = {
    "cosmetic changes are not seen": bug(
        f"{LOOP}[ids-upper_and_lower_case]",
        "DID NOT RAISE",
        change("return _likeness(self, earlier, self.plain, earlier.plain)", "return None"),
    ),
    "turns are not seen": bug(
        f"{LOOP}[ids-two_agents_hand_over]",
        "DID NOT RAISE",
        change("_PERIODS = (1, 2, 3)", "_PERIODS = (1,)"),
    ),
    "a poll counts as a loop": bug(
        f"{REPEAT}[ids-a_declared_poll]",
        "LoopDetected",
        change("if tool.polls or not limit or", "if not limit or"),
    ),
    "a changed result is no progress": bug(
        f"{REPEAT}[ids-a_job_that_goes_on]",
        "LoopDetected",
        change(
            "return self.outcome is not None and self.outcome == earlier.outcome", "return True"
        ),
    ),
    "numbers are looks": bug(
        f"{REPEAT}[ids-empty_pages]",
        "LoopDetected",
        change(
            "    if type(given) is int:\n        return True",
            "    if type(given) is int:",
            "        return False",
        ),
        change(
            "        if new != old:\n            for place",
            "        if False:",
            "            for place",
        ),
    ),
    "a delivered call is a repeat": bug(
        "test_loops.py::test_a_call_that_is_delivered_again_is_no_repeat",
        "LoopDetected",
        change(
            "return call.ref is not None and (call.ref, call.payload_hash) in self._known",
            "return False",
        ),
    ),
    "a resume forgets the loop": bug(
        "test_loops.py::test_a_loop_goes_on_across_a_resume",
        "DID NOT RAISE",
        change("        self.streaks.resumed(before)", "        pass"),
    ),
    "the circuit lets two probes through": bug(
        f"{CIRCUIT}one_probe_at_a_time[sqlite]",
        "'ok', 'ok'",
        change('if state == "half_open" and _is_probing(', "if False and _is_probing("),
    ),
    "a dead probe keeps the circuit": bug(
        f"{CIRCUIT}a_probe_whose_process_died_is_taken_over[sqlite]",
        "CircuitOpen",
        change(
            "    return row.owner is None or row.owner == tx.owner or not tx.is_lost(row.owner)",
            "    return True",
        ),
    ),
    "a no of the backend opens the circuit": bug(
        f"{CIRCUIT}what_counts_as_a_failure[sqlite-for good]",
        "CircuitOpen",
        change(
            "if end.state not in (EffectState.FAILED_RETRYABLE, EffectState.IN_DOUBT):",
            "if end.state is EffectState.SUCCEEDED:",
        ),
    ),
    "retries are not rationed": bug(
        f"{CIRCUIT}retries_are_rationed[sqlite]",
        "assert 10 == ",
        change("    allowed = tokens >= _TOKEN", "    allowed = True"),
    ),
}
