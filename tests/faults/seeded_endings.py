"""The seeded bugs of safe endings."""

from __future__ import annotations

from tests.faults.seeded_bugs import Mutant, bug, change

ENDED = "test_fallback.py::test_"
KILLED = "faults/test_endings.py::test_an_ending_killed_anywhere_is_made_once_and_closes_its_run"
INTERRUPTED = KILLED.replace("killed", "interrupted")

ENDING_MUTANTS: dict[str, Mutant] = {
    "the write path stays open after an ending": bug(
        f"{ENDED}nothing_is_written_in_a_run_that_has_ended",
        "it returned",
        change(
            '        if self.ending is None or (ending := json.loads(self.ending)).get("answered"):',
            "        ending = json.loads(self.ending or '{}')",
            "        if True:",
        ),
    ),
    "an answer is not waited for": bug(
        f"{ENDED}without_an_answer_nothing_is_written",
        "it returned",
        change(
            '(ending := json.loads(self.ending)).get("answered")',
            '(ending := json.loads(self.ending))["ending"] == "ask"',
        ),
    ),
    "a second process files a second ticket": bug(
        f"{KILLED}[fallen_once, sync, no hook]",
        "duplicate: ticket happened 2 times",
        change("and not (wish.repeatable and same):", "and False:"),
        places="a ticket is filed",
    ),
    "a file does not know its tickets": bug(
        f"{KILLED}[fallen, sync, no hook]",
        "ticket, 2 tickets",
        change("            if there is not None:", "            if False:"),
        places="a ticket is filed",
    ),
    "the last ending counts": bug(
        f"{ENDED}two_calls_that_fail_at_once_make_one_ending[draft]",
        "assert 4 == 1",
        change(
            "    if log.closed() is not None:\n        if settled:",
            "    if False:\n        if settled:",
        ),
    ),
    "a run asks again and again": bug(
        f"{ENDED}a_run_asks_once",
        "'ask'",
        change('    if end.kind == "ask" and log.ending is not None:', "    if False:"),
    ),
    "an interrupted ticket stays under way": bug(
        f"{INTERRUPTED}[fallen, sync, no hook]",
        "stuck: fallback/r-1/1 is executing",
        change(
            "    if row is not None and row.claim_id == wish.claim_id and row",
            "    if False and row",
        ),
        places="after a ticket is filed",
    ),
}
