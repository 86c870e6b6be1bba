"""Run, identity and call reach the tool wherever the runtime executes it, and the record tells all."""

from __future__ import annotations

import json

from .... import Principal
from ..plain import PlainPython
from ..scene import INPUT_TOKENS, MODEL, OUTPUT_TOKENS, call, calls
from ..stage import Stage


class Context:
    """Context, streams and the record."""

    def test_run_and_identity_reach_the_tool(self, stage: Stage) -> None:
        """In the runtime's threads and tasks `current_run()` is the run, its principal and call."""
        outcome = stage.play(calls("who", ["T-1", "T-2", "T-3"]))
        for number in (1, 2, 3):
            ticket, run, agent, tenant, call_id = json.loads(outcome.told[f"call-{number}"])
            assert [ticket, run, agent, tenant] == [f"T-{number}", "r-1", "support", "acme"]
            assert f"call-{number}" in call_id

    def test_two_runs_side_by_side_do_not_mix(self, stage: Stage) -> None:
        """Each run's tools see their own run and principal, and each record its own calls."""
        tickets = calls("who", ["T-1", "T-2", "T-3", "T-4"])
        scenes = [
            stage.scene(
                tickets, conversation=f"talk-{n}", run_id=f"r-{n}",
                principal=Principal(agent=f"agent-{n}", tenant="acme"),
            )
            for n in range(4)
        ]  # fmt: skip
        outcomes = stage.play_together(scenes)
        for number, outcome in enumerate(outcomes):
            told = [json.loads(text)[1:3] for text in outcome.told.values()]
            assert told == [[f"r-{number}", f"agent-{number}"]] * 4
            steps = stage.steps(f"r-{number}")
            assert [s.name for s in steps].count("who") == 4

    def test_a_streamed_conversation_is_guarded_like_any_other(self, stage: Stage) -> None:
        """Streaming pauses, resumes, writes once and ends its run with the last piece."""
        paused = stage.play([call("pay", "T-1", amount="75")], "all is paid now", stream=True)
        stage.decide(paused.waiting[0])
        outcome = stage.play(stream=True)
        assert outcome.said == "all is paid now"
        assert outcome.chunks > 0
        assert stage.world.effects == ["pay T-1 75"]
        assert stage.status() == "succeeded"

    def test_every_model_call_is_in_the_record_with_its_tokens(self, stage: Stage) -> None:
        """Model, input and output tokens of each call are what the provider counted."""
        stage.play([call("look", "T-1")])
        asked = [step for step in stage.steps() if step.kind == "model"]
        assert [step.name for step in asked] == [MODEL] * 2
        info = stage.guard.runs.show("r-1")
        assert info.model_calls == 2
        assert (info.input_tokens, info.output_tokens) == (2 * INPUT_TOKENS, 2 * OUTPUT_TOKENS)

    def test_the_record_tells_the_same_story_on_every_runtime(self, stage: Stage) -> None:
        """Steps, outcomes and decisions are those of plain Python, for the same conversation."""
        reference = Stage(PlainPython, stage.colour, stage.folder / "reference")
        stories = [story(played) for played in (stage, reference)]
        reference.guard.close()
        assert stories[0] == stories[1]

    def test_the_record_is_whole(self, stage: Stage) -> None:
        """After a pause, a refusal and a write, the run's hash chain holds."""
        stage.decide(
            stage.play([call("pay", "T-1", amount="75")], [call("erase", "T-1")]).waiting[0]
        )
        stage.play()
        assert stage.guard.runs.verify("r-1") is None


def story(stage: Stage) -> list[tuple[str, str, str | None, str]]:
    """Play a refund with a lookup, a pause, a repeat and a refusal; return what the record tells."""
    paused = stage.play(
        [call("look", "T-1", "call-1")],
        [call("pay", "T-1", "call-2", amount="75")],
        [call("pay", "T-1", "call-3", amount="75")],
        [call("erase", "T-1", "call-4")],
        [call("comment", "T-1", "call-5", text="paid")],
    )
    stage.decide(paused.waiting[0])
    stage.play()
    return [(s.kind, s.name, s.decision, s.outcome) for s in stage.steps()]
