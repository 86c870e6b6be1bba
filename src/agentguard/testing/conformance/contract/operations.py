"""What operators do and say holds on every runtime: taken back, kept to, left alone, answered."""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from .... import Guard
from ....config import Settings
from ....slos import Demotion, Slo, Window
from ....templates import Template
from ..scene import call
from ..stage import PRINCIPAL
from ..world import tools_of

if TYPE_CHECKING:
    from ..stage import Stage

ORDER = call("order", "T-1")
DESK = Template(
    "desk", [{"tool": "order", "arguments": {"ticket": "{ticket}"}}, {"tool": "close"}], ["ticket"]
)


LEVEL = Slo(
    "talks", "success", workflow="conformance", target=Decimal("0.9"), window=Window(last=20),
    min_count=3, demote=Demotion(),
)  # fmt: skip


class Operations:
    """Rolled back, kept to a template, stopped by a circuit, asked and answered."""

    def test_what_a_run_wrote_is_taken_back_once(self, stage: Stage) -> None:
        """A rollback undoes the run's effect; a second one finds nothing to undo."""
        stage.play([ORDER])
        taken_back(stage)
        taken_back(stage)
        assert stage.world.effects == ["order T-1", "cancel T-1"]

    def test_a_run_keeps_to_its_template(self, stage: Stage) -> None:
        """The calls of the template start in their order; another one does not."""
        with stage.guard.run("conformance", run_id="r-1") as run:
            run.follow(DESK, ticket="T-1")
        outcome = stage.play(
            [call("erase", "T-1", "call-0")],
            [call("order", "T-1", "call-1")],
            [call("close", "T-1", "call-2")],
        )
        assert outcome.read("call-0")["error"] in ("permission_denied", "plan_violation")
        assert outcome.told["call-1"] == "ordered for T-1"
        assert stage.world.effects == ["order T-1", "close T-1"]

    def test_a_tool_that_keeps_failing_is_left_alone(self, stage: Stage) -> None:
        """After so many failures the circuit is open: the model is told, and nothing is started."""
        *_, third = [
            stage.play([call("ring", f"T-{n}")], conversation=f"talk-{n}", run_id=f"r-{n}")
            for n in (1, 2, 3)
        ]
        assert third.read("call-1")["error"] == "circuit_open"
        assert stage.world.effects == ["ring T-1", "ring T-2"]

    def test_an_answered_question_lets_the_run_write_again(self, stage: Stage) -> None:
        """A run that ended by asking waits; once a person has answered, its writes start."""
        asks = {"falls_back_to": "ask"}
        outcome = stage.play([call("erase", "T-1")], budget=asks)
        assert type(outcome.error).__name__ == "FellBack"
        assert stage.status() == "waiting"
        stage.guard.runs.answer("r-1", "leave it, and order a new one", by="dana")
        again = stage.play([ORDER], conversation="answered", budget=asks)
        assert again.told["call-1"] == "ordered for T-1"
        assert stage.world.effects == ["order T-1"]

    def test_a_workflow_that_spent_its_error_budget_waits_for_people(self, stage: Stage) -> None:
        """Failed runs in another process make the next write wait here, which knows no such level."""
        outcome = stage.play([call("look", "T-1", "call-0")], conversation="before", run_id="r-0")
        assert outcome.said == "done"
        spend_error_budget(stage)
        outcome = stage.play([ORDER])
        assert stage.world.effects == ["look T-1"]
        (draft,) = stage.waiting()
        assert draft.stage == "draft"
        stage.decide(draft.id)
        with watcher(stage) as watching:
            watching.slos.override("talks", by="dana", reason="the cause is mended", hours=1)
        outcome = stage.play([call("order", "T-2")], conversation="after", run_id="r-2")
        assert outcome.told["call-1"] == "ordered for T-2"


def watcher(stage: Stage) -> contextlib.closing[Guard]:
    """Return a guard on the same store that watches the level, for a `with` block."""
    return contextlib.closing(Guard(stage.url, config=Settings(slos=(LEVEL,)), principal=PRINCIPAL))


def spend_error_budget(stage: Stage) -> None:
    """Let runs of the workflow fail in a process that watches its service level."""
    with watcher(stage) as watching:
        for number in range(4):
            with contextlib.suppress(OSError), watching.run("conformance", run_id=f"bad-{number}"):
                raise OSError("the desk is closed")


def taken_back(stage: Stage) -> Any:
    """Roll the run back as an operator does, in the stage's colour."""
    tools = list(tools_of(stage.world, is_async=stage.is_async).values())
    why: dict[str, Any] = {"by": "dana", "reason": "the wrong customer"}
    if stage.is_async:
        return asyncio.run(stage.guard.arollback("r-1", tools=tools, **why))
    return stage.guard.rollback("r-1", tools=tools, **why)
