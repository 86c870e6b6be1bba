"""Tools one cannot decorate, and tools over decorated functions: the same to everybody else."""

from __future__ import annotations

import asyncio
import copy
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import CallbackManagerForToolRun
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import (
    BaseTool,
    InjectedToolArg,
    InjectedToolCallId,
    StructuredTool,
    Tool,
    tool,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from pydantic import BaseModel, Field

from agentguard import (
    ConfigurationError,
    Guard,
    budget,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard_langgraph import guard_graph, guard_tools
from tests.langgraph.world import HELLO, Scripted, answers, call, looped, say, thread
from tests.support import World


class Payment(BaseModel):
    """What a payment needs."""

    to: str
    amount: int = Field(gt=0, description="in US dollars")


class PayTool(BaseTool):
    """A tool that has its body in methods."""

    name: str = "pay"
    description: str = "Pay somebody."
    args_schema: Any = Payment
    world: Any

    def _run(
        self, to: str, amount: int, config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | None = None,
    ) -> str:  # fmt: skip
        return str(self.world.happen(f"{to} {amount} {bool(config)} {bool(run_manager)}"))


class AsyncPayTool(PayTool):
    """The same with a body for event loops."""

    async def _arun(self, to: str, amount: int) -> str:
        return str(self.world.happen(f"{to} {amount} async"))


def structured(world: World) -> StructuredTool:
    """A tool made of functions."""

    def pay(to: str, amount: int, state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Pay somebody."""
        return world.happen(f"{to} {amount} {len(state['messages'])}")

    async def apay(to: str, amount: int, state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Pay somebody."""
        return world.happen(f"{to} {amount} {len(state['messages'])} async")

    return StructuredTool.from_function(pay, apay)


def by_schema(world: World) -> StructuredTool:
    """A tool as MCP's adapters make them: JSON Schema, any keywords, content and artifact."""

    async def call_tool(**arguments: Any) -> tuple[list[dict[str, str]], None]:
        text = world.happen(f"{arguments['to']} {arguments['amount']}")
        return [{"type": "text", "text": text}], None

    return StructuredTool(
        name="pay", description="Pay.", args_schema=Payment.model_json_schema(),
        coroutine=call_tool, response_format="content_and_artifact",
    )  # fmt: skip


POLICY = {"effect": "write", "key": "pay:{to}"}
MAKERS = {
    "structured": structured,
    "class": lambda world: PayTool(world=world),
    "class with _arun": lambda world: AsyncPayTool(world=world),
    "schema": by_schema,
}
TWICE = [call(("pay", {"to": "ann", "amount": 5}, str(n))) for n in range(2)]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_any_kind_of_tool_can_be_guarded(
    guard: Guard, world: World, kind: str, *, asynchronous: bool
) -> None:
    """Called twice for one key, a guarded tool has one effect and gives one answer twice."""
    if kind == "schema" and not asynchronous:
        pytest.skip("an asynchronous tool")
    tools = guard_tools([MAKERS[kind](world)], guard, **POLICY)
    graph = guard_graph(looped(Scripted(script=[*TWICE, say()]), tools).compile(), guard)
    result = asyncio.run(graph.ainvoke(HELLO)) if asynchronous else graph.invoke(HELLO)
    first, second = answers(result)
    assert (first, first[0], len(world.effects)) == (second, "success", 1)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_model_sees_no_difference(guard: Guard, world: World, kind: str) -> None:
    """Name, description, arguments and schema of a guarded tool are those of the tool."""
    plain: Any = MAKERS[kind](world)
    (guarded,) = guard_tools([plain], guard, **POLICY)
    for told in ("name", "description", "args", "response_format", "return_direct"):
        assert getattr(guarded, told) == getattr(plain, told)
    if not isinstance(plain.tool_call_schema, dict):
        schemas: list[Any] = [guarded.tool_call_schema, plain.tool_call_schema]
        assert schemas[0].model_json_schema() == schemas[1].model_json_schema()
    assert isinstance(guarded, type(plain))


def test_the_tool_itself_stays_unguarded(guard: Guard, world: World) -> None:
    """Guarding makes copies; the tools that were given stay as they were."""
    plain = [structured(world), PayTool(world=world)]
    guard_tools(plain, guard, **POLICY)
    for _ in range(2):
        plain[1].invoke({"to": "ann", "amount": 1})
    assert len(world.effects) == 2


def test_policy_by_name_comes_from_the_configuration(tmp_path: Any, world: World) -> None:
    """What the file says about a tool of this name applies to the tool object."""
    file = tmp_path / "agent_run.yaml"
    file.write_text(
        "agent_run:\n  workflow: w\n  tools:\n    pay:\n      effect: write\n"
        "      idempotency:\n        key: 'pay:{to}'\n"
    )
    guard = Guard.from_config(file, store=f"sqlite:///{tmp_path}/a.db")
    tools = guard_tools([structured(world)], guard)
    guard_graph(looped(Scripted(script=[*TWICE, say()]), tools).compile(), guard).invoke(HELLO)
    assert (world.effects, guard.runs.list()[0].workflow) == (["ann 5 2"], "w")
    guard.close()


def test_a_tool_that_is_decorated_already_keeps_its_own_policy(guard: Guard, world: World) -> None:
    """A list of tools may have decorated ones in it: they stay as they are, and write once."""

    @tool
    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    (guarded,) = guard_tools([pay], guard)
    with guard.run("w"):
        assert [guarded.invoke({"to": "ann"}) for _ in range(2)] == ["done ann"] * 2
    assert world.effects == ["ann"]


def test_a_tool_without_a_policy_is_refused(guard: Guard, world: World) -> None:
    """What a tool does is said, never guessed."""
    with pytest.raises(ConfigurationError, match="effect="):
        guard_tools([structured(world)], guard)
    with pytest.raises(ConfigurationError, match="takes tool objects, not function"):
        guard_tools([lambda: None], guard, effect="read")  # type: ignore[list-item]


@pytest.mark.parametrize(
    "decorate",
    [
        tool_contract(effect="write"),
        idempotent(key="x"),
        requires_approval(),
        budget(max_calls=1),
    ],
)
@pytest.mark.parametrize("kind", ["structured", "class"])
def test_a_decorator_above_a_tool_object_is_refused(world: World, decorate: Any, kind: str) -> None:
    """Runtimes call a tool object's methods, so a decorator around it would never run."""
    with pytest.raises(ConfigurationError, match=r"below @tool\), or use guard_tools"):
        decorate(MAKERS[kind](world))


def test_injected_arguments_are_filled_hidden_and_not_hashed(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """What LangGraph injects reaches the body, and neither the model, the hash nor the record."""
    given: list[Any] = []

    @tool
    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    def pay(
        to: str,
        state: Annotated[dict[str, Any], InjectedState],
        call_id: Annotated[str, InjectedToolCallId],
        runtime: ToolRuntime,
        config: RunnableConfig,
        secret: Annotated[str, InjectedToolArg] = "server side",
    ) -> str:
        """Pay."""
        given.append((len(state["messages"]), call_id, runtime.tool_call_id, secret, bool(config)))
        return world.happen(to)

    schema: Any = pay.tool_call_schema
    assert list(schema.model_json_schema()["properties"]) == ["to"]
    calls = [call(("pay", {"to": "ann"}, str(n))) for n in range(2)]
    graph = looped(Scripted(script=[*calls, say()]), [pay]).compile(checkpointer=saver)
    result = guard_graph(graph, guard).invoke(HELLO, thread())
    assert given == [(2, "0", "0", "server side", True)]
    assert [status for status, _ in answers(result)] == ["success", "success"]
    recorded = [(e.content or {}).get("arguments") for e in guard.runs.events("r-1")]
    assert [arguments for arguments in recorded if arguments] == [{"to": "ann"}]


def test_a_tool_message_comes_back_from_the_record(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """A tool that returns a message and an artifact returns both again when it is replayed."""

    @tool(response_format="content_and_artifact")
    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    def pay(to: str) -> tuple[str, dict[str, int]]:
        """Pay."""
        world.happen(to)
        return "paid", {"receipt": 7}

    calls = [call(("pay", {"to": "ann"}, str(n))) for n in range(2)]
    graph = looped(Scripted(script=[*calls, say()]), [pay]).compile(checkpointer=saver)
    result = guard_graph(graph, guard).invoke(HELLO, thread())
    messages = [m for m in result["messages"] if isinstance(m, ToolMessage)]
    assert [(m.content, m.artifact) for m in messages] == [("paid", {"receipt": 7})] * 2
    assert world.effects == ["ann"]


def test_copies_of_guarded_tools_are_guarded(guard: Guard, world: World) -> None:
    """Copying a tool, deeply or not, does not copy its way past the guard."""

    @tool
    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    (wrapped,) = guard_tools([PayTool(world=None)], guard, **POLICY)
    copies = [pay, copy.copy(pay), copy.deepcopy(pay), pay.model_copy(deep=True)]
    with guard.run("w", loops="off"):
        for copied in copies:
            copied.invoke({"to": "ann"})
        for copied in (wrapped, copy.copy(wrapped), wrapped.model_copy()):
            with pytest.raises(Exception, match=r"failed with AttributeError|not known"):
                copied.invoke({"to": "bob", "amount": 1})
    assert world.effects == ["ann"]


def test_a_single_input_tool_can_be_guarded(guard: Guard, world: World) -> None:
    """The oldest kind of tool, with one text for an argument, works too."""
    old = Tool("echo", world.happen, "Echo.")
    (guarded,) = guard_tools([old], guard, effect="write", key="echo:{effect}")
    with guard.run("w"):
        assert [guarded.invoke("hi"), guarded.invoke("hi")] == ["done hi", "done hi"]
    assert world.effects == ["hi"]


async def test_a_sync_tool_does_not_hold_up_the_loop(guard: Guard, world: World) -> None:
    """A guarded sync tool runs in a worker thread, as the bare one does."""
    import threading

    threads = []

    @tool
    @tool_contract(effect="read")
    def look() -> str:
        """Look."""
        threads.append(threading.current_thread())
        return "seen"

    graph = looped(Scripted(script=[call(("look", {}, "1")), say()]), [look]).compile()
    await guard_graph(graph, guard).ainvoke(HELLO)
    assert threads != [threading.main_thread()]


def test_an_async_tool_is_refused_by_a_sync_graph_before_it_starts(
    guard: Guard, world: World
) -> None:
    """The framework's own refusal is not changed, and nothing is recorded as started."""

    @tool
    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    async def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    graph = looped(Scripted(script=[call(("pay", {"to": "a"}, "1")), say()]), [pay]).compile()
    with pytest.raises(NotImplementedError):
        guard_graph(graph, guard).invoke(HELLO)
    assert (world.effects, guard.effects.list()) == ([], [])


async def test_a_node_with_only_sync_hooks_works_on_an_event_loop(
    guard: Guard, world: World
) -> None:
    """Where a graph's own wrapper is synchronous, a guarded tool runs under `ainvoke` as well."""
    from langgraph.graph import END, START, MessagesState, StateGraph

    @tool
    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    model = Scripted(script=[call(("pay", {"to": "ann"}, "1")), say()])
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda s: {"messages": [model.invoke(s["messages"])]})
    builder.add_node("tools", ToolNode([pay], wrap_tool_call=lambda r, execute: execute(r)))
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda s: "tools" if s["messages"][-1].tool_calls else END
    )
    builder.add_edge("tools", "model")
    result = await guard_graph(builder.compile(), guard).ainvoke(HELLO)
    assert (answers(result), world.effects) == ([("success", "done ann")], ["ann"])
