"""The seeded bugs that only a server of many hosts shows; each is caught by one part of a trial."""

from __future__ import annotations

from tests.faults.seeded_bugs import Mutant, bug, change

TRIAL = "faults/test_matrix.py::test_a_fault_leaves_nothing_twice_lost_stuck_or_untold[{} postgres]"
PAUSED, COMMITS = TRIAL.format("F13"), TRIAL.format("F15")

POSTGRES_MUTANTS: dict[str, Mutant] = {
    # Those of the reliability notes that are not in `seeded_bugs`.
    "no quarantine": bug(
        PAUSED,
        "duplicate: T-",
        change("self.quarantine_us = owner.lease_us", "self.quarantine_us = 0"),
        places="in their bodies",
    ),
    "take-over on expiry": bug(
        PAUSED,
        "duplicate: T-",
        change(
            '"owner_lost", may_act_us=0 if dead else tx.quarantine_us)',
            '"owner_lost", began=dead)',
        ),
        places="in their bodies",
    ),
    # Those that these trials have found, or were written for.
    "a sleeper begins what others have done": bug(
        PAUSED,
        "duplicate: T-",
        change("        if not self.store.may_begin(self.asked_at):\n", "        if False:\n"),
        places="before their bodies",
    ),
    "no answer means not committed": bug(
        COMMITS,
        "wrong: after Loss.",
        change("if not self._was_committed(tx.number, error):", "if True:"),
        places="each",
    ),
    "the last word of a dying backend is believed": bug(
        COMMITS,
        "wrong: after Loss.LAST_WORD",
        change("refusal.diag.severity_nonlocalized in _GONE:", "False:"),
        places="each",
    ),
}
