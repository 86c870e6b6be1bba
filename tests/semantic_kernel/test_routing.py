"""Models by role in a kernel: each function and each turn gets the service that the run names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.functions import KernelArguments, KernelFunctionFromPrompt, kernel_function

from agentguard import Guard
from agentguard.errors import ConfigurationError
from agentguard_semantic_kernel import RoutedServiceSelector, guard_kernel
from tests.routed import CONFIG, HEAVY, JUDGE, LIGHT, asked, refuting, routing
from tests.semantic_kernel.world import Scripted, Talk, call, scripted

SERVED = CONFIG.replace('"openai:gpt-5.1"', '{model: "openai:gpt-5.1", service: heavy}')
ROLES = {"texts-plan": "planner", "texts-judge": "verifier"}


@pytest.fixture(name="guard")
def guard_with_routes() -> Iterator[Guard]:
    """A guard whose configuration routes."""
    with routing(SERVED) as guard:
        yield guard


def services(**scripts: Any) -> list[Scripted]:
    """Services by the id that is said, by the alias, and by nothing but the model."""
    named = {"heavy": HEAVY, "fast_cheap": LIGHT, "other": JUDGE}
    return [
        scripted(*scripts.get(name, [model]), ai_model_id=model, service_id=name)
        for name, model in named.items()
    ]


def kernel_of(guard: Guard, *functions: Any, **scripts: Any) -> Kernel:
    """A guarded kernel that routes."""
    selector = RoutedServiceSelector(guard, roles=ROLES)
    kernel = Kernel(services=list(services(**scripts)), ai_service_selector=selector)
    for name in ("plan", "act", "judge"):
        prompt = KernelFunctionFromPrompt(
            function_name=name, plugin_name="texts", prompt="hello",
            prompt_execution_settings=PromptExecutionSettings(service_id="default"),
        )  # fmt: skip
        kernel.add_function("texts", prompt)
    for function in functions:
        kernel.add_function("shop", kernel_function(function))
    return guard_kernel(kernel, guard)


async def test_each_role_reaches_its_own_service(guard: Guard) -> None:
    """By the id that is said, by the alias, or by the model."""
    kernel = kernel_of(guard)
    async with guard.run("kernel", run_id="r"):
        for name in ("plan", "act", "judge"):
            await kernel.invoke(plugin_name="texts", function_name=name)
    assert asked(guard) == [HEAVY, LIGHT, JUDGE]


@pytest.mark.parametrize("kind", ["agent", "agent stream"])
async def test_the_turn_after_a_failed_verdict_is_the_heavier_models(
    guard: Guard, kind: str
) -> None:
    """A turn keeps its service; the next one in the same run has the heavier."""
    turns = [call(("pay", {"amount": 1}, "1")), "sorry", "better"]
    kernel = kernel_of(guard, refuting(False), fast_cheap=turns, heavy=turns)
    async with guard.run("kernel", run_id="r"):
        talk = Talk(kernel, kind)
        await talk.ask("pay")
        await talk.ask("again")
    assert asked(guard) == [LIGHT, LIGHT, HEAVY]


async def test_functions_escalate_and_a_resumed_run_keeps_it(guard: Guard) -> None:
    """Each prompt function asks anew, in this part of the run and in the next."""
    pay = refuting(False)
    kernel = kernel_of(guard)
    async with guard.run("kernel", run_id="r"):
        await kernel.invoke(plugin_name="texts", function_name="act")
        with pytest.raises(Exception, match="undone"):
            pay(1)
        await kernel.invoke(plugin_name="texts", function_name="act")
    async with guard.run("kernel", run_id="r"):
        await kernel.invoke(plugin_name="texts", function_name="act")
    assert asked(guard) == [LIGHT, HEAVY, HEAVY]


async def test_over_budget_it_does_not_escalate(guard: Guard) -> None:
    """The heavier service stays out where one call of it does not fit."""
    pay, kernel = refuting(False), kernel_of(guard)
    async with guard.run("kernel", run_id="r", max_spend_usd="0.01"):
        await kernel.invoke(plugin_name="texts", function_name="act")
        with pytest.raises(Exception, match="undone"):
            pay(1)
        await kernel.invoke(plugin_name="texts", function_name="act")
    assert asked(guard) == [LIGHT, LIGHT]


async def test_a_turn_outside_of_runs_has_the_guards_service(guard: Guard) -> None:
    """Each is a run of its own, which begins with the light model."""
    await Talk(kernel_of(guard), "agent").ask("hello")
    [run] = guard.runs.list()
    assert asked(guard, run.id) == [LIGHT]


def test_settings_follow_the_service(guard: Guard) -> None:
    """What was given for it, else what was given at all; never another model's name."""

    class Settings(PromptExecutionSettings):  # as those of OpenAI
        ai_model_id: str | None = None
        temperature: float | None = None

    class Chat(Scripted):
        def get_prompt_execution_settings_class(self) -> Any:
            return Settings

    service = Chat(ai_model_id=LIGHT, service_id="fast_cheap", script=[], asked=[])
    kernel = Kernel(services=[service])
    given = Settings(ai_model_id="gpt-old", temperature=0.5)
    selector = RoutedServiceSelector(guard)
    ways: list[Any] = [{"default": given}, {"x": PromptExecutionSettings(), "fast_cheap": given}]
    for settings in ways:
        arguments = KernelArguments(settings=settings)
        _, found = selector.select_ai_service(kernel, None, arguments)
        assert (found.ai_model_id, found.temperature) == (LIGHT, 0.5)
    assert given.ai_model_id == "gpt-old"


def test_a_clone_of_the_kernel_routes_too(guard: Guard) -> None:
    """Agents clone kernels; guard and store are not copied."""
    clone = kernel_of(guard).clone()
    service, _ = clone.select_ai_service()
    assert service.ai_model_id == LIGHT


def test_a_service_that_is_missing_is_told(guard: Guard) -> None:
    """With those that there are."""
    kernel = Kernel(services=[scripted("x", service_id="a")])
    with pytest.raises(
        ConfigurationError, match=r"no service 'fast_cheap' for the executor.* has a"
    ):
        RoutedServiceSelector(guard).select_ai_service(kernel)


def test_without_run_and_guard_it_is_told() -> None:
    """Nobody says which service it is."""
    with pytest.raises(ConfigurationError, match="give the guard"):
        RoutedServiceSelector(None).select_ai_service(Kernel(services=list(services())))
