"""Refusals reach whom they concern: the model is told, or the invocation ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    ToolErrorMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, RetryPolicy

from agentguard import (
    BudgetExceeded,
    ContractViolation,
    Guard,
    GuardError,
    IdempotencyConflict,
    LoopDetected,
    PermissionDenied,
    Principal,
    RunHalted,
    idempotent,
    tool_contract,
)
from agentguard_langgraph import guard_graph
from tests.langgraph.world import HELLO, Scripted, answers, call, looped, one_node, say, thread
from tests.support import World


def paying(world: World, **contract: Any) -> BaseTool:
    """A tool with an effect."""

    @tool
    @tool_contract(**{"effect": "write", **contract})
    @idempotent(key="pay:{to}")
    def pay(to: str, amount: int = 1) -> str:
        """Pay."""
        return world.happen(f"{to} {amount}")

    return pay


TWICE = [
    call(("pay", {"to": "ann", "amount": 1}, "1")),
    call(("pay", {"to": "ann", "amount": 2}, "2")),
    say("told"),
]
"""The second call comes under the key of the first, with other arguments."""


def agents(model: Any, tools: list[BaseTool], *middleware: Any, **compiled: Any) -> dict[str, Any]:
    """Both kinds of agent loop."""
    return {
        "ToolNode": looped(model, tools).compile(**compiled),
        "create_agent": create_agent(model, tools, middleware=middleware, **compiled),
    }


@pytest.mark.parametrize("kind", ["ToolNode", "create_agent"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_model_is_told_of_a_refusal_and_goes_on(
    guard: Guard, world: World, kind: str, *, asynchronous: bool
) -> None:
    """Under default error handling a refusal is an error message with advice, not an abort."""
    graph = guard_graph(agents(Scripted(script=TWICE), [paying(world)])[kind], guard)
    result = asyncio.run(graph.ainvoke(HELLO)) if asynchronous else graph.invoke(HELLO)
    (_, first), (status, second) = answers(result)
    assert (first, status) == ("done ann 1", "error")
    assert json.loads(second)["error"] == "idempotency_conflict"
    assert (result["messages"][-1].content, world.effects) == ("told", ["ann 1"])


def test_bad_arguments_are_told_without_their_values(guard: Guard, world: World) -> None:
    """What the contract refuses is told to the model by name and rule."""

    @tool
    @tool_contract(effect="write", sensitive=["to"])
    @idempotent(key="pay:{to}")
    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    guarded = pay.model_copy(update={"args_schema": {"type": "object", "properties": {"to": {}}}})
    model = Scripted(script=[call(("pay", {"to": ["secret"]}, "1")), say()])
    result = guard_graph(looped(model, [guarded]).compile(), guard).invoke(HELLO)
    ((status, told),) = answers(result)
    assert (status, json.loads(told)["error"]) == ("error", "contract_violation")
    assert "secret" not in told
    assert world.effects == []


@pytest.mark.parametrize(
    ("handling", "told"),
    [
        (True, True),
        (False, False),
        (ValueError, False),
        (GuardError, True),
        ((KeyError, GuardError), True),
        ("sorry", True),
        (lambda error: f"handled {error}", True),
    ],
)
def test_the_graphs_own_error_handling_is_respected(
    guard: Guard, world: World, handling: Any, *, told: bool
) -> None:
    """Whoever configures `handle_tool_errors` gets what they configured, with our error in it."""
    model = Scripted(script=TWICE)
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda s: {"messages": [model.invoke(s["messages"])]})
    builder.add_node("tools", ToolNode([paying(world)], handle_tool_errors=handling))
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda s: "tools" if s["messages"][-1].tool_calls else END
    )
    builder.add_edge("tools", "model")
    graph = guard_graph(builder.compile(), guard)
    if told:
        assert answers(graph.invoke(HELLO))[-1][0] == "error"
    else:
        with pytest.raises(GuardError, match="other arguments"):
            graph.invoke(HELLO)
    assert world.effects == ["ann 1"]


def test_outside_a_tool_call_a_refusal_is_raised_as_it_is(guard: Guard, world: World) -> None:
    """A node's own code catches the plain error, with its own message."""
    pay = paying(world).func  # type: ignore[attr-defined]
    caught: list[BaseException] = []

    def node(_: Mapping[str, Any]) -> None:
        pay("ann", 1)
        try:
            pay("ann", 2)
        except GuardError as error:
            caught.append(error)

    guard_graph(one_node(node).compile(), guard).invoke(HELLO)
    assert type(caught[0]).__mro__[1] is GuardError


@pytest.mark.parametrize("policy", [RetryPolicy(initial_interval=0, jitter=False), None])
def test_a_refusal_is_not_retried_by_the_default_policy(
    guard: Guard, world: World, policy: RetryPolicy | None
) -> None:
    """LangGraph's default RetryPolicy leaves our errors alone: a node that is refused runs once."""
    pay = paying(world).func  # type: ignore[attr-defined]
    attempts: list[int] = []

    def node(_: Mapping[str, Any]) -> None:
        attempts.append(1)
        pay("ann", 1)
        pay("ann", 2)

    with pytest.raises(IdempotencyConflict):
        guard_graph(one_node(node, retry_policy=policy).compile(), guard).invoke(HELLO)
    assert (len(attempts), world.effects) == (1, ["ann 1"])


@pytest.mark.parametrize("kind", ["ToolNode", "create_agent"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_exhausted_budget_ends_the_invocation(
    guard: Guard, world: World, kind: str, *, asynchronous: bool
) -> None:
    """No error handling and no retry swallows a halt; the caller catches it by its own name."""
    calls = [call(("pay", {"to": f"p{n}"}, str(n))) for n in range(5)]
    eager = [
        ToolRetryMiddleware(initial_delay=0, jitter=False),
        ToolErrorMiddleware(on_error=lambda *_: "never mind"),
        ModelRetryMiddleware(initial_delay=0, jitter=False),
        ModelFallbackMiddleware(Scripted(script=[say("fallback")])),
    ]
    plain = agents(Scripted(script=[*calls, say()]), [paying(world)], *eager)[kind]
    bounded = guard_graph(plain, guard, run_id="r-1", max_tool_calls=2)
    with pytest.raises(BudgetExceeded, match="max_tool_calls is 2") as raised:
        asyncio.run(bounded.ainvoke(HELLO)) if asynchronous else bounded.invoke(HELLO)
    assert world.effects == ["p0 1", "p1 1"]
    assert (raised.value.budget, raised.value.run_id) == ("max_tool_calls", "r-1")
    assert guard.runs.show("r-1").status in ("failed", "halted")


def test_a_halt_comes_out_of_a_nested_graph(guard: Guard, world: World) -> None:
    """Two graphs down, under a RetryPolicy that retries everything, a halt is still a halt."""
    inner = agents(Scripted(script=TWICE), [paying(world)])["create_agent"]
    builder = StateGraph(MessagesState)
    always = RetryPolicy(initial_interval=0, jitter=False, retry_on=lambda _: True)
    builder.add_node("sub", inner, retry_policy=always)
    builder.add_edge(START, "sub")
    graph = guard_graph(builder.compile(), guard, run_id="r-1")
    guard.kill(tool="pay", by="op", reason="incident")
    with pytest.raises(RunHalted, match="incident"):
        graph.invoke(HELLO)
    assert world.effects == []


def test_a_halted_run_goes_on_when_the_switch_is_lifted(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """A halt is no result: the pending call is made when the graph is resumed."""
    model = Scripted(script=[call(("pay", {"to": "ann"}, "1")), say()])
    graph = guard_graph(looped(model, [paying(world)]).compile(checkpointer=saver), guard)
    guard.kill(all=True, by="op", reason="incident")
    with pytest.raises(RunHalted):
        graph.invoke(HELLO, thread())
    guard.kill(all=True, by="op", reason="over", lift=True)
    assert answers(graph.invoke(None, thread())) == [("success", "done ann 1")]


def test_a_repeating_model_is_stopped(guard: Guard, world: World) -> None:
    """A loop of equal calls ends the invocation, however patient the model is."""

    @tool
    @tool_contract(effect="read")
    def look(at: str) -> str:
        """Look."""
        return at

    model = Scripted(script=[call(("look", {"at": "it"}, "1"))])
    graph = guard_graph(looped(model, [look]).compile(), guard, max_repeats=3)
    with pytest.raises(LoopDetected):
        graph.invoke(HELLO)


def test_missing_scopes_are_told_to_the_model(guard: Guard, world: World) -> None:
    """The principal's scopes hold inside the graph."""
    tools = [paying(world, scopes=["pay:write"])]
    graph = guard_graph(
        looped(Scripted(script=TWICE[:1] + TWICE[2:]), tools).compile(), guard,
        principal=Principal(scopes=frozenset({"read"})),
    )  # fmt: skip
    ((status, told),) = answers(graph.invoke(HELLO))
    assert (status, json.loads(told)["error"]) == ("error", "permission_denied")
    assert world.effects == []


def test_a_tools_own_goto_passes_through(guard: Guard, world: World, saver: InMemorySaver) -> None:
    """A guarded tool that steers the graph with a Command steers it, also when replayed."""
    from langchain_core.messages import ToolMessage

    visited: list[str] = []

    @tool
    @tool_contract(effect="read")
    def leave(to: str) -> Any:
        """Leave."""
        return Command(
            goto=to, update={"messages": [ToolMessage(f"off to {to}", tool_call_id="1")]}
        )

    builder = looped(Scripted(script=[call(("leave", {"to": "exit"}, "1")), say()]), [leave])
    builder.add_node("exit", lambda _: visited.append("exit"))
    result = guard_graph(builder.compile(checkpointer=saver), guard).invoke(HELLO, thread())
    assert visited == ["exit"]
    assert answers(result)[0] == ("success", "off to exit")


@pytest.mark.parametrize("error", [PermissionDenied("no"), ContractViolation("bad")])
def test_a_dressed_error_keeps_what_it_says_and_carries(error: GuardError) -> None:
    """Dressing an error for LangGraph changes its class, and neither its words nor its fields."""
    from agentguard_langgraph import _errors

    error.run_id = "r-9"
    for dressed in (_errors.for_model(error), _errors.for_caller(error)):
        assert isinstance(dressed, type(error))
        assert (str(dressed), repr(dressed)) == (str(error), repr(error))
        assert (dressed.run_id, dressed.for_model()) == ("r-9", error.for_model())
        assert _errors.for_caller(_errors.for_caller(error)).args == dressed.args


def test_a_halt_is_a_halt_in_a_run_that_was_open_already(guard: Guard) -> None:
    """A graph that joins a run of plain Python brings its refusals past every retry as well."""
    retry = ModelRetryMiddleware(initial_delay=0, jitter=False, on_failure="continue")
    graph = guard_graph(create_agent(Scripted(script=[say()]), [], middleware=[retry]), guard)
    with pytest.raises(BudgetExceeded), guard.run("w", max_model_calls=0):
        graph.invoke(HELLO)
