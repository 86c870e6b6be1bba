"""The one callback handler of a run: it names tool calls and counts every model call.

LangChain calls it for whatever runs in its block, however deep and in whichever thread.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.tracers.context import register_configure_hook

from agentguard.hosting import Blocks, CallRef, ModelReports, setting

from . import _calls, _messages
from ._host import LangChainHost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from langchain_core.outputs import LLMResult
    from langchain_core.runnables import RunnableConfig

    from agentguard.hosting import Run

HandlerT = TypeVar("HandlerT", bound="RunHandler")

# A model that is called with callbacks of its own does not inherit those of its caller's
# configuration, and a bare thread does not inherit this variable: a handler may go both ways, and
# LangChain sees that it is one.
_HANDLER: ContextVar[RunHandler | None] = ContextVar("agentguard_langchain_handler", default=None)
register_configure_hook(_HANDLER, inheritable=True)


class _Event:
    """A handler's method in two colours: awaited where LangChain can, called where it cannot.

    An `async def` alone would fail open: called from synchronous code, LangChain runs it but
    drops its exceptions. A `def` alone would hold up the event loop during the commit. So who
    looks the method up decides: a coroutine gets the coroutine function.
    """

    def __init__(self, called: Callable[..., None], awaited: Callable[..., Any]) -> None:
        self._called, self._awaited = called, awaited

    def __get__(self, handler: Any, owner: type) -> Any:
        frame = inspect.currentframe()
        asker = frame.f_back if frame else None
        is_coroutine = asker and asker.f_code.co_flags & inspect.CO_COROUTINE
        method = self._awaited if is_coroutine else self._called
        return method.__get__(handler, owner)


class RunHandler(BaseCallbackHandler):
    """Tells a run what LangChain does in it."""

    raise_error = True  # a refused model call must not be made
    run_inline = True  # in the context of which the tool's body gets a copy

    def __init__(self, run: Run) -> None:
        self.run = run
        self.models = ModelReports(run)

    # Tool calls.

    def on_tool_start(
        self, serialized: Mapping[str, Any] | None, input_str: str, *,  # noqa: ARG002 - LangChain's
        run_id: UUID, tool_call_id: str | None = None, inputs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:  # fmt: skip
        """Name the call whose body runs next."""
        if tool_call_id is not None and self._is_innermost():
            name = str((serialized or {}).get("name", ""))
            if frame := self.tool_call(run_id, tool_call_id, name, inputs):
                _calls.enter(frame)

    def tool_call(
        self, run: UUID, call_id: str, name: str, args: Mapping[str, Any] | None  # noqa: ARG002 - a graph's
    ) -> _calls.Frame | None:  # fmt: skip
        """Return the frame of a tool call."""
        return _calls.Frame(run=run, ref=CallRef(call_id), is_tool=True)

    def left(self, _: Any, *, run_id: UUID, **__: Any) -> None:
        """Forget what has ended."""
        _calls.leave(run_id)

    on_tool_error: Any = left

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """Forget the call; tell the model what a person changed in it."""
        if edits := _calls.leave(run_id):
            _messages.add_edits(output, edits)

    # Model calls.

    def _start(self, serialized: Any, asked: Any, *, run_id: UUID, **told: Any) -> None:
        if self._is_innermost():
            self.models.started(run_id, **self._asked(serialized, asked, run_id, told))

    async def _astart(self, serialized: Any, asked: Any, *, run_id: UUID, **told: Any) -> None:
        if self._is_innermost():
            await self.models.astarted(run_id, **self._asked(serialized, asked, run_id, told))

    def _end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        self.models.finished(run_id, **self._answer(response))

    async def _aend(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        await self.models.afinished(run_id, **self._answer(response))

    def _error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        self.models.finished(run_id, error=error, **self._answer(told.get("response")))

    async def _aerror(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        await self.models.afinished(run_id, error=error, **self._answer(told.get("response")))

    on_chat_model_start: Any = _Event(_start, _astart)
    on_llm_start: Any = _Event(_start, _astart)
    on_llm_end: Any = _Event(_end, _aend)
    on_llm_error: Any = _Event(_error, _aerror)

    def _is_innermost(self) -> bool:
        """Return whether no other handler, of a graph inside, reports to the same run here."""
        return (handler_of(self.run) or self) is self

    def _asked(
        self, serialized: Any, asked: Sequence[Any], run_id: UUID, told: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            "messages": _messages.question(asked, self.run.redact_call),
            "call_id": str(run_id),
            **_messages.model(serialized, told),
        }

    def _answer(self, response: LLMResult | None) -> dict[str, Any]:
        if response is None:
            return {}
        said = _messages.answer(response, self.run.redact_call)
        return {"output": said, **_messages.usage(response)}


def handler_of(run: Run) -> RunHandler | None:
    """Return the handler that already tells *run* what happens here."""
    handler = _HANDLER.get()
    return handler if handler is not None and handler.run is run else None


def at_work(handler: HandlerT, frame: _calls.Frame) -> Blocks[HandlerT]:
    """Let LangChain report to *handler* whatever it does in this block, which is *frame*."""
    return Blocks(handler, handler.models, setting(_HANDLER, handler), _calls.inside(frame))


def reporting(run: Run) -> Blocks[RunHandler]:
    """Let LangChain report model calls and tool calls to *run*: a block for `with` or `async with`.

    In a bare thread, which knows nothing of the block, pass on what it gives as a callback.

    Args:
        run: a run that is entered.
    """
    here = run.inside(LangChainHost())
    if handler := handler_of(run):
        return Blocks(handler, here)
    handler = RunHandler(run)
    return Blocks(handler, here, at_work(handler, _calls.Frame(run=None, ref=CallRef(""))))


def with_handler(config: Any, handler: BaseCallbackHandler | None) -> RunnableConfig:
    """Return *config* with *handler* among its callbacks, whichever of their two forms they have."""
    if handler is None:
        return cast("RunnableConfig", config)
    callbacks = (config or {}).get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        callbacks = callbacks.copy()
        callbacks.add_handler(handler, inherit=True)
    else:
        callbacks = [*(callbacks or ()), handler]
    return cast("RunnableConfig", {**(config or {}), "callbacks": callbacks})
