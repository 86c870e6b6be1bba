"""`GuardMiddleware` guards an agent of `create_agent` from inside, also without `guard_graph`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ModelCallLimitMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentguard import (
    BudgetExceeded,
    Guard,
    PermissionDenied,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard_langgraph import GuardMiddleware, guard_graph
from tests.langgraph.world import (
    HELLO,
    Scripted,
    answers,
    call,
    one_node,
    questions,
    say,
    thread,
    yes,
)
from tests.support import World


def paying(world: World, key: str = "pay:{to}") -> BaseTool:
    """A tool that needs a person above 50."""
    decorated = idempotent(key=key) if key != "call" else idempotent(per="call")

    @tool
    @tool_contract(effect="write")
    @decorated
    @requires_approval(when="amount > 50")
    def pay(to: str, amount: int) -> str:
        """Pay."""
        return world.happen(f"{to} {amount}")

    return pay


def agent(guard: Guard, tools: Any, script: Any, *more: Any, **options: Any) -> Any:
    """An agent with the middleware first."""
    saver = options.pop("checkpointer", None)
    middleware = [GuardMiddleware(guard, **options), *more]
    return create_agent(Scripted(script=script), tools, middleware=middleware, checkpointer=saver)


def run(graph: Any, what: Any, config: Any = None, *, asynchronous: bool = False) -> Any:
    """Invoke either way."""
    return asyncio.run(graph.ainvoke(what, config)) if asynchronous else graph.invoke(what, config)


PAY_TWICE = [
    call(("pay", {"to": "ann", "amount": 1}, "1")),
    call(("pay", {"to": "ann", "amount": 1}, "2")),
    say(),
]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("outside", [False, True])
def test_an_agent_is_guarded_once(
    guard: Guard, world: World, saver: InMemorySaver, *, asynchronous: bool, outside: bool
) -> None:
    """Effects, model calls and tokens are counted once, whether or not the graph is guarded too."""
    graph = agent(guard, [paying(world)], PAY_TWICE, checkpointer=saver)
    graph = guard_graph(graph, guard, workflow="agent") if outside else graph
    result = run(graph, HELLO, thread(), asynchronous=asynchronous)
    told = guard.runs.show("r-1")
    assert (world.effects, answers(result)[1]) == (["ann 1"], ("success", "done ann 1"))
    assert (told.model_calls, told.input_tokens, told.tool_calls) == (3, 30, 2)
    assert (told.status, told.part) == ("succeeded", 1)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_approval_pauses_the_agent(
    guard: Guard, world: World, saver: InMemorySaver, *, asynchronous: bool
) -> None:
    """The middleware alone pauses the agent for a person and lets it go on."""
    script = [call(("pay", {"to": "ann", "amount": 100}, "1")), say()]
    graph = agent(guard, [paying(world)], script, checkpointer=saver)
    (question,) = questions(run(graph, HELLO, thread(), asynchronous=asynchronous))
    assert (world.effects, guard.runs.show("r-1").status) == ([], "waiting")
    run(graph, Command(resume=yes(question)), thread(), asynchronous=asynchronous)
    told = guard.runs.show("r-1")
    assert (world.effects, told.status, told.part) == (["ann 100"], "succeeded", 2)


def test_an_agent_without_a_thread_is_a_run_of_its_own(guard: Guard, world: World) -> None:
    """All model and tool calls of one invocation belong to one run, and another one's to another."""
    graph = agent(guard, [paying(world, "call")], PAY_TWICE)
    result = graph.invoke(HELLO)
    graph.invoke(HELLO)
    assert [(r.model_calls, r.tool_calls) for r in guard.runs.list()] == [(3, 2), (3, 2)]
    assert world.effects == ["ann 1"] * 4
    assert set(result) == {"messages"}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_budget_ends_the_agent(guard: Guard, world: World, *, asynchronous: bool) -> None:
    """The middleware alone holds the agent to its budget of model calls, across its own entries."""
    graph = agent(guard, [paying(world)], PAY_TWICE, run_id="r-1", max_model_calls=2)
    with pytest.raises(BudgetExceeded, match="max_model_calls is 2"):
        run(graph, HELLO, asynchronous=asynchronous)
    assert guard.runs.show("r-1").model_calls == 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_refusal_from_another_middleware_is_told_to_the_model(
    guard: Guard, world: World, *, asynchronous: bool
) -> None:
    """An agentguard error raised below the middleware becomes an error message with its advice."""

    class Refusing(AgentMiddleware[Any, Any, Any]):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            raise PermissionDenied("not today")

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            raise PermissionDenied("not today")

    graph = agent(guard, [paying(world)], [PAY_TWICE[0], say()], Refusing())
    ((status, told),) = answers(run(graph, HELLO, asynchronous=asynchronous))
    assert (status, json.loads(told)["message"]) == ("error", "not today")


def test_it_lives_with_other_middlewares(guard: Guard, world: World, saver: InMemorySaver) -> None:
    """Retries and limits of LangChain's own around a guarded tool change nothing for the guard."""
    retry = ToolRetryMiddleware(initial_delay=0, jitter=False)
    limit = ModelCallLimitMiddleware(run_limit=10)
    graph = agent(guard, [paying(world)], PAY_TWICE, retry, limit, checkpointer=saver)
    graph.invoke(HELLO, thread())
    assert world.effects == ["ann 1"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_retrying_a_tool_that_lost_its_answer_happens_once(
    guard: Guard, world: World, *, asynchronous: bool
) -> None:
    """ToolRetryMiddleware runs a bare tool again after its effect; a guarded one it cannot."""

    def body(to: str) -> str:
        world.happen(to)
        raise ConnectionResetError("answer lost")

    @tool
    def bare(to: str) -> str:
        """Pay."""
        return body(to)

    @tool
    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    def guarded(to: str) -> str:
        """Pay."""
        return body(to)

    retry = ToolRetryMiddleware(initial_delay=0, jitter=False)
    for name in ("bare", "guarded"):
        graph = agent(guard, [bare, guarded], [call((name, {"to": name}, "1")), say()], retry)
        ((status, told),) = answers(run(graph, HELLO, asynchronous=asynchronous))
        assert status == "error"
    assert world.effects == ["bare", "bare", "bare", "guarded"]
    assert json.loads(told)["error"] == "effect_in_doubt"
    assert [effect.state.value for effect in guard.effects.list()] == ["in_doubt"]


def test_parallel_calls_of_one_turn_share_the_run(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """Entered by many threads at once, the run counts every call."""
    calls = call(*(("pay", {"to": f"p{n}", "amount": 1}, str(n)) for n in range(20)))
    graph = agent(guard, [paying(world)], [calls, say()], checkpointer=saver)
    graph.invoke(HELLO, thread())
    assert len(set(world.effects)) == len(world.effects) == 20
    assert guard.runs.show("r-1").tool_calls == 20


def test_calls_are_the_same_with_and_without_a_guarded_graph(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """What was done under the middleware alone is not repeated under a guarded graph."""

    @tool_contract(effect="write")
    @idempotent(per="call")
    def add(item: str) -> str:
        return world.happen(item)

    inner = one_node(lambda _: add("in a graph") and None).compile()

    @tool
    def shop() -> str:
        """Buy."""
        add("in code")
        inner.invoke(HELLO)
        return "bought"

    plain = agent(guard, [shop], [call(("shop", {}, "1")), say()], checkpointer=saver)
    plain.invoke(HELLO, thread())
    graph = guard_graph(plain, guard, workflow="agent")
    old = next(s for s in graph.get_state_history(thread()) if s.next == ("tools",))
    graph.invoke(None, old.config)
    assert world.effects == ["in code", "in a graph"]
