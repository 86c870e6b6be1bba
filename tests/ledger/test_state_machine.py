"""The effect ledger's table of transitions: each legal one, each other one, and any mixture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentguard.ledger import settling
from agentguard.ledger.queries import broken_link
from agentguard.ledger.values import Busy, Interrupted, Refused, Settlement, Started
from agentguard.model import EffectState
from agentguard.testing import FakeClock
from tests.ledger.verbs import (
    BEGINS,
    COST,
    CUT_OFF,
    LEGAL,
    PAYLOADS,
    RULINGS,
    SETTLES,
    SITUATIONS,
    TENANT,
    VERBS,
    Ledger,
    folder,
    ref,
)

PAIRS = [(situation, verb) for situation in SITUATIONS for verb in VERBS]
LEGAL_PAIRS = [(s, v) for s, v in PAIRS if v in LEGAL[s]]
ILLEGAL_PAIRS = [(s, v) for s, v in PAIRS if v not in LEGAL[s]]


@pytest.fixture(name="ledger")
def ledger_in_a_file() -> Iterator[Ledger]:
    """A ledger with two workers and two runs."""
    with folder() as name:
        ledger = Ledger(Path(name) / "a.db", FakeClock(), ("r", "s"))
        yield ledger
        ledger.close()


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_situation_can_be_reached(ledger: Ledger, situation: str) -> None:
    """The table names no situation that an effect cannot be in."""
    ledger.reach(situation)
    assert ledger.situation() == situation


@pytest.mark.parametrize(("situation", "verb"), LEGAL_PAIRS)
def test_a_legal_transition_happens(ledger: Ledger, situation: str, verb: str) -> None:
    """Each transition of the table leads where the table says."""
    ledger.reach(situation)
    ledger.do(verb)
    assert ledger.situation() == LEGAL[situation][verb]


@pytest.mark.parametrize(("situation", "verb"), ILLEGAL_PAIRS)
def test_any_other_transition_is_refused(ledger: Ledger, situation: str, verb: str) -> None:
    """What the table does not have changes nothing: no row, no vote, no money, no start."""
    ledger.reach(situation)
    before = ledger.everything()
    answer = ledger.do(verb)
    late = ledger.table("SELECT late FROM effects WHERE late IS NOT NULL")
    assert not isinstance(answer, Started)
    assert without_evidence(ledger) == before if late else ledger.everything() == before


def without_evidence(ledger: Ledger) -> list[list[object]]:
    """Everything but what a late answer may leave behind."""
    ledger.amend(late=None)
    return ledger.everything()


@pytest.mark.parametrize(("situation", "verb"), [p for p in PAIRS if p[1] in BEGINS])
def test_the_body_may_start_only_into_executing(ledger: Ledger, situation: str, verb: str) -> None:
    """A caller is told to start exactly when the row says executing under a new fence."""
    ledger.reach(situation)
    row = ledger.row()
    fence = row.fence if row else 0
    started = isinstance(ledger.do(verb), Started)
    after = ledger.row()
    assert started == (LEGAL[situation].get(verb) == "executing")
    assert (after.fence if after else 0) == fence + started


@pytest.mark.parametrize("situation", ["succeeded", "failed", "failed_final"])
def test_a_late_answer_is_kept_as_evidence(ledger: Ledger, situation: str) -> None:
    """Whoever answers after the effect has its end changes nothing of it, but is heard."""
    ledger.reach(situation)
    assert ledger.do("unclear") is False
    row = ledger.row()
    assert row is not None
    assert row.late == {"fence": 1, "outcome": "in_doubt", "run_id": "r"}
    assert ledger.table("SELECT kind FROM events ORDER BY seq")[-1] == ("effect.evidence",)


def test_a_refused_start_is_in_the_record(ledger: Ledger) -> None:
    """A call that is not started leaves its reason in the run's chain."""
    ledger.reach("succeeded")
    answer = ledger.do("other")
    assert isinstance(answer, Refused)
    kind, error = ledger.table("SELECT kind, data ->> 'error' FROM events ORDER BY seq DESC")[0]
    assert (kind, error) == ("step.decided", "idempotency_conflict")


def test_a_rejection_stands_through_another_payload(ledger: Ledger) -> None:
    """A payload that was rejected in a run stays rejected after others were asked and rejected."""
    for verb in ("begin_asking", "reject", "other_asking", "reject"):
        ledger.do(verb)
    assert isinstance(ledger.do("other"), Refused)
    assert ledger.situation() == "rejected"


def test_a_living_owner_is_not_overtaken(ledger: Ledger) -> None:
    """However long an owner takes, nobody else starts its effect while it lives."""
    ledger.reach("executing")
    ledger.do("wait")
    assert isinstance(ledger.do("begin_deduped", worker=1), Busy)
    ledger.do("sweep", worker=1)
    assert ledger.situation() == "executing"


def test_what_is_held_stays_with_the_run_that_holds_it(ledger: Ledger) -> None:
    """A doubt that another run clears up is paid by the run that had reserved the money."""
    ledger.reach("in_doubt")
    assert isinstance(ledger.do("begin_deduped", run="s"), Started)
    assert ledger.do("returned") is True
    assert ledger.table("SELECT run_id, held, spent FROM runs ORDER BY run_id") == [
        ("r", 0, COST),
        ("s", 0, 0),
    ]
    assert ledger.table("SELECT span, held, spent FROM budgets") == [("run:r", 0, COST)]


def test_a_lost_owner_is_told_in_the_run_it_worked_for(ledger: Ledger) -> None:
    """The doubt about an effect is written into the record of the run that began it."""
    ledger.reach("orphaned")
    ledger.do("begin", run="s")
    kinds = "SELECT kind FROM events WHERE run_id = ? ORDER BY seq"
    assert ledger.table(kinds, "r")[-1] == ("effect.in_doubt",)
    assert ledger.table(kinds, "s") == [("run.started",)]


def test_a_hook_does_not_decide_while_the_body_may_still_run(ledger: Ledger) -> None:
    """A hook's no counts only once the owner is dead or the abandoned body's time is over."""
    ledger.reach("executing")
    set_lease(ledger, hours=1)
    ledger.amend(state="in_doubt")
    ledger.do("reconciled")
    assert ledger.situation() == "in_doubt"
    ledger.clock.advance(hours=2)
    ledger.do("reconciled")
    assert ledger.situation() == "failed"


def test_another_start_is_not_cut_off(ledger: Ledger) -> None:
    """Who is interrupted lets go of the start it has made, and of nobody else's."""
    ledger.reach("executing")
    lost = Interrupted(ref("s"), "k", "another", None, began=True, may_act=False)
    ledger.workers[0].transact(settling.abandon, lost)
    assert ledger.situation() == "executing"


def test_who_is_interrupted_with_an_end_at_hand_leaves_that_end(ledger: Ledger) -> None:
    """An end that is known is written down instead of a doubt."""
    ledger.reach("executing")
    end = Settlement(ref(), "k", 1, 1, EffectState.SUCCEEDED, {}, result="1")
    lost = Interrupted(ref(), "k", "c", end, began=True, may_act=False)
    ledger.workers[0].transact(settling.abandon, lost)
    row = ledger.row()
    assert row is not None
    assert (row.state, row.result) == ("succeeded", "1")


def set_lease(ledger: Ledger, hours: int) -> None:
    """Let the effect's body have that much time left."""
    ledger.amend(lease_until=ledger.clock.now() + hours * 3_600_000_000)


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

    @initialize()
    def begin(self) -> None:
        """Open a store of one's own."""
        self.folder = folder()
        self.ledger = Ledger(Path(self.folder.name) / "a.db", FakeClock(), ("r", "s"))
        self.models = {"k1": Model(), "k2": Model()}
        self.rejected: set[tuple[str, str, str]] = set()
        self.seen = [self.ledger.clock.now()] * 2
        self.is_back = False

    def teardown(self) -> None:
        """Close it."""
        self.ledger.close()
        self.folder.cleanup()

    def now(self, worker: int) -> int:
        """Return the time as *worker* sees it: it never runs backwards for one process."""
        self.seen[worker] = max(self.seen[worker], self.ledger.clock.now())
        return self.seen[worker]

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
            fences = self.ledger.table(
                "SELECT data ->> 'fence' FROM events WHERE kind = 'step.started'"
                " AND data ->> 'key' = ? ORDER BY 1", key,
            )  # fmt: skip
            assert [fence for (fence,) in fences] == list(range(1, model.fence + 1))
            assert model.fence <= model.permits

    @invariant()
    def the_chains_are_whole(self) -> None:
        """Both runs' records verify."""
        for run in ("r", "s"):
            assert self.ledger.workers[0].read(broken_link, TENANT, run) is None

    @invariant()
    def the_budgets_are_the_sum_of_the_rows(self) -> None:
        """What is held and spent is what the effects that are open or done say."""
        rows = self.ledger.table("SELECT run_id, state, cost FROM effects")
        for run in ("r", "s"):
            mine = [(state, cost) for owner, state, cost in rows if owner == run]
            held = sum(c for s, c in mine if s in (EffectState.EXECUTING, EffectState.IN_DOUBT))
            spent = sum(cost for state, cost in mine if state == EffectState.SUCCEEDED)
            calls = (held + spent) // COST
            told = "SELECT held, spent, tool_calls FROM runs WHERE run_id = ?"
            kept = "SELECT held, spent, calls FROM budgets WHERE span = ?"
            assert self.ledger.table(told, run) == [(held, spent, calls)]
            assert self.ledger.table(kept, f"run:{run}") in ([(held, spent, calls)], [])

    @invariant()
    def an_approval_is_used_once(self) -> None:
        """No approval starts two effects, and none is used twice."""
        used = self.ledger.table(
            "SELECT data ->> 'approval_id' FROM events WHERE kind = 'approval.used'"
        )
        assert len(set(used)) == len(used)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=100, stateful_step_count=30)


def test_the_table_is_complete() -> None:
    """The table has an answer for each situation, and leads to known situations only."""
    assert set(LEGAL) == set(SITUATIONS)
    assert set(itertools.chain(*(LEGAL[s].values() for s in LEGAL))) <= set(SITUATIONS)
