"""A call that needs a person waits for one, and runs as that person saw it, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..scene import call, calls

if TYPE_CHECKING:
    from ....model import Approval
    from ...clock import FakeClock
    from ..stage import Stage

PATIENCE = 20
"""Turns that a runtime may take until it has begun all calls of a message."""
PAY = call("pay", "T-1", amount="75")


class Approvals:
    """Approved means this call (G5)."""

    def test_a_call_that_needs_a_person_pauses_the_run(self, stage: Stage) -> None:
        """Nothing runs, the caller sees which approval is waited for, and the run waits."""
        outcome = stage.play([PAY])
        (waiting,) = stage.waiting()
        assert outcome.waiting == (waiting.id,)
        assert (outcome.said, outcome.error, outcome.told) == (None, None, {})
        assert stage.world.effects == []
        assert stage.status() == "waiting"

    def test_while_nobody_has_decided_the_run_goes_on_waiting(self, stage: Stage) -> None:
        """Waking the run is no yes: it waits for the same approval again."""
        first = stage.play([PAY])
        assert stage.play().waiting == first.waiting
        assert stage.world.effects == []

    def test_an_approved_call_runs_once(self, stage: Stage) -> None:
        """After a yes the run goes on, the call runs, and the model gets its result."""
        stage.decide(stage.play([PAY]).waiting[0])
        outcome = stage.play()
        assert outcome.told == {"call-1": "paid 75 for T-1"}
        assert outcome.said == "done"
        assert stage.world.effects == ["pay T-1 75"]
        assert stage.status() == "succeeded"

    def test_a_rejected_call_never_runs_and_the_model_gets_the_reason(self, stage: Stage) -> None:
        """After a no the run goes on without the call."""
        stage.decide(stage.play([PAY]).waiting[0], "reject", reason="the ticket says 57")
        outcome = stage.play()
        assert outcome.read("call-1")["error"] == "approval_rejected"
        assert "the ticket says 57" in outcome.told["call-1"]
        assert outcome.said == "done"
        assert stage.world.effects == []

    def test_an_edited_call_runs_as_edited(self, stage: Stage) -> None:
        """One person changes the amount, another approves that: the changed call runs."""
        assert edited(stage).startswith("paid 57 for T-1")
        assert stage.world.effects == ["pay T-1 57"]

    def test_the_model_is_told_what_a_person_changed(self, stage: Stage) -> None:
        """Beside the result of an edited call stands which arguments were changed, and to what."""
        told = edited(stage)
        assert "person changed" in told
        assert '"amount": "57"' in told

    def test_a_call_that_nobody_decides_in_time_does_not_run(
        self, stage: Stage, clock: FakeClock
    ) -> None:
        """After its time the approval is worth nothing, and the model is told."""
        stage.play([PAY])
        clock.advance(hours=2)
        outcome = stage.play()
        assert outcome.read("call-1")["error"] == "approval_expired"
        assert stage.world.effects == []

    def test_an_approval_that_came_in_time_and_expired_unused_starts_nothing(
        self, stage: Stage, clock: FakeClock
    ) -> None:
        """A yes of this morning does not start a call at night."""
        stage.decide(stage.play([PAY]).waiting[0])
        clock.advance(days=8)
        outcome = stage.play()
        assert stage.world.effects == []
        assert outcome.told == {} or outcome.read("call-1")["error"] == "approval_expired"

    def test_of_several_calls_at_once_each_gets_its_own_decision(self, stage: Stage) -> None:
        """Three calls in one message: approved, rejected and approved, and no answer is swapped."""
        stage.world.raise_flag("careful")
        outcome = stage.play(calls("close", ["T-1", "T-2", "T-3"]))
        asked = {a.arguments["ticket"]: a.id for a in settled(stage, outcome.waiting, 3)}
        stage.decide(asked["T-1"])
        stage.decide(asked["T-2"], "reject", reason="not yet")
        stage.decide(asked["T-3"])
        outcome = stage.play()
        assert outcome.told["call-1"] == "closed T-1"
        assert outcome.read("call-2")["error"] == "approval_rejected"
        assert outcome.told["call-3"] == "closed T-3"
        assert sorted(stage.world.effects) == ["close T-1", "close T-3"]

    def test_of_several_calls_at_once_the_decided_ones_run_once_while_others_wait(
        self, stage: Stage
    ) -> None:
        """One decision at a time: every wake-up runs what was approved since, nothing twice."""
        stage.world.raise_flag("careful")
        outcome = stage.play(calls("close", ["T-1", "T-2"]))
        asked = {a.arguments["ticket"]: a.id for a in settled(stage, outcome.waiting, 2)}
        stage.decide(asked["T-2"])
        assert stage.play().waiting == (asked["T-1"],)
        stage.decide(asked["T-1"])
        outcome = stage.play()
        assert outcome.said == "done"
        assert sorted(stage.world.effects) == ["close T-1", "close T-2"]

    def test_a_call_beside_one_that_waits_runs_once(self, stage: Stage) -> None:
        """A sibling without a rule runs at once and is not repeated when the run goes on."""
        paused = stage.play([call("comment", "T-1", "call-0", text="on it"), PAY])
        stage.decide(paused.waiting[0])
        outcome = stage.play()
        assert outcome.said == "done"
        assert sorted(stage.world.effects) == ["comment T-1 on it", "pay T-1 75"]

    def test_a_decision_at_a_terminal_counts(self, stage: Stage) -> None:
        """`agentguard approvals approve` in another process lets the call run."""
        (waiting,) = stage.play([PAY]).waiting
        stage.decide_elsewhere(waiting, "approve")
        assert stage.play().told == {"call-1": "paid 75 for T-1"}
        assert stage.world.effects == ["pay T-1 75"]

    def test_a_decision_through_the_runtimes_own_channel_counts(self, stage: Stage) -> None:
        """A person's answer may come the way that the runtime resumes by; it names its approval."""
        (waiting,) = stage.play([PAY]).waiting
        answer = {
            "approval_id": waiting, "decision": "approve", "by": "dana", "roles": ["finance"],
        }  # fmt: skip
        assert stage.play(answer=answer).told == {"call-1": "paid 75 for T-1"}
        assert stage.world.effects == ["pay T-1 75"]

    def test_a_process_may_end_while_its_run_waits(self, stage: Stage) -> None:
        """Paused in one process, decided in a second, carried out in a third: one effect."""
        paused = stage.play_elsewhere([PAY])
        assert paused is not None
        stage.decide_elsewhere(paused.waiting[0], "approve")
        resumed = stage.play_elsewhere()
        assert resumed is not None
        assert resumed.told == {"call-1": "paid 75 for T-1"}
        assert stage.world.effects == ["pay T-1 75"]

    def test_a_rejected_call_stays_rejected_when_its_rule_no_longer_asks(
        self, stage: Stage
    ) -> None:
        """The rule flips between question and resume; what people decided stands."""
        stage.world.raise_flag("careful")
        (waiting,) = stage.play([call("close", "T-1")]).waiting
        stage.decide(waiting, "reject", reason="still open")
        stage.world.lower_flag("careful")
        outcome = stage.play()
        assert outcome.read("call-1")["error"] == "approval_rejected"
        assert stage.world.effects == []

    def test_an_approval_runs_no_other_payload(self, stage: Stage) -> None:
        """A yes to 75 is none to 80: the other amount is refused or asked about anew."""
        stage.decide(stage.play([PAY]).waiting[0])
        outcome = stage.play([call("pay", "T-1", amount="80")], conversation="another talk")
        assert stage.world.effects == []
        assert outcome.waiting or outcome.read("call-1")["error"] == "idempotency_conflict"


def edited(stage: Stage) -> str:
    """Play a call that people change and approve; return what the model was told."""
    (waiting,) = stage.play([PAY]).waiting
    stage.decide(waiting, "edit", edits={"amount": "57"}, by="erin")
    stage.decide(waiting)
    return stage.play().told["call-1"]


def settled(stage: Stage, waiting: tuple[str, ...], count: int) -> list[Approval]:
    """Return the approvals that wait once all *count* were asked for.

    A runtime may show its caller the questions of one message one after the other, and end a turn
    at the first of them, before the other calls were begun.
    """
    found = stage.waiting()
    assert set(waiting) <= {a.id for a in found}
    for _ in range(PATIENCE):
        if len(found) < count:
            stage.play()
            found = stage.waiting()
    assert len(found) == count
    return found
