"""Models by role in LlamaIndex: each call reaches the model that the run names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from agentguard import (
    BudgetExceeded,
    Guard,
    idempotent,
    tool_contract,
    verified_by,
)
from agentguard.errors import ConfigurationError
from agentguard_llamaindex import guard_workflow, model_verifier, routed_llm
from tests.llamaindex.world import KINDS, Scripted, call, tool
from tests.routed import HEAVY, JUDGE, LIGHT, asked, refuting, routing

ASK = [ChatMessage(role="user", content="hello")]


class Named(Scripted):
    """A scripted model with a name of its own."""

    name: str

    @property
    def metadata(self) -> LLMMetadata:
        """What it says about itself."""
        return LLMMetadata(model_name=self.name, is_function_calling_model=True)


@pytest.fixture(name="guard")
def guard_with_routes() -> Iterator[Guard]:
    """A guard whose configuration routes."""
    with routing() as guard:
        yield guard


def models(kind: type[Named] = Named, **scripts: Any) -> dict[str, Any]:
    """Models by alias; each says its own name unless a script says more."""
    named = {"fast_cheap": LIGHT, "high_reasoning": HEAVY, "judge": JUDGE}
    return {a: kind(script=scripts.get(a, [name]), name=name) for a, name in named.items()}


async def _async(llm: Any, way: str) -> str:
    if way == "astream_chat":
        return [str(r.message.content) async for r in await llm.astream_chat(ASK)][-1]
    if way == "acomplete":
        return str(await llm.acomplete("hello"))
    if way == "apredict":
        return str(await llm.apredict(PromptTemplate("hello")))
    return str((await llm.achat(ASK)).message.content)


WAYS: dict[str, Any] = {
    "chat": lambda llm: llm.chat(ASK).message.content,
    "complete": lambda llm: str(llm.complete("hello")),
    "stream_chat": lambda llm: [r.message.content for r in llm.stream_chat(ASK)][-1],
    "stream_complete": lambda llm: [r.text for r in llm.stream_complete("hello")][-1],
    "predict": lambda llm: llm.predict(PromptTemplate("hello")),
    "with tools": lambda llm: llm.chat_with_tools([], user_msg="hello").message.content,
    **{
        way: lambda llm, way=way: asyncio.run(_async(llm, way))
        for way in ("achat", "acomplete", "astream_chat", "apredict")
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_ask_reaches_the_model_and_is_counted_once(guard: Guard, way: str) -> None:
    """The record has one call of the real model."""
    llm = routed_llm(guard, "executor", models=models())
    with guard.run(run_id="r"):
        assert WAYS[way](llm) == LIGHT
    assert asked(guard) == [LIGHT]


def test_each_role_reaches_its_own_model(guard: Guard) -> None:
    """Planner, executor and verifier are three models."""
    with guard.run(run_id="r"):
        for role in ("planner", "executor", "verifier"):
            routed_llm(None, role, models=models()).complete("hello")
    assert asked(guard) == [HEAVY, LIGHT, JUDGE]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_executor_of_an_agent_escalates_after_a_failed_verdict(
    guard: Guard, kind: str
) -> None:
    """Its next turn is the heavier model's; tools are called by both."""
    turns: list[Any] = [
        call(("pay", {"amount": 1}, "1")), call(("pay", {"amount": 2}, "2")), "done",
    ]  # fmt: skip
    llm = routed_llm(guard, "executor", models=models(fast_cheap=turns, high_reasoning=turns))
    agent: Any = FunctionAgent(
        name="payer", description="Pays.", tools=[tool(refuting(False, True))], llm=llm
    )
    workflow: Any = agent if kind == "FunctionAgent" else AgentWorkflow(agents=[agent])
    await guard_workflow(workflow, guard, run_id="r").run(user_msg="pay")
    assert asked(guard) == [LIGHT, HEAVY, HEAVY]
    [moved] = [e.data for e in guard.runs.events("r") if e.kind == "model.routed"]
    assert (moved["from"], moved["to"]) == ("openai:gpt-5.1-nano", "openai:gpt-5.1")


async def test_over_budget_it_does_not_escalate_and_a_resumed_run_keeps_it(guard: Guard) -> None:
    """The heavier model takes over where one call of it fits, and stays."""
    llm, pay = routed_llm(guard, "executor", models=models()), refuting(False)
    async with guard.run(run_id="r", max_spend_usd="0.01"):
        await llm.achat(ASK)
        with pytest.raises(Exception, match="undone"):
            await pay(1)
        await llm.achat(ASK)
    async with guard.run(run_id="r", max_spend_usd="10"):
        await llm.achat(ASK)
    async with guard.run(run_id="r"):
        await llm.achat(ASK)
    assert asked(guard) == [LIGHT, LIGHT, HEAVY, HEAVY]


async def test_it_is_the_model_of_all_as_settings_llm(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Settings.llm` is asked through whatever uses it, and refused by the budget."""
    monkeypatch.setattr(Settings, "_llm", None)
    Settings.llm = routed_llm(guard, "planner", models=models())
    async with guard.run(run_id="r", max_model_calls=1):
        assert str(await Settings.llm.acomplete("hello")) == HEAVY
        assert Settings.llm.metadata.model_name == HEAVY
        with pytest.raises(BudgetExceeded):
            await Settings.llm.acomplete("hello")
    assert asked(guard) == [HEAVY]


def test_structured_answers_are_the_real_models(guard: Guard) -> None:
    """Also by the model in structured form, which asks anew each time."""

    class Answer(BaseModel):
        text: str

    class Forming(Named):
        def structured_predict(self, output_cls: Any, *_: Any, **__: Any) -> Any:
            return output_cls(text=self.complete("hello").text)

    llm = routed_llm(guard, "executor", models=models(Forming))
    with guard.run(run_id="r"):
        assert llm.structured_predict(Answer, PromptTemplate("hello")) == Answer(text=LIGHT)
        assert llm.as_structured_llm(Answer).complete("hello").raw == Answer(text=LIGHT)
    assert asked(guard) == [LIGHT, LIGHT]


def test_a_verifier_of_a_proposers_role_is_refused(guard: Guard) -> None:
    """It says which model it is, so that it is held against who proposes."""
    judge = model_verifier(routed_llm(guard, "verifier", models=models()), "Fits.")
    assert judge.identity.model == JUDGE
    itself = model_verifier(routed_llm(guard, "executor", models=models()), "Fits.")

    @verified_by(itself)
    @idempotent(key="{amount}")
    @tool_contract(effect="write")
    def pay(amount: int) -> str:
        return str(amount)

    [problem] = guard.check([pay])
    assert "which proposes the calls" in problem


def test_outside_of_runs_the_guard_says_which_model(guard: Guard) -> None:
    """Without a guard it is told that nobody does."""
    assert routed_llm(guard, "executor", models=models()).complete("hello").text == LIGHT
    with pytest.raises(ConfigurationError, match="give the guard"):
        routed_llm(None, "executor", models=models()).complete("hello")


def test_a_model_that_nobody_has_given_is_told(guard: Guard) -> None:
    """With its alias, as models= wants it."""
    llm = routed_llm(guard, "executor", models={})
    with pytest.raises(ConfigurationError, match=r"gpt-5.1-nano \(fast_cheap\) for the executor"):
        llm.complete("hello")
