"""LangGraph as the conformance suite drives it: four ways to build an agent, one way to run it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, RetryPolicy

from agentguard.testing.conformance import MODEL, QUESTION, Outcome, Runtime, Scene, Shown
from agentguard_langgraph import guard_graph
from tests.langgraph.world import Scripted, call, looped, say


class LangGraph(Runtime):
    """What the four have in common."""

    def shown(self, tools: Sequence[Callable[..., Any]]) -> list[Shown]:
        """Return what LangChain binds to a model."""
        told = [convert_to_openai_tool(made(tool))["function"] for tool in tools]
        return [Shown(t["name"], t["description"], t["parameters"]) for t in told]

    def graph(self, scene: Scene, model: Scripted, tools: list[StructuredTool], saver: Any) -> Any:
        """Return the compiled graph, not yet guarded."""
        raise NotImplementedError

    def play(self, scene: Scene) -> Outcome:
        """Invoke or stream the graph, with checkpoints in a file."""
        outcome = Outcome()
        with SqliteSaver.from_conn_string(str(scene.folder / "checkpoints.db")) as saver:
            graph, thread = self._guarded(scene, saver), thread_of(scene)
            given = asked(scene, begun=graph.get_state(thread).created_at is not None)
            with caught(outcome):
                if scene.stream:
                    outcome.chunks = sum(1 for _ in graph.stream(given, thread))
                else:
                    graph.invoke(given, thread)
            return seen(outcome, graph.get_state(thread))

    async def aplay(self, scene: Scene) -> Outcome:
        """Do the same on an event loop."""
        outcome = Outcome()
        path = str(scene.folder / "checkpoints.db")
        async with AsyncSqliteSaver.from_conn_string(path) as saver:
            graph, thread = self._guarded(scene, saver), thread_of(scene)
            state = await graph.aget_state(thread)
            given = asked(scene, begun=state.created_at is not None)
            with caught(outcome):
                if scene.stream:
                    async for _ in graph.astream(given, thread):
                        outcome.chunks += 1
                else:
                    await graph.ainvoke(given, thread)
            return seen(outcome, await graph.aget_state(thread))

    def _guarded(self, scene: Scene, saver: Any) -> Any:
        model = Scripted(script=messages_of(scene), model_name=MODEL)
        tools = [made(tool) for tool in scene.tools.values()]
        return guard_graph(
            self.graph(scene, model, tools, saver), scene.guard, workflow="conformance",
            principal=scene.principal, run_id=scene.run_id, **scene.budget,
        )  # fmt: skip


class ToolNodeLoop(LangGraph):
    """A graph of one's own: a node for the model, a `ToolNode` for all calls of a turn."""

    name = "LangGraph ToolNode"

    def graph(self, scene: Scene, model: Scripted, tools: list[StructuredTool], saver: Any) -> Any:
        """Return the loop that most hand-written graphs are."""
        return looped(model, tools, retry_policy=retrying(scene)).compile(checkpointer=saver)


class CreateAgent(LangGraph):
    """LangChain's agent, which executes every tool call in a task of its own."""

    name = "LangChain create_agent"

    def graph(self, scene: Scene, model: Scripted, tools: list[StructuredTool], saver: Any) -> Any:
        """Return the agent, with LangChain's own retries if the scene wants some."""
        retries = [ToolRetryMiddleware(max_retries=scene.retries, initial_delay=0, jitter=False)]
        middleware: Any = retries if scene.retries else []
        return create_agent(model, tools, middleware=middleware, checkpointer=saver)


class Subgraph(LangGraph):
    """The loop as a node of another graph."""

    name = "LangGraph subgraph"

    def graph(self, scene: Scene, model: Scripted, tools: list[StructuredTool], saver: Any) -> Any:
        """Return the graph around the loop."""
        outer: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
        outer.add_node("agent", looped(model, tools, retry_policy=retrying(scene)).compile())
        outer.add_edge(START, "agent")
        return outer.compile(checkpointer=saver)


class FunctionalApi(LangGraph):
    """`@entrypoint` and `@task`: a loop in plain Python, which LangGraph replays."""

    name = "LangGraph functional"

    def graph(self, scene: Scene, model: Scripted, tools: list[StructuredTool], saver: Any) -> Any:
        """Return the entrypoint; its history is its result and its checkpoint."""
        return (afunctional if any(t.coroutine for t in tools) else functional)(
            scene, model, tools, saver
        )


def functional(scene: Scene, model: Scripted, tools: list[StructuredTool], saver: Any) -> Any:
    """Return the loop as a synchronous entrypoint."""
    node = ToolNode(tools)

    @task
    def ask(messages: list[Any]) -> Any:
        return model.invoke(messages)

    @retried(scene)
    def use(one: Any) -> Any:
        return node.invoke([AIMessage("", tool_calls=[one])])[0]

    @entrypoint(checkpointer=saver)
    def agent(given: Any) -> Any:
        messages = list(given["messages"])
        while True:
            messages.append(ask(messages).result())
            if not messages[-1].tool_calls:
                return {"messages": messages}
            called = [use(one) for one in messages[-1].tool_calls]
            messages += [future.result() for future in called]

    return agent


def afunctional(scene: Scene, model: Scripted, tools: list[StructuredTool], saver: Any) -> Any:
    """Return the loop as an asynchronous entrypoint."""
    node = ToolNode(tools)

    @task
    async def ask(messages: list[Any]) -> Any:
        return await model.ainvoke(messages)

    @retried(scene)
    async def use(one: Any) -> Any:
        return (await node.ainvoke([AIMessage("", tool_calls=[one])]))[0]

    @entrypoint(checkpointer=saver)
    async def agent(given: Any) -> Any:
        messages = list(given["messages"])
        while True:
            messages.append(await ask(messages))
            if not messages[-1].tool_calls:
                return {"messages": messages}
            called = [use(one) for one in messages[-1].tool_calls]
            messages += [await future for future in called]

    return agent


def made(function: Any) -> StructuredTool:
    """Return *function* as a tool."""
    if inspect.iscoroutinefunction(function):
        return StructuredTool.from_function(coroutine=function)
    return StructuredTool.from_function(function)


def retried(scene: Scene) -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator of a task that is tried again; LangGraph's own type fits no function."""
    return task(retry_policy=retrying(scene))


def retrying(scene: Scene) -> RetryPolicy:
    """Return a policy that tries again whatever was raised."""
    return RetryPolicy(
        max_attempts=1 + scene.retries, initial_interval=0, jitter=False, retry_on=lambda _: True
    )


def messages_of(scene: Scene) -> list[AIMessage]:
    """Return the script as LangChain's messages."""
    said = [
        say(turn) if isinstance(turn, str) else call(*((c.name, c.arguments, c.id) for c in turn))
        for turn in scene.script.turns
    ]
    return said if isinstance(scene.script.turns[-1], str) else [*said, say()]


def thread_of(scene: Scene) -> Any:
    """Return the configuration that names the conversation."""
    return {"configurable": {"thread_id": scene.run_id}}


def asked(scene: Scene, *, begun: bool) -> Any:
    """Return what the graph is given: a question, an answer, or nothing new."""
    if scene.answer is not None:
        return Command(resume=scene.answer)
    return None if begun else {"messages": [HumanMessage(QUESTION)]}


@contextmanager
def caught(outcome: Outcome) -> Iterator[None]:
    """Keep what the caller would get."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a GuardError, or what a tool itself raised
        outcome.error = error


def seen(outcome: Outcome, state: Any) -> Outcome:
    """Read the rest from the thread's state."""
    messages = state.values.get("messages", []) if state.values else []
    outcome.told = {m.tool_call_id: str(m.content) for m in messages if isinstance(m, ToolMessage)}
    outcome.waiting = tuple(question.value["approval_id"] for question in state.interrupts)
    last = messages[-1] if messages else None
    if not outcome.waiting and not outcome.error and isinstance(last, AIMessage):
        outcome.said = None if last.tool_calls else str(last.content)
    return outcome
