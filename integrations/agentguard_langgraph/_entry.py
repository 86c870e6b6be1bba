"""How an invocation enters its run: a new one, one to resume, or the one it is already in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs

from agentguard import Principal
from agentguard.hosting import active_run

from . import _node
from ._callbacks import RunHandler, areported, handler_of, reported
from ._host import LangGraphHost

if TYPE_CHECKING:
    from agentguard import Guard
    from agentguard.hosting import Run

RunIdOf = str | Callable[[RunnableConfig], str | None] | None
Who = Principal | Callable[[RunnableConfig], Principal | None] | None


@dataclass(frozen=True, slots=True)
class Entry:
    """What is the same for all runs of a guarded graph or agent.

    Attributes:
        in_task: whether a task enters the run for its own code, as a middleware does; otherwise
            it is a graph that does, which may be a task's.
    """

    guard: Guard
    workflow: str
    principal: Who = None
    run_id: RunIdOf = None
    budget: Mapping[str, Any] = field(default_factory=dict)
    in_task: bool = False

    def __deepcopy__(self, memo: Any) -> Entry:
        return self  # the guard holds a store, and is the same for all copies

    @contextmanager
    def entered(self, *configs: RunnableConfig | None) -> Generator[RunHandler | None]:
        """Enter the run; give the callback handler to add, if none is at work here yet."""
        config = merge_configs(*configs)
        run, is_new = self._choose(config)
        with run if is_new else nullcontext():
            if handler_of(run):
                yield None
            else:
                with reported(run, *self._place(run, config)) as handler:
                    yield handler

    @asynccontextmanager
    async def aentered(self, *configs: RunnableConfig | None) -> AsyncGenerator[RunHandler | None]:
        """Like `entered`, on an event loop."""
        config = merge_configs(*configs)
        run, is_new = self._choose(config)
        async with run if is_new else nullcontext():
            if handler_of(run):
                yield None
            else:
                async with areported(run, *self._place(run, config)) as handler:
                    yield handler

    def _choose(self, config: RunnableConfig) -> tuple[Run, bool]:
        """Return the run for *config*, and whether it has to be entered."""
        run_id, active = self.id_for(config), active_run()
        if active is not None and self._belongs(config, run_id, active):
            if not isinstance(active.host, LangGraphHost):
                active.host = LangGraphHost(self.guard)
            return active, False
        who = self.principal(config) if callable(self.principal) else self.principal
        run = self.guard.run(
            self.workflow, run_id=run_id, principal=who, host=LangGraphHost(self.guard),
            join=self.in_task, **self.budget,
        )  # fmt: skip
        return run, True

    def _belongs(self, config: RunnableConfig, run_id: str | None, active: Run) -> bool:
        """Return whether an invocation is part of the active run: a subgraph, say."""
        same = run_id is None or run_id == active.id or _node.is_task(config)
        return same and active.guard is self.guard

    def _place(self, run: Run, config: RunnableConfig) -> tuple[str, str]:
        """Return the path of this invocation in the run, and the namespace of the task around."""
        around = str(_node.configurable().get("checkpoint_ns") or "")
        is_graph_of_task = _node.is_task(config) and not self.in_task
        return _root(run, config), "" if is_graph_of_task else around

    def id_for(self, config: RunnableConfig) -> str | None:
        """Return the id that *config* gives its run, if it does."""
        if callable(self.run_id):
            return self.run_id(config)
        thread = _node.configurable(config).get("thread_id")
        return self.run_id or (None if thread is None else str(thread))


def _root(run: Run, config: RunnableConfig) -> str:
    """Return what tells the calls of this invocation from those of others in the same run.

    Another thread is another conversation. Without threads, the order of invocations tells them
    apart: it is the same when a program is run again after a crash.
    """
    thread = _node.configurable(config).get("thread_id")
    if thread is not None:
        return "" if str(thread) == run.id else f"{thread}/"
    host = run.host
    number = 0 if _node.is_task(config) or not isinstance(host, LangGraphHost) else host.number()
    return f"+{number}/" if number else ""
