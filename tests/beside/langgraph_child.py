"""LangGraph and LangChain beside instrumentations: every way in which a guarded tool is called."""

# LangGraph is typed, but comes without stubs.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import Any

from langchain import agents
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from opentelemetry.instrumentation.utils import suppress_instrumentation

from agentguard import Guard, Principal, idempotent, requires_approval, tool_contract
from agentguard_langchain import LangChainHost, reporting
from agentguard_langgraph import GuardMiddleware, LangGraphHost, guard_graph, guard_tools
from tests.beside.spans import Recorder, recording, show, work
from tests.langgraph.world import HELLO, Scripted, call, questions, say, thread, yes

WHO = Principal(agent="support", scopes=frozenset({"payments"}))


def pay(to: str, amount: int) -> str:
    """Pay *amount* to *to*."""
    return work(f"{to} {amount}")


async def apay(to: str, amount: int) -> str:
    """Pay *amount* to *to*."""
    await asyncio.sleep(0)
    return work(f"{to} {amount}")


def drop(to: str) -> str:
    """Drop *to*."""
    return work(to)


def decorated(*, asynchronous: bool) -> list[BaseTool]:
    """Tools over decorated functions."""
    functions: dict[str, Any] = {"pay": apay if asynchronous else pay, "drop": drop}
    paying = requires_approval(when="amount > 50")(idempotent(key="pay:{to}")(functions["pay"]))
    dropping = idempotent(key="drop:{to}")(functions["drop"])
    return [
        tool("pay")(tool_contract(effect="write", name="pay")(paying)),
        tool("drop")(tool_contract(effect="write", name="drop", scopes=["admin"])(dropping)),
    ]


def undecorated(guard: Guard, *, asynchronous: bool) -> list[BaseTool]:
    """The same tools, guarded from outside."""
    paying = StructuredTool.from_function(
        None if asynchronous else pay, apay if asynchronous else None, name="pay"
    )
    dropping = StructuredTool.from_function(drop)
    return [
        *guard_tools([paying], guard, effect="write", key="pay:{to}", when="amount > 50"),
        *guard_tools([dropping], guard, effect="write", key="drop:{to}", scopes=["admin"]),
    ]


def paid(amount: int, *calls: str) -> list[Any]:
    """The model pays, once for each of *calls*, and is done."""
    return [*(call(("pay", {"to": "ann", "amount": amount}, one)) for one in calls), say()]


SCRIPTS = {
    "ok": paid(5, "1"),
    "wait": paid(100, "1"),
    "deny": [call(("drop", {"to": "ann"}, "1")), say()],
    "replay": paid(5, "1", "2"),
    "two": [call(*(("pay", {"to": to, "amount": 5}, to) for to in ("ann", "bob"))), say()],
}
Invoke = Callable[[Any, Any, str], Any]


def invoked(graph: Any, given: Any, name: str) -> Any:
    """Invoke *graph* from synchronous code."""
    return graph.invoke(given, thread(name))


def ainvoked(graph: Any, given: Any, name: str) -> Any:
    """Invoke *graph* on an event loop."""
    return asyncio.run(graph.ainvoke(given, thread(name)))


def agent(kind: str, guard: Guard, script: list[Any], *, asynchronous: bool) -> Any:
    """Build an agent that is guarded in one of three ways."""
    model, saver = Scripted(script=script), InMemorySaver()
    if kind == "middleware":
        tools, guards = decorated(asynchronous=asynchronous), [GuardMiddleware(guard)]
        return agents.create_agent(model, tools, middleware=guards, checkpointer=saver)
    ours = undecorated(guard, asynchronous=asynchronous) if kind == "guard_tools" else None
    tools = ours or decorated(asynchronous=asynchronous)
    return guard_graph(agents.create_agent(model, tools, checkpointer=saver), guard)


def talk(recorder: Recorder, kind: str, colour: str, invoke: Invoke) -> None:
    """Let an agent do all that its scripts say."""
    for case, script in SCRIPTS.items():
        name = f"{kind}, {colour}: {case}"
        with recorder.case(name), closing(Guard("memory://", principal=WHO)) as guard:
            graph = agent(kind, guard, script, asynchronous=colour == "async")
            result = invoke(graph, HELLO, name)
            for question in questions(result):
                invoke(graph, Command(resume=yes(question)), name)


def by_hand(recorder: Recorder) -> None:
    """Call tools in a node and in a chain, where no model has called them."""
    paying: Any = decorated(asynchronous=False)[0]
    given: Any = {"to": "ann", "amount": 5}

    def outer(to: str) -> str:
        """Pay *to* in another tool's body, which is not guarded."""
        return str(paying.func(to=to, amount=5))

    ways: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "a tool in a node": ("node", lambda _: paying.invoke(given)),
        "a function in a node of its name": ("pay", lambda _: paying.func(**given)),
        "a function in another tool": ("node", lambda _: tool(outer).invoke({"to": "ann"})),
    }
    for way, (node, body) in ways.items():
        name = f"{way}: ok"
        with recorder.case(name), closing(Guard("memory://", principal=WHO)) as guard:
            builder = StateGraph(MessagesState)
            builder.add_node(node, doing(body))
            builder.add_edge(START, node)
            guard_graph(builder.compile(), guard).invoke(HELLO, thread(name))
    name = "a chain: replay"
    with recorder.case(name), closing(Guard("memory://", principal=WHO)) as guard:
        asked = {"type": "tool_call", "name": "pay", "args": given}
        with guard.run("w", run_id=name) as run, reporting(run):
            for number in range(2):
                paying.invoke({**asked, "id": str(number)})


def switched_off(recorder: Recorder) -> None:
    """Call a tool with the switches by which instrumentations are silenced in part, or wholly."""
    switches: dict[str, tuple[dict[str, Any], Any]] = {
        "otel_trace=False": ({"metadata": {"otel_trace": False}}, nullcontext()),
        "suppressed": ({}, suppress_instrumentation()),
    }
    for switch, (more, block) in switches.items():
        name = f"{switch}: ok"
        with recorder.case(name), closing(Guard("memory://", principal=WHO)) as guard, block:
            graph = agent("guard_graph", guard, SCRIPTS["ok"], asynchronous=False)
            graph.invoke(HELLO, {**thread(name), **more})


def doing(body: Callable[[Any], Any]) -> Any:
    """A node that does this and changes nothing."""

    def node(state: MessagesState) -> dict[str, Any]:
        body(state)
        return {}

    return node


def main() -> None:
    """Do it all and show the spans."""
    recorder = recording(LangChainHost, LangGraphHost)
    for kind in ("guard_graph", "guard_tools", "middleware"):
        talk(recorder, kind, "sync", invoked)
        talk(recorder, kind, "async", ainvoked)
    by_hand(recorder)
    switched_off(recorder)
    show(recorder)


if __name__ == "__main__":
    main()
