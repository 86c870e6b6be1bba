"""Agents as workflows whose tool calls are known, whose models are counted, whose tools may refuse."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.agent.workflow import AgentWorkflow, BaseWorkflowAgent, ToolCall
from llama_index.core.base.llms.types import TextBlock
from llama_index.core.llms import LLM
from llama_index.core.workflow import Workflow

from agentguard import ApprovalRequired, GuardError
from agentguard.hosting import RunIdOf, Who, edits_note
from agentguard_llama_workflows import guard_workflow as guard_any
from agentguard_llama_workflows import tool_call
from agentguard_llama_workflows.hosting import KEPT, running_step

from ._models import guard_llm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index.core.tools import ToolOutput

    from agentguard import Guard

WorkflowT = TypeVar("WorkflowT", bound=Workflow)
_TURNS = "agentguard_turns"


def guard_workflow(
    given: WorkflowT, guard: Guard, /, *, workflow: str | None = None, principal: Who = None,
    run_id: RunIdOf = None, **budget: Any,
) -> WorkflowT:  # fmt: skip
    """Return *given* so that every `run` of it happens inside a run of *guard*.

    The workflow itself stays as it is. The models of its agents, and models that are attributes of
    it, are replaced by ones that count (see `guard_llm`).

    Args:
        given: a workflow, an agent or an `AgentWorkflow`.
        guard: where runs, effects and approvals are kept.
        workflow: what kind of run it is; the guard's own workflow or the class's name if omitted.
        principal: who acts, or a function of the start event that says so; it gets None when a
            saved context goes on.
        run_id: the run's id, or a function of the start event. If omitted, the id that the context
            has already, or else the handler's `run_id`.
        budget: what `Guard.run` takes, such as `max_steps`; replaces the configuration's.

    Raises:
        ConfigurationError: *given* is not a workflow, or guarded already.
    """
    guarded = guard_any(
        given, guard, workflow=workflow, principal=principal, run_id=run_id,
        mixin=_Agent if isinstance(given, (AgentWorkflow, BaseWorkflowAgent)) else None, **budget,
    )  # fmt: skip
    _count_models(guarded)
    return guarded


def _count_models(workflow: Any) -> None:
    for name, value in list(vars(workflow).items()):
        if isinstance(value, LLM):
            object.__setattr__(workflow, name, guard_llm(value))
    if isinstance(workflow, AgentWorkflow):
        workflow.agents = {name: agent.model_copy() for name, agent in workflow.agents.items()}
        for agent in workflow.agents.values():
            _count_models(agent)


class _Agent:
    """What a guarded agent does differently."""

    async def _call_tool(self, ctx: Any, tool: Any, tool_input: dict[str, Any]) -> ToolOutput:
        inner: Any = super()
        step = running_step()
        made = step.event if step else None
        if not isinstance(made, ToolCall):
            output: ToolOutput = await inner._call_tool(ctx, tool, tool_input)
            return output
        agent = getattr(self, "name", None) or await ctx.store.get("current_agent_name", None)
        with tool_call(made.tool_id, await _occurrence(ctx, made), agent) as frame:
            output = await inner._call_tool(ctx, tool, tool_input)
        return _told(output, frame.edits)


def _told(output: ToolOutput, edits: Mapping[str, Any]) -> ToolOutput:
    """Return what the model is told; what ends the run is raised, for the workflow's caller."""
    error = output.exception
    if isinstance(error, GuardError):
        if error.halts or isinstance(error, ApprovalRequired):
            raise error
        output.blocks[:] = [TextBlock(text=error.for_model())]
    if edits:
        output.blocks.append(TextBlock(text=edits_note(edits)))
    return output


async def _occurrence(ctx: Any, made: ToolCall) -> int:
    """Count the model's earlier turns in which it used the id of this call.

    Models give one id to different calls. The turns are kept in the context, so the count is the
    same on every replay; a call that is delivered twice in one turn is one call.
    """
    kept = await ctx.store.get(KEPT, default={})
    turn = [kept.get("conversation"), await ctx.store.get("num_iterations", default=0)]
    # Dots would be read as steps of a path. Each id has a place of its own, so that no call
    # overwrites what a parallel one has written.
    place = f"{_TURNS}.{sha256(made.tool_id.encode()).hexdigest()}"
    turns = await ctx.store.get(place, default=[])
    if turn not in turns:
        turns = [*turns, turn]
        await ctx.store.set(place, turns)
    return int(turns.index(turn))
