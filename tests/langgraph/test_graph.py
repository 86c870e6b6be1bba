"""`guard_graph`: a run around whatever the graph executes, and nothing else changes."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, interrupt

from agentguard import ConfigurationError, Guard, Principal, current_run
from agentguard_langgraph import guard_graph
from tests.langgraph.world import HELLO, Scripted, Streaming, looped, one_node, say, thread

Graph = CompiledStateGraph[Any, Any, Any, Any]


def answering(_: Mapping[str, Any]) -> dict[str, Any]:
    """A node that answers with the run it is in."""
    return {"messages": [("ai", current_run().id)]}


def spoken(result: Mapping[str, Any]) -> str:
    """The last message."""
    return str(result["messages"][-1].content)


async def _events(graph: Any) -> Any:
    async for event in graph.astream_events(HELLO, version="v2"):
        last = event
    return last["data"]["output"]


async def _astream(graph: Any) -> Any:
    return [step async for step in graph.astream(HELLO, stream_mode="values")][-1]


EXECUTIONS: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda g: g.invoke(HELLO),
    "ainvoke": lambda g: asyncio.run(g.ainvoke(HELLO)),
    "stream": lambda g: list(g.stream(HELLO, stream_mode="values"))[-1],
    "astream": lambda g: asyncio.run(_astream(g)),
    "batch": lambda g: g.batch([HELLO])[0],
    "abatch": lambda g: asyncio.run(g.abatch([HELLO]))[0],
    "astream_events": lambda g: asyncio.run(_events(g)),
    "with_config": lambda g: g.with_config(tags=["t"]).invoke(HELLO),
    "bind": lambda g: g.bind(stream_mode="values").invoke(HELLO),
    "pipe": lambda g: (RunnableLambda(lambda x: x) | g | RunnableLambda(lambda x: x)).invoke(HELLO),
    "with_retry": lambda g: g.with_retry().invoke(HELLO),
    "with_fallbacks": lambda g: g.with_fallbacks([g]).invoke(HELLO),
    "copy": lambda g: copy.copy(g).invoke(HELLO),
    "subgraph": lambda g: _parent(g).invoke(HELLO),
}


def _parent(graph: Graph, **compiled: Any) -> Graph:
    builder = StateGraph(MessagesState)
    builder.add_node("sub", graph)
    builder.add_edge(START, "sub")
    return builder.compile(**compiled)


@pytest.mark.parametrize("way", EXECUTIONS)
def test_every_way_to_execute_a_guarded_graph_enters_a_run(guard: Guard, way: str) -> None:
    """Whatever LangChain makes of a guarded graph executes inside one run, which then is over."""
    graph = guard_graph(one_node(answering).compile(), guard, workflow="w")
    said = spoken(EXECUTIONS[way](graph))
    (run,) = guard.runs.list()
    assert (run.id, run.workflow, run.status, run.part) == (said, "w", "succeeded", 1)


def test_the_graph_itself_stays_as_it_was(guard: Guard) -> None:
    """Guarding a graph makes another one and leaves the first unguarded."""
    graph = one_node(lambda _: {"messages": []}).compile()
    guarded = guard_graph(graph, guard)
    assert isinstance(guarded, CompiledStateGraph)
    graph.invoke(HELLO)
    assert guard.runs.list() == []


def test_the_thread_is_the_run(guard: Guard, saver: InMemorySaver) -> None:
    """The run is named after the thread, and a second turn resumes it."""
    graph = guard_graph(one_node(answering).compile(checkpointer=saver), guard)
    assert spoken(graph.invoke(HELLO, thread("t-7"))) == "t-7"
    assert spoken(graph.invoke(HELLO, thread("t-7"))) == "t-7"
    assert guard.runs.show("t-7").part == 2


@pytest.mark.parametrize("run_id", ["mine", lambda config: config["configurable"]["order"]])
def test_run_id_names_the_run_instead(guard: Guard, run_id: Any) -> None:
    """A run id can be given, or made from the configuration."""
    graph = guard_graph(one_node(answering).compile(), guard, run_id=run_id)
    assert spoken(graph.invoke(HELLO, thread("t", order="mine"))) == "mine"


def test_without_thread_and_run_id_every_invocation_is_its_own_run(guard: Guard) -> None:
    """Invocations that nothing connects have nothing in common."""
    graph = guard_graph(one_node(answering).compile(), guard)
    assert spoken(graph.invoke(HELLO)) != spoken(graph.invoke(HELLO))


def test_the_principal_comes_from_the_server_not_from_the_state(guard: Guard) -> None:
    """Who acts is a value, or a function of the configuration that the server made."""
    graph = guard_graph(
        one_node(answering).compile(), guard,
        principal=lambda config: Principal(tenant=config["configurable"]["tenant"]),
    )  # fmt: skip
    graph.invoke(HELLO, thread("t", tenant="acme"))
    assert [run.tenant for run in guard.runs.list()] == ["acme"]


def test_state_and_drawing_work_as_before(guard: Guard, saver: InMemorySaver) -> None:
    """A guarded graph answers about its state, lets it be updated, and draws itself."""
    plain = one_node(answering).compile(checkpointer=saver)
    graph = guard_graph(plain, guard)
    graph.invoke(HELLO, thread())
    graph.update_state(thread(), {"messages": [("ai", "corrected")]})
    assert spoken(graph.get_state(thread()).values) == "corrected"
    assert len(list(graph.get_state_history(thread()))) == 4
    assert graph.get_graph().to_json() == plain.get_graph().to_json()
    assert [name for name, _ in _parent(graph).get_subgraphs()] == ["sub"]


def test_a_subgraph_is_part_of_its_parents_run(guard: Guard, saver: InMemorySaver) -> None:
    """Guarding parent and child makes one run, whatever the parent's run is named after."""
    child = guard_graph(one_node(answering).compile(), guard)
    graph = guard_graph(_parent(child, checkpointer=saver), guard, run_id="parent")
    assert spoken(graph.invoke(HELLO, thread())) == "parent"
    assert [run.id for run in guard.runs.list()] == ["parent"]


def test_a_run_that_is_open_already_is_the_run(guard: Guard) -> None:
    """Inside `with guard.run` a graph without a thread goes on in that run."""
    graph = guard_graph(one_node(answering).compile(), guard)
    with guard.run("w", run_id="outside"):
        assert spoken(graph.invoke(HELLO)) == "outside"
    assert len(guard.runs.list()) == 1


def test_a_functional_workflow_is_guarded_too(guard: Guard, saver: InMemorySaver) -> None:
    """An `@entrypoint` and its tasks execute inside the run."""

    @task
    def job() -> str:
        return current_run().id

    @entrypoint(checkpointer=saver)
    def workflow(_: str) -> str:
        return str(job().result())

    assert guard_graph(workflow, guard).invoke("x", thread("f-1")) == "f-1"


def test_a_stream_is_the_run_while_it_lasts_and_never_leaks_it(guard: Guard) -> None:
    """Between two steps the consumer is in no run; the graph's steps are."""
    graph = guard_graph(looped(Streaming(script=[say("one two three")]), []).compile(), guard)
    for _ in graph.stream(HELLO, stream_mode="messages"):
        with pytest.raises(ConfigurationError):
            current_run()
    assert [run.status for run in guard.runs.list()] == ["succeeded"]


def test_a_stream_that_is_closed_early_leaves_its_run(guard: Guard) -> None:
    """A consumer that goes away leaves a run that is not over, but not open either."""
    graph = guard_graph(one_node(answering).compile(), guard)
    stream = graph.stream(HELLO, stream_mode="debug")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    (run,) = guard.runs.list()
    assert (run.status, run.finished_at is None) == ("waiting", False)


async def test_an_asynchronous_stream_that_is_closed_early_leaves_its_run(guard: Guard) -> None:
    """The same holds on an event loop, also when another task closes the stream."""
    graph = guard_graph(one_node(answering).compile(), guard)
    stream: Any = graph.astream(HELLO, stream_mode="debug")
    await anext(stream)
    await asyncio.create_task(stream.aclose())
    with pytest.raises(ConfigurationError):
        current_run()
    assert [run.status for run in guard.runs.list()] == ["waiting"]


async def test_closing_a_stream_ends_what_runs_in_it(guard: Guard) -> None:
    """A task that still runs when the stream is closed is cancelled before the run is left."""
    ended: list[str] = []

    async def slow(state: MessagesState) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(current_run().id)

    builder = one_node(answering)
    builder.add_node("slow", slow)
    builder.add_edge(START, "slow")
    stream: Any = guard_graph(builder.compile(), guard, run_id="r-1").astream(HELLO)
    await anext(stream)
    await stream.aclose()
    assert ended == ["r-1"]
    assert guard.runs.show("r-1").status == "waiting"


async def test_a_cancelled_invocation_leaves_its_run(guard: Guard) -> None:
    """Cancelling `ainvoke` cancels the node and leaves the run."""
    entered, ended = asyncio.Event(), []

    async def node(_: Mapping[str, Any]) -> None:
        entered.set()
        with contextlib.suppress(KeyError):
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("node")

    graph = guard_graph(one_node(node).compile(), guard)
    invocation = asyncio.create_task(graph.ainvoke(HELLO))
    await entered.wait()
    invocation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await invocation
    assert ended == ["node"]
    assert [run.status for run in guard.runs.list()] == ["failed"]


async def test_concurrent_invocations_have_their_own_runs(guard: Guard) -> None:
    """Invocations on one event loop do not see each other's runs."""
    graph = guard_graph(one_node(answering).compile(), guard)
    results = await asyncio.gather(*(graph.ainvoke(HELLO, thread(f"t-{n}")) for n in range(20)))
    assert [spoken(result) for result in results] == [f"t-{n}" for n in range(20)]


def test_a_graph_that_waits_leaves_a_run_that_waits(guard: Guard, saver: InMemorySaver) -> None:
    """Any interrupt, not only an approval, makes the run wait until the graph has ended."""

    def node(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"messages": [("ai", interrupt("how are you?"))]}

    graph = guard_graph(one_node(node).compile(checkpointer=saver), guard)
    graph.invoke(HELLO, thread())
    assert guard.runs.show("r-1").status == "waiting"
    graph.invoke(Command(resume="fine"), thread())
    assert guard.runs.show("r-1").status == "succeeded"


def test_a_graph_that_stops_before_a_node_leaves_a_run_that_waits(
    guard: Guard, saver: InMemorySaver
) -> None:
    """A static breakpoint is a pause as well."""
    plain = one_node(answering).compile(checkpointer=saver, interrupt_before=["node"])
    graph = guard_graph(plain, guard)
    graph.invoke(HELLO, thread())
    assert guard.runs.show("r-1").status == "waiting"
    graph.invoke(None, thread())
    assert guard.runs.show("r-1").status == "succeeded"


def test_a_guarded_subgraph_of_an_unguarded_graph_can_wait(
    guard: Guard, saver: InMemorySaver
) -> None:
    """An interrupt leaves a guarded subgraph as a pause, not as a failure."""

    def node(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"messages": [("ai", interrupt("how are you?"))]}

    graph = _parent(guard_graph(one_node(node).compile(), guard), checkpointer=saver)
    graph.invoke(HELLO, thread())
    assert guard.runs.show("r-1").status == "waiting"
    graph.invoke(Command(resume="fine"), thread())
    assert guard.runs.show("r-1").status == "succeeded"


@pytest.mark.parametrize(("resumed", "status"), [(True, "succeeded"), (False, "waiting")])
def test_a_graph_that_was_interrupted_and_goes_on_in_one_block_waits_no_more(
    guard: Guard, saver: InMemorySaver, *, resumed: bool, status: str
) -> None:
    """The run of a block waits for its graphs' interrupts only as long as they stand."""

    def node(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"messages": [("ai", interrupt("tell her?"))]}

    graph = guard_graph(one_node(node).compile(checkpointer=saver), guard)
    with guard.run("w", run_id="r-1"):
        graph.invoke(HELLO, thread())
        if resumed:
            graph.invoke(Command(resume="yes"), thread())
    assert guard.runs.show("r-1").status == status


def test_a_graph_that_fails_leaves_a_failed_run(guard: Guard) -> None:
    """What the graph raises reaches the caller as it is, and the run says so."""

    def node(_: Mapping[str, Any]) -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        guard_graph(one_node(node).compile(), guard).invoke(HELLO)
    (run,) = guard.runs.list()
    assert (run.status, run.error) == ("failed", "KeyError: 'gone'")


def test_the_callers_own_callbacks_are_kept(guard: Guard) -> None:
    """Callbacks in the configuration are called as before, in both of their forms."""
    from langchain_core.callbacks import BaseCallbackHandler, CallbackManager

    class Heard(BaseCallbackHandler):
        models = 0

        def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            self.models += 1

    heard = Heard()
    graph = guard_graph(looped(Scripted(script=[say()]), []).compile(), guard)
    graph.invoke(HELLO, {"callbacks": [heard]})
    graph.invoke(HELLO, {"callbacks": CallbackManager([], inheritable_handlers=[heard])})
    graph.with_config(callbacks=[heard]).invoke(HELLO)
    assert heard.models == 3


def test_only_a_compiled_graph_can_be_guarded_and_only_once(guard: Guard) -> None:
    """What cannot be guarded is refused with the sentence that says what to do."""
    builder = one_node(answering)
    with pytest.raises(ConfigurationError, match=r"guard_graph\(builder.compile"):
        guard_graph(builder, guard)  # type: ignore[type-var]
    with pytest.raises(ConfigurationError, match="call guard_graph once"):
        guard_graph(guard_graph(builder.compile(), guard), guard)
