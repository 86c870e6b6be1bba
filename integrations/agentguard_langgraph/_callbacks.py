"""What LangChain's handler of a run has to know of a graph: its tasks, its answers, its pauses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langgraph.callbacks import GraphCallbackHandler, GraphInterruptEvent

from agentguard_langchain.hosting import RunHandler

from . import _call
from ._host import LangGraphHost

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from agentguard.hosting import Run


class GraphHandler(RunHandler, GraphCallbackHandler):
    """Tells a run what LangChain and LangGraph do in it, in the graph of this path."""

    def __init__(self, run: Run, path: str) -> None:
        super().__init__(run)
        self._path = path
        self._root: UUID | None = None

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID,  # noqa: ARG002 - LangChain's names
        metadata: Mapping[str, Any] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Name the task that runs next; a graph that begins, or goes on, waits for nothing."""
        if self._root is None:
            self._root = run_id
            self.run.waiting("", of=self._path)
        _call.enter_task(run_id, metadata or {})

    on_chain_end: Any = RunHandler.left
    on_chain_error: Any = RunHandler.left

    def on_tool_start(self, *told: Any, **named: Any) -> None:
        """Name the call whose body runs next, and take decisions that are not for that body."""
        super().on_tool_start(*told, **named)
        if isinstance(self.run.host, LangGraphHost):
            self.run.host.take_decisions()

    def tool_call(
        self, run: UUID, call_id: str, name: str, args: Mapping[str, Any] | None
    ) -> _call.GraphFrame | None:
        """Return the frame of a tool call, told apart from equal ones by the graph's messages."""
        return _call.tool_call(run, call_id, name, args)

    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        """Say that the run waits when its graph does, for whatever it waits."""
        if event.run_id == self._root:
            self.run.waiting(f"interrupted: {event.status}", of=self._path)
