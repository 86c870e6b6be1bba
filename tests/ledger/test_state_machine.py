"""Any mixture of the ledger's verbs: the reference model and any store end up at the same place.

Each transition by itself, and everything that is no transition, is in the contract of stores
(`agentguard.testing.stores`), which `tests/stores/test_contract.py` holds for each of ours.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentguard.ledger.queries import broken_link
from agentguard.ledger.values import Started
from agentguard.model import EffectState
from agentguard.testing import FakeClock
from agentguard.testing.stores.ledger import COST
from agentguard.testing.stores.table import (
    BEGINS,
    CUT_OFF,
    LEGAL,
    PAYLOADS,
    RULINGS,
    SETTLES,
    SITUATIONS,
)
from tests.faults.test_kills import Record
from tests.ledger.verbs import File, Ledger, Memory, Place, Postgres
from tests.postgres.server import Server

LONG = bool(os.environ.get("AGENTGUARD_LONG"))


@dataclass
class Model:
    """What the reference model knows of one effect."""

    situation: str = "none"
    payload: str = "p"
    run: str = "r"
    worker: int | None = None
    fence: int = 0
    permits: int = 1
    first_start: int = 0
    expires: int = 0
    approved: bool = False


class LedgerMachine(RuleBasedStateMachine):
    """Any order of verbs, in two runs by two workers, under a clock that jumps both ways."""

    keys = st.sampled_from(["k1", "k2"])
    runs = st.sampled_from(["r", "s"])
    workers = st.sampled_from([0, 1])

    where: Callable[[], Place]
    """Makes the store that one example uses."""

    def __init__(self) -> None:
        super().__init__()
        self.place = type(self).where()

    @initialize()
    def begin(self) -> None:
        """Take two runs of a tenant's own."""
        self.ledger = Ledger(self.place, FakeClock(), ("r", "s"))
        self.models = {"k1": Model(), "k2": Model()}
        self.rejected: set[tuple[str, str, str]] = set()
        self.seen = [self.ledger.clock.now()] * 2
        self.is_back = False

    def teardown(self) -> None:
        """Close the store."""
        self.ledger.close()

    def now(self, worker: int) -> int:
        """Return the time as *worker* sees it: it never runs backwards for one process."""
        process = worker if self.place.workers_die else 0
        self.seen[process] = max(self.seen[process], self.ledger.clock.now())
        return self.seen[process]

    @rule(data=st.data(), key=keys, run=runs, worker=workers)
    def go_on(self, data: st.DataObject, key: str, run: str, worker: int) -> None:
        """Somebody does what the table allows, so that effects get somewhere."""
        legal = sorted(LEGAL[self.models[key].situation])
        verb = data.draw(st.sampled_from(legal)) if legal else "sweep"
        if verb in BEGINS:
            self.call(verb, key, run, worker)
        elif verb in ("approve", "reject"):
            self.decide(verb, key, worker)
        elif verb == "wait":
            self.wait(25)
        elif verb == "sweep":
            self.sweep(worker)
        else:
            self.end(verb, key, worker)

    @rule(verb=st.sampled_from(BEGINS), key=keys, run=runs, worker=workers)
    def call(self, verb: str, key: str, run: str, worker: int) -> None:
        """An agent calls."""
        model = self.models[key]
        payload = PAYLOADS[model.payload] if verb.startswith("other") else model.payload
        after = self.after_call(model, verb, key, run, worker, payload)
        started = isinstance(self.ledger.do(verb, key, run, worker), Started)
        assert started == (after == "executing" != model.situation)
        if started:
            self.note_start(model, run, worker)
        elif after == "asked" != model.situation:
            model.run, model.approved = run, False
            model.expires = self.now(worker) + 86_400_000_000
        if after != model.situation and after in ("executing", "asked"):
            model.payload = payload
        model.situation = after
        assert self.ledger.situation(key, worker) == after

    def after_call(
        self, model: Model, verb: str, key: str, run: str, worker: int, payload: str
    ) -> str:
        """Return where a call leads, by the table and by what was rejected."""
        situation = model.situation
        if situation == "failed_approved" and self.now(worker) >= model.expires:
            situation = "failed_late"
        same = payload == model.payload and run == model.run
        heard = situation in ("denied", "lapsed")
        if heard or (situation in ("rejected", "expired") and verb.startswith("other")):
            if (key, run, payload) in self.rejected:
                return model.situation
            verb = verb if same else "other_asking" if verb.endswith("asking") else "other"
        fresh = self.now(worker) < model.first_start + 86_400_000_000
        if verb == "begin_deduped" and situation in ("in_doubt", "orphaned") and not fresh:
            verb = "begin"
        after = LEGAL[situation].get(verb, model.situation)
        if after == "executing" != situation and self.is_closed(model, run):
            return "in_doubt" if situation == "orphaned" else model.situation
        return after

    def is_closed(self, model: Model, run: str) -> bool:
        """Return whether another write of *run* is in doubt: then no other one starts there."""
        others = [other for other in self.models.values() if other is not model]
        return any((other.situation, other.run) == ("in_doubt", run) for other in others)

    def note_start(self, model: Model, run: str, worker: int) -> None:
        """The body was let run."""
        if model.situation in ("in_doubt", "orphaned"):
            model.permits += 1  # the backend drops repeats
        else:
            model.run = run
            model.approved = model.situation in ("approved", "failed_approved")
        model.first_start = model.first_start or self.now(worker)
        model.fence, model.worker = model.fence + 1, worker

    @rule(
        verb=st.sampled_from([*SETTLES, "stale", *CUT_OFF, *RULINGS, "reconciled"]),
        key=keys,
        worker=workers,
    )
    def end(self, verb: str, key: str, worker: int) -> None:
        """A body ends, somebody answers late, or somebody rules."""
        model = self.models[key]
        after = LEGAL[model.situation].get(verb, model.situation)
        if after == "failed" != model.situation:
            model.permits += 1  # nothing happened
            after = "failed_approved" if model.approved else after
        self.ledger.do(verb, key, worker=worker)
        model.situation = after
        self.compare(key, worker)

    @rule(verb=st.sampled_from(["approve", "reject"]), key=keys, worker=workers)
    def decide(self, verb: str, key: str, worker: int) -> None:
        """A person decides."""
        model = self.models[key]
        self.ledger.do(verb, key, worker=worker)
        after = LEGAL[model.situation].get(verb, model.situation)
        if after == "rejected" != model.situation:
            self.rejected.add((key, model.run, model.payload))
        model.situation = after
        self.compare(key, worker)

    @precondition(lambda self: self.place.workers_die)
    @rule(worker=workers)
    def die(self, worker: int) -> None:
        """A worker is killed, and another one takes its place."""
        self.ledger.die(worker)
        self.seen[worker] = self.ledger.clock.now()
        for model in self.models.values():
            if model.situation == "executing" and model.worker == worker:
                model.situation = "orphaned"

    @rule(worker=workers)
    def sweep(self, worker: int) -> None:
        """Somebody looks for effects of dead workers."""
        self.ledger.do("sweep", worker=worker)
        for model in self.models.values():
            model.situation = LEGAL[model.situation].get("sweep", model.situation)

    @rule(hours=st.sampled_from([3, 23, 25]))
    def wait(self, hours: int) -> None:
        """Time passes, and all workers see it."""
        self.ledger.clock.advance(hours=hours)
        self.is_back = False
        for worker in self.ledger.workers:
            worker.transact(lambda tx: tx.now)
        latest = max(self.now(0), self.now(1))
        for model in self.models.values():
            if model.situation in ("asked", "approved") and latest >= model.expires:
                model.situation = "expired"

    @precondition(lambda self: not self.is_back)
    @rule()
    def set_back(self) -> None:
        """The machine's clock is set back two hours."""
        self.ledger.clock.set_back(hours=2)
        self.is_back = True

    def compare(self, key: str, worker: int) -> None:
        """The store must be where the model is."""
        expected = self.models[key].situation
        if expected == "failed_approved" and self.now(worker) >= self.models[key].expires:
            expected = "failed_late"
        assert self.ledger.situation(key, worker) == expected

    @invariant()
    def no_start_without_a_reason(self) -> None:
        """One start a key, and one more for each proof that nothing happened or is dropped."""
        for key, model in self.models.items():
            facts = [data for kind, data in self.events() if kind == "step.started"]
            fences = sorted(data["fence"] for data in facts if data["key"] == key)
            assert fences == list(range(1, model.fence + 1))
            assert model.fence <= model.permits

    @invariant()
    def the_chains_are_whole(self) -> None:
        """Both runs' records verify."""
        for run in ("r", "s"):
            assert self.ledger.workers[0].read(broken_link, self.ledger.tenant, run) is None

    @invariant()
    def the_budgets_are_the_sum_of_the_rows(self) -> None:
        """What is held and spent is what the effects that are open or done say."""
        tenant = self.ledger.tenant
        rows = self.ledger.table("SELECT run_id, state, cost FROM effects WHERE tenant = ?", tenant)
        for run in ("r", "s"):
            mine = [(state, cost) for owner, state, cost in rows if owner == run]
            held = sum(c for s, c in mine if s in (EffectState.EXECUTING, EffectState.IN_DOUBT))
            spent = sum(cost for state, cost in mine if state == EffectState.SUCCEEDED)
            calls = (held + spent) // COST
            told = "SELECT held, spent, tool_calls FROM runs WHERE tenant = ? AND run_id = ?"
            kept = "SELECT held, spent, calls FROM budgets WHERE tenant = ? AND span = ?"
            assert self.ledger.table(told, tenant, run) == [(held, spent, calls)]
            assert self.ledger.table(kept, tenant, f"run:{run}") in ([(held, spent, calls)], [])

    @invariant()
    def an_approval_is_used_once(self) -> None:
        """No approval starts two effects, and none is used twice."""
        used = [data["approval_id"] for kind, data in self.events() if kind == "approval.used"]
        assert len(set(used)) == len(used)

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what both runs have on record."""
        return self.ledger.events("r") + self.ledger.events("s")


def check(place: Callable[[], Place], examples: int, record: Record) -> None:
    """Go through *examples* mixtures of 30 verbs; ten times as many in the long form."""
    examples *= 10 if LONG else 1
    record("points", examples)
    bounds = settings(
        max_examples=examples, stateful_step_count=30,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip

    class Machine(LedgerMachine):
        where = staticmethod(place)

    run_state_machine_as_test(Machine, settings=bounds)


def test_memory_ends_up_where_the_model_does(record_property: Record) -> None:
    """A store in memory, which one process uses alone, does what the model says."""
    check(Memory, 40, record_property)


def test_a_file_ends_up_where_the_model_does(record_property: Record) -> None:
    """A file that two workers share, each of whom may die, does what the model says."""
    check(File, 80, record_property)


def test_postgres_ends_up_where_the_model_does(
    postgres_server: Server, record_property: Record
) -> None:
    """A server that two workers share, each of whom may die, does what the model says."""
    url = f"{postgres_server.url('postgres')}?schema=model"
    check(lambda: Postgres(url), 25, record_property)


def test_the_table_is_complete() -> None:
    """The table has an answer for each situation, and leads to known situations only."""
    assert set(LEGAL) == set(SITUATIONS)
    assert set(itertools.chain(*(LEGAL[s].values() for s in LEGAL))) <= set(SITUATIONS)
