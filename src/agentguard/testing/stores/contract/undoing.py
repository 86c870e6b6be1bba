"""Undos: what an effect has to be for one to start, and that both rows change together."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from ....errors import DecisionRefused, EffectInDoubt, EffectUndone
from ....ledger import effects, settling
from ....ledger.compensating import undo_key
from ....ledger.lifecycle import cancel_run
from ....ledger.values import Refused, RunRef, Settlement, Started
from ....model import EffectState
from ..ledger import Ledger, intent
from ..table import PATHS, SITUATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ....ledger.values import Answer

KEY = "ag1_k"
UNDO = undo_key(KEY)
REFUSED_WITH = {
    "executing": EffectInDoubt, "orphaned": EffectInDoubt, "in_doubt": EffectInDoubt,
    "succeeded": None,
}  # fmt: skip


class Undoing:
    """An undo starts only for what is known to have happened, and ends on both rows at once."""

    @staticmethod
    def _undo(ledger: Ledger, run: str = "r", *, by: str = "agent:bot") -> Answer:
        """Ask to start the undo of the effect."""
        wish = intent(
            RunRef(ledger.tenant, run, by), UNDO, tool="pay.undo", payload="u", undoes=KEY, cost=0,
            reservations=(),
        )  # fmt: skip
        return ledger.workers[0].transact(effects.begin, wish)[0]

    @staticmethod
    def _settle(ledger: Ledger, state: EffectState = EffectState.SUCCEEDED, run: str = "r") -> None:
        doubt = "unclear" if state is EffectState.IN_DOUBT else None
        end = Settlement(ledger.ref(run), UNDO, 1, 2, state, {}, doubt_reason=doubt)
        assert ledger.workers[0].transact(settling.settle, end).written

    @staticmethod
    def _marks(ledger: Ledger) -> tuple[str | None, str | None]:
        row = ledger.row(KEY)
        assert row is not None
        return row.result_state, row.undo

    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_an_undo_starts_only_in_a_transaction_that_sees_its_effect_as_succeeded(
        self, new_ledger: Callable[..., Ledger], situation: str
    ) -> None:
        """While it may still happen or is in doubt, and where it did not happen, nothing starts."""
        self._needs(situation)  # type: ignore[attr-defined] # of Transitions
        ledger = new_ledger("r", "other")
        for verb in PATHS[situation]:
            ledger.do(verb, KEY)
        answer = self._undo(ledger, "other")
        expected = REFUSED_WITH.get(situation, DecisionRefused)
        if expected is None:
            assert isinstance(answer, Started)
            return
        assert isinstance(answer, Refused)
        assert type(answer.error) is expected
        assert ledger.row(UNDO) is None

    def test_an_undo_that_succeeds_marks_its_effect_in_the_same_transaction(
        self, new_ledger: Callable[..., Ledger]
    ) -> None:
        """The effect's row names what undid it, and its record tells so, from that commit on."""
        ledger = new_ledger()
        ledger.do("begin", KEY)
        ledger.do("returned", KEY)
        assert isinstance(self._undo(ledger), Started)
        assert self._marks(ledger)[0] != "undone"
        self._settle(ledger)
        assert self._marks(ledger) == ("undone", UNDO)
        told = {"key": KEY, "tool": "pay", "undo": UNDO, "outcome": "undone"}
        assert ("compensated", told) in ledger.events()

    def test_an_undo_in_another_run_is_told_in_the_run_of_its_effect(
        self, new_ledger: Callable[..., Ledger]
    ) -> None:
        """Whoever reads what a run did finds that it was undone."""
        ledger = new_ledger("r", "other")
        ledger.do("begin", KEY)
        ledger.do("returned", KEY)
        self._undo(ledger, "other")
        self._settle(ledger, run="other")
        assert ledger.events("r")[-1][0] == "compensated"

    @pytest.mark.parametrize(("ruling", "mark"), [("happened", "undone"), ("not_happened", None)])
    def test_a_ruling_that_an_undo_happened_marks_its_effect_too(
        self, new_ledger: Callable[..., Ledger], ruling: str, mark: str | None
    ) -> None:
        """An undo in doubt leaves its effect as it is until somebody rules."""
        ledger = new_ledger()
        ledger.do("begin", KEY)
        ledger.do("returned", KEY)
        self._undo(ledger)
        self._settle(ledger, EffectState.IN_DOUBT)
        before = self._marks(ledger)[0]
        tenant, by = ledger.tenant, ("dana", "I looked")
        ledger.workers[0].transact(settling.resolve, tenant, UNDO, ruling, *by)
        assert self._marks(ledger)[0] == (mark or before)

    def test_what_is_undone_is_not_undone_again(self, new_ledger: Callable[..., Ledger]) -> None:
        """A second undo under whatever key does not start."""
        ledger = new_ledger()
        ledger.do("begin", KEY)
        ledger.do("returned", KEY)
        self._undo(ledger)
        self._settle(ledger)
        wish = intent(ledger.ref(), "comp/other", tool="pay.undo", undoes=KEY)
        answer = ledger.workers[0].transact(effects.begin, wish)[0]
        assert isinstance(answer, Refused)
        assert isinstance(answer.error, EffectUndone)

    def test_two_who_undo_at_once_start_it_once(self, new_ledger: Callable[..., Ledger]) -> None:
        """One of them starts the undo, the other one hears that it is being executed."""
        ledger = new_ledger("r", "other")
        ledger.do("begin", KEY)
        ledger.do("returned", KEY)
        found: list[Answer] = []
        threads = [
            threading.Thread(target=lambda run=run: found.append(self._undo(ledger, run)))
            for run in ("r", "other")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(type(answer).__name__ for answer in found) == ["Busy", "Started"]

    @pytest.mark.parametrize(("by", "starts"), [("agent:bot", False), ("person:dana", True)])
    def test_only_people_undo_in_a_run_that_was_stopped(
        self, new_ledger: Callable[..., Ledger], by: str, *, starts: bool
    ) -> None:
        """A cancelled run starts nothing by itself, and can still be rolled back."""
        ledger = new_ledger()
        ledger.do("begin", KEY)
        ledger.do("returned", KEY)
        ledger.workers[0].transact(cancel_run, ledger.tenant, "r", "sam", "incident")
        assert isinstance(self._undo(ledger, by=by), Started) is starts

    def test_people_undo_nothing_in_a_run_that_is_at_work(
        self, new_ledger: Callable[..., Ledger]
    ) -> None:
        """What the run writes meanwhile would stay, so the start of the undo is refused."""
        ledger = new_ledger()
        ledger.do("begin", KEY)
        ledger.do("returned", KEY)
        answer = self._undo(ledger, by="person:dana")
        assert isinstance(answer, Refused)
        assert "is running again" in answer.error.message
