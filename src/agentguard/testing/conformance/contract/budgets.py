"""No limit of a run is crossed, by nobody and at no time; what is over it never starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..scene import call, calls

if TYPE_CHECKING:
    from ..scene import Outcome
    from ..stage import Stage

PATIENT = [[call("look", f"T-{n}", f"call-{n}")] for n in range(1, 9)]
"""A model that looks eight tickets up, one after the other."""


def refusal(outcome: Outcome) -> Any:
    """Return what the caller got, which has to be a budget's refusal."""
    assert outcome.said is None
    return outcome.error


class Budgets:
    """Budgets that cannot be overshot."""

    def test_no_more_steps_than_the_run_has(self, stage: Stage) -> None:
        """Model and tool calls share max_steps; the caller is told which limit it was."""
        outcome = stage.play(*PATIENT, budget={"max_steps": 5})
        assert refusal(outcome).budget == "max_steps"
        assert len(stage.steps()) <= 5
        assert len(stage.world.effects) == 2

    def test_no_more_model_calls_than_the_run_has(self, stage: Stage) -> None:
        """The third model call is not made."""
        outcome = stage.play(*PATIENT, budget={"max_model_calls": 2})
        assert refusal(outcome).budget == "max_model_calls"
        assert stage.guard.runs.show("r-1").model_calls == 2
        assert len(stage.world.effects) == 2

    def test_no_more_tool_calls_than_the_run_has(self, stage: Stage) -> None:
        """The fourth tool call does not start."""
        outcome = stage.play(*PATIENT, budget={"max_tool_calls": 3})
        assert refusal(outcome).budget == "max_tool_calls"
        assert len(stage.world.effects) == 3

    def test_parallel_calls_take_no_more_than_there_is(self, stage: Stage) -> None:
        """Eight calls in one message, three allowed: three run."""
        outcome = stage.play(
            calls("look", [f"T-{n}" for n in range(8)]), budget={"max_tool_calls": 3}
        )
        assert refusal(outcome).budget == "max_tool_calls"
        assert len(stage.world.effects) == 3

    def test_parallel_calls_spend_no_more_than_a_tool_may(self, stage: Stage) -> None:
        """Six refunds of 30 in one message against 100: three are paid."""
        outcome = stage.play(calls("pay", [f"T-{n}" for n in range(6)], amount="30"))
        assert refusal(outcome).budget.startswith("max_spend_usd")
        assert len(stage.world.effects) == 3

    def test_no_model_call_is_made_once_the_runs_money_is_spent(self, stage: Stage) -> None:
        """At 0.10 a call, 0.25 are spent with the third; the fourth is not made."""
        outcome = stage.play(*PATIENT, budget={"max_spend_usd": "0.25"})
        assert refusal(outcome).budget == "max_spend_usd"
        assert stage.guard.runs.show("r-1").model_calls == 3

    def test_no_more_seconds_than_the_run_has(self, stage: Stage) -> None:
        """A run that has worked for longer than its time starts no further call."""
        outcome = stage.play(
            [call("wait", "T-1", "call-1", seconds=90)],
            [call("pay", "T-1", "call-2", amount="20")],
            budget={"max_seconds": 60},
        )
        assert refusal(outcome).budget == "max_seconds"
        assert stage.world.effects == []

    def test_the_same_call_again_and_again_is_stopped(self, stage: Stage) -> None:
        """A model in a loop is stopped at max_repeats."""
        turns = [[call("look", "T-1", f"call-{n}")] for n in range(1, 9)]
        outcome = stage.play(*turns, budget={"max_repeats": 3})
        assert refusal(outcome).kind == "loop_detected"
        assert stage.world.effects == ["look T-1"] * 3

    def test_a_resumed_run_has_no_more_than_the_rest_of_its_budget(self, stage: Stage) -> None:
        """What was used before a pause is used after it."""
        paused = stage.play(
            [call("look", "T-1", "call-1")],
            [call("pay", "T-1", "call-2", amount="75")],
            [call("look", "T-2", "call-3")],
            [call("look", "T-3", "call-4")],
            budget={"max_tool_calls": 3},
        )
        stage.decide(paused.waiting[0])
        outcome = stage.play(budget={"max_tool_calls": 3})
        assert refusal(outcome).budget == "max_tool_calls"
        assert stage.world.effects == ["look T-1", "pay T-1 75", "look T-2"]
