"""What the model is shown of a guarded tool, and what comes back when it does not keep to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..scene import Call, call
from ..world import bare_tools_of, tools_of

if TYPE_CHECKING:
    from ..stage import Stage


class Schemas:
    """The tool contract, as runtime and model see it."""

    def test_the_model_is_shown_a_guarded_tool_as_it_would_be_shown_the_bare_one(
        self, stage: Stage
    ) -> None:
        """Name, description and parameters of a decorated tool are those of its function."""
        guarded = list(tools_of(stage.world, is_async=stage.is_async).values())
        bare = bare_tools_of(stage.world, is_async=stage.is_async)
        shown = stage.runtime().shown(guarded)
        assert shown == stage.runtime().shown(bare)
        assert {"pay", "look"} <= {tool.name for tool in shown}
        (pay,) = (tool for tool in shown if tool.name == "pay")
        assert "Pay money back" in pay.description
        assert set(pay.parameters["properties"]) == {"ticket", "amount", "note"}

    def test_arguments_that_do_not_fit_reach_no_tool_and_the_model_is_told_which(
        self, stage: Stage
    ) -> None:
        """A wrong argument is told to the model by name, and the corrected call runs."""
        outcome = stage.play(
            [call("pay", "T-1", "call-1", amount="a lot")],
            [call("pay", "T-1", "call-2", amount="20")],
        )
        assert "amount" in outcome.told["call-1"]
        assert outcome.told["call-2"] == "paid 20 for T-1"
        assert stage.world.effects == ["pay T-1 20"]

    def test_an_argument_that_the_tool_does_not_have_reaches_no_tool(self, stage: Stage) -> None:
        """An invented argument is refused or left out, never passed on."""
        outcome = stage.play([Call("look", {"ticket": "T-1", "sudo": "yes"}, "call-1")])
        refused = "sudo" in outcome.told["call-1"] and stage.world.effects == []
        left_out = outcome.told["call-1"] == "T-1 is open"
        assert refused or left_out

    def test_a_result_that_the_tool_does_not_declare_is_not_shown_to_the_model(
        self, stage: Stage
    ) -> None:
        """A read that returns something else than it declares is told as a broken contract."""
        outcome = stage.play([call("lie", "T-1")])
        assert outcome.read("call-1")["error"] == "contract_violation"
        assert "many" not in outcome.told["call-1"]
