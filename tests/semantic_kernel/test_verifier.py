"""`model_verifier`: Semantic Kernel's chat services as verifiers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings

from agentguard import (
    ConfigurationError,
    Guard,
    Principal,
    VerificationFailed,
    idempotent,
    tool_contract,
    verified_by,
)
from agentguard.hosting import Judgement
from agentguard_semantic_kernel import model_verifier
from tests.semantic_kernel.world import Scripted, scripted

YES = json.dumps({"passed": True, "confidence": 0.9, "reason": "as asked"})
NO = json.dumps({"passed": False, "confidence": 0.9, "reason": "another amount"})


def paying(check: Any) -> Any:
    """A write that is verified."""

    @verified_by(check)
    @idempotent(per="call")
    @tool_contract(effect="write")
    async def pay(usd: int) -> str:
        return f"paid {usd}"

    return pay


async def test_a_chat_service_confirms(guard: Guard) -> None:
    """Its verdict counts; it sees rubric and data as system and user message."""
    service = scripted(YES)
    async with guard.run("w", run_id="r"):
        assert await paying(model_verifier(service, "The amount is 5."))(5) == "paid 5"
    [verdict] = [event.data for event in guard.runs.events("r") if event.kind == "verified"]
    assert (verdict["model"], verdict["passed"]) == ("scripted-1", True)
    system, user = service.asked[0]["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert "The amount is 5." in json.dumps(system)
    assert "usd" in json.dumps(user)


async def test_a_chat_services_no_is_a_no(guard: Guard) -> None:
    """What it answers in form refutes."""
    async with guard.run("w"):
        with pytest.raises(VerificationFailed, match="another amount") as failed:
            await paying(model_verifier(scripted(NO), "The amount is 6."))(5)
    assert not failed.value.unavailable


@pytest.mark.parametrize("says", [ConnectionError("down"), "It looks fine to me.", "{}"])
async def test_a_chat_service_that_fails_or_rambles_is_an_outage(guard: Guard, says: Any) -> None:
    """Neither an error nor another form is a yes."""
    async with guard.run("w"):
        with pytest.raises(VerificationFailed) as failed:
            await paying(model_verifier(scripted(says), "ok"))(5)
    assert failed.value.unavailable


async def test_the_proposer_in_disguise_is_refused(guard: Guard) -> None:
    """Another service object of the same model confirms nothing."""
    check = model_verifier(scripted(YES, ai_model_id="gpt-x"), "ok")
    async with guard.run("w", principal=Principal(model="azure:gpt-x")):
        with pytest.raises(ConfigurationError, match="asks gpt-x"):
            await paying(check)(5)


async def test_sync_tools_ask_it_on_an_event_loop_of_its_own(guard: Guard) -> None:
    """A sync function that an event loop has called can be verified by an async service."""

    @verified_by(model_verifier(scripted(YES), "ok"))
    @idempotent(per="call")
    @tool_contract(effect="write")
    def pay() -> str:
        return "paid"

    async with guard.run("w"):
        assert pay() == "paid"


async def test_services_with_structured_output_are_asked_for_it(guard: Guard) -> None:
    """Where a service's settings have a response format, the answer's form is enforced there."""
    seen: list[Any] = []

    class Settings(PromptExecutionSettings):
        response_format: Any = None

    class Structured(Scripted):
        def get_prompt_execution_settings_class(self) -> Any:
            return Settings

        async def _inner_get_chat_message_contents(self, chat_history: Any, settings: Any) -> Any:
            seen.append(settings.response_format)
            return await super()._inner_get_chat_message_contents(chat_history, settings)

    service = Structured(ai_model_id="judge-1", script=[YES], asked=[])
    async with guard.run("w"):
        await paying(model_verifier(service, "ok"))(5)
    assert seen == [Judgement]
