"""Models by role in chains and agents: each call reaches the model that the run names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel

from agentguard import (
    BudgetExceeded,
    Guard,
    VerificationFailed,
    idempotent,
    tool_contract,
    verified_by,
)
from agentguard.config import loads
from agentguard.errors import ConfigurationError
from agentguard.guard import override
from agentguard.hosting import Run
from agentguard_langchain import model_verifier, reporting, routed_model
from agentguard_langgraph import GuardMiddleware, guard_graph
from tests.langgraph.world import HELLO, Scripted, Streaming, call, one_node, say
from tests.routed import HEAVY, JUDGE, LIGHT, asked, refuting, routing

ASK: list[Any] = [HumanMessage("hello")]


@pytest.fixture(name="guard")
def guard_with_routes() -> Iterator[Guard]:
    """A guard whose configuration routes."""
    with routing() as guard:
        yield guard


def models(kind: type[Scripted] = Scripted, **scripts: Any) -> dict[str, Any]:
    """Chat models by alias; each says its own name unless a script says more."""
    named = {"fast_cheap": LIGHT, "high_reasoning": HEAVY, "judge": JUDGE}
    return {
        alias: kind(script=scripts.get(alias, [say(name)]), model_name=name)
        for alias, name in named.items()
    }


def _text(said: Any) -> str:
    return str(said.content)


def _formed(schema: Any) -> Any:
    return lambda said: schema(text=_text(said))


async def _async(model: BaseChatModel, way: str) -> str:
    if way == "ainvoke":
        return str((await model.ainvoke(ASK)).content)
    return "".join([str(chunk.content) async for chunk in model.astream(ASK)])


def ask(model: BaseChatModel, way: str) -> str:
    """Ask the model in one of the ways in which chat models are asked."""
    ways: dict[str, Any] = {
        "invoke": lambda: model.invoke(ASK).content,
        "stream": lambda: "".join(str(chunk.content) for chunk in model.stream(ASK)),
        "chain": lambda: (model | StrOutputParser()).invoke(ASK),
        "batch": lambda: model.batch([ASK])[0].content,
        "bound": lambda: model.bind_tools([]).invoke(ASK).content,
        "stop": lambda: model.bind(stop=["x"]).invoke(ASK).content,
        "generate": lambda: model.generate([ASK]).generations[0][0].text,
    }
    return str(ways[way]() if way in ways else asyncio.run(_async(model, way)))


WAYS = ["invoke", "stream", "chain", "batch", "bound", "stop", "generate", "ainvoke", "astream"]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_ask_reaches_the_model_and_is_counted_once(guard: Guard, way: str) -> None:
    """The record has one call of the real model, at its price."""
    model = routed_model(guard, "executor", models=models(Streaming))
    with guard.run(run_id="r") as run, reporting(run):
        assert ask(model, way) == LIGHT
    info = guard.runs.show("r")
    assert (asked(guard), info.model_calls, info.cost_complete) == ([LIGHT], 1, True)


def test_each_role_reaches_its_own_model(guard: Guard) -> None:
    """Planner, executor and verifier are three models."""
    with guard.run(run_id="r") as run, reporting(run):
        for role in ("planner", "executor", "verifier"):
            routed_model(None, role, models=models()).invoke(ASK)
    assert asked(guard) == [HEAVY, LIGHT, JUDGE]


def test_the_executor_of_an_agent_escalates_after_a_failed_verdict(guard: Guard) -> None:
    """Its next turn is the heavier model's, whatever it was made with; others keep theirs."""
    turns = [call(("pay", {"amount": 1}, "1")), call(("pay", {"amount": 2}, "2")), say("done")]
    known = models(fast_cheap=turns, high_reasoning=turns)
    model = routed_model(guard, "executor", models=known)
    agent = create_agent(model, [tool(refuting(False, True))])
    result = guard_graph(agent, guard, run_id="r").invoke(HELLO)
    told = [(m.status, m.content) for m in result["messages"] if isinstance(m, ToolMessage)]
    assert [status for status, _ in told] == ["error", "success"]
    assert asked(guard) == [LIGHT, HEAVY, HEAVY]
    [moved] = [e.data for e in guard.runs.events("r") if e.kind == "model.routed"]
    assert (moved["from"], moved["to"]) == ("openai:gpt-5.1-nano", "openai:gpt-5.1")


async def test_it_is_the_same_under_the_middleware_on_an_event_loop(guard: Guard) -> None:
    """A run that is entered around single calls is asked at each of them."""
    turns = [call(("pay", {"amount": 1}, "1")), say("done")]
    known = models(fast_cheap=turns, high_reasoning=turns)
    agent: Any = create_agent(
        routed_model(None, "executor", models=known), [tool(refuting(False))],
        middleware=[GuardMiddleware(guard, run_id="r")],
    )  # fmt: skip
    await agent.ainvoke(HELLO)
    assert asked(guard) == [LIGHT, HEAVY]


def test_over_budget_it_does_not_escalate(guard: Guard) -> None:
    """The heavier model stays out where one call of it does not fit."""
    turns = [call(("pay", {"amount": 1}, "1")), say("done")]
    known = models(fast_cheap=turns, high_reasoning=turns)
    agent = create_agent(routed_model(guard, "executor", models=known), [tool(refuting(False))])
    # A light call costs 30 millionths of a dollar here, a heavy one 30 thousandths.
    guard_graph(agent, guard, run_id="r", max_spend_usd="0.03").invoke(HELLO)
    assert asked(guard) == [LIGHT, LIGHT]


def test_a_resumed_run_keeps_it(guard: Guard) -> None:
    """The heavier model is the run's, not the process's."""
    pay = tool(refuting(False))

    def node(_: Any) -> None:
        pay.invoke({"type": "tool_call", "name": "pay", "id": "1", "args": {"amount": 1}})

    with pytest.raises(VerificationFailed):
        guard_graph(one_node(node).compile(), guard, workflow="agent", run_id="r").invoke(HELLO)
    for _ in range(2):
        with guard.run("agent", run_id="r") as run, reporting(run):
            routed_model(None, "executor", models=models()).invoke(ASK)
    assert asked(guard) == [HEAVY, HEAVY]


def test_budgets_refuse_it_as_any_model(guard: Guard) -> None:
    """A routed call that has no room is not made."""
    model = routed_model(guard, "executor", models=models())
    with (
        guard.run(max_model_calls=0) as run,
        reporting(run),
        pytest.raises(BudgetExceeded, match="max_model_calls is 0"),
    ):
        model.invoke(ASK)


def test_structured_output_is_the_real_models(guard: Guard) -> None:
    """The form is asked of the model of the moment."""

    class Answer(BaseModel):
        text: str

    class Forming(Scripted):
        def with_structured_output(self, schema: Any, **_: Any) -> Any:
            return self | RunnableLambda(_formed(schema))

    model = routed_model(guard, "planner", models=models(Forming)).with_structured_output(Answer)
    with guard.run(run_id="r") as run, reporting(run):
        assert model.invoke(ASK) == Answer(text=HEAVY)
    assert asked(guard) == [HEAVY]


def test_a_verifier_of_the_routed_model_verifies(guard: Guard) -> None:
    """It says which model it is, so that it is held against who proposes."""
    judge = '{"passed": true, "confidence": 0.9, "reason": "fits"}'

    class Judging(Scripted):
        def with_structured_output(self, schema: Any, **_: Any) -> Any:
            return self | RunnableLambda(_text)

    known = models(Judging, judge=[say(judge)])
    verifier = model_verifier(routed_model(guard, "verifier", models=known), "It was paid.")
    assert verifier.identity.model == "anthropic:claude-5"

    @verified_by(verifier)
    @idempotent(key="{amount}")
    @tool_contract(effect="write")
    def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    with guard.run(run_id="r") as run, reporting(run):
        routed_model(guard, "executor", models=known).invoke(ASK)
        assert pay(1) == "paid 1"
    assert asked(guard) == [LIGHT, JUDGE]


@pytest.mark.parametrize("role", ["executor", "planner"])
def test_a_verifier_of_a_proposers_role_is_refused(guard: Guard, role: str) -> None:
    """Also where it would propose only after an escalation."""

    @verified_by(model_verifier(routed_model(guard, role, models=models()), "Fits."))
    @idempotent(key="{amount}")
    @tool_contract(effect="write")
    def pay(amount: int) -> str:
        return str(amount)

    [problem] = guard.check([pay])
    assert "which proposes the calls" in problem


def test_outside_of_runs_the_guard_says_which_model(guard: Guard) -> None:
    """Nothing escalates there."""
    model: Any = routed_model(guard, "executor", models=models())
    assert model.invoke(ASK).content == LIGHT
    assert model.model_name == "openai:gpt-5.1-nano"


def test_without_run_and_guard_it_is_told(guard: Guard) -> None:
    """A configured guard is no answer: it may be another one's."""
    with override(guard):
        model: Any = routed_model(None, "executor", models=models())
        with pytest.raises(ConfigurationError, match="give the guard"):
            model.invoke(ASK)
        assert model.model_name == ""


def test_a_model_that_nobody_knows_is_told() -> None:
    """An alias without a model, as in the article's file, needs one in code."""
    routes = "agent_run: {routing: {executor_model: fast_cheap}}"
    guard = Guard("memory://", config=loads(routes))
    with pytest.raises(
        ConfigurationError, match=r"no model fast_cheap for the executor \(Unable to infer.*name it"
    ):
        routed_model(guard, "executor").invoke(ASK)
    assert routed_model(guard, "executor", models=models()).invoke(ASK).content == LIGHT
    guard.close()


def test_a_model_is_made_once_for_each_name(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made by `init_chat_model` is kept, with the options that were given."""
    made: list[Any] = []

    def init(name: str, **options: Any) -> Any:
        made.append((name, options))
        return Scripted(script=[say(name)], model_name=name)

    monkeypatch.setattr("langchain.chat_models.init_chat_model", init)
    model = routed_model(guard, "executor", temperature=0)
    assert [model.invoke(ASK).content for _ in range(2)] == ["openai:gpt-5.1-nano"] * 2
    assert model.bind_tools([]).invoke(ASK).content == "openai:gpt-5.1-nano"
    assert made == [("openai:gpt-5.1-nano", {"temperature": 0})]


async def test_events_of_a_stream_name_the_real_model(guard: Guard) -> None:
    """Who follows a chain's events sees the model that answers."""
    model = routed_model(guard, "executor", models=models(Streaming))
    async with guard.run(run_id="r") as run, reporting(run):
        events = [event async for event in model.astream_events(ASK, version="v2")]
    names = {
        e.get("metadata", {}).get("ls_model_name") for e in events if "chat_model" in e["event"]
    }
    assert (names, asked(guard)) == ({LIGHT}, [LIGHT])


def test_a_nodes_run_is_asked(guard: Guard) -> None:
    """In a guarded graph a node needs no guard."""
    seen: list[Any] = []

    def node(_: Any, config: RunnableConfig) -> None:
        seen.append(routed_model(None, "planner", models=models()).invoke(ASK, config))

    guard_graph(one_node(node).compile(), guard, run_id="r").invoke(HELLO)
    assert isinstance(seen[0], AIMessage)
    assert asked(guard) == [HEAVY]
    assert isinstance(guard.run("w"), Run)
