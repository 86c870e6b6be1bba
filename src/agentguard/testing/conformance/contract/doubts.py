"""What nobody can know is marked, stops, and is listed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..scene import call, only_in
from ..world import SECRET

if TYPE_CHECKING:
    from ..stage import Stage


class Doubts:
    """Doubt is visible (G3)."""

    def test_a_write_that_fails_without_saying_whether_it_happened_is_in_doubt(
        self, stage: Stage
    ) -> None:
        """The effect is listed, the model is told so, and another call of it starts nothing."""
        outcome = stage.play([call("lose", "T-1", "call-1")], [call("lose", "T-1", "call-2")])
        assert outcome.read("call-1")["error"] == "effect_in_doubt"
        assert outcome.read("call-2")["error"] == "effect_in_doubt"
        assert stage.doubts() == ["lose"]
        assert stage.world.effects == ["lose T-1"]

    def test_after_a_doubt_no_other_write_of_the_run_starts(self, stage: Stage) -> None:
        """A doubt closes the run's write path until somebody rules; reads go on."""
        outcome = stage.play(
            [call("lose", "T-1", "call-1")],
            [call("pay", "T-2", "call-2", amount="20"), call("look", "T-2", "call-3")],
        )
        assert outcome.read("call-2")["error"] == "effect_in_doubt"
        assert outcome.told["call-3"] == "T-2 is open"
        assert stage.world.effects == ["lose T-1", "look T-2"]

    def test_after_a_ruling_the_run_goes_on(self, stage: Stage) -> None:
        """Ruled as happened, the call is answered from the record, and other writes start again."""
        stage.play([call("lose", "T-1")])
        (doubt,) = stage.guard.effects.list(state="in_doubt", tenant="acme")
        stage.guard.effects.resolve(
            doubt.id, "happened", by="dana", reason="the carrier has it", result="shipped"
        )
        outcome = stage.play(
            [call("lose", "T-1", "call-1")],
            [call("pay", "T-2", "call-2", amount="20")],
            conversation="asked again",
        )
        assert outcome.told == {"call-1": "shipped", "call-2": "paid 20 for T-2"}
        assert stage.world.effects == ["lose T-1", "pay T-2 20"]

    def test_killed_between_effect_and_record_without_a_hook_it_waits_for_a_person(
        self, stage: Stage
    ) -> None:
        """Nobody can look, so nothing runs again, and the doubt is listed."""
        stage.world.raise_flag("die after the effect")
        assert stage.play_elsewhere([call("pay", "T-1", amount="20")]) is None
        outcome = stage.play()
        assert outcome.read("call-1")["error"] == "effect_in_doubt"
        assert stage.doubts() == ["pay"]
        assert stage.world.effects == ["pay T-1 20"]

    def test_what_a_failed_write_says_never_reaches_the_model(self, stage: Stage) -> None:
        """A tool's exception text may hold a password; the model gets the error object instead."""
        outcome = stage.play([call("lose", "T-1")])
        assert SECRET not in str(outcome.told)

    @only_in("async")
    def test_a_call_that_is_cancelled_under_way_is_in_doubt(self, stage: Stage) -> None:
        """Cancelling the runtime ends the wait, not the doubt: it is listed and never repeated."""

        async def cancelled() -> None:
            playing = asyncio.create_task(stage.runtime().aplay(stage.scene([call("hang", "T-1")])))
            await asyncio.to_thread(stage.world.started.wait, 30)
            playing.cancel()
            await asyncio.wait([playing])

        asyncio.run(cancelled())
        assert stage.doubts() == ["hang"]
        outcome = stage.play([call("hang", "T-1")], conversation="asked again")
        assert outcome.read("call-1")["error"] == "effect_in_doubt"
        assert stage.world.effects == ["hang T-1"]
