"""Services that ask models: every model call is reported, and a turn goes on where it stopped."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache, reduce, wraps
from typing import Any, cast

from semantic_kernel.connectors.ai import function_calling_utils as calls
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import ChatHistory, FunctionCallContent, TextContent
from semantic_kernel.exceptions import KernelException
from semantic_kernel.functions import KernelArguments

from agentguard.hosting import Blocks, Entry, ModelReports, Run, ain_own_context, setting

from ._call import FRAME, PROMPT, TURN, SemanticKernelHost, Turn
from ._functions import name_of
from ._history import Batch

Steps = AsyncGenerator[list[Any], Any]

_LEFT_OUT = {"inner_content", "metadata", "data_uri", "items"}  # items are told one by one
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens")


def entered(entry: Entry, arguments: Any, known: str | None = None) -> Blocks[Run]:
    """Enter the run: the active one, or else one that the options or a history name."""
    given, host = arguments or KernelArguments(), SemanticKernelHost()
    return Blocks(*entry.choose(given, host, known=known, inside=True))


def guarded(thing: Any, entry: Entry, *ours: Any) -> Any:
    """Make *thing* an instance of a guarded subclass of its own class and of *ours*."""
    # pydantic keeps ordinary assignment for fields.
    if "agentguard_entry" not in vars(thing):
        object.__setattr__(thing, "__class__", _guarded_kind(thing.__class__, *ours))
    vars(thing)["agentguard_entry"] = entry
    return thing


@cache
def _guarded_kind(kind: Any, *ours: Any) -> Any:
    names = [name for name in _GUARDS if hasattr(kind, name)]
    body = {n: wraps(getattr(kind, n))(_GUARDS[n](getattr(kind, n))) for n in names}
    return type(kind.__name__, (*ours, kind), {"__module__": kind.__module__, **body})


# Turns.


@asynccontextmanager
async def _turn(service: Any, given: Any, more: Any) -> AsyncGenerator[tuple[Batch, bool | None]]:
    """Take a turn in its run, after carrying out what the one before has left unfinished.

    What stops it is raised once all of its calls have ended.
    """
    found = {type_: v for v in (*given, *more.values()) for type_ in _TURNS if isinstance(v, type_)}
    batch = Batch(found.get(ChatHistory, ChatHistory()))
    entry, arguments = service.agentguard_entry, more.get("arguments")
    async with entered(entry, arguments, batch.run_id) as run, ModelReports(run) as reports:
        turn = Turn(run, reports, more.get("kernel"), is_inner=FRAME.get() is not None)
        with setting(TURN, turn):
            yield batch, await batch.carry_out(turn, found[PromptExecutionSettings], arguments)
        if turn.stopped is not None:
            raise turn.stopped


_TURNS: tuple[type[Any], ...] = (ChatHistory, PromptExecutionSettings)


def _taking_turns(method: Any) -> Any:
    async def taken(service: Any, *given: Any, **more: Any) -> Any:
        async with _turn(service, given, more) as (batch, ends):
            if ends:
                return calls.merge_function_results(batch.messages)
            return await method(service, *given, **more)

    return taken


def _streaming_turns(method: Any) -> Any:
    async def steps(prompt: Any, service: Any, /, *given: Any, **more: Any) -> Steps:
        PROMPT.set(prompt)
        async with _turn(service, given, more) as (batch, ends):
            if ends is not None:
                yield calls.merge_streaming_function_results(batch.messages, service.ai_model_id, 0)
            if not ends:
                async for step in method(service, *given, **more):
                    yield step

    def streamed(*given: Any, **more: Any) -> Steps:
        return ain_own_context(steps(PROMPT.get(), *given, **more))

    return streamed


# Model calls.


@asynccontextmanager
async def _reported(service: Any, asked: Any, settings: Any) -> AsyncGenerator[list[Any]]:
    """Report a model call to the run, before it is made and however it ends."""
    call, said, turn = object(), list[Any](), cast("Turn", TURN.get())

    def redact(item: FunctionCallContent) -> Mapping[str, Any]:
        name = name_of(service.agentguard_entry, turn.kernel, item)
        return turn.run.redact_call(name, dict(item.parse_arguments() or {}))

    contents = [TextContent(text=asked)] if isinstance(asked, str) else asked
    await turn.reports.astarted(
        call, prompt=PROMPT.get(), model=getattr(settings, "ai_model_id", None) or service.ai_model_id,
        messages=[_told(content, redact) for content in contents], max_output_tokens=_limit(settings),
    )  # fmt: skip
    try:
        yield said
    except BaseException as error:
        await turn.reports.afinished(call, error=error, **_answer(said, redact))
        raise
    await turn.reports.afinished(call, **_answer(said, redact))


def _answering(method: Any) -> Any:
    async def answered(service: Any, asked: Any, settings: Any) -> Any:
        async with _reported(service, asked, settings) as said:
            said.extend(await method(service, asked, settings))
        return said

    return answered


def _streaming(method: Any) -> Any:
    async def streamed(service: Any, asked: Any, settings: Any, *more: Any) -> Steps:
        async with _reported(service, asked, settings) as said:
            async for step in method(service, asked, settings, *more):
                said.extend(step)
                yield step

    return streamed


_GUARDS = {
    "get_chat_message_contents": _taking_turns,
    "get_streaming_chat_message_contents": _streaming_turns,
    "get_text_contents": _taking_turns,
    "get_streaming_text_contents": _streaming_turns,
    "_inner_get_chat_message_contents": _answering,
    "_inner_get_streaming_chat_message_contents": _streaming,
    "_inner_get_text_contents": _answering,
    "_inner_get_streaming_text_contents": _streaming,
}


# The record.


def _told(content: Any, redact: Any) -> dict[str, Any]:
    """Return what *content* says as JSON types, without what a tool declared sensitive."""
    told: dict[str, Any] = content.model_dump(mode="json", exclude=_LEFT_OUT, exclude_none=True)
    if isinstance(content, FunctionCallContent):
        told["arguments"] = None
        # A model may write what is no JSON object, or has values that JSON does not have.
        with suppress(KernelException, RuntimeError, TypeError, ValueError):
            told["arguments"] = dict(redact(content))
    if items := getattr(content, "items", ()):
        told["items"] = [_told(item, redact) for item in items]
    return told


def _answer(said: Sequence[Any], redact: Any) -> dict[str, Any]:
    """Return what the model answered and the provider counted, as `afinished` takes it.

    Tokens stand in each choice, in the last piece of a stream, or grow from piece to piece.
    """
    first = next(iter(said), None)
    with suppress(KernelException, TypeError):  # these are choices, not pieces of one
        first = reduce(lambda one, two: one + two, said)
    used = [message.metadata.get("usage") for message in said]
    cached = [getattr(counted, "prompt_tokens_details", None) for counted in used]
    return {
        "output": None if first is None else _told(first, redact),
        "input_tokens": _most(used, "prompt_tokens"),
        "output_tokens": _most(used, "completion_tokens"),
        "cached_tokens": _most(cached, "cached_tokens"),
    }


def _most(counted: Sequence[Any], name: str) -> int:
    return max((getattr(one, name, None) or 0 for one in counted), default=0)


def _limit(settings: PromptExecutionSettings) -> int | None:
    """Return the most that the model may answer, wherever the provider's settings say so."""
    given = {**settings.extension_data, **vars(settings)}
    most = [n for name in _LIMITS if isinstance(n := given.get(name), int)]
    return most[0] * (given.get("number_of_responses") or 1) if most else None
