"""Refusals reach whom they concern: the model is told, or the caller gets the error itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import AuthorRole
from semantic_kernel.exceptions import KernelInvokeException
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import KernelArguments, KernelFunctionFromPrompt

from agentguard import (
    BudgetExceeded,
    ConfigurationError,
    Guard,
    IdempotencyConflict,
    NoEffect,
    RunHalted,
    idempotent,
    tool_contract,
)
from agentguard_semantic_kernel import guard_kernel
from tests.semantic_kernel.world import AUTO, KINDS, Talk, call, kernel_of, scripted
from tests.support import World


def paying(world: World, **contract: Any) -> Any:
    """A function with an effect."""

    @tool_contract(**{"effect": "write", **contract})
    @idempotent(key="pay:{to}")
    def pay(to: str, amount: int = 1) -> str:
        """Pay."""
        return world.happen(f"{to} {amount}")

    return pay


ANN = call(("pay", {"to": "ann"}, "1"))
SETTINGS = PromptExecutionSettings(function_choice_behavior=AUTO)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_model_is_told_of_a_refusal_and_goes_on(
    guard: Guard, world: World, kind: str
) -> None:
    """It gets one JSON object with advice, and neither a stack trace nor Semantic Kernel's text."""
    other = call(("pay", {"to": "ann", "amount": 2}, "2"))
    talk = Talk(guard_kernel(kernel_of(scripted(ANN, other, "told"), paying(world)), guard), kind)
    said = await talk.ask("pay")
    assert str(said[0]) == "told"
    assert json.loads(talk.results["2"])["error"] == "idempotency_conflict"
    assert world.effects == ["ann 1"]


async def test_bad_arguments_are_told_without_their_values(guard: Guard, world: World) -> None:
    """What the contract refuses is told by name and rule."""

    @tool_contract(effect="write", sensitive=["to"])
    @idempotent(key="pay:{to}")
    def pay(to: dict[str, int]) -> str:
        """Pay."""
        return world.happen(f"{to}")

    calls = call(("pay", {"to": {"secret": "sesame"}}, "1"))
    talk = Talk(guard_kernel(kernel_of(scripted(calls, "told"), pay), guard))
    await talk.ask("pay")
    assert json.loads(talk.results["1"])["error"] == "contract_violation"
    assert "sesame" not in talk.results["1"]
    assert world.effects == []


@pytest.mark.parametrize("kind", KINDS)
async def test_what_halts_the_run_reaches_the_caller_when_all_calls_have_ended(
    guard: Guard, world: World, kind: str
) -> None:
    """A slow call beside it ends in its run, and its result is in the record."""
    guard.kill(tool="pay", by="dana", reason="wrong bank")

    @tool_contract(effect="write")
    @idempotent(per="call")
    async def slow() -> str:
        """Take time."""
        for _ in range(5):
            await asyncio.sleep(0)
        return world.happen("slow")

    calls = call(("slow", {}, "0"), ("pay", {"to": "ann"}, "1"))
    model = scripted(calls, "never")
    talk = Talk(guard_kernel(kernel_of(model, slow, paying(world)), guard), kind)
    with pytest.raises(RunHalted, match="wrong bank"):
        async with guard.run("refunds", run_id="r-1"):
            await talk.ask("pay")
    assert (world.effects, len(model.asked)) == (["slow"], 1)
    assert guard.runs.show("r-1").status == "failed"
    kinds = [event.kind for event in guard.runs.events("r-1")]
    assert kinds.index("step.finished") < kinds.index("run.finished") == len(kinds) - 1


@pytest.mark.parametrize("kind", ["agent stream", "service", "service stream"])
async def test_what_was_halted_is_carried_out_later(guard: Guard, world: World, kind: str) -> None:
    """The history has a placeholder; going on with it carries the call out and repeats no other."""
    guard.kill(tool="pay", by="dana", reason="wrong bank")
    kernel = guard_kernel(kernel_of(scripted(ANN, "paid"), paying(world)), guard)
    talk = Talk(kernel, kind)
    with pytest.raises(RunHalted):
        await talk.ask("pay")
    assert json.loads(talk.results["1"])["error"] == "run_halted"
    guard.kill(tool="pay", by="dana", reason="right bank", lift=True)
    talk = Talk(kernel, kind, talk.saved)
    assert str((await talk.ask())[0]) == "paid"
    assert (talk.results, world.effects) == ({"1": "done ann 1"}, ["ann 1"])


async def test_an_agents_thread_forgets_a_halted_turn(guard: Guard, world: World) -> None:
    """An agent keeps nothing of a turn that raised: asking again asks the model again."""
    guard.kill(tool="pay", by="dana", reason="wrong bank")
    model = scripted(ANN, "paid")
    talk = Talk(guard_kernel(kernel_of(model, paying(world)), guard))
    with pytest.raises(RunHalted):
        await talk.ask("pay")
    assert [m.role for m in talk.history] == [AuthorRole.USER]
    guard.kill(tool="pay", by="dana", reason="right bank", lift=True)
    await talk.ask()
    assert (len(model.asked), world.effects) == (3, ["ann 1"])


async def test_an_invoked_function_raises_the_refusal_itself(guard: Guard, world: World) -> None:
    """Not Semantic Kernel's exception around it."""
    kernel = guard_kernel(kernel_of(None, paying(world)), guard)
    await kernel.invoke(plugin_name="shop", function_name="pay", to="ann")
    with pytest.raises(IdempotencyConflict):
        await kernel.invoke(plugin_name="shop", function_name="pay", to="ann", amount=2)
    assert world.effects == ["ann 1"]


async def test_an_invoked_prompt_raises_the_refusal_itself(guard: Guard, world: World) -> None:
    """However deep inside the refusal was made, and the run has failed with it."""
    kernel = guard_kernel(
        kernel_of(scripted(ANN, "never"), paying(world)), guard, run_id="r-1", max_model_calls=1
    )
    with pytest.raises(BudgetExceeded) as caught:
        await kernel.invoke_prompt("pay", arguments=KernelArguments(SETTINGS))
    assert caught.value.budget == "max_model_calls"
    info = guard.runs.show("r-1")
    assert (info.status, info.error is not None and info.error[:15]) == (
        "failed",
        "budget_exceeded",
    )


async def test_other_exceptions_stay_semantic_kernels(guard: Guard) -> None:
    """What is no refusal is wrapped and told as without a guard."""

    def broken() -> str:
        """Break."""
        msg = "kaput"
        raise OSError(msg)

    kernel = guard_kernel(kernel_of(scripted(call(("broken", {}, "1")), "done"), broken), guard)
    with pytest.raises(KernelInvokeException):
        await kernel.invoke(plugin_name="shop", function_name="broken")
    talk = Talk(kernel)
    await talk.ask("go")
    assert talk.results["1"].endswith("shop-broken: kaput")


async def test_a_tool_that_says_nothing_happened_is_told_as_without_a_guard(
    guard: Guard, world: World
) -> None:
    """It may be called again, and then it writes."""
    tries: list[int] = []

    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    def pay(to: str) -> str:
        """Pay."""
        tries.append(1)
        if len(tries) == 1:
            msg = "the till is locked"
            raise NoEffect(msg)
        return world.happen(to)

    again = call(("pay", {"to": "ann"}, "2"))
    talk = Talk(guard_kernel(kernel_of(scripted(ANN, again, "done"), pay), guard))
    await talk.ask("pay")
    assert "the till is locked" in talk.results["1"]
    assert (talk.results["2"], world.effects) == ("done ann", ["ann"])


async def test_a_halt_deep_inside_halts_the_outer_turn(guard: Guard, world: World) -> None:
    """A prompt that a model called is halted: the model outside is not told to go on."""
    guard.kill(tool="pay", by="dana", reason="wrong bank")
    kernel = kernel_of(None, paying(world))
    outer = scripted(call(("clerk", {}, "1")), "never", service_id="outer")
    kernel.add_service(outer)
    kernel.add_service(scripted(ANN, "never", service_id="inner"))
    settings = PromptExecutionSettings(service_id="inner", function_choice_behavior=AUTO)
    prompt = KernelFunctionFromPrompt(
        "clerk", "shop", prompt="p", prompt_execution_settings=settings
    )
    kernel.add_function("shop", prompt)
    with pytest.raises(RunHalted):
        await Talk(guard_kernel(kernel, guard)).ask("go")
    assert (len(outer.asked), world.effects) == (1, [])


async def test_without_a_guarded_service_the_filter_raises(guard: Guard, world: World) -> None:
    """A service that was not asked of the kernel is not guarded; its calls are."""
    guard.kill(tool="pay", by="dana", reason="wrong bank")
    model = scripted(ANN, "paid")
    kernel = guard_kernel(kernel_of(None, paying(world)), guard)
    talk = Talk(kernel, "service")
    talk.history.add_user_message("pay")
    with pytest.raises(RunHalted):
        await model.get_chat_message_contents(talk.history, SETTINGS, kernel=kernel)
    assert (talk.results, len(talk.history)) == ({}, 2)
    guard.kill(tool="pay", by="dana", reason="right bank", lift=True)
    kernel.add_service(model)
    assert str((await talk.ask())[0]) == "paid"
    assert (talk.results, world.effects) == ({"1": "done ann 1"}, ["ann 1"])


async def test_a_wrong_declaration_reaches_the_caller(guard: Guard) -> None:
    """A write without a key is a defect of the program, and nothing for a model."""

    @tool_contract(effect="write")
    def pay(to: str) -> str:
        """Pay."""
        return to

    talk = Talk(guard_kernel(kernel_of(scripted(ANN, "never"), pay), guard))
    with pytest.raises(ConfigurationError, match="has no idempotency key"):
        await talk.ask("pay")


async def test_a_users_own_filter_decides_before_the_guard(guard: Guard, world: World) -> None:
    """What a filter answers in place of the function is no call, and ends the turn if it says so."""

    async def refusing(context: Any, next: Callable[[Any], Any]) -> None:  # noqa: A002 - SK's name
        context.function_result.value, context.terminate = "not today", True

    kernel = kernel_of(scripted(ANN, "never"), paying(world))
    kernel.add_filter(FilterTypes.AUTO_FUNCTION_INVOCATION, refusing)
    talk = Talk(guard_kernel(kernel, guard))
    await talk.ask("pay")
    assert (talk.results, world.effects) == ({"1": "not today"}, [])
    assert [a.id for a in guard.approvals.list()] == []
