"""What a guard adds to one tool call of each framework: the same read, bare and guarded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Any, Literal, TypeAlias

from .laps import AsyncWork, Caller, Place, Subject, SyncWork, need, timed_async
from .subjects import needs_agentguard, new_guard

Guarded = Literal["bare", "tool", "graph"]
Ask: TypeAlias = Callable[[str], Awaitable[object]]

CALLS = 21
"""Calls of the tool in one conversation with LangChain's agent, as its model is scripted."""


def find_ticket(ticket_id: str) -> str:
    """Find a ticket."""
    return ticket_id


async def find_ticket_async(ticket_id: str) -> str:
    """Find a ticket, awaited."""
    return ticket_id


def scripted_model(calls: int = CALLS) -> Any:
    """Make a chat model that asks for the tool *calls* times, then says it is done."""
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, ToolCall, ToolMessage
    from langchain_core.outputs import ChatGeneration, ChatResult

    class Scripted(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "scripted"

        def bind_tools(self, tools: Any, **_: Any) -> Any:
            return self

        def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
            done = sum(isinstance(message, ToolMessage) for message in messages)
            call = ToolCall(name="find_ticket", args={"ticket_id": f"T-{done}"}, id=f"call-{done}")
            said = AIMessage("", tool_calls=[call]) if done < calls else AIMessage("done")
            return ChatResult(generations=[ChatGeneration(message=said)])

    return Scripted()


@contextmanager
def langchain(place: Place, *, guarded: Guarded) -> Iterator[SyncWork]:
    """One turn of `create_agent`: its model asks, the tool answers; timed from tool to tool."""
    need("langchain", "langchain.agents")
    from langchain.agents import create_agent

    begun: list[float] = []

    def find_ticket(ticket_id: str) -> str:
        """Find a ticket."""
        begun.append(perf_counter())
        return ticket_id

    def turns(graph: Any) -> list[float]:
        begun.clear()
        asked = {"messages": [("user", "look")]}
        graph.invoke(asked, {"recursion_limit": 4 * CALLS})
        return [after - before for before, after in pairwise(begun)]

    tool = find_ticket if guarded == "bare" else as_guarded_read(find_ticket)
    agent = create_agent(scripted_model(), [tool])
    conversation: Callable[[], list[float]] = partial(turns, agent)
    if guarded != "bare":
        conversation = in_runs(place, agent, turns, guarded)

    def work(caller: Caller, steps: int) -> list[float]:
        return [step for _ in range(0, steps, CALLS) for step in conversation()]

    yield work


def in_runs(
    place: Place, agent: Any, turns: Callable[[Any], list[float]], guarded: Guarded
) -> Callable[[], list[float]]:
    """Make each conversation a run: around it, or by guarding the graph with its model calls too."""
    guard = new_guard(place)
    if guarded == "graph":
        from agentguard_langgraph import guard_graph

        return partial(turns, guard_graph(agent, guard, workflow="bench"))

    def conversation() -> list[float]:
        with guard.run("bench"):
            return turns(agent)

    return conversation


@contextmanager
def semantic_kernel(place: Place, *, guarded: Guarded) -> Iterator[AsyncWork]:
    """One `kernel.invoke` of a function."""
    need("semantic-kernel", "semantic_kernel")
    from semantic_kernel import Kernel
    from semantic_kernel.functions import KernelArguments, kernel_function

    kernel, guard = Kernel(), None
    if guarded == "graph":
        from agentguard_semantic_kernel import guard_kernel

        guard = new_guard(place)
        kernel = guard_kernel(kernel, guard, workflow="bench")
    elif guarded == "tool":
        guard = new_guard(place)
    tool = find_ticket_async if guarded == "bare" else as_guarded_read(find_ticket_async)
    function: Any = kernel.add_function("desk", kernel_function(tool))

    async def ask(ticket: str) -> object:
        return await kernel.invoke(function, KernelArguments(ticket_id=ticket))

    yield in_a_run(guard, ask)


@contextmanager
def llamaindex(place: Place, *, guarded: Guarded) -> Iterator[AsyncWork]:
    """One `acall` of a function tool."""
    need("llama-index-core", "llama_index.core")
    from llama_index.core.tools import FunctionTool

    tool: Any = FunctionTool.from_defaults(async_fn=find_ticket_async, name="find_ticket")
    guard = None
    if guarded != "bare":
        from agentguard_llamaindex import guard_tools

        guard = new_guard(place)
        (tool,) = guard_tools([tool], guard, effect="read")
    yield in_a_run(guard, lambda ticket: tool.acall(ticket_id=ticket))


def as_guarded_read(tool: Callable[..., Any]) -> Callable[..., Any]:
    """Declare a read, of any arguments, awaited or not."""
    from agentguard import tool_contract

    return tool_contract(effect="read")(tool)


def in_a_run(guard: Any, ask: Ask) -> AsyncWork:
    """Make work whose steps are calls, inside one run if there is a guard."""

    async def bare(caller: Caller, steps: int) -> list[float]:
        return await timed_async(ask, caller.tickets(steps))

    async def work(caller: Caller, steps: int) -> list[float]:
        async with guard.run("bench", run_id=caller.name):
            return await bare(caller, steps)

    return bare if guard is None else work


def subject(
    name: str, role: Any, opener: Any, guarded: Guarded, beside: str = "", mode: Any = "threads"
) -> Subject:
    """Put one into the group."""
    if role == "ours":
        opener = needs_agentguard(opener)
    opened = partial(opener, guarded=guarded)
    return Subject(name, "frameworks", role, opened, beside=beside, mode=mode)


BARE = ("create_agent, one turn", "kernel.invoke", "FunctionTool.acall")
CHAIN, KERNEL, ACALL = BARE
FRAMEWORKS = [
    subject(CHAIN, "floor", langchain, "bare"),
    subject("+ guarded tool", "ours", langchain, "tool", CHAIN),
    subject("+ guard_graph, model calls too", "ours", langchain, "graph", CHAIN),
    subject(KERNEL, "floor", semantic_kernel, "bare", KERNEL, "tasks"),
    subject("+ guarded function", "ours", semantic_kernel, "tool", KERNEL, "tasks"),
    subject("+ guard_kernel", "ours", semantic_kernel, "graph", KERNEL, "tasks"),
    subject(ACALL, "floor", llamaindex, "bare", ACALL, "tasks"),
    subject("+ guard_tools", "ours", llamaindex, "tool", ACALL, "tasks"),
]
