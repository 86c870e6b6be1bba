"""Effects happen once, however often the runtime or the model asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..scene import call, calls

if TYPE_CHECKING:
    from ..stage import Stage


class Writes:
    """Write once (G1, G2, G4)."""

    def test_a_call_that_the_model_makes_again_is_answered_from_the_record(
        self, stage: Stage
    ) -> None:
        """The second call of one intent runs nothing and gets the first one's result."""
        outcome = stage.play(
            [call("pay", "T-1", "call-1", amount="20")],
            [call("pay", "T-1", "call-2", amount="20.00")],
        )
        assert outcome.told == {"call-1": "paid 20 for T-1", "call-2": "paid 20 for T-1"}
        assert stage.world.effects == ["pay T-1 20"]

    def test_a_conversation_that_is_delivered_twice_writes_once(self, stage: Stage) -> None:
        """The same request from its beginning, in the same run: same answers, one effect."""
        turns = (
            [call("pay", "T-1", "call-1", amount="20")],
            [call("comment", "T-1", "call-2", text="paid")],
        )
        first = stage.play(*turns)
        second = stage.play(*turns, conversation="delivered again")
        assert first.told == second.told
        assert stage.world.effects == ["pay T-1 20", "comment T-1 paid"]

    def test_equal_calls_in_one_message_write_once(self, stage: Stage) -> None:
        """Parallel duplicates wait for the one that came first, and all get its result."""
        outcome = stage.play(calls("pay", ["T-1"] * 4, amount="20"))
        assert set(outcome.told.values()) == {"paid 20 for T-1"}
        assert len(outcome.told) == 4
        assert stage.world.effects == ["pay T-1 20"]

    def test_one_effect_per_call_of_the_model_where_repeating_is_right(self, stage: Stage) -> None:
        """With per="call", two calls write twice and a second delivery of both writes nothing."""
        turns = (
            [call("comment", "T-1", "call-1", text="hello")],
            [call("comment", "T-1", "call-2", text="hello")],
        )
        stage.play(*turns)
        stage.play(*turns, conversation="delivered again")
        assert stage.world.effects == ["comment T-1 hello"] * 2

    def test_calls_that_share_an_id_are_told_apart(self, stage: Stage) -> None:
        """Models give one id to different calls: each is carried out once, also when delivered twice."""
        turns = [call("comment", "T-1", text="hello")], [call("comment", "T-1", text="hello")]
        stage.play(*turns)
        assert stage.world.effects == ["comment T-1 hello"] * 2
        stage.play(*turns, conversation="delivered again")
        assert stage.world.effects == ["comment T-1 hello"] * 2

    def test_two_runs_that_want_the_same_effect_at_once_write_it_once(self, stage: Stage) -> None:
        """Two conversations in two runs, side by side, share one key and one effect."""
        turns = [call("pay", "T-1", amount="20")]
        runs = [stage.scene(turns, conversation=run, run_id=run) for run in ("r-1", "r-2")]
        outcomes = stage.play_together(runs)
        assert [o.told["call-1"] for o in outcomes] == ["paid 20 for T-1"] * 2
        assert stage.world.effects == ["pay T-1 20"]

    def test_a_key_with_another_payload_is_refused(self, stage: Stage) -> None:
        """A second refund of the ticket over another amount never runs; the model is told why."""
        outcome = stage.play(
            [call("pay", "T-1", "call-1", amount="20")], [call("pay", "T-1", "call-2", amount="30")]
        )
        assert outcome.read("call-2")["error"] == "idempotency_conflict"
        assert stage.world.effects == ["pay T-1 20"]

    def test_the_runtimes_own_retry_never_repeats_a_write(self, stage: Stage) -> None:
        """A write whose answer was lost is tried again by the runtime and starts no second time."""
        stage.play([call("lose", "T-1")], retries=2)
        assert stage.world.effects == ["lose T-1"]
        assert stage.doubts() == ["lose"]

    def test_a_write_that_says_nothing_happened_may_be_called_again(self, stage: Stage) -> None:
        """After NoEffect the same call starts again and succeeds, with one effect."""
        outcome = stage.play([call("reserve", "T-1", "call-1")], [call("reserve", "T-1", "call-2")])
        if outcome.said is None:  # the runtime hands a tool's own exception to its caller
            outcome = stage.play()
        assert "reserved for T-1" in outcome.told.values()
        assert stage.world.effects == ["reserve T-1"]

    def test_killed_before_the_effect_it_happens_once(self, stage: Stage) -> None:
        """A process that dies between start and effect leaves a doubt that the hook resolves."""
        stage.world.raise_flag("hook")
        stage.world.raise_flag("die before the effect")
        assert stage.play_elsewhere([call("pay", "T-1", amount="20")]) is None
        outcome = stage.play()
        assert outcome.told == {"call-1": "paid 20 for T-1"}
        assert stage.world.effects == ["pay T-1 20"]

    def test_killed_between_effect_and_record_it_happened_once(self, stage: Stage) -> None:
        """A process that dies after the effect leaves a doubt that the hook resolves: done."""
        stage.world.raise_flag("hook")
        stage.world.raise_flag("die after the effect")
        assert stage.play_elsewhere([call("pay", "T-1", amount="20")]) is None
        outcome = stage.play()
        assert outcome.told == {"call-1": "paid 20 for T-1"}
        assert stage.world.effects == ["pay T-1 20"]
        assert stage.status() == "succeeded"
