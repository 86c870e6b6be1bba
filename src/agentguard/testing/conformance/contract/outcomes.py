"""Outcomes that can be trusted: refuted ones are undone, drafts wait, endings end, loops stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..scene import call
from ..world import tools_of

if TYPE_CHECKING:
    from ..stage import Stage

ORDER = call("order", "T-1")
PAY = call("pay", "T-1", amount="20")


class Outcomes:
    """Verified, undone, drafted, planned, ended."""

    def test_a_confirmed_outcome_is_told_to_the_model(self, stage: Stage) -> None:
        """Where the verifier says yes the model gets the result, and the verdict is on record."""
        outcome = stage.play([ORDER])
        assert outcome.told == {"call-1": "ordered for T-1"}
        assert [event.data["passed"] for event in events(stage, "verified")] == [True]
        assert stage.world.effects == ["order T-1"]

    def test_a_refuted_outcome_is_undone_and_never_repeated(self, stage: Stage) -> None:
        """After the verifier's no the effect is undone once, and its key starts nothing any more."""
        stage.world.raise_flag("refuted")
        outcome = stage.play([ORDER], [call("order", "T-1", "call-2")])
        assert outcome.read("call-1")["error"] == "verification_failed"
        assert outcome.read("call-2")["error"] in ("verification_failed", "effect_undone")
        assert outcome.said == "done"
        assert stage.world.effects == ["order T-1", "cancel T-1"]
        assert stage.doubts() == []

    def test_the_model_that_asks_for_a_call_may_not_verify_it(self, stage: Stage) -> None:
        """The runtime's own model, as a verifier under another name, is refused; nothing happens."""
        outcome = stage.play([call("ship", "T-1")])
        assert type(outcome.error).__name__ == "ConfigurationError"
        assert "which proposes the calls" in str(outcome.error)
        assert stage.world.effects == []

    def test_a_draft_does_not_happen_and_the_run_goes_on(self, stage: Stage) -> None:
        """The model is told that its call was written down; nobody waits for it."""
        outcome = stage.play([PAY], budget={"autonomy": "draft"})
        assert outcome.read("call-1")["error"] == "action_drafted"
        assert (outcome.said, stage.world.effects) == ("done", [])
        assert stage.status() == "succeeded"

    def test_a_person_executes_a_draft_once(self, stage: Stage) -> None:
        """Approved and executed, exactly the drafted call happens; executed again, nothing does."""
        stage.play([ORDER], budget={"autonomy": "draft"})
        (draft,) = stage.waiting()
        stage.decide(draft.id)
        results = [executed(stage, draft.id) for _ in range(2)]
        assert results == ["ordered for T-1"] * 2
        assert stage.world.effects == ["order T-1"]

    def test_under_approve_every_write_asks(self, stage: Stage) -> None:
        """A write that no rule asks about waits for a person; reads go on."""
        outcome = stage.play([call("look", "T-1", "call-0")], [PAY], budget={"autonomy": "approve"})
        assert outcome.waiting == tuple(approval.id for approval in stage.waiting())
        assert stage.world.effects == ["look T-1"]
        stage.decide(outcome.waiting[0])
        outcome = stage.play(budget={"autonomy": "approve"})
        assert outcome.told["call-1"] == "paid 20 for T-1"
        assert stage.world.effects == ["look T-1", "pay T-1 20"]

    def test_after_a_safe_ending_nothing_more_is_written(self, stage: Stage) -> None:
        """A doubt ends the run: the caller is told how, and no later write of the run starts."""
        ends = {"falls_back_to": "draft"}
        outcome = stage.play([call("lose", "T-1")], [PAY], budget=ends)
        assert type(outcome.error).__name__ == "FellBack"
        assert stage.status() == "halted"
        again = stage.play([PAY], conversation="asked again", budget=ends)
        assert type(again.error).__name__ == "RunHalted"
        assert stage.world.effects == ["lose T-1"]

    def test_a_call_outside_the_plan_does_not_start(self, stage: Stage) -> None:
        """What the run's plan does not name is refused, and the model is told so."""
        with stage.guard.run("conformance", run_id="r-1") as run:
            run.plan([{"tool": "order", "arguments": {"ticket": "T-1"}}], outside="refuse")
        outcome = stage.play([PAY], [call("order", "T-1", "call-2")])
        assert outcome.read("call-1")["error"] == "plan_violation"
        assert outcome.told["call-2"] == "ordered for T-1"
        assert stage.world.effects == ["order T-1"]

    def test_a_loop_in_other_words_is_stopped(self, stage: Stage) -> None:
        """The same question with other blanks and capitals is the same question."""
        worded = ["T-1", " t-1", "T-1 ", "t-1 ", "  T-1", "t-1", " T-1 ", "  t-1  "]
        turns = [[call("look", words, f"call-{n}")] for n, words in enumerate(worded)]
        outcome = stage.play(*turns)
        assert type(outcome.error).__name__ == "LoopDetected"
        assert len(stage.world.effects) <= 4


def events(stage: Stage, kind: str) -> list[Any]:
    """Return the events of one kind in the run's record."""
    return [event for event in stage.guard.runs.events("r-1") if event.kind == kind]


def executed(stage: Stage, approval_id: str) -> Any:
    """Execute a draft as a person does, in the stage's colour."""
    tools = list(tools_of(stage.world, is_async=stage.is_async).values())
    if stage.is_async:
        return asyncio.run(stage.guard.approvals.aexecute(approval_id, by="erin", tools=tools))
    return stage.guard.approvals.execute(approval_id, by="erin", tools=tools)
