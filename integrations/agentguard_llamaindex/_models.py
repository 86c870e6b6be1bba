"""A model whose calls are reported to the run in which they are made, and refused by its budget."""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.callbacks.token_counting import get_tokens_from_response
from llama_index.core.llms import LLM

from agentguard.hosting import Run, active_run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator

LLMT = TypeVar("LLMT", bound=LLM)
_END = object()
_UNREADABLE = (AttributeError, LookupError, NotImplementedError, TypeError, ValueError)
"""What models without tools, or without calls in a message, raise when asked to read them."""
_CALLING: ContextVar[bool] = ContextVar("agentguard_llamaindex_calling", default=False)


def guard_llm(llm: LLMT) -> LLMT:
    """Return *llm* so that each call counts in the run in which it is made.

    Outside of any run it is the same as before. `guard_workflow` does this for the models of agents
    and for those that are attributes of a workflow; use it for others, such as `Settings.llm`.
    """
    if isinstance(llm, Counted):
        return llm
    copied = llm.model_copy()
    object.__setattr__(copied, "__class__", _guarded_class(type(llm)))
    return copied


@cache
def _guarded_class(kind: Any) -> Any:
    own = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind)(kind.__name__, (_Guarded, kind), own)


class Counted:
    """A model whose calls are reported already."""


class _Guarded(Counted, LLM):
    """What a guarded model does differently. All other ways to call a model end in these."""

    def chat(self, *asked: Any, **options: Any) -> Any:
        return _called(self, super().chat, asked, options)  # type: ignore[safe-super]

    def complete(self, *asked: Any, **options: Any) -> Any:
        return _called(self, super().complete, asked, options)  # type: ignore[safe-super]

    async def achat(self, *asked: Any, **options: Any) -> Any:
        return await _acalled(self, super().achat, asked, options)  # type: ignore[safe-super]

    async def acomplete(self, *asked: Any, **options: Any) -> Any:
        return await _acalled(self, super().acomplete, asked, options)  # type: ignore[safe-super]

    def stream_chat(self, *asked: Any, **options: Any) -> Any:
        return _streamed(self, super().stream_chat, asked, options)  # type: ignore[safe-super]

    def stream_complete(self, *asked: Any, **options: Any) -> Any:
        return _streamed(self, super().stream_complete, asked, options)  # type: ignore[safe-super]

    async def astream_chat(self, *asked: Any, **options: Any) -> Any:
        return _astreamed(self, super().astream_chat, asked, options)  # type: ignore[safe-super]

    async def astream_complete(self, *asked: Any, **options: Any) -> Any:
        return _astreamed(self, super().astream_complete, asked, options)  # type: ignore[safe-super]


def _called(llm: LLM, call: Callable[..., Any], asked: Any, options: Any) -> Any:
    with _reported(llm, asked, options) as answers, _calling():
        answers.append(call(*asked, **options))
    return answers[-1]


async def _acalled(llm: LLM, call: Callable[..., Any], asked: Any, options: Any) -> Any:
    async with _areported(llm, asked, options) as answers:
        with _calling():
            answers.append(await call(*asked, **options))
    return answers[-1]


def _streamed(llm: LLM, call: Callable[..., Any], asked: Any, options: Any) -> Iterator[Any]:
    with _reported(llm, asked, options) as answers:
        with _calling():
            stream = call(*asked, **options)
        while True:
            with _calling():
                answer = next(stream, _END)
            if answer is _END:
                return
            answers[:] = [answer]
            yield answer


async def _astreamed(
    llm: LLM, call: Callable[..., Any], asked: Any, options: Any
) -> AsyncIterator[Any]:
    async with _areported(llm, asked, options) as answers:
        with _calling():
            stream = await call(*asked, **options)
        while True:
            with _calling():
                answer = await anext(stream, _END)
            if answer is _END:
                return
            answers[:] = [answer]
            yield answer


@contextmanager
def _calling() -> Generator[None]:
    """Say that a model is being called: what it calls to do so is no call of its own.

    Never held across a `yield`: a generator runs in the context of whoever reads it.
    """
    token = _CALLING.set(True)
    try:
        yield
    finally:
        _CALLING.reset(token)


@contextmanager
def _reported(llm: LLM, asked: Any, options: Any) -> Generator[list[Any]]:
    """Report a call to the active run, before and after it is made."""
    run, answers, failed = _run(), list[Any](), None
    call = run.model_started(**_question(run, llm, asked, options)) if run else None
    try:
        yield answers
    except BaseException as error:
        failed = error
        raise
    finally:
        if run and call:
            run.model_finished(call, **_answer(run, llm, answers), error=failed)


@asynccontextmanager
async def _areported(llm: LLM, asked: Any, options: Any) -> AsyncGenerator[list[Any]]:
    """Like `_reported`, on an event loop."""
    run, answers, failed = _run(), list[Any](), None
    call = await run.amodel_started(**_question(run, llm, asked, options)) if run else None
    try:
        yield answers
    except BaseException as error:
        failed = error
        raise
    finally:
        if run and call:
            await run.amodel_finished(call, **_answer(run, llm, answers), error=failed)


def _run() -> Run | None:
    return None if _CALLING.get() else active_run()


def _question(run: Run, llm: LLM, given: tuple[Any, ...], options: Any) -> dict[str, Any]:
    asked = given[0] if given else options.get("messages", options.get("prompt"))
    text = [{"type": "text", "text": asked}]
    most = options.get("max_tokens", getattr(llm, "max_tokens", None))
    return {
        "model": llm.metadata.model_name,
        "messages": text if isinstance(asked, str) else [_message(run, llm, m) for m in asked],
        "max_output_tokens": most if isinstance(most, int) and most > 0 else None,
    }


def _answer(run: Run, llm: LLM, answers: list[Any]) -> dict[str, Any]:
    if not answers:
        return {}
    said = answers[-1]
    told = _message(run, llm, said.message) if hasattr(said, "message") else {"text": said.text}
    return {"output": told, **_used(said)}


def _used(said: Any) -> dict[str, int]:
    """Return the tokens that the provider counted.

    Anthropic counts cached ones beside its input, Google thoughts beside its answer.
    """
    asked, answered = get_tokens_from_response(said)
    raw = dict(said.raw or {})
    used = dict(raw.get("usage") or raw.get("usage_metadata") or {})
    read, written = (used.get(f"cache_{n}_input_tokens") or 0 for n in ("read", "creation"))
    inside = dict(used.get("prompt_tokens_details") or used.get("input_tokens_details") or {})
    return {
        "input_tokens": (asked or 0) + read + written,
        "output_tokens": (answered or 0) + (used.get("thoughts_token_count") or 0),
        "cached_tokens": inside.get("cached_tokens")
        or used.get("cached_content_token_count")
        or read,
        "cache_write_tokens": written,
    }


def _message(run: Run, llm: Any, message: Any) -> dict[str, Any]:
    """Return a message as JSON types, without what a tool declared sensitive.

    Providers keep tool calls in forms of their own, so the model is asked to read them.
    """
    told = {"role": str(message.role.value), "content": message.content}
    if call_id := message.additional_kwargs.get("tool_call_id"):
        told["tool_call_id"] = str(call_id)
    calls: list[Any] = []
    with contextlib.suppress(*_UNREADABLE):
        answer = ChatResponse(message=message)
        calls = llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
    if calls:
        told["tool_calls"] = [
            {
                "name": call.tool_name,
                "args": run.redact_call(call.tool_name, call.tool_kwargs),
                "id": call.tool_id,
            }
            for call in calls
        ]
    return told
