"""The seeded bugs that a simulation must find: each a small wrong change to ledger or pipeline."""

from __future__ import annotations

from tests.faults.seeded_bugs import Edit, Mutant, bug, change

SCHEDULES = "simulation/test_simulation.py::test_no_schedule_breaks_a_promise"


def found(kind: str, says: str, *edits: Edit) -> Mutant:
    """Declare a bug that is found by a kind of simulation, in these words."""
    return bug(f"{SCHEDULES}[{kind}]", says, *edits)


_LOST = "            mark_lost(tx, own, row)\n"
_ALREADY = "    return Busy(row.public(), own=row.owner == tx.owner)\n"
_AGAIN = (
    "        from .settling import mark_doubt",
    '        mark_doubt(tx, log, row, "owner_lost", began=False)',
    "        return _FROM[row.state](tx, log, intent, row)",
)
SIMULATION_MUTANTS: dict[str, Mutant] = {
    "simulated: take-over on expiry": found(
        "verbs",
        "happened ",
        change(
            _LOST,
            "            from .settling import mark_doubt",
            '            mark_doubt(tx, own, row, "owner_lost", began=False)\n',
        ),
    ),
    "simulated: early reconcile": found(
        "verbs", "happened ", change("if lease is None or tx.now >= lease:", "if True:")
    ),
    "simulated: a hook that looked too early is believed": found(
        "verbs",
        "happened ",
        change("Doubt(row.public(), may_still_act(tx, row))", "Doubt(row.public(), False)"),
    ),
    "simulated: no fence": found(
        "verbs",
        "an answer of start",
        change("row.fence != end.fence or row.state not in _OPEN", "row.state not in _OPEN"),
    ),
    "simulated: approvals counted by vote": found(
        "verbs",
        "phantom: ",
        change("if any(same_person(d.person) == person for d in approval.decisions):", "if False:"),
    ),
    "simulated: chain in a transaction of its own": found(
        "verbs",
        "is missing",
        change(
            '        self._tx.run(\n            "INSERT INTO events',
            "        self._tx.after_commit(lambda *given: self._tx.run(*given)) if False else None",
            "        write = lambda *given: self._tx.after_commit(lambda: self._tx.run(*given))",
            '        write(\n            "INSERT INTO events',
        ),
    ),
    "simulated: a lost answer counts as a failure": found(
        "verbs",
        "happened ",
        change(_ALREADY, "    if row.owner == tx.owner:", *_AGAIN, _ALREADY),
    ),
    "simulated: the clock is trusted when it is set back": found(
        "verbs, clock",
        "phantom: ",
        change('change(tx, approval.tenant, approval.id, status="expired")', "pass"),
    ),
    "simulated: a kill switch is looked at too late": found(
        "verbs",
        "phantom: ",
        change(
            "stopped = compensating.forbids(tx, log, intent) or stands.halted or intent.refusal",
            "stopped = compensating.forbids(tx, log, intent) or intent.refusal",
        ),
    ),
    "simulated: a doubt leaves its run open": found(
        "verbs",
        "in a run that is in doubt",
        change(
            "    if doubt is not None:\n        return asking.refuse(log, intent, doubt, step)\n",
            "    pass\n",
        ),
    ),
    "simulated: a budget is not given back to its run": found(
        "verbs",
        "budget of run",
        change("    log.held -= cost\n", "    log.held -= cost if happened else 0\n"),
    ),
    "simulated: a repeat that did nothing ends the doubt": found(
        "verbs",
        "happened ",
        change(
            "counted, first, edits, approval, held, ", "counted, first, edits, approval, False, "
        ),
    ),
    "simulated: a start from before a silence begins": found(
        "calls",
        "duplicate: ",
        change("if not self.store.may_begin(self.asked_at):", "if False:"),
    ),
    "simulated: reads of a commit of unknown end are written again": found(
        "calls",
        "on record",
        change("taken.written |= isinstance(error, StoreUnavailable) and error.uncertain", "pass"),
    ),
    "simulated: a start of unknown end is forgotten": found(
        "calls",
        "stuck: ",
        change("self.claim.leave() if error.uncertain else self.claim.drop()", "self.claim.drop()"),
    ),
    "simulated: an end of unknown fate is not written again": found(
        "calls",
        "stuck: ",
        change("        keep_trying(self.store, settling.settle, settlement)\n", "        pass\n"),
    ),
}
