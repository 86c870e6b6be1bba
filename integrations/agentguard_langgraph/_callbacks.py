"""The one callback handler of a run: it names tool calls and counts every model call.

LangChain calls it for whatever runs below a guarded graph, however deep and in whichever thread.
"""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from langchain_core.tracers.context import register_configure_hook
from langgraph.callbacks import GraphCallbackHandler, GraphInterruptEvent

from agentguard import GuardError

from . import _call, _messages
from ._host import LangGraphHost

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
    from uuid import UUID

    from langchain_core.outputs import LLMResult

    from agentguard.hosting import Run

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
        frame = inspect.currentframe()
        asker = frame.f_back if frame else None
        is_coroutine = asker and asker.f_code.co_flags & inspect.CO_COROUTINE
        method = self._awaited if is_coroutine else self._called
        return method.__get__(handler, owner)


class RunHandler(GraphCallbackHandler):
    """Tells a run what LangChain does in it."""

    raise_error = True  # a refused model call must not be made
    run_inline = True  # in the context of which the tool's body gets a copy

    def __init__(self, run: Run) -> None:
        self.run = run
        self._root: UUID | None = None
        self._open: dict[UUID, Any] = {}

    # Tasks and tool calls.

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID,  # noqa: ARG002 - LangChain's names
        metadata: Mapping[str, Any] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Name the task that runs next."""
        self._root = self._root or run_id
        _call.enter_task(run_id, metadata or {})

    def on_tool_start(
        self, serialized: Mapping[str, Any] | None, input_str: str, *,  # noqa: ARG002 - same
        run_id: UUID, tool_call_id: str | None = None, inputs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:  # fmt: skip
        """Name the call whose body runs next, and take decisions that are not for that body."""
        if tool_call_id is not None:
            _call.enter_tool(run_id, tool_call_id, (serialized or {}).get("name", ""), inputs)
        if isinstance(self.run.host, LangGraphHost):
            self.run.host.take_decisions()

    def _left(self, _: Any, *, run_id: UUID, **__: Any) -> None:
        _call.leave(run_id)

    on_chain_end: Any = _left
    on_chain_error: Any = _left
    on_tool_error: Any = _left

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """Forget the call; tell the model what a person changed in it."""
        if edits := _call.leave(run_id):
            _messages.add_edits(output, edits)

    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        """Say that the run waits when its graph does, for whatever it waits."""
        if event.run_id == self._root:
            self.run.waiting(f"interrupted: {event.status}")

    # Model calls.

    def _start(self, serialized: Any, asked: Any, *, run_id: UUID, **told: Any) -> None:
        call = self._asked(serialized, asked, run_id, told)
        with _refusing(self.run):
            self._open[run_id] = self.run.model_started(**call)

    async def _astart(self, serialized: Any, asked: Any, *, run_id: UUID, **told: Any) -> None:
        call = self._asked(serialized, asked, run_id, told)
        with _refusing(self.run):
            self._open[run_id] = await self.run.amodel_started(**call)

    def _end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        if call := self._open.pop(run_id, None):
            self.run.model_finished(call, **self._answer(response))

    async def _aend(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        if call := self._open.pop(run_id, None):
            await self.run.amodel_finished(call, **self._answer(response))

    def _error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        if call := self._open.pop(run_id, None):
            self.run.model_finished(call, **self._answer(told.get("response")), error=error)

    async def _aerror(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        if call := self._open.pop(run_id, None):
            answer = self._answer(told.get("response"))
            await self.run.amodel_finished(call, **answer, error=error)

    on_chat_model_start: Any = _Event(_start, _astart)
    on_llm_start: Any = _Event(_start, _astart)
    on_llm_end: Any = _Event(_end, _aend)
    on_llm_error: Any = _Event(_error, _aerror)

    def left_open(self) -> Iterator[Any]:
        """Take the model calls that ended without a word, as a cancelled one does."""
        while self._open:
            yield self._open.popitem()[1]

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


@contextmanager
def _refusing(run: Run) -> Generator[None]:
    """Let a refusal reach the caller, past middlewares that retry a model or fall back to another.

    The run may have been opened before it got its host.
    """
    try:
        yield
    except GuardError as refusal:
        raise run.host.failure(refusal) from None


def handler_of(run: Run) -> RunHandler | None:
    """Return the handler that already tells *run* what happens here."""
    handler = _HANDLER.get()
    return handler if handler is not None and handler.run is run else None


@contextmanager
def reported(run: Run, root: str, namespace: str) -> Generator[RunHandler]:
    """Let LangChain report to *run* whatever it does in this context, as calls below *root*."""
    handler = RunHandler(run)
    token = _HANDLER.set(handler)
    try:
        with _call.invocation(root, namespace):
            yield handler
    finally:
        _HANDLER.reset(token)
        for call in handler.left_open():
            run.model_finished(call, error=_CutOff())


@asynccontextmanager
async def areported(run: Run, root: str, namespace: str) -> AsyncGenerator[RunHandler]:
    """Like `reported`, on an event loop."""
    handler = RunHandler(run)
    token = _HANDLER.set(handler)
    try:
        with _call.invocation(root, namespace):
            yield handler
    finally:
        _HANDLER.reset(token)
        for call in handler.left_open():
            await run.amodel_finished(call, error=_CutOff())


class _CutOff(Exception):
    """The model call neither returned nor failed."""
