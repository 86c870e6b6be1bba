"""The one callback handler of a run: it names tool calls and counts every model call.

LangChain calls it for whatever runs below a guarded graph, however deep and in whichever thread.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from langchain_core.tracers.context import register_configure_hook
from langgraph.callbacks import GraphCallbackHandler, GraphInterruptEvent

from . import _call, _messages
from ._host import LangGraphHost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from uuid import UUID

    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

    from agentguard import ModelCall, Run

# A model that is called with callbacks of its own does not inherit those of the graph's
# configuration, and a bare thread does not inherit this variable: a handler goes both ways, and
# LangChain sees that it is one.
_HANDLER: ContextVar[RunHandler | None] = ContextVar("agentguard_langgraph_handler", default=None)
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
        asker = sys._getframe(1).f_code.co_flags  # noqa: SLF001 - the only way to know
        method = self._awaited if asker & inspect.CO_COROUTINE else self._called
        return method.__get__(handler, owner)


class RunHandler(GraphCallbackHandler):
    """Tells a run what LangChain does in it."""

    raise_error = True  # a refused model call must not be made
    run_inline = True  # in the context of which the tool's body gets a copy

    def __init__(self, run: Run) -> None:
        self.run = run
        self._open: dict[UUID, ModelCall] = {}

    # Tasks and tool calls.

    def on_chain_start(
        self, _serialized: Any, _inputs: Any, *, run_id: UUID,
        metadata: Mapping[str, Any] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Name the task that runs next."""
        _call.enter_task(run_id, metadata or {})

    def on_tool_start(
        self, serialized: Mapping[str, Any] | None, _input: str, *, run_id: UUID,
        tool_call_id: str | None = None, inputs: Mapping[str, Any] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Name the call whose body runs next, and take decisions that are not for that body."""
        if tool_call_id is not None:
            _call.enter_tool(run_id, tool_call_id, (serialized or {}).get("name", ""), inputs)
        if isinstance(self.run.host, LangGraphHost):
            self.run.host.take_decisions()

    def _left(self, _: Any, *, run_id: UUID, **__: Any) -> None:
        """Forget the task or the call."""
        _call.leave(run_id)

    on_chain_end = on_chain_error = on_tool_end = on_tool_error = _left

    # Pauses.

    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        """Say that the run waits when the graph does, for whatever it waits."""
        self.run.waiting(f"interrupted: {event.status}")

    # Model calls.

    def _chat_start(self, serialized: Any, messages: Any, *, run_id: UUID, **told: Any) -> None:
        self._open[run_id] = self.run.model_started(**self._chat(serialized, messages, told))

    async def _achat_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, **told: Any
    ) -> None:
        asked = self._chat(serialized, messages, told)
        self._open[run_id] = await self.run.amodel_started(**asked)

    def _text_start(self, serialized: Any, prompts: Any, *, run_id: UUID, **told: Any) -> None:
        self._open[run_id] = self.run.model_started(**_text(serialized, prompts, told))

    async def _atext_start(
        self, serialized: Any, prompts: Any, *, run_id: UUID, **told: Any
    ) -> None:
        asked = _text(serialized, prompts, told)
        self._open[run_id] = await self.run.amodel_started(**asked)

    def _end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        if call := self._open.pop(run_id, None):
            self.run.model_finished(call, **self._answer(response))

    async def _aend(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        if call := self._open.pop(run_id, None):
            await self.run.amodel_finished(call, **self._answer(response))

    def _error(
        self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **_: Any
    ) -> None:
        if call := self._open.pop(run_id, None):
            used = {} if response is None else self._answer(response)
            self.run.model_finished(call, **used, error=error)

    async def _aerror(
        self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **_: Any
    ) -> None:
        if call := self._open.pop(run_id, None):
            used = {} if response is None else self._answer(response)
            await self.run.amodel_finished(call, **used, error=error)

    on_chat_model_start: Any = _Event(_chat_start, _achat_start)
    on_llm_start: Any = _Event(_text_start, _atext_start)
    on_llm_end: Any = _Event(_end, _aend)
    on_llm_error: Any = _Event(_error, _aerror)

    def left_open(self) -> Iterator[ModelCall]:
        """Take the model calls that ended without a word, as a cancelled one does."""
        while self._open:
            yield self._open.popitem()[1]

    def _chat(
        self, serialized: Any, messages: Sequence[Sequence[BaseMessage]], told: Mapping[str, Any]
    ) -> dict[str, Any]:
        asked = [_messages.record(m, self.run.redact_call) for m in messages[0]]
        return {"messages": asked, **_model(serialized, told)}

    def _answer(self, response: LLMResult) -> dict[str, Any]:
        said = _messages.answer(response, self.run.redact_call)
        return {"output": said, **_messages.usage(response)}


def handler_of(run: Run) -> RunHandler | None:
    """Return the handler that already tells *run* what happens here."""
    handler = _HANDLER.get()
    return handler if handler is not None and handler.run is run else None


@contextmanager
def reported(run: Run) -> Iterator[RunHandler]:
    """Let LangChain report to *run* whatever it does in this context."""
    handler = RunHandler(run)
    token = _HANDLER.set(handler)
    try:
        yield handler
    finally:
        _HANDLER.reset(token)
        for call in handler.left_open():
            run.model_finished(call, error=_CutOff())


@asynccontextmanager
async def areported(run: Run) -> AsyncIterator[RunHandler]:
    """Like `reported`, on an event loop."""
    handler = RunHandler(run)
    token = _HANDLER.set(handler)
    try:
        yield handler
    finally:
        _HANDLER.reset(token)
        for call in handler.left_open():
            await run.amodel_finished(call, error=_CutOff())


class _CutOff(Exception):  # noqa: N818 - its name is what the record shows
    """The model call neither returned nor failed."""


def _text(serialized: Any, prompts: Sequence[str], told: Mapping[str, Any]) -> dict[str, Any]:
    return {"messages": [{"type": "text", "text": p} for p in prompts], **_model(serialized, told)}


def _model(serialized: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's name and the most it may answer, wherever the provider says so."""
    asked: Mapping[str, Any] = told.get("invocation_params") or {}
    known: Mapping[str, Any] = told.get("metadata") or {}
    name = known.get("ls_model_name") or asked.get("model") or asked.get("model_name")
    most = known.get("ls_max_tokens") or asked.get("max_tokens")
    return {
        "model": str(name or (serialized or {}).get("name") or "unknown"),
        "max_output_tokens": most if isinstance(most, int) else None,
    }
