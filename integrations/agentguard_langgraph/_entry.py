"""How an invocation enters its run: named after the thread, a part of what runs here, or new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_core.runnables.config import merge_configs

from agentguard.hosting import Blocks, Entry
from agentguard_langchain.hosting import at_work, handler_of

from . import _call, _node
from ._callbacks import GraphHandler
from ._host import LangGraphHost

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from agentguard.hosting import Run


@dataclass(frozen=True, slots=True)
class GraphEntry(Entry):
    """What is the same for all runs of a guarded graph or agent.

    Attributes:
        in_task: whether a task enters the run for its own code, as a middleware does; otherwise
            it is a graph that does, which may be a task's.
    """

    in_task: bool = False

    def entered(self, *configs: RunnableConfig | None) -> Blocks[GraphHandler | None]:
        """Enter the run; give the callback handler to add, if none is at work here yet."""
        config = merge_configs(*configs)
        run, here = self.choose(
            config, LangGraphHost(self.guard), known=_node.thread(config),
            inside=_node.is_task(config), join=self.in_task,
        )  # fmt: skip
        if isinstance(handler_of(run), GraphHandler):
            return Blocks(None, here)
        frame = self._frame(run, config)
        handler = GraphHandler(run, frame.graph)
        return Blocks(handler, here, at_work(handler, frame))

    def _frame(self, run: Run, config: RunnableConfig) -> _call.GraphFrame:
        """Return where this invocation is in the run, and in the task around it."""
        around = str(_node.configurable().get("checkpoint_ns") or "")
        is_graph_of_task = _node.is_task(config) and not self.in_task
        return _call.invocation(_root(run, config), "" if is_graph_of_task else around)

    def named(self) -> str | None:
        """Return the id that the running task's configuration gives its run, if it does."""
        config = _node.configuration()
        return self.id_for(config, _node.thread(config))


def _root(run: Run, config: RunnableConfig) -> str:
    """Return what tells the calls of this invocation from those of others in the same run.

    Another thread is another conversation. Without threads, the order of invocations tells them
    apart: it is the same when a program is run again after a crash.
    """
    thread = _node.thread(config)
    if thread is not None:
        return "" if thread == run.id else f"{thread}/"
    return run.root("" if _node.is_task(config) else "graph")
