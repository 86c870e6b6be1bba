"""`model_verifier`: LangChain's chat models as verifiers, by their structured output."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from agentguard import (
    ConfigurationError,
    Guard,
    Principal,
    VerificationFailed,
    idempotent,
    tool_contract,
    verified_by,
)
from agentguard_langchain import model_verifier, reporting

YES = {"passed": True, "confidence": 0.9, "reason": "as asked", "differences": []}
NO = {**YES, "passed": False, "reason": "another amount", "differences": ["5 instead of 6"]}


class Judge(BaseChatModel):
    """A chat model that answers by calling the tool of its structured output."""

    model_name: str = "judge-1"
    says: Any = YES
    asked: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        """Take the form of the answer as a tool, as providers do."""
        del tools
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.asked.append(messages)
        if isinstance(self.says, BaseException):
            raise self.says
        calls = [{"name": "Judgement", "args": self.says, "id": "c-1"}]
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=calls))])


def paying(*checks: Any) -> Any:
    """A write that is verified."""

    @verified_by(*checks)
    @idempotent(per="call")
    @tool_contract(effect="write")
    def pay(usd: int) -> str:
        return f"paid {usd}"

    return pay


def test_a_chat_model_confirms_by_structured_output(guard: Guard) -> None:
    """Its verdict counts, and the record says which model gave it, of which prompt."""
    judge = Judge(asked=[])
    check = model_verifier(judge, "The amount is 5.", prompt_version="2")
    with guard.run("w", run_id="r"):
        assert paying(check)(5) == "paid 5"
    [verdict] = [event.data for event in guard.runs.events("r") if event.kind == "verified"]
    assert (verdict["model"], verdict["prompt_version"]) == ("judge-1", "2")
    system, data = judge.asked[0]
    assert "The amount is 5." in system.content
    assert '"usd": 5' in data.content


def test_a_chat_models_no_is_a_no(guard: Guard) -> None:
    """What it found to differ stands beside the verdict."""
    check = model_verifier(Judge(says=NO), "The amount is 6.")
    with guard.run("w", run_id="r"), pytest.raises(VerificationFailed, match="another amount"):
        paying(check)(5)
    [event] = [event for event in guard.runs.events("r") if event.kind == "verified"]
    assert event.content == {"diff": {"differences": ["5 instead of 6"]}}


@pytest.mark.parametrize("says", [TimeoutError("slow"), {"passed": "perhaps"}, {}])
def test_a_chat_model_that_fails_or_rambles_is_an_outage(guard: Guard, says: Any) -> None:
    """Neither an error nor another form is a yes."""
    check = model_verifier(Judge(says=says), "ok")
    with guard.run("w"), pytest.raises(VerificationFailed) as failed:
        paying(check)(5)
    assert failed.value.unavailable


def test_a_fallback_answers_in_the_same_form(guard: Guard) -> None:
    """A judge with a spare one is asked as usual, and the spare one where it is down."""
    down: Any = Judge(says=ConnectionError("down"))
    check = model_verifier(down.with_fallbacks([Judge(model_name="judge-2")]), "ok")
    with guard.run("w"):
        assert paying(check)(5) == "paid 5"


def test_the_proposer_in_disguise_is_refused(guard: Guard) -> None:
    """Another object of the same model, behind fallbacks and a binding, confirms nothing."""
    spare = Judge(model_name="gpt-x").bind(temperature=0)
    judge: Any = Judge(model_name="judge-1").with_fallbacks([spare])
    check = model_verifier(judge, "ok")
    assert check.identity.models == ("judge-1", "gpt-x")
    pay = paying(check)
    with (
        guard.run("w", principal=Principal(model="openai:gpt-x")),
        pytest.raises(ConfigurationError, match="asks gpt-x"),
    ):
        pay(5)


def test_a_model_that_is_declared_as_another_is_refused() -> None:
    """`model=` cannot rename what the chat model says of itself."""
    with pytest.raises(ConfigurationError, match="the chat model says gpt-x: leave model= out"):
        model_verifier(Judge(model_name="gpt-x"), "ok", model="judge-1")


def test_its_calls_are_counted_and_make_it_no_proposer(guard: Guard) -> None:
    """The run pays for its verifiers, whose calls are told apart from those that propose."""
    pay = paying(model_verifier(Judge(asked=[]), "ok"))
    with guard.run("w", run_id="r") as run, reporting(run):
        pay(5)
        pay(6)
    calls = [event.data for event in guard.runs.events("r") if event.kind == "model.called"]
    assert [(call["model"], call["verifier"]) for call in calls] == [
        ("judge-1", "model_verifier")
    ] * 2
    assert guard.runs.show("r").model_calls == 2


def test_the_model_that_the_chain_has_called_may_not_verify(guard: Guard) -> None:
    """What LangChain has reported to the run is what proposes in it."""
    with guard.run("w") as run, reporting(run):
        Judge(model_name="gpt-x").invoke("what shall I do?")
        with pytest.raises(ConfigurationError, match="gpt-x, which proposes"):
            paying(model_verifier(Judge(model_name="gpt-x"), "ok"))(5)


async def test_async_tools_ask_it_on_their_event_loop(guard: Guard) -> None:
    """`ainvoke` is used where there is an event loop."""

    class Async(Judge):
        async def _agenerate(self, *given: Any, **more: Any) -> ChatResult:
            self.asked.append("async")
            return self._generate(*given, **more)

    judge = Async(asked=[])

    @verified_by(model_verifier(judge, "ok"))
    @idempotent(per="call")
    @tool_contract(effect="write")
    async def pay() -> None:
        """Pay."""

    async with guard.run("w"):
        await pay()
    assert judge.asked[0] == "async"
