"""A compiled graph that enters a run around whatever it executes, and is the graph otherwise.

The guarded graph is an instance of a subclass of the graph's own class, not a proxy around it:
what LangChain derives from it (`with_config`, `bind`, `|`, a node of a parent graph, `batch`) calls
its methods, not those of an unguarded graph inside. All ways to execute a graph end in `stream` or
`astream`.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from contextlib import aclosing
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from langchain_core.callbacks import BaseCallbackManager
from langgraph.pregel import Pregel  # pyright: ignore[reportMissingTypeStubs]

from agentguard import ConfigurationError

from ._entry import Entry, RunIdOf, Who

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.runnables import RunnableConfig

    from agentguard import Guard

GraphT = TypeVar("GraphT", bound="Pregel[Any, Any, Any, Any]")
_END = object()


def guard_graph(
    graph: GraphT, guard: Guard, *, workflow: str | None = None, principal: Who = None,
    run_id: RunIdOf = None, **budget: Any,
) -> GraphT:  # fmt: skip
    """Return *graph* so that every invocation runs inside a run of *guard*.

    The graph itself stays as it is. Checkpointer, state and subgraphs are shared with it.

    Args:
        graph: a compiled graph, an agent of `create_agent` or an `@entrypoint`.
        guard: where runs, effects and approvals are kept.
        workflow: what kind of run it is; the guard's own workflow or the graph's name if omitted.
        principal: who acts, or a function of the invocation's configuration that says so.
        run_id: the run's id, or a function of the configuration. If omitted, the thread_id; an
            invocation without one is a run of its own.
        budget: what `Guard.run` takes, such as `max_steps`; replaces the configuration's.

    Raises:
        ConfigurationError: *graph* is not a compiled graph, or guarded already.
    """
    given: Any = graph
    if isinstance(given, _Guarded):
        raise ConfigurationError("this graph is guarded already: call guard_graph once")
    if not isinstance(given, Pregel):
        raise ConfigurationError(
            f"guard_graph takes a compiled graph, not {type(given).__name__}:"
            " guard_graph(builder.compile(...), guard)"
        )
    guarded: Any = copy.copy(graph)
    guarded.__class__ = _guarded_class(type(graph))
    name = workflow or guard.settings.workflow or graph.get_name()
    guarded.agentguard_entry = Entry(guard, name, principal, run_id, budget)
    return cast("GraphT", guarded)


class _Guarded(Pregel[Any, Any, Any, Any]):
    """What a guarded graph does differently."""

    agentguard_entry: Entry

    def copy(self, update: dict[str, Any] | None = None) -> Self:
        """Return a guarded copy; `with_config` makes one."""
        own = {
            k: v for k, v in vars(self).items() if k not in {"agentguard_entry", "__orig_class__"}
        }
        copied = type(self)(**{**own, **(update or {})})
        copied.agentguard_entry = self.agentguard_entry
        return copied

    def stream(
        self,
        input: Any,  # noqa: A002 - LangGraph's name for it
        config: RunnableConfig | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        """Stream the graph's steps inside its run, which lasts as long as the stream."""
        return _in_own_context(self._steps(input, config, options))

    def astream(
        self,
        input: Any,  # noqa: A002 - LangGraph's name for it
        config: RunnableConfig | None = None,
        **options: Any,
    ) -> AsyncIterator[Any]:
        """Stream the graph's steps inside its run, which lasts as long as the stream."""
        return _ain_own_context(self._asteps(input, config, options))

    def _steps(self, given: Any, config: Any, options: Any) -> Generator[Any]:
        with self.agentguard_entry.entered(self.config, config) as handler:
            yield from super().stream(given, _reporting(config, handler), **options)

    async def _asteps(self, given: Any, config: Any, options: Any) -> AsyncGenerator[Any]:
        async with self.agentguard_entry.aentered(self.config, config) as handler:
            inner = super().astream(given, _reporting(config, handler), **options)
            async with aclosing(cast("AsyncGenerator[Any]", inner)) as steps:
                async for step in steps:
                    yield step


@cache
def _guarded_class(kind: type[Any]) -> type[Any]:
    return type(kind.__name__, (_Guarded, kind), {"__module__": kind.__module__})


def _reporting(config: Any, handler: BaseCallbackHandler | None) -> RunnableConfig:
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


# A generator runs in the context of whoever asks for the next step. The run is a context variable:
# set there, it would leak into the caller's code between two steps, and could not be reset by
# whoever closes the stream. So the steps have a context of their own.


def _in_own_context(steps: Generator[Any]) -> Generator[Any]:
    context = contextvars.copy_context()
    try:
        while (step := context.run(next, steps, _END)) is not _END:
            yield step
    finally:
        context.run(steps.close)


async def _ain_own_context(steps: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
    async def following() -> Any:
        return await anext(steps, _END)

    async def close() -> None:
        await steps.aclose()

    context = contextvars.copy_context()
    try:
        while (step := await asyncio.create_task(following(), context=context)) is not _END:
            yield step
    finally:
        await asyncio.create_task(close(), context=context)
