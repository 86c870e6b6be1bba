"""Which call is which: one effect per call that the model made, however often it is delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph, add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, RetryPolicy, Send, interrupt

from agentguard import Guard, current_run, idempotent, tool_contract
from agentguard_langgraph import guard_graph
from tests.langgraph.world import HELLO, Scripted, answers, call, looped, one_node, say, thread
from tests.support import World


def add_tool(world: World) -> BaseTool:
    """A tool that may rightly repeat: it puts something into a basket."""

    @tool
    @tool_contract(effect="write")
    @idempotent(per="call")
    def add(item: str) -> str:
        """Put *item* into the basket."""
        return world.happen(item)

    return add


def adding(world: World) -> Any:
    """The same, called by a node's own code."""

    @tool_contract(effect="write")
    @idempotent(per="call")
    def add(item: str) -> str:
        return world.happen(item)

    return add


def graphs(model: Scripted, tools: list[BaseTool], saver: InMemorySaver) -> dict[str, Any]:
    """Both kinds of agent loop."""
    return {
        "ToolNode": looped(model, tools).compile(checkpointer=saver),
        "create_agent": create_agent(model, tools, checkpointer=saver),
    }


@pytest.mark.parametrize("kind", ["ToolNode", "create_agent"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_equal_calls_under_one_id_are_different_calls(
    guard: Guard, world: World, saver: InMemorySaver, kind: str, *, asynchronous: bool
) -> None:
    """A model that gives the id of an earlier call to an equal later one means a later one."""
    again = call(("add", {"item": "egg"}, "call_1"), ("add", {"item": "egg"}, "call_2"))
    model = Scripted(script=[again, again, again, say()])
    graph = guard_graph(graphs(model, [add_tool(world)], saver)[kind], guard)
    if asynchronous:
        asyncio.run(graph.ainvoke(HELLO, thread()))
    else:
        graph.invoke(HELLO, thread())
    assert world.effects == ["egg"] * 6


def test_messages_may_have_another_name(guard: Guard, world: World, saver: InMemorySaver) -> None:
    """Equal calls are told apart by the history under whatever key the graph keeps it."""

    class Talk(TypedDict):
        said: Annotated[list[Any], add_messages]

    again = call(("add", {"item": "egg"}, "call_1"))
    model = Scripted(script=[again, again, say()])
    builder = StateGraph(Talk)
    builder.add_node("model", lambda state: {"said": [model.invoke(state["said"])]})
    builder.add_node("tools", ToolNode([add_tool(world)], messages_key="said"))
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda state: "tools" if state["said"][-1].tool_calls else "__end__"
    )
    builder.add_edge("tools", "model")
    guard_graph(builder.compile(checkpointer=saver), guard).invoke({"said": ["hi"]}, thread())
    assert world.effects == ["egg", "egg"]


@pytest.mark.parametrize("kind", ["ToolNode", "create_agent"])
def test_a_call_delivered_again_after_an_abort_is_the_same_call(
    guard: Guard, world: World, saver: InMemorySaver, kind: str
) -> None:
    """Resuming executes pending calls again; the guard gives back what they did."""
    broken = [True]

    @tool
    def fragile() -> str:
        """Fail at first."""
        if broken.pop():
            broken.append(False)
            raise KeyError("broken")
        return "whole"

    calls = call(("add", {"item": "egg"}, "1"), ("fragile", {}, "2"))
    model = Scripted(script=[calls, say()])
    graph = guard_graph(graphs(model, [add_tool(world), fragile], saver)[kind], guard)
    with pytest.raises(KeyError):
        graph.invoke(HELLO, thread())
    graph.invoke(None, thread())
    assert world.effects == ["egg"]


def test_updating_the_state_does_not_make_another_call(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """Calls are told apart by the messages, not by steps, which an update moves on."""
    model = Scripted(script=[call(("add", {"item": "egg"}, "1")), say()])
    plain = looped(model, [add_tool(world)]).compile(checkpointer=saver, interrupt_after=["tools"])
    graph = guard_graph(plain, guard)
    graph.invoke(HELLO, thread())
    before = next(s for s in graph.get_state_history(thread()) if s.next == ("tools",))
    moved = graph.update_state(before.config, {"messages": []}, as_node="model")
    graph.invoke(None, moved)
    assert world.effects == ["egg"]


def test_the_model_gets_the_answer_that_the_call_had(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """A call that is delivered twice gives the model its first result twice."""
    model = Scripted(script=[call(("add", {"item": "egg"}, "1")), say()])
    graph = guard_graph(looped(model, [add_tool(world)]).compile(checkpointer=saver), guard)
    graph.invoke(HELLO, thread())
    old = next(s for s in graph.get_state_history(thread()) if s.next == ("tools",))
    assert answers(graph.invoke(None, old.config)) == [("success", "done egg")]
    assert world.effects == ["egg"]


def test_a_node_that_is_tried_again_makes_its_calls_once(guard: Guard, world: World) -> None:
    """Attempts of a RetryPolicy are the same calls; equal calls in one attempt are not."""
    add, attempts = adding(world), []

    def node(_: Mapping[str, Any]) -> None:
        add("egg")
        add("egg")
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError

    policy = RetryPolicy(initial_interval=0, jitter=False)
    guard_graph(one_node(node, retry_policy=policy).compile(), guard).invoke(HELLO)
    assert (len(attempts), world.effects) == (3, ["egg", "egg"])


def test_equal_calls_at_two_places_are_two_calls_also_after_a_crash(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """A node that is resumed is not given what another node did with equal arguments."""
    add, crashes = adding(world), [True]

    def second(state: MessagesState) -> None:
        if crashes.pop():
            crashes.append(False)
            raise KeyError("power cut")
        add("egg")

    builder = StateGraph(MessagesState)
    builder.add_node("first", lambda _: add("egg") and None)
    builder.add_node("second", second)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    plain = builder.compile(checkpointer=saver)
    with pytest.raises(KeyError):
        guard_graph(plain, guard).invoke(HELLO, thread())
    guard_graph(plain, guard).invoke(None, thread())
    assert world.effects == ["egg", "egg"]


def test_a_subgraph_invoked_twice_makes_its_calls_twice_and_no_more(
    guard: Guard, world: World
) -> None:
    """Calls in a subgraph belong to the invocation that made them, also when that is retried."""
    add, attempts = adding(world), []
    inner = one_node(lambda _: add("egg") and None).compile()

    def node(_: Mapping[str, Any]) -> None:
        inner.invoke(HELLO)
        inner.invoke(HELLO)
        attempts.append(1)
        if len(attempts) < 2:
            raise ConnectionError

    policy = RetryPolicy(initial_interval=0, jitter=False)
    guard_graph(one_node(node, retry_policy=policy).compile(), guard).invoke(HELLO)
    assert (len(attempts), world.effects) == (2, ["egg", "egg"])


def test_parallel_tasks_of_one_node_make_their_own_calls(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """Tasks that `Send` makes of one node are different places, the same after a crash."""
    add, crashes = adding(world), [True]

    def work(state: MessagesState) -> None:
        add("egg")
        if crashes[0]:
            raise KeyError("power cut")

    builder = StateGraph(MessagesState)
    builder.add_node("work", work)
    builder.add_conditional_edges(START, lambda _: [Send("work", HELLO)] * 5, ["work"])
    graph = guard_graph(builder.compile(checkpointer=saver), guard)
    with pytest.raises(KeyError):
        graph.invoke(HELLO, thread())
    crashes[0] = False
    graph.invoke(None, thread())
    assert world.effects == ["egg"] * 5


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_functional_workflow_replays_its_calls(
    guard: Guard, world: World, saver: InMemorySaver, *, asynchronous: bool
) -> None:
    """An `@entrypoint` runs from its start when it is resumed; its effects do not."""
    add = adding(world)

    @task
    def work() -> str:
        return str(add("in a task"))

    @entrypoint(checkpointer=saver)
    def workflow(_: str) -> str:
        add("egg")
        add("egg")
        work().result()
        work().result()
        return str(interrupt("go on?"))

    graph = guard_graph(workflow, guard)

    def run(what: Any) -> Any:
        return asyncio.run(graph.ainvoke(what, thread())) if asynchronous else (
            graph.invoke(what, thread())
        )  # fmt: skip

    run("x")
    assert run(Command(resume="yes")) == "yes"
    assert world.effects == ["egg", "egg", "in a task", "in a task"]
    run("y")
    assert len(world.effects) == 8


def test_a_call_from_inside_a_tool_is_part_of_the_models_call(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """A guarded function, a tool and a graph that a tool uses happen once for each call of it."""
    add, inner_tool = adding(world), add_tool(world)
    inner = one_node(lambda _: add("in a graph") and None).compile()

    @tool
    def shop() -> str:
        """Buy several things."""
        add("in code")
        add("in code")
        inner.invoke(HELLO)
        inner_tool.invoke({"type": "tool_call", "name": "add", "id": "x", "args": {"item": "t"}})
        return "bought"

    calls = call(("shop", {}, "1"), ("shop", {}, "2"))
    graph = looped(Scripted(script=[calls, calls, say()]), [shop]).compile(checkpointer=saver)
    guarded = guard_graph(graph, guard)
    guarded.invoke(HELLO, thread())
    assert sorted(world.effects) == sorted(["in code", "in code", "in a graph", "t"] * 4)
    for state in [s for s in guarded.get_state_history(thread()) if s.next == ("tools",)]:
        guarded.invoke(None, state.config)
    assert len(world.effects) == 16


def test_the_tool_sees_its_call(guard: Guard, saver: InMemorySaver) -> None:
    """A tool's body can read the id of the model's call, the step and the downstream key."""
    seen = []

    @tool
    @tool_contract(effect="write")
    @idempotent(key="note:{text}")
    def note(text: str) -> str:
        """Note *text*."""
        here = current_run().call
        seen.append((here.id, here.step, bool(here.idempotency_key)))
        return "noted"

    model = Scripted(script=[call(("note", {"text": "a"}, "call_7")), say()])
    guard_graph(looped(model, [note]).compile(checkpointer=saver), guard).invoke(HELLO, thread())
    assert seen == [("call_7", 2, True)]


async def test_parallel_calls_of_one_turn_are_told_apart(guard: Guard, world: World) -> None:
    """Many parallel tool calls, sync ones in threads, each know which call they are."""
    seen: dict[str, str | None] = {}

    @tool
    @tool_contract(effect="read")
    def sync(name: str) -> str:
        """Look something up."""
        seen[name] = current_run().call.id
        return name

    @tool
    @tool_contract(effect="read")
    async def coroutine(name: str) -> str:
        """Look something up."""
        await asyncio.sleep(0)
        seen[name] = current_run().call.id
        return name

    calls = call(
        *(("sync" if n % 2 else "coroutine", {"name": f"n{n}"}, f"n{n}") for n in range(30))
    )
    model = Scripted(script=[calls, say()])
    await guard_graph(looped(model, [sync, coroutine]).compile(), guard).ainvoke(HELLO)
    assert seen == {f"n{n}": f"n{n}" for n in range(30)}


def test_invocations_in_one_run_make_their_own_calls_also_when_it_is_run_again(
    guard: Guard, world: World
) -> None:
    """A program that invokes graphs inside its own run has each call once, across a crash too."""
    model = Scripted(script=[call(("add", {"item": "egg"}, "1")), say()])
    graph = guard_graph(looped(model, [add_tool(world)]).compile(), guard)
    nodes = guard_graph(one_node(lambda _: adding(world)("egg") and None).compile(), guard)

    def program(*, crash: bool) -> None:
        with guard.run("shopping", run_id="r-1"):
            for _ in range(2):
                graph.invoke(HELLO)
                nodes.invoke(HELLO)
            if crash:
                raise KeyError("power cut")
            graph.invoke(HELLO)

    with pytest.raises(KeyError):
        program(crash=True)
    assert len(world.effects) == 4
    program(crash=False)
    assert len(world.effects) == 5


def test_threads_in_one_run_make_their_own_calls(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """Two conversations under one run id do not take each other's calls for their own."""
    model = Scripted(script=[call(("add", {"item": "egg"}, "1")), say()])
    plain = looped(model, [add_tool(world)]).compile(checkpointer=saver)
    graph = guard_graph(plain, guard, run_id="r-1")
    for name in ("a", "b"):
        graph.invoke(HELLO, thread(name))
        old = next(s for s in graph.get_state_history(thread(name)) if s.next == ("tools",))
        graph.invoke(None, old.config)
    assert world.effects == ["egg", "egg"]


@pytest.mark.parametrize("outside", [False, True])
def test_a_thread_of_its_own_keeps_its_calls_when_it_is_resumed_alone(
    guard: Guard, world: World, saver: InMemorySaver, *, outside: bool
) -> None:
    """A graph with a thread of its own, begun inside a tool, goes on by itself without repeating."""
    add = adding(world)

    def node(_: Mapping[str, Any]) -> dict[str, Any]:
        add("egg")
        return {"messages": [("ai", interrupt("well?"))]}

    inner = guard_graph(one_node(node).compile(checkpointer=saver), guard)

    @tool
    def delegate() -> str:
        """Ask another agent."""
        return str(inner.invoke(HELLO, thread("inner")))

    model = Scripted(script=[call(("delegate", {}, "1")), say()])
    outer = looped(model, [delegate]).compile(checkpointer=saver)
    (guard_graph(outer, guard) if outside else outer).invoke(HELLO, thread("outer"))
    inner.invoke(Command(resume="fine"), thread("inner"))
    assert world.effects == ["egg"]
    assert {run.id: run.status for run in guard.runs.list()}.get(
        "outer", "succeeded"
    ) == "succeeded"


def test_a_guarded_subgraph_in_a_loop_of_an_unguarded_graph_makes_its_calls(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """Each visit to a guarded subgraph is another one, in the one run that the thread names."""
    inner = guard_graph(one_node(lambda _: adding(world)("egg") and None).compile(), guard)
    builder = StateGraph(MessagesState)
    builder.add_node("sub", inner)
    builder.add_node("count", lambda _: {"messages": [("ai", "again")]})
    builder.add_edge(START, "sub")
    builder.add_edge("sub", "count")
    builder.add_conditional_edges(
        "count", lambda state: "sub" if len(state["messages"]) < 4 else "__end__"
    )
    builder.compile(checkpointer=saver).invoke(HELLO, thread())
    assert world.effects == ["egg"] * 3
    assert [run.id for run in guard.runs.list()] == ["r-1"]
