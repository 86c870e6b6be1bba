"""Model calls are paid from the budget before they are made, whichever way the graph makes them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage, messages_from_dict
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from agentguard import BudgetExceeded, Guard, idempotent, tool_contract
from agentguard_langgraph import guard_graph
from tests.langgraph.world import HELLO, Scripted, Streaming, call, looped, one_node, say, thread

MODEL = Scripted(script=[say("hi")])
ASK = [HumanMessage("hello")]


def in_a_node(_: Mapping[str, Any]) -> None:
    """A node calls its model."""
    MODEL.invoke(ASK)


def with_own_callbacks(_: Mapping[str, Any]) -> None:
    """A node gives its model callbacks of its own, and with that none of the graph's."""
    MODEL.invoke(ASK, {"callbacks": [BaseCallbackHandler()]})


def in_a_bare_thread(_: Mapping[str, Any], config: RunnableConfig) -> None:
    """A node hands its configuration to a thread that knows nothing else."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(MODEL.invoke, ASK, config).result()


def in_a_chain(_: Mapping[str, Any]) -> None:
    """A node calls its model through a chain."""
    (MODEL | (lambda message: message)).invoke(ASK)


def in_a_batch(_: Mapping[str, Any]) -> None:
    """A node calls its model for a batch of one."""
    MODEL.batch([ASK])


def streamed(_: Mapping[str, Any]) -> None:
    """A node streams its model."""
    list(Streaming(script=[say("one two")]).stream(ASK))


def as_text(_: Mapping[str, Any]) -> None:
    """A node calls a completion model."""
    FakeListLLM(responses=["hi"]).invoke("hello")


async def on_the_loop(_: Mapping[str, Any]) -> None:
    """A node awaits its model."""
    await MODEL.ainvoke(ASK)


async def synchronously_on_the_loop(_: Mapping[str, Any]) -> None:
    """A coroutine calls its model without awaiting it."""
    MODEL.invoke(ASK)


async def streamed_on_the_loop(_: Mapping[str, Any]) -> None:
    """A node streams its model on an event loop."""
    async for _chunk in Streaming(script=[say("one two")]).astream(ASK):
        pass


def in_a_tool(_: Mapping[str, Any]) -> None:
    """A tool calls its own model."""

    @tool
    def think() -> str:
        """Think."""
        return str(MODEL.invoke(ASK).content)

    think.invoke({})


def in_a_subgraph(_: Mapping[str, Any]) -> None:
    """A node invokes an agent."""
    create_agent(MODEL, []).invoke(HELLO)


NODES = [
    in_a_node, with_own_callbacks, in_a_bare_thread, in_a_chain, in_a_batch, streamed, as_text,
    on_the_loop, synchronously_on_the_loop, streamed_on_the_loop, in_a_tool, in_a_subgraph,
]  # fmt: skip


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_every_model_call_is_counted_once_and_can_be_refused(
    guard: Guard, node: Any, *, asynchronous: bool
) -> None:
    """One call is one call, and none is made when the budget has no room for it."""
    if asyncio.iscoroutinefunction(node) and not asynchronous:
        pytest.skip("a coroutine needs an event loop")
    plain = one_node(node).compile()

    def run(run_id: str, most: int) -> None:
        graph = guard_graph(plain, guard, run_id=run_id, max_model_calls=most)
        asyncio.run(graph.ainvoke(HELLO)) if asynchronous else graph.invoke(HELLO)

    run("enough", 1)
    assert guard.runs.show("enough").model_calls == 1
    with pytest.raises(BudgetExceeded, match="max_model_calls is 0"):
        run("none", 0)
    assert guard.runs.show("none").model_calls == 0


@pytest.mark.parametrize("kind", ["loop", "create_agent"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_agents_model_calls_and_tokens_are_counted(
    guard: Guard, kind: str, *, asynchronous: bool
) -> None:
    """Both kinds of agent loop report every call with the tokens that the provider counted."""

    @tool
    def look() -> str:
        """Look."""
        return "seen"

    model = Scripted(script=[call(("look", {}, "1")), call(("look", {}, "2")), say()])
    agents = {"loop": looped(model, [look]).compile(), "create_agent": create_agent(model, [look])}
    graph = guard_graph(agents[kind], guard, run_id="r-1")
    asyncio.run(graph.ainvoke(HELLO)) if asynchronous else graph.invoke(HELLO)
    run = guard.runs.show("r-1")
    assert (run.model_calls, run.input_tokens, run.output_tokens) == (3, 30, 15)


def test_tokens_of_a_streamed_answer_are_counted(guard: Guard) -> None:
    """Usage that a stream reports at its end is the call's usage."""
    graph = guard_graph(one_node(streamed).compile(), guard, run_id="r-1")
    list(graph.stream(HELLO, stream_mode="messages"))
    run = guard.runs.show("r-1")
    assert (run.model_calls, run.input_tokens, run.output_tokens) == (1, 10, 5)


def model_calls(guard: Guard, run_id: str = "r-1") -> list[Any]:
    """The recorded model calls of a run."""
    return [event for event in guard.runs.events(run_id) if event.kind == "model.called"]


def test_what_was_asked_and_answered_is_in_the_record(guard: Guard, saver: InMemorySaver) -> None:
    """The record holds the messages, from which LangChain makes messages again, and the model."""

    @tool
    def look() -> str:
        """Look."""
        return "seen"

    model = Scripted(script=[call(("look", {}, "1")), say("bye")])
    graph = guard_graph(looped(model, [look]).compile(checkpointer=saver), guard)
    result = graph.invoke(HELLO, thread())
    first, second = model_calls(guard)
    assert (first.data["model"], first.data["error"]) == ("scripted-1", None)
    assert messages_from_dict(second.content["input"]) == result["messages"][:-1]
    (said,) = messages_from_dict([second.content["output"]])
    assert isinstance(said, AIMessage)
    assert said.content == "bye"


def test_sensitive_arguments_are_not_in_the_recorded_messages(
    guard: Guard, saver: InMemorySaver
) -> None:
    """What a tool declares sensitive is hidden in the model's calls too, in all their copies."""

    @tool
    @tool_contract(effect="write", sensitive=["iban"])
    @idempotent(key="pay:{to}")
    def pay(to: str, iban: str) -> str:
        """Pay."""
        return f"paid to {iban}"

    wants = call(("pay", {"to": "ann", "iban": "DE89370400440532013000"}, "1"))
    wants.content = [
        {"type": "tool_use", "id": "1", "name": "pay", "input": wants.tool_calls[0]["args"]}
    ]
    wants.additional_kwargs = {
        "tool_calls": [{"function": {"arguments": json.dumps(wants.content)}}]
    }
    graph = looped(Scripted(script=[wants, say()]), [pay]).compile(checkpointer=saver)
    guard.check([pay.func])  # type: ignore[attr-defined]
    guard_graph(graph, guard).invoke(HELLO, thread())
    recorded = json.dumps([dict(event.content or {}) for event in guard.runs.events("r-1")])
    assert "DE89370400440532013000" not in recorded
    assert "ann" in recorded


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_failing_model_call_is_settled_with_its_error(
    guard: Guard, *, asynchronous: bool
) -> None:
    """A call that fails is counted, and the record names the error."""
    model = Scripted(script=[KeyError("provider")])
    graph = guard_graph(looped(model, []).compile(), guard, run_id="r-1")
    with pytest.raises(KeyError):
        asyncio.run(graph.ainvoke(HELLO)) if asynchronous else graph.invoke(HELLO)
    (event,) = model_calls(guard)
    assert (event.data["error"], guard.runs.show("r-1").model_calls) == ("KeyError", 1)


async def test_a_cancelled_model_call_is_settled(guard: Guard) -> None:
    """LangChain says nothing of a cancelled call; the run settles it when it is left."""
    entered = asyncio.Event()

    class Hanging(Scripted):
        async def _agenerate(self, *_: Any, **__: Any) -> Any:
            entered.set()
            await asyncio.Event().wait()

    async def node(_: Mapping[str, Any]) -> None:
        await Hanging(script=[]).ainvoke(ASK)

    graph = guard_graph(one_node(node).compile(), guard, run_id="r-1")
    invocation = asyncio.create_task(graph.ainvoke(HELLO))
    await entered.wait()
    invocation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await invocation
    assert len(model_calls(guard)) == 1
    assert guard.runs.show("r-1").held_usd == 0


def test_parallel_model_calls_never_overshoot(guard: Guard) -> None:
    """Of many calls made at once, exactly as many are made as the budget allows."""
    made, refused = [], []
    lock = threading.Lock()

    class Counted(Scripted):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            with lock:
                made.append(1)
            return super()._generate(*args, **kwargs)

    model = Counted(script=[say()])

    def ask(config: RunnableConfig) -> None:
        try:
            model.invoke(ASK, config)
        except BudgetExceeded:
            with lock:
                refused.append(1)

    def node(_: Mapping[str, Any], config: RunnableConfig) -> None:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, [config] * 32))

    guard_graph(one_node(node).compile(), guard, run_id="r-1", max_model_calls=7).invoke(HELLO)
    assert (len(made), len(refused), guard.runs.show("r-1").model_calls) == (7, 25, 7)


def test_a_nested_thread_of_its_own_counts_for_both_runs(
    guard: Guard, saver: InMemorySaver
) -> None:
    """A graph with a thread of its own is a run of its own, but not a way out of the budget."""
    inner = guard_graph(one_node(in_a_node).compile(checkpointer=saver), guard)
    outer = guard_graph(
        one_node(lambda _: inner.invoke(HELLO, thread("inner")) and None).compile(), guard,
        run_id="outer",
    )  # fmt: skip
    outer.invoke(HELLO)
    assert [guard.runs.show(name).model_calls for name in ("inner", "outer")] == [1, 1]


def test_model_calls_outside_of_any_run_are_left_alone(guard: Guard) -> None:
    """Importing the adapter changes nothing for models that run outside of guarded graphs."""
    MODEL.invoke(ASK)
    assert guard.runs.list() == []
