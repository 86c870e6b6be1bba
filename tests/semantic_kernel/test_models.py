"""Model calls are paid from the budget before they are made, whichever way the kernel makes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from typing import Any

import pytest
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.completion_usage import CompletionUsage
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.connectors.ai.text_completion_client_base import TextCompletionClientBase
from semantic_kernel.contents import (
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    ImageContent,
    StreamingTextContent,
    TextContent,
)
from semantic_kernel.functions import KernelArguments, KernelFunctionFromPrompt

from agentguard import BudgetExceeded, Guard, idempotent, tool_contract
from agentguard_semantic_kernel import guard_kernel
from tests.semantic_kernel.world import (
    AUTO,
    KINDS,
    USAGE,
    Scripted,
    Talk,
    call,
    kernel_of,
    scripted,
)
from tests.support import World


def contents(guard: Guard, run_id: str = "r-1") -> list[dict[str, Any]]:
    """What stands beside the chain about the run's model calls, in order."""
    rows: Any = guard.store.read(
        lambda tx: list(
            tx.rows(
                "SELECT seq, body FROM events WHERE body IS NOT NULL AND run_id = ? ORDER BY seq",
                [run_id],
            )
        )
    )
    asked = {e.seq for e in guard.runs.events(run_id) if e.kind == "model.called"}
    return [json.loads(body) for seq, body in rows if seq in asked]


def called(guard: Guard, run_id: str = "r-1") -> list[dict[str, Any]]:
    """What the chain says of the run's model calls."""
    return [dict(e.data) for e in guard.runs.events(run_id) if e.kind == "model.called"]


class Text(TextCompletionClientBase):
    """A completion model."""

    async def _inner_get_text_contents(
        self, prompt: str, settings: PromptExecutionSettings
    ) -> list[TextContent]:
        return [TextContent(text=f"{prompt} too", metadata={"usage": USAGE})]

    async def _inner_get_streaming_text_contents(
        self, prompt: str, settings: PromptExecutionSettings
    ) -> AsyncGenerator[list[StreamingTextContent], Any]:
        yield [StreamingTextContent(choice_index=0, text=prompt)]
        yield [StreamingTextContent(choice_index=0, text=" too", metadata={"usage": USAGE})]


@pytest.mark.parametrize("kind", KINDS)
async def test_each_call_is_recorded_with_its_tokens_and_its_words(
    guard: Guard, world: World, kind: str
) -> None:
    """Also those inside a turn; the messages can be made of the record again."""

    @tool_contract(effect="read")
    def look(what: str) -> str:
        """Look."""
        return f"{what}: open"

    model = scripted(call(("look", {"what": "T-1"}, "1")), "it is open")
    kernel = guard_kernel(kernel_of(model, look), guard)
    async with guard.run("asks", run_id="r-1") as run:
        await Talk(kernel, kind).ask("well?")
        assert (run.usage.input_tokens, run.usage.output_tokens) == (20, 10)
    first, second = contents(guard)
    assert [c["model"] for c in called(guard)] == ["scripted-1"] * 2
    asked = [ChatMessageContent.model_validate(message) for message in second["input"]]
    assert [m.role.value for m in asked] == ["user", "assistant", "tool"]
    assert str(asked[0]) == "well?"
    assert first["output"]["items"][0]["arguments"] == {"what": "T-1"}
    assert second["input"][2]["items"][0]["result"] == "T-1: open"
    assert str(ChatMessageContent.model_validate(second["output"])) == "it is open"


@pytest.mark.parametrize("kind", KINDS)
async def test_sensitive_arguments_are_in_no_record(guard: Guard, world: World, kind: str) -> None:
    """Neither in what the model says nor in what it is asked, from the first time on."""

    @tool_contract(effect="write", name="payment", sensitive=["iban"])
    @idempotent(key="pay:{to}")
    def pay(to: str, iban: str) -> str:
        """Pay."""
        return world.happen(to)

    model = scripted(call(("pay", {"to": "ann", "iban": "DE89 3704"}, "1")), "done")
    kernel = guard_kernel(kernel_of(model, pay), guard)
    async with guard.run("asks", run_id="r-1"):
        await Talk(kernel, kind).ask("pay")
    told = json.dumps(contents(guard))
    assert "DE89" not in told
    assert told.count("[hidden]") == 2


async def test_a_model_call_without_room_is_not_made(guard: Guard) -> None:
    """The refusal comes before the dispatch."""
    model = scripted("hello")
    kernel = guard_kernel(kernel_of(model), guard)
    async with guard.run("asks", run_id="r-1", max_model_calls=1):
        await Talk(kernel).ask("one")
        with pytest.raises(BudgetExceeded):
            await Talk(kernel).ask("two")
    assert len(model.asked) == 1


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({}, True),
        ({"max_tokens": 100}, True),
        ({"max_completion_tokens": 1000}, False),
        ({"max_tokens": 300, "number_of_responses": 4}, False),
    ],
)
async def test_the_worst_case_is_reserved(
    guard: Guard, tmp_path: Any, given: dict[str, Any], *, fits: bool
) -> None:
    """With the most that the model may answer, times the answers that are asked for."""
    priced = Guard(f"sqlite:///{tmp_path}/priced.db", prices={"scripted-1": ("0", "1000")})
    kernel = guard_kernel(kernel_of(scripted("hi")), priced)
    chat: Any = kernel.get_service(type=ChatCompletionClientBase)
    history = ChatHistory()
    history.add_user_message("hello")
    settings = PromptExecutionSettings(extension_data=given)
    refused: Any = nullcontext() if fits else pytest.raises(BudgetExceeded, match="max_spend_usd")
    async with priced.run("asks", max_spend_usd="0.9"):
        with refused:
            await chat.get_chat_message_contents(history, settings)
    priced.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failed_model_call_is_settled_with_its_error(guard: Guard, kind: str) -> None:
    """The caller gets the provider's exception, the record its name."""
    kernel = guard_kernel(kernel_of(scripted(ConnectionError("gone"))), guard)
    with pytest.raises(ConnectionError):
        async with guard.run("asks", run_id="r-1"):
            await Talk(kernel, kind).ask("hello")
    assert [c["error"] for c in called(guard)] == ["ConnectionError"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_model_call_is_settled(guard: Guard, kind: str) -> None:
    """Nothing of its reservation stays behind."""
    begun = asyncio.Event()

    class Hanging(Scripted):
        async def _inner_get_chat_message_contents(self, *_: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()

        async def _inner_get_streaming_chat_message_contents(self, *_: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()
            yield []

    model = Hanging(ai_model_id="scripted-1", script=[], asked=[])
    kernel = guard_kernel(kernel_of(model), guard)

    async def talk() -> None:
        async with guard.run("asks", run_id="r-1"):
            await Talk(kernel, kind).ask("hello")

    task = asyncio.create_task(talk())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [c["error"] for c in called(guard)] == ["CancelledError"]
    assert guard.runs.show("r-1").status == "failed"


async def test_services_that_come_later_are_guarded(guard: Guard) -> None:
    """Added, put into the kernel's own mapping, or brought by an agent."""
    kernel = guard_kernel(kernel_of(scripted("a", service_id="a")), guard)
    kernel.add_service(scripted("b", service_id="b"))
    kernel.services["c"] = scripted("c", service_id="c")
    agent = ChatCompletionAgent(kernel=kernel, service=scripted("d", service_id="d"), name="d")
    async with guard.run("asks", run_id="r-1"):
        for name in "abcd":
            settings = KernelArguments(PromptExecutionSettings(service_id=name))
            assert str(await kernel.invoke_prompt("hi", arguments=settings)) == name
        await agent.get_response("hi")
    assert guard.runs.show("r-1").model_calls == 5


async def test_a_service_stays_unguarded_elsewhere(guard: Guard) -> None:
    """The kernel works with copies: the service itself, and other kernels with it, do not change."""
    model = scripted("hello")
    other = kernel_of(model)
    kernel = guard_kernel(kernel_of(model), guard)
    assert type(kernel.get_service(type=ChatCompletionClientBase)) is not type(model)
    assert kernel.get_service("scripted-1") is kernel.get_service("scripted-1")
    await Talk(other).ask("hi")
    assert guard.runs.list() == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_model_is_guarded_too(guard: Guard, *, stream: bool) -> None:
    """What is asked and answered is a text, recorded with its tokens."""
    kernel = guard_kernel(kernel_of(None), guard, run_id="r-1")
    kernel.add_service(Text(ai_model_id="text-1"))
    if stream:
        pieces = [str(p[0]) async for p in kernel.invoke_prompt_stream("me") if isinstance(p, list)]
        assert pieces == ["me", " too"]
    else:
        assert str(await kernel.invoke_prompt("me")) == "me too"
    (content,) = contents(guard)
    assert content["input"][0]["text"] == "me"
    assert content["output"]["text"] == "me too"
    (data,) = called(guard)
    assert (data["model"], data["input_tokens"], data["output_tokens"]) == ("text-1", 10, 5)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_prompt_that_was_rendered_is_named(guard: Guard, *, stream: bool) -> None:
    """With the calls of its own turn, and with no later ones."""
    kernel = guard_kernel(kernel_of(scripted("hi")), guard)
    prompt = KernelFunctionFromPrompt("greet", "texts", prompt="hello {{$name}}")
    async with guard.run("asks", run_id="r-1"):
        if stream:
            async for _ in kernel.invoke_stream(prompt, name="ann"):
                pass
        else:
            await kernel.invoke(prompt, name="ann")
        await Talk(kernel).ask("and now?")
    first, second = called(guard)
    assert first["prompt_name"] == "texts-greet"
    assert "prompt_name" not in second


async def test_tokens_in_pieces_are_counted_once(guard: Guard) -> None:
    """Some providers count the question first and the answer last, some count up."""

    class Counting(Scripted):
        async def _inner_get_streaming_chat_message_contents(self, *given: Any) -> Any:
            for asked, answered in ((7, None), (7, 1), (None, 3)):
                counted = CompletionUsage(prompt_tokens=asked, completion_tokens=answered)
                yield [
                    self._piece([StreamingTextContent(choice_index=0, text="x")], 0, usage=counted)
                ]

    kernel = guard_kernel(kernel_of(Counting(ai_model_id="m", script=[], asked=[])), guard)
    async with guard.run("asks", run_id="r-1"):
        await Talk(kernel, "agent stream").ask("hello")
    (data,) = called(guard)
    assert (data["input_tokens"], data["output_tokens"]) == (7, 3)


async def test_pictures_are_not_copied_into_the_record(guard: Guard) -> None:
    """Only that there was one."""
    kernel = guard_kernel(kernel_of(scripted("nice")), guard, run_id="r-1")
    talk = Talk(kernel, "service")
    picture = ImageContent(data=b"all these bytes", mime_type="image/png", data_format="base64")
    talk.history.add_user_message([TextContent(text="look"), picture])
    await talk.ask()
    (content,) = contents(guard)
    assert [i["content_type"] for i in content["input"][0]["items"]] == ["text", "image"]
    assert "YWxsIHRoZXNl" not in json.dumps(content)


async def test_arguments_that_cannot_be_read_do_not_disturb(guard: Guard, world: World) -> None:
    """The record leaves out what is no JSON object; Semantic Kernel tells the model."""

    @tool_contract(effect="read")
    def look(what: str) -> str:
        """Look."""
        return what

    calls = call(*(("look", {}, str(n)) for n in range(1, 4)), ("gone", {}, "4"))
    calls[0].arguments, calls[1].arguments, calls[2].arguments = '{"what":', "[1]", '{"what":NaN}'
    talk = Talk(
        guard_kernel(kernel_of(scripted(calls, "done"), look), guard, run_id="r-1"), "service"
    )
    await talk.ask("look")
    said = [
        item["arguments"] for item in contents(guard)[0]["output"]["items"] if "arguments" in item
    ]
    assert said == [None, None, None, {}]
    assert set(talk.results) == {"1", "2", "3", "4"}


async def test_a_turn_without_functions_is_one_call(guard: Guard) -> None:
    """Services that cannot call functions are guarded all the same."""

    class Plain(ChatCompletionClientBase):
        async def _inner_get_chat_message_contents(self, *_: Any) -> Any:
            return [ChatMessageContent(role=AuthorRole.ASSISTANT, content="hi")]

    kernel = guard_kernel(kernel_of(Plain(ai_model_id="plain")), guard, run_id="r-1")
    settings = PromptExecutionSettings(function_choice_behavior=AUTO)
    chat: Any = kernel.get_service(type=ChatCompletionClientBase)
    await chat.get_chat_message_contents(ChatHistory(), settings, kernel=kernel)
    assert guard.runs.show("r-1").model_calls == 1
