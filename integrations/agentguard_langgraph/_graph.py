"""A compiled graph that enters a run around whatever it executes, and is the graph otherwise.

The guarded graph is an instance of a subclass of the graph's own class, not a proxy around it:
what LangChain derives from it (`with_config`, `bind`, `|`, a node of a parent graph, `batch`) calls
its methods, not those of an unguarded graph inside. All ways to execute a graph end in `stream` or
`astream`.
"""

from __future__ import annotations

import copy
from contextlib import aclosing
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from langgraph.pregel import Pregel  # pyright: ignore[reportMissingTypeStubs]

from agentguard import ConfigurationError
from agentguard.hosting import RunIdOf, Who, ain_own_context, in_own_context
from agentguard_langchain.hosting import with_handler

from ._entry import GraphEntry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

    from langchain_core.runnables import RunnableConfig

    from agentguard import Guard

GraphT = TypeVar("GraphT", bound="Pregel[Any, Any, Any, Any]")


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
    guarded.agentguard_entry = GraphEntry(guard, name, principal, run_id, budget)
    return cast("GraphT", guarded)


class _Guarded(Pregel[Any, Any, Any, Any]):
    """What a guarded graph does differently."""

    agentguard_entry: GraphEntry

    def copy(self, update: dict[str, Any] | None = None) -> Self:
        """Return a guarded copy; `with_config` makes one."""
        hidden = {"agentguard_entry", "__orig_class__"}
        own = {k: v for k, v in vars(self).items() if k not in hidden}
        copied = type(self)(**{**own, **(update or {})})
        copied.agentguard_entry = self.agentguard_entry
        return copied

    def stream(
        self, input: Any, config: RunnableConfig | None = None,  # noqa: A002 - LangGraph's name
        **options: Any,
    ) -> Iterator[Any]:  # fmt: skip
        """Stream the graph's steps inside its run, which lasts as long as the stream."""
        return in_own_context(self._steps(input, config, options))

    def astream(
        self, input: Any, config: RunnableConfig | None = None,  # noqa: A002 - LangGraph's name
        **options: Any,
    ) -> AsyncIterator[Any]:  # fmt: skip
        """Stream the graph's steps inside its run, which lasts as long as the stream."""
        return ain_own_context(self._asteps(input, config, options))

    def _steps(self, given: Any, config: Any, options: Any) -> Generator[Any]:
        with self.agentguard_entry.entered(self.config, config) as handler:
            yield from super().stream(given, with_handler(config, handler), **options)

    async def _asteps(self, given: Any, config: Any, options: Any) -> AsyncGenerator[Any]:
        async with self.agentguard_entry.entered(self.config, config) as handler:
            inner = super().astream(given, with_handler(config, handler), **options)
            async with aclosing(cast("AsyncGenerator[Any]", inner)) as steps:
                async for step in steps:
                    yield step


@cache
def _guarded_class(kind: type[Any]) -> type[Any]:
    return type(kind.__name__, (_Guarded, kind), {"__module__": kind.__module__})
