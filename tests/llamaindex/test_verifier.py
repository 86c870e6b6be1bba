"""`model_verifier`: LlamaIndex's models as verifiers, by their structured output."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import LLMMetadata

from agentguard import (
    ConfigurationError,
    Guard,
    Principal,
    VerificationFailed,
    idempotent,
    tool_contract,
    verified_by,
)
from agentguard_llamaindex import guard_llm, model_verifier
from tests.llamaindex.world import Scripted, call

YES = {"passed": True, "confidence": 0.9, "reason": "as asked", "differences": []}


class Judge(Scripted):
    """A model that answers by calling the function of its structured output."""

    named: str = "judge-1"

    @property
    def metadata(self) -> LLMMetadata:
        """What it says about itself."""
        return LLMMetadata(model_name=self.named, is_function_calling_model=True)


def judge(says: Any = None, **options: Any) -> Judge:
    """A model that judges so."""
    answer = says if isinstance(says, str | BaseException) else call(
        ("Judgement", {**YES, **(says or {})}, "c-1")
    )  # fmt: skip
    return Judge(script=[answer], **options)


def paying(check: Any) -> Any:
    """A write that is verified."""

    @verified_by(check)
    @idempotent(per="call")
    @tool_contract(effect="write")
    def pay(usd: int) -> str:
        return f"paid {usd}"

    return pay


def test_a_model_confirms_by_structured_output(guard: Guard) -> None:
    """Its verdict counts, braces in the data are no template, and the record names the model."""
    with guard.run("w", run_id="r"):
        assert paying(model_verifier(judge(), "The {amount} is 5."))(5) == "paid 5"
    [verdict] = [event.data for event in guard.runs.events("r") if event.kind == "verified"]
    assert (verdict["model"], verdict["confidence"]) == ("judge-1", "0.9")


def test_a_models_no_is_a_no(guard: Guard) -> None:
    """Structured output that says no refutes."""
    check = model_verifier(judge({"passed": False, "reason": "another amount"}), "ok")
    with guard.run("w"), pytest.raises(VerificationFailed, match="another amount") as failed:
        paying(check)(5)
    assert not failed.value.unavailable


@pytest.mark.parametrize("says", [ConnectionError("down"), "I think it is fine.", {"passed": 7}])
def test_a_model_that_fails_or_rambles_is_an_outage(guard: Guard, says: Any) -> None:
    """Neither an error nor another form is a yes."""
    with guard.run("w"), pytest.raises(VerificationFailed) as failed:
        paying(model_verifier(judge(says), "ok"))(5)
    assert failed.value.unavailable


def test_the_proposer_in_disguise_is_refused(guard: Guard) -> None:
    """Another object of the same model, guarded or not, confirms nothing."""
    check = model_verifier(guard_llm(judge(named="gpt-x")), "ok")
    pay = paying(check)
    with (
        guard.run("w", principal=Principal(model="openai:gpt-x")),
        pytest.raises(ConfigurationError, match="asks gpt-x"),
    ):
        pay(5)


def test_its_calls_are_counted_and_make_it_no_proposer(guard: Guard) -> None:
    """A guarded model that verifies is paid for by the run and has proposed nothing in it."""
    pay = paying(model_verifier(guard_llm(judge()), "ok"))
    with guard.run("w", run_id="r"):
        pay(5)
        pay(6)
    assert guard.runs.show("r").model_calls == 2


async def test_async_tools_ask_it_on_their_event_loop(guard: Guard) -> None:
    """The async way of structured output is used where there is an event loop."""

    @verified_by(model_verifier(judge(), "ok"))
    @idempotent(per="call")
    @tool_contract(effect="write")
    async def pay() -> str:
        return "paid"

    async with guard.run("w"):
        assert await pay() == "paid"
