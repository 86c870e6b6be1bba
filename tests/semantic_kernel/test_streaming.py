"""A stream is guarded for as long as it lasts, and leaves nothing behind in its consumer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import StreamingChatMessageContent
from semantic_kernel.functions import KernelArguments

from agentguard import Guard, idempotent, tool_contract
from agentguard.hosting import active_run
from agentguard_semantic_kernel import guard_kernel
from tests.semantic_kernel.world import AUTO, Scripted, Talk, call, kernel_of, scripted
from tests.support import World

SETTINGS = PromptExecutionSettings(function_choice_behavior=AUTO)


def paying(world: World) -> Any:
    """A function with one effect per key."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    return pay


def prompted(kernel: Any) -> Any:
    """A prompt with functions, streamed."""
    return kernel.invoke_prompt_stream("pay ann", arguments=KernelArguments(SETTINGS))


PAID: list[Any] = [call(("pay", {"to": "ann"}, "1")), "ann is paid"]


async def test_a_streamed_prompt_is_one_run(guard: Guard, world: World) -> None:
    """Its words come one by one, its functions are guarded, and its run ends with it."""
    kernel = guard_kernel(kernel_of(scripted(*PAID), paying(world)), guard, run_id="r-1")
    words: list[str] = []
    async for pieces in prompted(kernel):
        assert active_run() is None
        words += [str(p) for p in pieces if isinstance(p, StreamingChatMessageContent) and str(p)]
    assert words == ["ann ", "is ", "paid"]
    info = guard.runs.show("r-1")
    assert (info.status, info.model_calls, info.part) == ("succeeded", 2, 1)
    assert world.effects == ["ann"]


async def test_a_stream_that_is_closed_early_settles_its_model_call(
    guard: Guard, world: World
) -> None:
    """Whoever has read enough has not failed; what was reserved is given back."""
    kernel = guard_kernel(kernel_of(scripted("one two three"), paying(world)), guard)
    chat: Any = kernel.get_service("scripted-1")
    talk = Talk(kernel)
    talk.history.add_user_message("count")
    async with guard.run("counts", run_id="r-1") as run:
        stream = chat.get_streaming_chat_message_contents(talk.history, SETTINGS, kernel=kernel)
        assert str((await anext(stream))[0]) == "one "
        await stream.aclose()
        assert run.usage.held == 0
    (event,) = [e for e in guard.runs.events("r-1") if e.kind == "model.called"]
    assert event.data["error"] is not None
    assert guard.runs.show("r-1").status == "succeeded"


async def test_a_stream_may_be_closed_by_another_task(guard: Guard, world: World) -> None:
    """Its own run, if it has one, waits then: it has neither failed nor come to its end."""
    kernel = guard_kernel(kernel_of(scripted("one two three"), paying(world)), guard, run_id="r-1")
    chat: Any = kernel.get_service("scripted-1")
    talk = Talk(kernel)
    stream = chat.get_streaming_chat_message_contents(talk.history, SETTINGS, kernel=kernel)
    await anext(stream)
    await asyncio.create_task(stream.aclose())
    assert guard.runs.show("r-1").status == "waiting"
    assert active_run() is None


async def test_streams_that_are_read_in_turn_do_not_mix(guard: Guard, world: World) -> None:
    """One consumer reads two of them, piece by piece, each in its own run."""
    kernel = guard_kernel(
        kernel_of(scripted(*PAID), paying(world)), guard, run_id=lambda arguments: arguments["run"]
    )
    streams = [
        kernel.invoke_prompt_stream("pay", arguments=KernelArguments(SETTINGS, run=f"r-{n}"))
        for n in (1, 2)
    ]
    open_: list[Any] = list(streams)
    while open_:
        for stream in list(open_):
            if await anext(stream, None) is None:
                open_.remove(stream)
    infos = [guard.runs.show(f"r-{n}") for n in (1, 2)]
    assert [(i.status, i.model_calls, i.steps) for i in infos] == [("succeeded", 2, 3)] * 2
    assert world.effects == ["ann"]


async def test_a_cancelled_stream_ends_its_run(guard: Guard, world: World) -> None:
    """The model call is settled, and the run is marked."""
    begun = asyncio.Event()

    class Hanging(Scripted):
        async def _inner_get_streaming_chat_message_contents(self, *given: Any) -> Any:
            yield [self._piece([], 0)]
            begun.set()
            await asyncio.Event().wait()

    model = Hanging(ai_model_id="scripted-1", script=[], asked=[])
    kernel = guard_kernel(kernel_of(model, paying(world)), guard, run_id="r-1")

    async def read() -> None:
        async for _ in prompted(kernel):
            pass

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (event,) = [e for e in guard.runs.events("r-1") if e.kind == "model.called"]
    assert event.data["error"] == "CancelledError"
    assert guard.runs.show("r-1").status == "failed"
