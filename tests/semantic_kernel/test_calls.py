"""Guarded functions are called as the kernel calls any other, each in its run and its place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.filters import FilterTypes
from semantic_kernel.functions import KernelArguments, KernelFunctionFromPrompt, kernel_function

from agentguard import (
    ConfigurationError,
    Guard,
    Principal,
    current_run,
    idempotent,
    tool_contract,
)
from agentguard.hosting import active_run
from agentguard_semantic_kernel import SemanticKernelHost, guard_kernel
from tests.semantic_kernel.world import AUTO, KINDS, Talk, call, kernel_of, scripted
from tests.support import World

writes = tool_contract(effect="write")
by_key = idempotent(key="pay:{to}")
per_call = idempotent(per="call")


def noting(world: World, decorate: Callable[[Any], Any] = per_call) -> Any:
    """A function with one effect per call of the model."""

    @writes
    @decorate
    def note(text: str) -> str:
        """Note something."""
        return world.happen(text)

    return note


class Below:
    """Our decorators below Semantic Kernel's, on methods."""

    def __init__(self, world: World) -> None:
        self.world = world

    @kernel_function
    @writes
    @by_key
    def pay(self, to: str, amount: int = 1) -> str:
        """Pay."""
        return self.world.happen(f"{to} {amount}")


class Above:
    """Our decorators above it."""

    def __init__(self, world: World) -> None:
        self.world = world

    @writes
    @by_key
    @kernel_function
    def pay(self, to: str, amount: int = 1) -> str:
        """Pay."""
        return self.world.happen(f"{to} {amount}")


class Async:
    """The same, awaited."""

    def __init__(self, world: World) -> None:
        self.world = world

    @kernel_function
    @writes
    @by_key
    async def pay(self, to: str, amount: int = 1) -> str:
        """Pay."""
        await asyncio.sleep(0)
        return self.world.happen(f"{to} {amount}")


class Static:
    """A static method."""

    def __init__(self, world: World) -> None:
        Static.world = world

    world: World

    @staticmethod
    @kernel_function
    @writes
    @by_key
    def pay(to: str, amount: int = 1) -> str:
        """Pay."""
        return Static.world.happen(f"{to} {amount}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plugin", [Below, Above, Async, Static])
async def test_a_decorated_function_writes_once(
    guard: Guard, world: World, plugin: Any, kind: str
) -> None:
    """In either order, as method or static method, awaited or not: the key holds, values are coerced."""
    model = scripted(
        call(("pay", {"to": "ann", "amount": "3"}, "1")),
        call(("pay", {"to": "ann", "amount": 3}, "2")),
        "done",
    )
    kernel = guard_kernel(kernel_of(model), guard)
    kernel.add_plugin(plugin(world), "shop")
    talk = Talk(kernel, kind)
    said = await talk.ask("pay ann")
    assert str(said[0]) == "done"
    assert talk.results == {"1": "done ann 3", "2": "done ann 3"}
    assert world.effects == ["ann 3"]


async def test_the_run_and_the_principal_reach_the_function(guard: Guard) -> None:
    """Inside a run of the caller's, functions see that run, who acts and which call it is."""

    @tool_contract(effect="read")
    def who() -> str:
        """Tell."""
        run = current_run()
        return f"{run.id} {run.principal.agent} {run.call.id} {run.host.name}"

    kernel = guard_kernel(kernel_of(scripted(call(("who", {}, "call-7")), "done"), who), guard)
    talk = Talk(kernel)
    async with guard.run("refunds", run_id="r-1", principal=Principal(agent="clerk")):
        await talk.ask("who?")
    assert talk.results == {"call-7": "r-1 clerk call-7 semantic_kernel"}


async def test_without_a_run_each_invocation_is_one(guard: Guard, world: World) -> None:
    """The options say which; they may look at the kernel's arguments."""
    kernel = guard_kernel(
        kernel_of(scripted("hello"), noting(world)), guard, workflow="notes",
        run_id=lambda arguments: arguments.get("ticket"),
        principal=lambda arguments: Principal(agent="clerk", subject=arguments.get("user")),
        max_steps=7,
    )  # fmt: skip
    for kind in KINDS:
        await Talk(kernel, kind).ask("hi", ticket=f"T {kind}", user="kim")
    await kernel.invoke(plugin_name="shop", function_name="note", text="a", ticket="T")
    await kernel.invoke(plugin_name="shop", function_name="note", text="b")
    runs = {run.id: run for run in guard.runs.list()}
    assert {run.status for run in runs.values()} == {"succeeded"}
    assert runs.keys() > {"T", "T agent", "T agent stream", "T service", "T service stream"}
    assert (len(runs), runs["T"].workflow, runs["T"].limits.max_steps) == (6, "notes", 7)
    assert active_run() is None


async def test_the_active_run_comes_first(guard: Guard, world: World) -> None:
    """A kernel with a run id of its own still works in the run it is called in."""
    kernel = guard_kernel(kernel_of(None, noting(world)), guard, run_id="elsewhere")
    async with guard.run("notes", run_id="here"):
        await kernel.invoke(plugin_name="shop", function_name="note", text="a")
    assert [run.id for run in guard.runs.list()] == ["here"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ids", [["1", "2"], ["1", "1"], [None, None]])
async def test_equal_calls_of_one_message_are_two_calls(
    guard: Guard, world: World, kind: str, ids: list[Any]
) -> None:
    """Whether a model numbers its calls, repeats a number or gives none at all."""
    calls = call(*(("note", {"text": "hello"}, i) for i in ids))
    kernel = guard_kernel(kernel_of(scripted(calls, "done"), noting(world)), guard)
    await Talk(kernel, kind).ask("note")
    assert world.effects == ["hello"] * 2


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_id_again_in_a_history_is_another_call(
    guard: Guard, world: World, kind: str
) -> None:
    """Some models number the calls of every message from the beginning."""
    again = call(("note", {"text": "hello"}, "1"))
    kernel = guard_kernel(
        kernel_of(scripted(again, again, "done", again, "done"), noting(world)), guard
    )
    async with guard.run("notes", run_id="r-1"):
        talk = Talk(kernel, kind)
        await talk.ask("note")
    async with guard.run("notes", run_id="r-1"):
        await Talk(kernel, kind, talk.saved).ask("once more")
    assert world.effects == ["hello"] * 3


async def test_the_same_id_in_another_history_is_another_call(guard: Guard, world: World) -> None:
    """Two conversations in one run do not take each other's calls for their own."""
    kernel = guard_kernel(
        kernel_of(scripted(call(("note", {"text": "hello"}, "1")), "done"), noting(world)), guard
    )
    async with guard.run("notes", run_id="r-1"):
        await Talk(kernel).ask("note")
        await Talk(kernel).ask("note")
    assert world.effects == ["hello"] * 2


async def test_a_run_that_is_begun_again_makes_the_same_calls(guard: Guard, world: World) -> None:
    """A program that is run again from its start, under the same ids, repeats nothing."""
    kernel = guard_kernel(
        kernel_of(scripted(call(("note", {"text": "hello"}, "1")), "done"), noting(world)), guard
    )
    for _ in range(2):
        async with guard.run("notes", run_id="r-1"):
            await Talk(kernel).ask("note")
            await Talk(kernel).ask("note")
    assert world.effects == ["hello"] * 2


@pytest.mark.parametrize("late", [False, True])
async def test_a_filter_that_executes_a_function_again_repeats_nothing(
    guard: Guard, world: World, *, late: bool
) -> None:
    """A retrying filter delivers the same call, whether it was added before the guard or after."""

    async def twice(context: Any, next: Callable[[Any], Any]) -> None:  # noqa: A002 - SK's name
        await next(context)
        await next(context)

    kernel = kernel_of(scripted(call(("note", {"text": "hello"}, "1")), "done"), noting(world))
    if not late:
        kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, twice)
    guard_kernel(kernel, guard)
    if late:
        kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, twice)
    await Talk(kernel).ask("note")
    assert world.effects == ["hello"]


async def test_calls_inside_a_called_function_are_its_own(guard: Guard, world: World) -> None:
    """A prompt with functions that is a function itself: its calls stand below the call of it."""
    kernel = kernel_of(None, noting(world))
    kernel.add_service(scripted(call(("outer", {}, "1")), "done", service_id="outer"))
    inner = scripted(call(("note", {"text": "hello"}, "1")), "noted", service_id="inner")
    kernel.add_service(inner)
    settings = PromptExecutionSettings(service_id="inner", function_choice_behavior=AUTO)
    prompt = KernelFunctionFromPrompt(
        "outer", "shop", prompt="note", prompt_execution_settings=settings
    )
    kernel.add_function("shop", prompt)
    guard_kernel(kernel, guard)
    async with guard.run("notes", run_id="r-1"):
        await Talk(kernel).ask("go")
    events = guard.runs.events("r-1")
    assert [e.data["call_id"] for e in events if e.kind == "step.started"] == ["1/1"]
    assert world.effects == ["hello"]


async def test_functions_that_a_prompt_calls_are_guarded(guard: Guard, world: World) -> None:
    """So are those in the text of a template."""
    model = scripted("fine")
    kernel = guard_kernel(kernel_of(model, noting(world, idempotent(key="n:{text}"))), guard)
    prompt = "It says {{shop.note text='hello'}}"
    for _ in range(2):
        await kernel.invoke_prompt(prompt)
    assert world.effects == ["hello"]
    assert "It says done hello" in json.dumps(model.asked)


async def test_what_the_kernel_fills_in_is_no_argument(guard: Guard, world: World) -> None:
    """Kernel and arguments reach the function and stay out of payload and record."""

    @writes
    @idempotent(per="call")
    def note(
        text: str, kernel: Annotated[Kernel | None, "Ours"] = None,
        arguments: KernelArguments | None = None,
    ) -> str:  # fmt: skip
        """Note something."""
        assert arguments is not None
        return world.happen(f"{text} {kernel is guarded} {arguments['secret']}")

    guarded = guard_kernel(kernel_of(None, note), guard)
    async with guard.run("notes", run_id="r-1"):
        await guarded.invoke(plugin_name="shop", function_name="note", text="a", secret="xyzzy")
    assert world.effects == ["a True xyzzy"]
    (started,) = [e for e in guard.runs.events("r-1") if e.kind == "step.started"]
    assert "xyzzy" not in json.dumps(dict(started.data))


async def test_runs_side_by_side_do_not_mix(guard: Guard) -> None:
    """Conversations at the same time, each in its run, on one kernel."""

    @tool_contract(effect="read")
    async def who(name: str) -> str:
        """Tell."""
        await asyncio.sleep(0)
        return f"{name} {current_run().id}"

    model = scripted(call(("who", {"name": "a"}, "1"), ("who", {"name": "b"}, "2")), "done")
    kernel = guard_kernel(kernel_of(model, who), guard)

    async def one(number: int, kind: str) -> dict[str, str]:
        talk = Talk(kernel, kind)
        async with guard.run("asks", run_id=f"r-{number}"):
            await talk.ask("who?")
        return talk.results

    told = await asyncio.gather(*(one(n, KINDS[n % 4]) for n in range(8)))
    assert told == [{"1": f"a r-{n}", "2": f"b r-{n}"} for n in range(8)]


async def test_a_clone_is_guarded_like_its_kernel(guard: Guard, world: World) -> None:
    """Handing over between agents clones kernels; functions, models and refusals stay guarded."""
    model = scripted(call(("note", {"text": "hello"}, "1")), "done")
    clone = guard_kernel(kernel_of(model, noting(world)), guard).clone()
    clone.add_service(scripted("later", service_id="later"))
    async with guard.run("notes", run_id="r-1"):
        await Talk(clone).ask("note")
        await clone.invoke_prompt(
            "hi", arguments=KernelArguments(PromptExecutionSettings(service_id="later"))
        )
    assert guard.runs.show("r-1").model_calls == 3
    assert world.effects == ["hello"]


def test_a_kernel_is_guarded_once(guard: Guard) -> None:
    """Guarding it again is refused, and so is what is no kernel."""
    kernel = Kernel()
    assert guard_kernel(kernel, guard) is kernel
    with pytest.raises(ConfigurationError, match="guarded already: call guard_kernel once"):
        guard_kernel(kernel, guard)
    thing: Any = object()
    with pytest.raises(ConfigurationError, match="takes a Kernel, not object"):
        guard_kernel(thing, guard)


def test_a_guarded_kernel_is_still_of_its_class(guard: Guard) -> None:
    """What asks for the class gets the same answer, and names stay."""

    class Mine(Kernel):
        def own(self) -> str:
            return "mine"

    kernel = guard_kernel(Mine(), guard)
    assert (isinstance(kernel, Mine), type(kernel).__name__, kernel.own()) == (True, "Mine", "mine")
    assert isinstance(kernel.clone(), Kernel)
    assert SemanticKernelHost.name == "semantic_kernel"
