"""A guarded workflow enters a run around whatever it executes, and is the workflow otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from pydantic import BaseModel
from workflows import Context, Workflow, step
from workflows.errors import WorkflowCancelledByUser, WorkflowTimeoutError
from workflows.events import HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from agentguard import BudgetExceeded, ConfigurationError, Guard, Principal, RunHalted, current_run
from agentguard_llamaindex import LlamaIndexHost, guard_workflow
from tests.llamaindex.world import Answer, Question, agent, restored, saved, until_asked
from tests.support import World


class Naming(Workflow):
    """A workflow that says in which run it is executed."""

    @step
    async def name(self, ev: StartEvent) -> StopEvent:
        """Say the run's id."""
        return StopEvent(result=current_run().id)


class Asking(Workflow):
    """A workflow that asks without waiting in a step: question out, answer in."""

    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        """Ask."""
        asked: InputRequiredEvent = Question(prefix="well?")
        return asked

    @step
    async def end(self, ev: HumanResponseEvent) -> StopEvent:
        """Take the answer."""
        return StopEvent(result=f"{ev.response} in {current_run().id}")


def test_it_stays_what_it_was(guard: Guard) -> None:
    """The guarded workflow is of the workflow's class, and the original one is untouched."""
    original = agent("FunctionAgent", ["done"], [])
    guarded = guard_workflow(original, guard)
    assert isinstance(guarded, FunctionAgent)
    assert (guarded.name, guarded.workflow_name) == (original.name, original.workflow_name)
    assert type(original) is FunctionAgent
    assert type(original.llm) is not type(guarded.llm)


async def test_the_original_still_runs_unguarded(guard: Guard) -> None:
    """Guarding a copy opens no run around the workflow itself."""
    original = agent("FunctionAgent", ["done"], [])
    guard_workflow(original, guard)
    assert str(await original.run(user_msg="hello")) == "done"
    assert guard.runs.list() == []


def test_what_is_no_workflow_or_guarded_already_is_refused(guard: Guard) -> None:
    """Each mistake gets the sentence that mends it."""
    anything: Any = "workflow"
    with pytest.raises(ConfigurationError, match="takes a workflow, not str"):
        guard_workflow(anything, guard)
    with pytest.raises(ConfigurationError, match="guarded already"):
        guard_workflow(guard_workflow(Naming(), guard), guard)


@pytest.mark.parametrize("run_id", ["fixed", lambda start: f"ticket-{start.ticket}"])
async def test_who_acts_and_in_which_run_may_be_said_once(guard: Guard, run_id: Any) -> None:
    """Both are values or functions of the start event."""
    workflow = guard_workflow(
        Naming(), guard, workflow="naming", run_id=run_id,
        principal=lambda start: Principal(agent=f"clerk of {start.ticket}"),
    )  # fmt: skip
    name = await workflow.run(ticket="7")
    assert name == ("fixed" if run_id == "fixed" else "ticket-7")
    run = guard.runs.show(name)
    assert (run.workflow, run.agent, run.status) == ("naming", "clerk of 7", "succeeded")


async def test_the_handler_tells_the_id_of_a_run_that_nobody_named(guard: Guard) -> None:
    """The run is known by the same id in LlamaIndex and in the record."""
    handler = guard_workflow(Naming(), guard).run()
    assert await handler == handler.run_id
    (started,) = [e for e in guard.runs.events(handler.run_id) if e.kind == "run.started"]
    assert started.data["runtime"] == LlamaIndexHost.name


async def test_the_run_is_over_when_the_workflow_is_awaited(guard: Guard) -> None:
    """Whoever has the result can read how the run ended."""

    class Failing(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            raise KeyError("broken")

    with pytest.raises(KeyError):
        await guard_workflow(Failing(), guard).run(run_id="r-1")
    run = guard.runs.show("r-1")
    assert (run.status, run.error) == ("failed", "KeyError: 'broken'")


async def test_a_workflow_that_waits_for_people_is_a_waiting_run(guard: Guard) -> None:
    """Also with a question of its own; saved and restored it goes on in the same run."""
    workflow = guard_workflow(Asking(timeout=None), guard)
    handler = workflow.run(run_id="r-1")
    await until_asked(handler)
    context = await saved(handler)
    assert guard.runs.show("r-1").status == "waiting"
    handler = restored(workflow, context)
    handler.ctx.send_event(Answer(response="fine"))
    assert await handler == "fine in r-1"
    assert guard.runs.show("r-1").status == "succeeded"


class Typed(BaseModel):
    """A state of a type of its own."""

    count: int = 0


class TypedAsking(Workflow):
    """A workflow whose context has no room for what agentguard would keep there."""

    @step
    async def work(self, ctx: Context[Typed], ev: StartEvent) -> StopEvent:
        """Ask."""
        await ctx.wait_for_event(
            HumanResponseEvent, waiter_event=Question(prefix="?"), timeout=None
        )
        return StopEvent(result=current_run().id)


async def test_a_context_that_cannot_say_its_run_must_be_told(guard: Guard) -> None:
    """Going on in a fresh run would repeat calls; the sentence says how to name the run."""
    workflow = guard_workflow(TypedAsking(timeout=None), guard)
    handler = workflow.run(run_id="r-1")
    await until_asked(handler)
    context = await saved(handler)
    with pytest.raises(ConfigurationError, match=r"workflow\.run\(ctx=ctx, run_id"):
        restored(workflow, context)
    handler = workflow.run(ctx=Context.from_dict(workflow, context), run_id="r-1")
    handler.ctx.send_event(HumanResponseEvent())
    assert await handler == "r-1"


async def test_cancelling_ends_the_run_and_what_it_does(guard: Guard) -> None:
    """A workflow that is cancelled at work has failed; the stream ends."""
    entered = asyncio.Event()

    class Hanging(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            entered.set()
            await asyncio.Event().wait()
            return StopEvent()

    handler = guard_workflow(Hanging(timeout=None), guard).run(run_id="r-1")
    await entered.wait()
    await handler.cancel_run()
    assert [type(event).__name__ async for event in handler.stream_events()] == [
        "WorkflowCancelledEvent"
    ]
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert guard.runs.show("r-1").status == "failed"


async def test_a_workflows_own_timeout_fails_the_run_even_while_it_waits(guard: Guard) -> None:
    """What timed out cannot go on, so the run does not wait."""
    handler = guard_workflow(Asking(timeout=0.05), guard).run(run_id="r-1")
    with pytest.raises(WorkflowTimeoutError):
        await handler
    assert guard.runs.show("r-1").status == "failed"


async def test_a_run_that_was_cancelled_meanwhile_does_not_go_on(guard: Guard) -> None:
    """An answer comes after an operator has stopped the run: caller and stream are told."""
    handler = guard_workflow(Asking(timeout=None), guard).run(run_id="r-1")
    events: list[str] = []
    async for event in handler.stream_events(expose_internal=True):
        events.append(type(event).__name__)
        if events[-1] == "WorkflowIdleEvent":
            guard.runs.cancel("r-1", by="dana", reason="enough")
            handler.ctx.send_event(Answer(response="fine"))
    assert events[-1] == "WorkflowFailedEvent"
    with pytest.raises(RunHalted):
        await handler


async def test_a_run_that_cannot_be_opened_starts_nothing(guard: Guard, world: World) -> None:
    """The caller is told at once, and no step is executed."""

    class Working(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=world.happen("work"))

    workflow = guard_workflow(Working(), guard)
    await workflow.run(run_id="r-1")
    guard.runs.cancel("r-1", by="dana", reason="enough")
    with pytest.raises(RunHalted):
        await workflow.run(run_id="r-1")
    assert world.effects == ["work"]


async def test_an_agent_streams_as_before(guard: Guard) -> None:
    """Words arrive one by one; the run lasts as long as the stream."""
    workflow = guard_workflow(agent("FunctionAgent", ["well well done"], []), guard)
    handler = workflow.run(user_msg="hello", run_id="r-1")
    words = [event.delta async for event in handler.stream_events() if type(event) is AgentStream]
    assert words == ["well", "well", "done", ""]
    assert str(await handler) == "well well done"
    assert guard.runs.show("r-1").status == "succeeded"


async def test_the_callers_own_context_is_left_alone(guard: Guard) -> None:
    """While a workflow runs, and afterwards, its caller is in no run."""
    handler = guard_workflow(Asking(timeout=None), guard).run()
    with pytest.raises(ConfigurationError):
        current_run()
    await handler.cancel_run()
    with pytest.raises(ConfigurationError):
        current_run()


async def test_budgets_of_the_guarded_workflow_hold(guard: Guard) -> None:
    """Limits given where the workflow is guarded are those of each of its runs."""

    async def words() -> AsyncGenerator[str, None]:
        yield "never"

    workflow = guard_workflow(
        agent("FunctionAgent", ["done"], []), guard, max_model_calls=0, max_steps=5
    )
    handler = workflow.run(user_msg="hello", run_id="r-1")
    with pytest.raises(BudgetExceeded, match="max_model_calls is 0"):
        await handler
    assert [type(e).__name__ async for e in handler.stream_events()][-1] == "WorkflowFailedEvent"
    assert guard.runs.show("r-1").status == "failed"
