"""F6, F7, F16: simulated workers under a seeded scheduler, and the ledger against a model."""

from __future__ import annotations

from tests.faults.matrix import Count, Result
from tests.faults.suites import of_tests
from tests.simulation.runner import KINDS, Total, try_all, try_on_all_cores


def schedules(long: bool, seed: int) -> Result:
    """Interleave the ledger's verbs with crashes, pauses, lost answers, hooks and rulings."""
    return _simulated("F6", "simulation", ["verbs"], long=long, seed=seed)


def calls(long: bool, seed: int) -> Result:
    """Interleave whole guarded calls, sync and async, with the same, and with interrupts."""
    return _simulated("F6", "pipeline", ["calls"], long=long, seed=seed)


def clocks(long: bool, seed: int) -> Result:
    """Do all of that while somebody sets the clock, by 100 s or a day, also backwards."""
    return _simulated("F16", "simulation", ["verbs, clock", "calls, clock"], long=long, seed=seed)


def model(long: bool, seed: int) -> Result:
    """Hold any mixture of verbs against a reference model."""
    tests, notes = ["ledger/test_state_machine.py"], "in memory, in a file and on a PostgreSQL"
    return of_tests("F7", "sqlite", tests, long=long, seed=seed, notes=notes)


def _simulated(fault: str, store: str, names: list[str], *, long: bool, seed: int) -> Result:
    count, total = Count(fault, store, seed), Total()
    for name in names:
        kind = KINDS[name]
        seeds = kind.seeds(long=long, seed=seed)
        if long:
            total.add(try_on_all_cores(kind, seeds))
        else:
            total.add(try_all(seeds, kind.delivered, jumps=kind.jumps))
    count.add(total.words, total.schedules)
    return count.result(f"not promised, and seen: {total.excuses() or 'nothing'}")
