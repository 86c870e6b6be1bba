"""A guarded graph is the bare graph to everybody else: each assertion here is made on both."""

from __future__ import annotations

import asyncio
import copy
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.errors import GraphRecursionError
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, Command, Interrupt, RetryPolicy, Send, interrupt
from typing_extensions import TypedDict

from agentguard import Guard
from agentguard_langgraph import guard_graph
from tests.langgraph.world import Scripted, Streaming, call, looped, say, thread

Wrap = Callable[[Any], Any]


@pytest.fixture(name="wrap", params=["bare", "guarded"])
def either_graph(request: pytest.FixtureRequest, guard: Guard) -> Iterator[Wrap]:
    """Leave a graph as it is, or guard it; in the end it was guarded indeed."""
    wrapped: list[Any] = []

    def wrap(graph: Any) -> Any:
        wrapped.append(graph)
        return graph if request.param == "bare" else guard_graph(graph, guard)

    yield wrap
    assert wrapped


class State(TypedDict, total=False):
    """A log of what the nodes did."""

    log: Annotated[list[str], operator.add]
    n: int


def saying(word: str) -> Callable[[State], State]:
    """A node that says a word."""
    return lambda _: {"log": [word]}


def drawn(context: Any = None) -> Any:
    """A graph to be filled with nodes."""
    return StateGraph(State, context_schema=context)


def chain(*words: str, **compiled: Any) -> Any:
    """A graph whose nodes say their words in turn."""
    builder = drawn()
    builder.add_sequence([(word, saying(word)) for word in words])
    builder.add_edge(START, words[0])
    return builder.compile(**compiled)


def single(function: Any, **compiled: Any) -> Any:
    """A graph of one node named after its function."""
    builder = StateGraph(
        State, **{k: compiled.pop(k) for k in ("context_schema",) if k in compiled}
    )
    builder.add_node("only", function)
    builder.add_edge(START, "only")
    return builder.compile(**compiled)


EMPTY: State = {"log": []}


async def listed(stream: Any) -> list[Any]:
    """Everything that an asynchronous stream yields."""
    return [item async for item in stream]


# Executing.


async def test_invoke_and_ainvoke_return_the_state(wrap: Wrap) -> None:
    """The result is the graph's output."""
    graph = wrap(chain("a", "b"))
    assert graph.invoke(EMPTY) == {"log": ["a", "b"]}
    assert await graph.ainvoke(EMPTY) == {"log": ["a", "b"]}


async def test_output_keys_and_stream_mode_of_invoke(wrap: Wrap) -> None:
    """`invoke` takes the options that it takes."""
    graph = wrap(chain("a", "b"))
    assert graph.invoke(EMPTY, output_keys="log") == ["a", "b"]
    assert graph.invoke(EMPTY, stream_mode="updates") == [
        {"a": {"log": ["a"]}},
        {"b": {"log": ["b"]}},
    ]
    assert await graph.ainvoke(EMPTY, output_keys=["log"]) == {"log": ["a", "b"]}


STREAMS: dict[str, list[Any]] = {
    "values": [{"log": []}, {"log": ["a"]}, {"log": ["a", "b"]}],
    "updates": [{"a": {"log": ["a"]}}, {"b": {"log": ["b"]}}],
}


@pytest.mark.parametrize("mode", STREAMS)
async def test_streams_of_the_state(wrap: Wrap, mode: str) -> None:
    """Each mode yields what it yields, in both colours."""
    graph = wrap(chain("a", "b"))
    assert list(graph.stream(EMPTY, stream_mode=mode)) == STREAMS[mode]
    assert await listed(graph.astream(EMPTY, stream_mode=mode)) == STREAMS[mode]


async def test_several_modes_at_once(wrap: Wrap) -> None:
    """A list of modes yields pairs in order."""
    graph = wrap(chain("a"))
    expected = [
        ("values", {"log": []}), ("updates", {"a": {"log": ["a"]}}), ("values", {"log": ["a"]}),
    ]  # fmt: skip
    assert list(graph.stream(EMPTY, stream_mode=["values", "updates"])) == expected
    assert await listed(graph.astream(EMPTY, stream_mode=["values", "updates"])) == expected


@pytest.mark.parametrize("mode", ["debug", "tasks", "checkpoints"])
def test_streams_for_debugging(wrap: Wrap, mode: Any) -> None:
    """Tasks and checkpoints are told in the same order, for the same nodes."""
    graph = wrap(chain("a", "b", checkpointer=InMemorySaver()))
    steps = list(graph.stream(EMPTY, thread(), stream_mode=mode))
    if mode == "checkpoints":
        assert [step["values"].get("log") for step in steps] == [[], [], ["a"], ["a", "b"]]
    elif mode == "tasks":
        assert [step["name"] for step in steps] == ["a", "a", "b", "b"]
    else:
        kinds = ["checkpoint", "checkpoint", *(["task", "task_result", "checkpoint"] * 2)]
        assert [step["type"] for step in steps] == kinds


async def test_custom_streams(wrap: Wrap) -> None:
    """What a node writes itself is streamed."""

    def node(_: State) -> State:
        get_stream_writer()({"progress": 50})
        return {"log": ["x"]}

    graph = wrap(single(node))
    assert list(graph.stream(EMPTY, stream_mode="custom")) == [{"progress": 50}]
    assert await listed(graph.astream(EMPTY, stream_mode="custom")) == [{"progress": 50}]


async def test_streams_of_a_models_words(wrap: Wrap) -> None:
    """Each word of a model comes with the metadata of its node, once."""
    graph = wrap(looped(Streaming(script=[say("one two three")]), []).compile())
    asked: Any = {"messages": [HumanMessage("hello")]}
    told = list(graph.stream(asked, stream_mode="messages"))
    assert [m.content for m, _ in told if m.content] == ["one", "two", "three"]
    assert {metadata["langgraph_node"] for _, metadata in told} == {"model"}
    later = await listed(graph.astream(asked, stream_mode="messages"))
    assert [m.content for m, _ in later if m.content] == ["one", "two", "three"]


async def test_events(wrap: Wrap) -> None:
    """`astream_events` tells of the graph and its nodes in order, and ends with the output."""
    graph = wrap(chain("a", "b"))
    events = await listed(graph.astream_events(EMPTY, version="v2"))
    told = [(e["event"], e["name"]) for e in events if e["event"] != "on_chain_stream"]
    around = ("on_chain_start", "LangGraph"), ("on_chain_end", "LangGraph")
    inside = [(f"on_chain_{what}", node) for node in "ab" for what in ("start", "end")]
    assert told == [around[0], *inside, around[1]]
    assert events[-1]["data"]["output"] == {"log": ["a", "b"]}


async def test_events_of_models_and_tools(wrap: Wrap) -> None:
    """An agent's model calls and tool calls are events, once each."""

    @tool
    def look() -> str:
        """Look."""
        return "seen"

    graph = wrap(create_agent(Scripted(script=[call(("look", {}, "1")), say()]), [look]))
    asked: Any = {"messages": [HumanMessage("hello")]}
    events = await listed(graph.astream_events(asked, version="v2"))
    told = [event["event"] for event in events]
    assert (told.count("on_chat_model_start"), told.count("on_chat_model_end")) == (2, 2)
    assert (told.count("on_tool_start"), told.count("on_tool_end")) == (1, 1)


async def test_batches(wrap: Wrap) -> None:
    """Many inputs give as many outputs, in order; exceptions are returned when asked for."""

    def node(state: State) -> State:
        if state["n"] == 1:
            raise KeyError("one")
        return {"log": [str(state["n"])]}

    graph = wrap(single(node))
    inputs: Any = [{"log": [], "n": n} for n in range(3)]
    for found in (
        graph.batch(inputs, return_exceptions=True),
        await graph.abatch(inputs, return_exceptions=True),
    ):
        assert [r["log"] for r in (found[0], found[2])] == [["0"], ["2"]]
        assert isinstance(found[1], KeyError)
    done = sorted((index, r["log"]) for index, r in graph.batch_as_completed(inputs[::2]))
    assert done == [(0, ["0"]), (1, ["2"])]


async def test_chains_and_configurations(wrap: Wrap) -> None:
    """What LangChain derives from a graph gives the graph's results."""
    graph = wrap(chain("a"))
    for derived in (
        graph.with_config(tags=["t"]), graph.with_config({"recursion_limit": 5}), graph.with_retry(),
        graph.with_fallbacks([graph]), graph.with_types(input_type=dict),
        RunnableLambda(lambda x: x) | graph, copy.copy(graph), graph.copy(),
    ):  # fmt: skip
        assert derived.invoke(EMPTY) == {"log": ["a"]}
        assert await derived.ainvoke(EMPTY) == {"log": ["a"]}
    assert (graph | (lambda state: state["log"])).invoke(EMPTY) == ["a"]
    assert graph.bind(stream_mode="updates").invoke(EMPTY) == [{"a": {"log": ["a"]}}]
    assert graph.pick("log").invoke(EMPTY) == ["a"]


def test_a_nodes_configuration(wrap: Wrap) -> None:
    """Configurable values of the caller and metadata of `with_config` reach the node."""

    def node(_: State, config: RunnableConfig) -> State:
        told = (config.get("metadata") or {})["who"], config["configurable"]["color"]
        return {"log": [*map(str, told)]}

    graph = wrap(single(node)).with_config(metadata={"who": "ann"})
    assert graph.invoke(EMPTY, {"configurable": {"color": "red"}}) == {"log": ["ann", "red"]}


def test_the_callers_callbacks_hear_of_everything_once(wrap: Wrap) -> None:
    """Chains, models and tools are reported to the caller's handler as often as they run."""
    heard: list[str] = []

    class Heard(BaseCallbackHandler):
        def on_chain_start(self, *_: Any, name: str = "", **__: Any) -> None:
            heard.append(name)

        def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            heard.append("chat model")

    graph = wrap(looped(Scripted(script=[say()]), []).compile())
    graph.invoke({"messages": [HumanMessage("hello")]}, {"callbacks": [Heard()]})
    assert [name for name in heard if name in ("LangGraph", "model", "chat model")] == [
        "LangGraph", "model", "chat model",
    ]  # fmt: skip


def test_errors_reach_the_caller_as_they_are(wrap: Wrap) -> None:
    """The same object that the node raised, and LangGraph's own."""
    mine = KeyError("gone")

    def node(_: State) -> State:
        raise mine

    with pytest.raises(KeyError) as raised:
        wrap(single(node)).invoke(EMPTY)
    assert raised.value is mine
    builder = drawn()
    builder.add_node("a", saying("a"))
    builder.add_edge(START, "a")
    builder.add_edge("a", "a")
    with pytest.raises(GraphRecursionError):
        wrap(builder.compile()).invoke(EMPTY, {"recursion_limit": 3})


def test_a_retry_policy_tries_again(wrap: Wrap) -> None:
    """A node that fails at first is executed again by its policy."""
    attempts: list[int] = []

    def node(_: State) -> State:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError
        return {"log": ["done"]}

    builder = drawn()
    policy = RetryPolicy(initial_interval=0, jitter=False)
    builder.add_node("only", node, retry_policy=policy)
    builder.add_edge(START, "only")
    assert wrap(builder.compile()).invoke(EMPTY) == {"log": ["done"]}
    assert len(attempts) == 3


def test_a_cached_node_runs_once(wrap: Wrap) -> None:
    """What a cache policy keeps is not computed again."""
    made: list[int] = []

    def node(_: State) -> State:
        made.append(1)
        return {"log": ["x"]}

    builder = drawn()
    builder.add_node("only", node, cache_policy=CachePolicy())
    builder.add_edge(START, "only")
    graph = wrap(builder.compile(cache=InMemoryCache()))
    assert [graph.invoke({"log": [], "n": 1}) for _ in range(2)] == [{"log": ["x"], "n": 1}] * 2
    assert len(made) == 1


@dataclass
class Context:
    """What a caller gives besides the state."""

    name: str


async def test_context_and_store_reach_the_nodes(wrap: Wrap) -> None:
    """The runtime that a node sees has the caller's context and the graph's store."""

    def node(_: State, runtime: Runtime[Context]) -> State:
        assert runtime.store is not None
        runtime.store.put(("names",), runtime.context.name, {"seen": True})
        return {"log": [runtime.context.name]}

    store = InMemoryStore()
    graph = wrap(single(node, context_schema=Context, store=store))
    assert graph.invoke(EMPTY, context=Context("ann")) == {"log": ["ann"]}
    assert await graph.ainvoke(EMPTY, context=Context("bob")) == {"log": ["bob"]}
    assert sorted(item.key for item in store.search(("names",))) == ["ann", "bob"]


def test_commands_and_sends_steer_the_graph(wrap: Wrap) -> None:
    """`Command(goto=, update=)` and `Send` lead where they lead."""

    def fork(_: State) -> Command[Literal["work"]]:
        return Command(update={"log": ["fork"]}, goto=[Send("work", {"n": n}) for n in range(3)])

    builder = drawn()
    builder.add_node("fork", fork)
    builder.add_node("work", lambda state: {"log": [f"work {state['n']}"]})
    builder.add_edge(START, "fork")
    result = wrap(builder.compile()).invoke(EMPTY)
    assert result["log"] == ["fork", "work 0", "work 1", "work 2"]


# State and time.


async def test_state_is_kept_read_and_updated(wrap: Wrap) -> None:
    """Checkpoints are the graph's own: values, next, history, updates, in both colours."""
    graph = wrap(chain("a", "b", checkpointer=InMemorySaver(), interrupt_before=["b"]))
    graph.invoke(EMPTY, thread())
    state = graph.get_state(thread())
    assert (state.values, state.next) == ({"log": ["a"]}, ("b",))
    graph.update_state(thread(), {"log": ["by hand"]})
    await graph.aupdate_state(thread(), {"log": ["later"]}, as_node="a")
    assert (await graph.aget_state(thread())).values["log"] == ["a", "by hand", "later"]
    assert graph.invoke(None, thread()) == {"log": ["a", "by hand", "later", "b"]}
    assert graph.get_state(thread()).next == ()
    past = [s.values.get("log") for s in graph.get_state_history(thread())]
    assert past == [
        ["a", "by hand", "later", "b"], ["a", "by hand", "later"], ["a", "by hand"], ["a"], [], [],
    ]  # fmt: skip
    later = [s.values.get("log") for s in await listed(graph.aget_state_history(thread()))]
    assert later == past


def test_time_travel(wrap: Wrap) -> None:
    """An old checkpoint can be read, executed again and forked."""
    graph = wrap(chain("a", "b", checkpointer=InMemorySaver()))
    graph.invoke(EMPTY, thread())
    old = next(s for s in graph.get_state_history(thread()) if s.next == ("b",))
    assert graph.get_state(old.config).values == {"log": ["a"]}
    assert graph.invoke(None, old.config) == {"log": ["a", "b"]}
    fork = graph.update_state(old.config, {"log": ["fork"]})
    assert graph.invoke(None, fork) == {"log": ["a", "fork", "b"]}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_durability_modes(wrap: Wrap, durability: Any) -> None:
    """However eagerly checkpoints are written, the last one is the result."""
    saver = InMemorySaver()
    graph = wrap(chain("a", "b", checkpointer=saver))
    graph.invoke(EMPTY, thread(), durability=durability)
    assert graph.get_state(thread()).values == {"log": ["a", "b"]}
    assert len(list(saver.list(thread()))) == (1 if durability == "exit" else 4)


def test_threads_are_apart(wrap: Wrap) -> None:
    """Two threads of one graph do not see each other."""
    graph = wrap(chain("a", checkpointer=InMemorySaver()))
    graph.invoke({"log": ["first"]}, thread("t-1"))
    graph.invoke({"log": ["second"]}, thread("t-2"))
    assert graph.invoke({"log": []}, thread("t-1"))["log"] == ["first", "a", "a"]


# Pauses.


async def test_interrupts_are_shown_and_answered(wrap: Wrap) -> None:
    """The question is in the result and in the state; `Command(resume=)` answers it."""

    def node(_: State) -> State:
        return {"log": [interrupt({"ask": 1}), interrupt("and?")]}

    graph = wrap(single(node, checkpointer=InMemorySaver()))
    result = graph.invoke(EMPTY, thread())
    assert [i.value for i in result["__interrupt__"]] == [{"ask": 1}]
    state = graph.get_state(thread())
    assert (state.next, [i.value for i in state.interrupts]) == (("only",), [{"ask": 1}])
    result = await graph.ainvoke(Command(resume="one"), thread())
    assert [i.value for i in result["__interrupt__"]] == ["and?"]
    assert graph.invoke(Command(resume="two"), thread()) == {"log": ["one", "two"]}


def test_an_interrupt_is_streamed(wrap: Wrap) -> None:
    """A stream ends with the question."""
    graph = wrap(single(lambda _: {"log": [interrupt("?")]}, checkpointer=InMemorySaver()))
    (last,) = graph.stream(EMPTY, thread(), stream_mode="updates")
    ((asked,),) = (last["__interrupt__"],)
    assert isinstance(asked, Interrupt)
    assert asked.value == "?"
    assert list(graph.stream(Command(resume="!"), thread(), stream_mode="updates")) == [
        {"only": {"log": ["!"]}}
    ]


def test_several_interrupts_are_answered_by_id(wrap: Wrap) -> None:
    """Questions of parallel tasks keep their answers apart."""
    builder = drawn()
    builder.add_node("ask", lambda state: {"log": [f"{state['n']} {interrupt(state['n'])}"]})
    builder.add_conditional_edges(
        START, lambda _: [Send("ask", {"n": n}) for n in range(2)], ["ask"]
    )
    graph = wrap(builder.compile(checkpointer=InMemorySaver()))
    asked = graph.invoke(EMPTY, thread())["__interrupt__"]
    answers = {i.id: f"answer {i.value}" for i in asked}
    assert graph.invoke(Command(resume=answers), thread())["log"] == ["0 answer 0", "1 answer 1"]


def test_static_breakpoints(wrap: Wrap) -> None:
    """`interrupt_before` and `interrupt_after` stop, compiled in or given with the call."""
    graph = wrap(chain("a", "b", "c", checkpointer=InMemorySaver(), interrupt_after=["a"]))
    assert graph.invoke(EMPTY, thread()) == {"log": ["a"]}
    assert graph.invoke(None, thread(), interrupt_before=["c"]) == {"log": ["a", "b"]}
    assert graph.invoke(None, thread()) == {"log": ["a", "b", "c"]}


# Graphs in graphs.


def nested(wrap: Wrap, inner: Any, **compiled: Any) -> Any:
    """A graph with *inner* as one of its nodes."""
    builder = drawn()
    builder.add_node("before", saying("before"))
    builder.add_node("inner", inner)
    builder.add_edge(START, "before")
    builder.add_edge("before", "inner")
    return wrap(builder.compile(**compiled))


async def test_a_subgraph_streams_under_its_namespace(wrap: Wrap) -> None:
    """With `subgraphs=True` the steps of the inner graph come with the place they come from."""
    graph = nested(wrap, chain("a"))

    def told(steps: list[Any]) -> list[Any]:
        return [([n.split(":")[0] for n in namespace], step) for namespace, step in steps]

    expected = [
        ([], {"before": {"log": ["before"]}}),
        (["inner"], {"a": {"log": ["a"]}}),
        ([], {"inner": {"log": ["before", "a"]}}),
    ]
    options: Any = {"stream_mode": "updates", "subgraphs": True}
    assert told(list(graph.stream(EMPTY, **options))) == expected
    assert told(await listed(graph.astream(EMPTY, **options))) == expected


def test_a_subgraphs_interrupt_reaches_the_outer_caller(wrap: Wrap) -> None:
    """It is asked, found in the nested state, and answered through the outer graph."""
    inner = single(lambda _: {"log": [interrupt("inside?")]})
    graph = nested(wrap, inner, checkpointer=InMemorySaver())
    (asked,) = graph.invoke(EMPTY, thread())["__interrupt__"]
    assert asked.value == "inside?"
    (pending,) = graph.get_state(thread(), subgraphs=True).tasks
    assert pending.state.next == ("only",)
    assert graph.invoke(Command(resume="yes"), thread())["log"][-1] == "yes"


def test_a_wrapped_graph_is_a_node_and_a_subgraph(wrap: Wrap) -> None:
    """As a node, and called by a node's code, it does what it does alone."""
    inner = wrap(chain("a"))
    assert nested(lambda graph: graph, inner).invoke(EMPTY)["log"] == ["before", "before", "a"]
    outer = single(lambda _: {"log": inner.invoke({"log": ["in"]})["log"]})
    assert outer.invoke(EMPTY) == {"log": ["in", "a"]}
    graph = nested(wrap, chain("a"))
    assert [name for name, _ in graph.get_subgraphs()] == ["inner"]


async def test_subgraphs_are_listed_on_an_event_loop(wrap: Wrap) -> None:
    """`aget_subgraphs` finds the same."""
    graph = nested(wrap, chain("a"))
    assert [name for name, _ in await listed(graph.aget_subgraphs())] == ["inner"]


def test_a_command_to_the_parent(wrap: Wrap) -> None:
    """A node of a subgraph can send the outer graph elsewhere."""

    def leave(_: State) -> Command[Any]:
        return Command(graph=Command.PARENT, goto="elsewhere", update={"log": ["left"]})

    builder = drawn()
    builder.add_node("inner", single(leave))
    builder.add_node("elsewhere", saying("elsewhere"))
    builder.add_edge(START, "inner")
    assert wrap(builder.compile()).invoke(EMPTY) == {"log": ["left", "elsewhere"]}


# The functional API.


async def test_a_functional_workflow(wrap: Wrap) -> None:
    """Tasks run, are streamed and remembered; the value of before is there; it can pause."""
    made: list[str] = []

    @task
    def job(name: str) -> str:
        made.append(name)
        return name.upper()

    @entrypoint(checkpointer=InMemorySaver())
    def workflow(name: str, *, previous: str | None = None) -> Any:
        done = job(name).result()
        answer = interrupt("sure?") if name == "ask" else "-"
        return entrypoint.final(value=[done, answer, previous], save=name)

    graph = wrap(workflow)
    assert graph.invoke("one", thread()) == ["ONE", "-", None]
    assert list(graph.stream("two", thread(), stream_mode="updates")) == [
        {"job": "TWO"}, {"workflow": ["TWO", "-", "one"]},
    ]  # fmt: skip
    asked = graph.invoke("ask", thread())["__interrupt__"]
    assert [i.value for i in asked] == ["sure?"]
    assert graph.invoke(Command(resume="yes"), thread()) == ["ASK", "yes", "two"]
    assert made == ["one", "two", "ask"]


async def test_an_asynchronous_functional_workflow(wrap: Wrap) -> None:
    """The same on an event loop, with tasks side by side and a retry policy."""
    attempts: list[int] = []

    async def squared(n: int) -> int:
        attempts.append(n)
        if attempts.count(n) == 1:
            raise ConnectionError
        return n * n

    policy = RetryPolicy(initial_interval=0, jitter=False)
    job: Any = task(retry_policy=policy)(squared)  # type: ignore[arg-type] # its overloads say Never

    @entrypoint()
    async def workflow(numbers: list[int]) -> list[int]:
        return list(await asyncio.gather(*(job(n) for n in numbers)))

    assert await wrap(workflow).ainvoke([1, 2, 3]) == [1, 4, 9]
    assert len(attempts) == 6


# What a graph says of itself.


def test_drawings(wrap: Wrap) -> None:
    """Mermaid, JSON and the x-ray of subgraphs show the graph's nodes and edges."""
    plain = chain("a", "b")
    graph = wrap(plain)
    assert graph.get_graph().draw_mermaid() == plain.get_graph().draw_mermaid()
    assert graph.get_graph().to_json() == plain.get_graph().to_json()
    outer = nested(wrap, plain)
    assert "inner:a" in outer.get_graph(xray=True).nodes


async def test_drawings_on_an_event_loop(wrap: Wrap) -> None:
    """`aget_graph` draws the same."""
    graph = wrap(chain("a"))
    assert list((await graph.aget_graph()).nodes) == ["__start__", "a", "__end__"]


def test_schemas(wrap: Wrap) -> None:
    """Input, output and context have the schemas that the builder gave."""
    plain = single(lambda _: {}, context_schema=Context)
    graph = wrap(plain)
    for told in ("get_input_jsonschema", "get_output_jsonschema", "get_context_jsonschema"):
        assert getattr(graph, told)() == getattr(plain, told)()
    assert graph.get_input_jsonschema()["properties"].keys() == {"log", "n"}
    assert (graph.InputType, graph.OutputType) == (plain.InputType, plain.OutputType)


def test_class_and_attributes(wrap: Wrap) -> None:
    """It is of the graph's class, and shows nodes, channels, builder, name and checkpointer."""
    saver = InMemorySaver()
    plain = chain("a", checkpointer=saver, name="mine")
    graph = wrap(plain)
    assert isinstance(graph, CompiledStateGraph)
    assert isinstance(graph, Pregel)
    assert type(graph).__name__ == "CompiledStateGraph"
    assert (graph.name, graph.get_name(), graph.checkpointer) == ("mine", "mine", saver)
    assert (graph.nodes, graph.channels, graph.builder) == (
        plain.nodes,
        plain.channels,
        plain.builder,
    )
    assert graph.validate() is graph


@pytest.mark.filterwarnings("ignore:This API is in beta")
def test_a_graph_as_a_tool(wrap: Wrap) -> None:
    """`as_tool` makes a tool that a model can call."""
    made = wrap(chain("a")).as_tool(name="ask", description="Ask.")
    assert made.invoke({"log": ["q"], "n": 1})["log"] == ["q", "a"]


def test_end_is_the_end(wrap: Wrap) -> None:
    """A conditional edge to END ends the graph."""
    builder = drawn()
    builder.add_node("a", saying("a"))
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", lambda state: END if len(state["log"]) > 2 else "a")
    assert wrap(builder.compile()).invoke(EMPTY)["log"] == ["a", "a", "a"]
