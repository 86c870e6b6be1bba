"""Which call this is: the model's tool call, or else the place in the graph, the same on every replay.

To LangChain's frames for tool calls come those for tasks, and each knows the graph it belongs to: a
task of a graph, a tool call in it, a task of a graph that the tool invokes, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage

from agentguard.hosting import CallRef
from agentguard_langchain.hosting import Frame, enter, frames

from . import _node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID


@dataclass(slots=True, eq=False, kw_only=True)
class GraphFrame(Frame):
    """Something that a graph executes.

    Attributes:
        namespace: of a task; a tool call has none.
        graph: the path of the graph to which the task or the model belongs.
        graphs: namespaces of the graphs invoked inside, in order.
    """

    namespace: str | None = None
    graph: str
    graphs: list[str] = field(default_factory=list[str])

    def inside(self, graph: str) -> str:
        """Return the path of a graph that is invoked inside."""
        if self.run is None:
            return self.graph
        if graph not in self.graphs:
            self.graphs.append(graph)
        number = self.graphs.index(graph)
        return f"{self.ref.path}+{number}/" if number else f"{self.ref.path}/"


def invocation(root: str, namespace: str) -> GraphFrame:
    """Return the frame of calls below *root*, which do not belong to the task around them.

    LangGraph tells even a graph with a thread of its own the *namespace* of that task.
    """
    return GraphFrame(run=None, ref=CallRef(root), namespace=namespace, graph=root)


def tool_call(
    run: UUID, call_id: str, name: str, args: Mapping[str, Any] | None
) -> GraphFrame | None:
    """Return the frame of a tool call; none in a thread that knows nothing of its graph."""
    outer = next(_frames(), None)
    if outer is None:
        return None
    named = [call for call in _calls_made() if (call["id"], call["name"]) == (call_id, name)]
    # How often the task that executes tools has come by need not be said where the messages tell.
    is_part = outer.is_tool or (outer.run is not None and not named)
    graph = f"{outer.ref.path}/" if is_part else outer.graph
    ref = CallRef(graph + call_id, _occurrence(named, args), _node.agent_name())
    return GraphFrame(run=run, ref=ref, is_tool=True, graph=graph)


def enter_task(run: UUID, metadata: Mapping[str, Any]) -> None:
    """Remember the task that *metadata* tells of, unless it is one that runs here already."""
    here, namespace = list(_frames()), metadata.get("langgraph_checkpoint_ns")
    if here and namespace and all(namespace != frame.namespace for frame in here):
        graph = here[0].inside(namespace.rpartition("|")[0])
        ref = CallRef(graph + _place(metadata), 0, _node.agent_name())
        enter(GraphFrame(run=run, ref=ref, namespace=namespace, graph=graph))


def _frames() -> Iterator[GraphFrame]:
    """Yield what graphs execute here, the innermost first."""
    return (frame for frame in frames() if isinstance(frame, GraphFrame))


def _occurrence(named: list[Any], args: Mapping[str, Any] | None) -> int:
    """Count the equal calls before this one among those of its id and name in the messages.

    Models give one id to different calls. The messages come from the checkpoint, so the count is
    the same on every replay, also after somebody has updated the state.
    """
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
