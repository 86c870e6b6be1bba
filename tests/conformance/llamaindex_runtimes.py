"""LlamaIndex as the conformance suite drives it: an agent, a workflow of agents, a workflow."""

# LlamaIndex reads annotations as they are, so they must not be texts here.

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, get_type_hints

from llama_index.core.agent.workflow import AgentStream, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.llm import ToolSelection
from workflows import Context, Workflow, step
from workflows.events import (
    Event,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    WorkflowIdleEvent,
)
from workflows.retry_policy import retry_policy, stop_after_attempt, wait_fixed

from agentguard import GuardError
from agentguard.testing.conformance import MODEL, QUESTION, Outcome, Runtime, Scene, Shown
from agentguard_llamaindex import guard_workflow, tool_call
from tests.llamaindex.world import Answer, Scripted, agent, call, tool


class LlamaIndex(Runtime):
    """What the three have in common."""

    def shown(self, tools: Sequence[Callable[..., Any]]) -> list[Shown]:
        """Return what a provider is sent as the tools of a request."""
        told = [made(function).metadata.to_openai_tool()["function"] for function in tools]
        return [Shown(t["name"], t["description"], t["parameters"]) for t in told]

    def workflow(self, scene: Scene) -> Any:
        """Return the workflow, not yet guarded."""
        raise NotImplementedError

    def play(self, scene: Scene) -> Outcome:
        """Do the same with synchronous tools, which LlamaIndex runs in threads."""
        return asyncio.run(self.aplay(scene))

    async def aplay(self, scene: Scene) -> Outcome:
        """Run the workflow, or go on with the context that was saved."""
        outcome, saved = Outcome(), scene.folder / "context.json"
        workflow = guard_workflow(
            self.workflow(scene), scene.guard, workflow="conformance",
            principal=scene.principal, run_id=scene.run_id, **scene.budget,
        )  # fmt: skip
        kept = json.loads(saved.read_text()) if saved.exists() else {"told": {}, "context": {}}
        outcome.told = kept["told"]
        try:
            handler = started(workflow, kept["context"])
            if scene.answer is not None:
                handler.ctx.send_event(Answer(**scene.answer))
            try:
                await watched(handler, scene, outcome)
            except asyncio.CancelledError:
                await handler.cancel_run()
                raise
            if not outcome.waiting:
                outcome.said = str(await handler)
            # A workflow that failed cannot go on: what was saved before can, or all begins anew.
            kept = {"told": outcome.told, "context": handler.ctx.to_dict()}
            saved.write_text(json.dumps(kept))
            await handler.cancel_run()
        except Exception as error:  # noqa: BLE001 - what the caller gets, whatever it is
            outcome.error = error
        return outcome


def made(function: Callable[..., Any]) -> Any:
    """Make a tool of a function whose annotations are texts, which LlamaIndex does not read."""
    written = inspect.unwrap(function)
    written.__annotations__ = get_type_hints(written)
    return tool(function)


def started(workflow: Any, context: Mapping[str, Any]) -> Any:
    """Begin, or go on."""
    if not context:
        return workflow.run(user_msg=QUESTION)
    restored = Context.from_dict(workflow, dict(context))
    return workflow.run(ctx=restored, **({} if restored.is_running else {"user_msg": QUESTION}))


async def watched(handler: Any, scene: Scene, outcome: Outcome) -> None:
    """Read the stream until the workflow ends, or waits for people alone."""
    asked: list[str] = []
    async for event in handler.stream_events(expose_internal=True):
        if isinstance(event, ToolCallResult):
            outcome.told[event.tool_id] = event.tool_output.content
        elif isinstance(event, Used):
            outcome.told[event.call.tool_id] = event.told
        elif isinstance(event, AgentStream) and scene.stream:
            outcome.chunks += 1
        elif isinstance(event, InputRequiredEvent):
            asked.append(str(event.approval_id))
        elif isinstance(event, WorkflowIdleEvent):
            waiting = [a for a in asked if scene.guard.approvals.show(a).status == "pending"]
            outcome.waiting = tuple(dict.fromkeys(waiting))
            if waiting:
                return


class Agents(LlamaIndex):
    """Agents with a scripted model."""

    kind: ClassVar[str]
    cannot: ClassVar[Mapping[str, str]] = {
        "test_the_runtimes_own_retry_never_repeats_a_write": "LlamaIndex's agents try no tool"
        " again; steps of a workflow do",
    }

    def workflow(self, scene: Scene) -> Any:
        """Return the agent."""
        tools = [made(function) for function in scene.tools.values()]
        return agent(self.kind, turns_of(scene), tools, streaming=scene.stream)


class Agent(Agents):
    """A `FunctionAgent`."""

    name = "LlamaIndex agent"
    kind = "FunctionAgent"


class ManyAgents(Agents):
    """An `AgentWorkflow`."""

    name = "LlamaIndex AgentWorkflow"
    kind = "AgentWorkflow"


class OwnWorkflow(LlamaIndex):
    """A workflow of one's own: a step for the model, one for each call of a turn."""

    name = "LlamaIndex workflow"
    cannot: ClassVar[Mapping[str, str]] = {
        "test_the_model_is_told_what_a_person_changed": "the call returns the tool's own result to"
        " the step that made it; `agentguard approvals show` tells the change",
    }

    def workflow(self, scene: Scene) -> Any:
        """Return the loop, in the colour of its tools."""
        asynchronous = any(map(asyncio.iscoroutinefunction, scene.tools.values()))
        policy = retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(1 + scene.retries))
        kind = aloop(policy) if asynchronous else loop(policy)
        return kind(Scripted(script=turns_of(scene)), scene)


class Ask(Event):
    """Ask the model."""


class Use(Event):
    """Execute a call of the model."""

    call: ToolSelection
    occurrence: int


class Used(Event):
    """What the model is told of a call."""

    call: ToolSelection
    told: str


class Loop(Workflow):
    """What both colours have in common."""

    def __init__(self, llm: Scripted, scene: Scene) -> None:
        super().__init__(timeout=None)
        self.llm, self.scene = llm, scene

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Ask:
        """Begin the history."""
        await ctx.store.set("history", [ChatMessage(role="user", content=QUESTION)])
        return Ask()

    @step
    async def ask(self, ctx: Context, ev: Ask) -> Use | StopEvent | None:
        """Ask the model, and have its calls executed, all at once."""
        history = await ctx.store.get("history")
        if self.scene.stream:
            async for part in await self.llm.astream_chat(history):
                ctx.write_event_to_stream(
                    AgentStream(delta=part.delta or "", response="", current_agent_name="")
                )
                answer = part
        else:
            answer = await self.llm.achat(history)
        await ctx.store.set("history", [*history, answer.message])
        calls = self.llm.get_tool_calls_from_response(answer)
        await ctx.store.set("calls", len(calls))
        made = await ctx.store.get("ids", default=[])
        await ctx.store.set("ids", [*made, *(one.tool_id for one in calls)])
        for one in calls:
            ctx.send_event(Use(call=one, occurrence=made.count(one.tool_id)))
        return None if calls else StopEvent(result=answer.message.content)

    @step
    async def join(self, ctx: Context, ev: Used) -> Ask | None:
        """Tell the model, once all of its calls are answered."""
        ctx.write_event_to_stream(ev)
        found: Any = ctx.collect_events(ev, [Used] * await ctx.store.get("calls"))
        if found is None:
            return None
        told = [
            ChatMessage(
                role="tool", content=one.told, additional_kwargs={"tool_call_id": one.call.tool_id}
            )
            for one in found
        ]
        await ctx.store.set("history", [*await ctx.store.get("history"), *told])
        return Ask()

    def answered(self, ctx: Context, ev: Use, result: Any) -> Used:
        """Show what the model is told, as an agent does."""
        told = json.dumps(result) if isinstance(result, (list, dict)) else str(result)
        return Used(call=ev.call, told=told)

    def refused(self, error: GuardError) -> str:
        """Return what is for the model; raise what is not, and what the engine shall try again."""
        if error.halts or self.scene.retries:
            raise error
        return error.for_model()


def loop(policy: Any) -> type[Loop]:
    """The loop with synchronous tools, in a step that LlamaIndex runs in a thread."""

    class SyncLoop(Loop):
        @step(num_workers=8, retry_policy=policy)
        def use(self, ctx: Context, ev: Use) -> Used:
            try:
                with tool_call(ev.call.tool_id, ev.occurrence):
                    done = self.scene.tools[ev.call.tool_name](**ev.call.tool_kwargs)
            except GuardError as error:
                done = self.refused(error)
            return self.answered(ctx, ev, done)

    return SyncLoop


def aloop(policy: Any) -> type[Loop]:
    """The loop with asynchronous tools."""

    class AsyncLoop(Loop):
        @step(num_workers=8, retry_policy=policy)
        async def use(self, ctx: Context, ev: Use) -> Used:
            try:
                with tool_call(ev.call.tool_id, ev.occurrence):
                    done = await self.scene.tools[ev.call.tool_name](**ev.call.tool_kwargs)
            except GuardError as error:
                done = self.refused(error)
            return self.answered(ctx, ev, done)

    return AsyncLoop


def turns_of(scene: Scene) -> list[Any]:
    """Return what the model says."""
    turns = [
        turn if isinstance(turn, str) else call(*((c.name, c.arguments, c.id) for c in turn))
        for turn in scene.script.turns
    ]
    assert Scripted(script=[]).metadata.model_name == MODEL
    return turns if isinstance(turns[-1], str) else [*turns, "done"]
