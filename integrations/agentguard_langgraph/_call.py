"""Which call this is: the model's tool call, or else the place in the graph, the same on every replay.

LangChain's callbacks enter and leave *frames*: a task of a graph, a tool call, a task of a graph
that the tool invokes, and so on. A frame lives in the context of what it stands for.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage

from agentguard.hosting import CallRef

from . import _node

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from uuid import UUID


@dataclass(slots=True, eq=False)
class Frame:
    """Something that is being executed.

    Attributes:
        run: LangChain's id of it; an invocation that enters a run has none.
        ref: the call, as the core wants to know it; one object for each execution.
        namespace: of a task; a tool call has none.
        graph: the path of the graph to which the task or the model belongs.
        graphs: namespaces of the graphs invoked inside, in order.
        edits: what people changed in the arguments of guarded calls inside.
        over: whether it has ended. Who ends it may stand in a copy of its context, and cannot
            take it away from there.
    """

    run: UUID | None
    outer: Frame | None
    ref: CallRef
    namespace: str | None
    graph: str
    graphs: list[str] = field(default_factory=list)
    edits: dict[str, Any] = field(default_factory=dict)
    over: bool = False

    def inside(self, graph: str) -> str:
        """Return the path of a graph that is invoked inside."""
        if self.run is None:
            return self.graph
        if graph not in self.graphs:
            self.graphs.append(graph)
        number = self.graphs.index(graph)
        return f"{_path(self.ref)}+{number}/" if number else f"{_path(self.ref)}/"


_FRAME: ContextVar[Frame | None] = ContextVar("agentguard_langgraph_frame", default=None)


@contextmanager
def invocation(root: str, namespace: str) -> Generator[None]:
    """Begin anew below *root*: calls made inside do not belong to the task around it.

    LangGraph tells even a graph with a thread of its own the *namespace* of that task.
    """
    token = _FRAME.set(Frame(None, _FRAME.get(), CallRef(root), namespace, root))
    try:
        yield
    finally:
        _FRAME.reset(token)


def enter_tool(run: UUID, call_id: str, name: str, args: Mapping[str, Any] | None) -> None:
    """Remember a tool call in this context, of which the tool's body gets a copy."""
    outer = _innermost()
    if outer is not None:
        # How often the task that executes tools has come by need not be said: the messages tell.
        graph = f"{_path(outer.ref)}/" if outer.namespace is None else outer.graph
        ref = CallRef(graph + call_id, _occurrence(call_id, name, args), _node.agent_name())
        _FRAME.set(Frame(run, outer, ref, None, graph))


def enter_task(run: UUID, metadata: Mapping[str, Any]) -> None:
    """Remember the task that *metadata* tells of, unless it is one that runs here already."""
    outer, namespace = _innermost(), metadata.get("langgraph_checkpoint_ns")
    if outer is None or not namespace:
        return
    if all(namespace != frame.namespace for frame in _frames(outer)):
        graph = outer.inside(namespace.rpartition("|")[0])
        ref = CallRef(graph + _place(metadata), 0, _node.agent_name())
        _FRAME.set(Frame(run, outer, ref, namespace, graph))


def leave(run: UUID) -> Mapping[str, Any]:
    """End the frame that was entered as *run*; return what people changed inside."""
    edits: dict[str, Any] = {}
    for frame in _frames(_FRAME.get()):
        if frame.run == run:
            frame.over, edits = True, frame.edits
    return edits


def current() -> CallRef | None:
    """Return the call whose code runs here."""
    frame = _innermost()
    return None if frame is None or frame.run is None else frame.ref


def tool_call() -> Frame | None:
    """Return the tool call for whose answer a model waits while this code runs."""
    inside = itertools.takewhile(lambda frame: frame.run is not None, _frames(_FRAME.get()))
    return next((frame for frame in inside if frame.namespace is None), None)


def _innermost() -> Frame | None:
    return next(_frames(_FRAME.get()), None)


def _frames(frame: Frame | None) -> Iterator[Frame]:
    while frame is not None:
        if not frame.over:
            yield frame
        frame = frame.outer


def _path(ref: CallRef) -> str:
    return f"{ref.id}#{ref.occurrence}" if ref.occurrence else ref.id


def _occurrence(call_id: str, name: str, args: Mapping[str, Any] | None) -> int:
    """Count the equal calls before this one in the graph's messages.

    Models give one id to different calls. The messages come from the checkpoint, so the count is
    the same on every replay, also after somebody has updated the state.
    """
    named = [c for c in _calls_made() if (c["id"], c["name"]) == (call_id, name)]
    equal = [c for c in named if c["args"] == args]
    return max(len(equal or named) - 1, 0)


def _calls_made() -> list[Any]:
    """Return every tool call in the graph's state, whatever the state's key for messages."""
    lists = [value for value in _node.state().values() if isinstance(value, list)]
    said = [m for messages in lists for m in messages if isinstance(m, AIMessage)]
    return [call for message in said for call in message.tool_calls]


def _place(metadata: Mapping[str, Any]) -> str:
    """Return node and step, and which of the step's equal tasks it is.

    Step numbers are kept in the checkpoint. The ids of tasks are not stable enough: those of a
    subgraph without checkpoints are new every time. Updating the state, or starting again from an
    old checkpoint, makes new steps: there only a key over the arguments stays the same.
    """
    index = [str(number) for number in _numbers(metadata.get("langgraph_path"))]
    return ".".join([f"{metadata.get('langgraph_node')}@{metadata.get('langgraph_step')}", *index])


def _numbers(path: Any) -> Iterator[int]:
    for part in path or ():
        if isinstance(part, (tuple, list)):
            yield from _numbers(part)
        elif isinstance(part, int) and not isinstance(part, bool):
            yield part
