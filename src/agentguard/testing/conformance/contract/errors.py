"""What the model is told, and what is told to the caller instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..scene import call

if TYPE_CHECKING:
    from ..stage import Stage


class Errors:
    """Error semantics that do not encourage loops."""

    def test_a_refused_call_is_told_to_the_model_as_one_small_object(self, stage: Stage) -> None:
        """Kind, sentence, whether to try again, what to do instead; and the conversation goes on."""
        outcome = stage.play([call("erase", "T-1")])
        told = outcome.read("call-1")
        assert told["error"] == "permission_denied"
        assert told["retryable"] is False
        assert {"message", "advice"} <= told.keys()
        assert outcome.said == "done"
        assert stage.world.effects == []

    def test_an_exhausted_budget_of_a_tool_reaches_the_caller(self, stage: Stage) -> None:
        """What halts a run is no answer for a model, which would try around it."""
        turns = [[call("comment", "T-1", f"call-{n}", text=str(n))] for n in range(1, 6)]
        outcome = stage.play(*turns)
        assert outcome.error is not None
        assert type(outcome.error).__name__ == "BudgetExceeded"
        assert stage.status() == "failed"
        assert len(stage.world.effects) == 3

    def test_a_kill_switch_stops_the_run(self, stage: Stage) -> None:
        """After the switch nothing starts, and the caller is told why."""
        stage.guard.kill(tool="pay", by="dana", reason="wrong bank")
        outcome = stage.play([call("pay", "T-1", amount="20")])
        assert outcome.error is not None
        assert type(outcome.error).__name__ == "RunHalted"
        assert "wrong bank" in str(outcome.error)
        assert stage.world.effects == []

    def test_a_run_that_was_halted_goes_on_once_the_reason_is_gone(self, stage: Stage) -> None:
        """The call that was stopped is carried out in the same conversation, once."""
        stage.guard.kill(tool="pay", by="dana", reason="wrong bank")
        stage.play([call("pay", "T-1", amount="20")])
        stage.guard.kill(tool="pay", by="dana", reason="right bank", lift=True)
        outcome = stage.play()
        assert outcome.told == {"call-1": "paid 20 for T-1"}
        assert outcome.said == "done"
        assert stage.world.effects == ["pay T-1 20"]
