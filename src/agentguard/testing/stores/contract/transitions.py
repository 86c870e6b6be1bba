"""The whole state machine of an effect, through the ledger's verbs (guarantees G1 to G4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from ....ledger import settling
from ....ledger.values import Busy, Interrupted, Refused, Started
from ....model import EffectState
from ..ledger import COST, Ledger
from ..table import BEGINS, LEGAL, PATHS, SITUATIONS, VERBS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ....protocols import Store
    from ...clock import FakeClock
    from ..openings import Openings

Found = tuple[str, int, bool]
"""Situation, fence, and whether the caller was told to start."""


class Transitions:
    """Each transition happens, and nothing else does."""

    alone: ClassVar[str]
    without_proof: ClassVar[str]

    @pytest.fixture
    def new_ledger(
        self, stores: list[Store], clock: FakeClock, openings: Openings
    ) -> Callable[..., Ledger]:
        """Make ledgers, each for a tenant of its own, with two workers."""
        tenants = iter(range(1_000_000))

        def elsewhere(work: Callable[[Store], object]) -> None:
            child = openings.fork(lambda store, say: say(bool(work(store))))
            child.hear()
            child.kill()

        def make(*runs: str) -> Ledger:
            workers = [stores[0], stores[-1]]
            return Ledger(workers, clock, f"t{next(tenants)}", runs or ("r",), elsewhere)

        return make

    def _needs(self, situation: str) -> None:
        """Skip a situation that this store cannot tell."""
        reason = self.alone or self.without_proof
        if "begin_and_die" in PATHS[situation] and reason:
            pytest.skip(reason)

    @staticmethod
    def _apply(ledger: Ledger, verb: str) -> Found:
        """Apply one verb and return what came of it."""
        started = isinstance(ledger.do(verb), Started)
        row = ledger.row()
        return ledger.situation(), row.fence if row else 0, started

    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_each_transition_of_the_table_happens(
        self, new_ledger: Callable[..., Ledger], situation: str
    ) -> None:
        """From each situation each verb leads where the table says; a start raises the fence by one."""
        self._needs(situation)
        found: dict[str, Found] = {}
        expected: dict[str, Found] = {}
        for verb, after in LEGAL[situation].items():
            ledger = new_ledger()
            ledger.reach(situation)
            assert ledger.situation() == situation
            row = ledger.row()
            starts = verb in BEGINS and after == "executing"
            expected[verb] = after, (row.fence if row else 0) + starts, starts
            found[verb] = self._apply(ledger, verb)
        assert found == expected

    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_nothing_but_the_table_happens(
        self, new_ledger: Callable[..., Ledger], situation: str
    ) -> None:
        """What the table does not have changes no row, no vote and no money, and starts nothing."""
        self._needs(situation)
        changed: dict[str, Any] = {}
        for verb in VERBS:
            if verb in LEGAL[situation]:
                continue
            ledger = new_ledger()
            ledger.reach(situation)
            before = ledger.everything()
            answer = ledger.do(verb)
            if isinstance(answer, Started) or ledger.everything() != before:
                changed[verb] = answer
        assert changed == {}

    @pytest.mark.parametrize("situation", ["succeeded", "failed", "failed_final"])
    def test_a_late_answer_is_kept_as_evidence(
        self, new_ledger: Callable[..., Ledger], situation: str
    ) -> None:
        """Whoever answers after the effect has its end changes nothing of it, but is heard."""
        ledger = new_ledger()
        ledger.reach(situation)
        assert ledger.do("unclear") is False
        row = ledger.row()
        assert row is not None
        assert row.late == {"fence": 1, "outcome": "in_doubt", "run_id": "r"}
        assert ledger.events()[-1][0] == "effect.evidence"

    def test_a_refused_start_is_in_the_record(self, new_ledger: Callable[..., Ledger]) -> None:
        """A call that is not started leaves its reason in the run's chain."""
        ledger = new_ledger()
        ledger.reach("succeeded")
        assert isinstance(ledger.do("other"), Refused)
        kind, data = ledger.events()[-1]
        assert (kind, data["error"]) == ("step.decided", "idempotency_conflict")

    def test_a_rejection_stands_through_another_payload(
        self, new_ledger: Callable[..., Ledger]
    ) -> None:
        """A payload that was rejected in a run stays rejected after others were asked and rejected."""
        ledger = new_ledger()
        for verb in ("begin_asking", "reject", "other_asking", "reject"):
            ledger.do(verb)
        assert isinstance(ledger.do("other"), Refused)
        assert ledger.situation() == "rejected"

    def test_a_living_owner_is_not_overtaken(self, new_ledger: Callable[..., Ledger]) -> None:
        """However long an owner takes, nobody else starts its effect while it lives."""
        ledger = new_ledger()
        ledger.reach("executing")
        ledger.do("wait")
        assert isinstance(ledger.do("begin_deduped", worker=1), Busy)
        ledger.do("sweep", worker=1)
        assert ledger.situation() == "executing"

    def test_what_is_held_stays_with_the_run_that_holds_it(
        self, new_ledger: Callable[..., Ledger]
    ) -> None:
        """A doubt that another run clears up is paid by the run that had reserved the money."""
        ledger = new_ledger("r", "s")
        ledger.reach("in_doubt")
        assert isinstance(ledger.do("begin_deduped", run="s"), Started)
        assert ledger.do("returned") is True
        *_, budgets, runs = ledger.everything()
        assert [(run, held, spent) for run, held, spent, _ in runs] == [("r", 0, COST), ("s", 0, 0)]
        assert [(span, held, spent) for _, span, _, spent, held in budgets] == [("run:r", 0, COST)]

    @pytest.mark.usefixtures("can_prove_death")
    def test_a_lost_owner_is_told_in_the_run_it_worked_for(
        self, new_ledger: Callable[..., Ledger]
    ) -> None:
        """The doubt about an effect is written into the record of the run that began it."""
        ledger = new_ledger("r", "s")
        ledger.reach("orphaned")
        ledger.do("begin", run="s")
        assert ledger.events("r")[-1][0] == "effect.in_doubt"
        assert [kind for kind, _ in ledger.events("s")] == ["run.started"]

    def test_a_hook_does_not_decide_while_the_body_may_still_run(
        self, new_ledger: Callable[..., Ledger]
    ) -> None:
        """A hook's no counts only once the time is over that an abandoned body may still take."""
        ledger = new_ledger()
        ledger.reach("executing")
        end = ledger.end("unclear", body_ended=False)
        ledger.workers[0].transact(settling.settle, end)
        ledger.do("reconciled")
        assert ledger.situation() == "in_doubt"
        ledger.clock.advance(hours=2)
        ledger.do("reconciled")
        assert ledger.situation() == "failed"

    def test_another_start_is_not_cut_off(self, new_ledger: Callable[..., Ledger]) -> None:
        """Who is interrupted lets go of the start it has made, and of nobody else's."""
        ledger = new_ledger("r", "s")
        ledger.reach("executing")
        lost = Interrupted(ledger.ref("s"), "k", "another", None, began=True, may_act=False)
        ledger.workers[0].transact(settling.abandon, lost)
        assert ledger.situation() == "executing"

    def test_who_is_interrupted_with_an_end_at_hand_leaves_that_end(
        self, new_ledger: Callable[..., Ledger]
    ) -> None:
        """An end that is known is written down instead of a doubt."""
        ledger = new_ledger()
        ledger.reach("executing")
        end = ledger.end("returned")
        end.result = "1"
        lost = Interrupted(ledger.ref(), "k", "c", end, began=True, may_act=False)
        ledger.workers[0].transact(settling.abandon, lost)
        row = ledger.row()
        assert row is not None
        assert (row.state, row.result) == (EffectState.SUCCEEDED, "1")
