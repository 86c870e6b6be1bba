"""`reporting`: LangChain without a graph tells a run of its model calls and tool calls."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, tool

from agentguard import (
    ApprovalRequired,
    BudgetExceeded,
    Guard,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.record import fold
from agentguard_langchain import LangChainHost, reporting
from agentguard_langgraph import LangGraphHost, guard_graph
from tests.langgraph.world import HELLO, Scripted, Streaming, call, one_node, say
from tests.support import World

MODEL = Scripted(script=[say("hi")])
ASK = [HumanMessage("hello")]


@pytest.fixture(name="world")
def world_of_a_test(tmp_path: Any) -> World:
    """Where effects happen."""
    return World(tmp_path / "world.txt")


async def _astreamed() -> None:
    async for _ in Streaming(script=[say("one two")]).astream(ASK):
        pass


CALLS: dict[str, Any] = {
    "invoke": lambda: MODEL.invoke(ASK),
    "ainvoke": lambda: asyncio.run(MODEL.ainvoke(ASK)),
    "stream": lambda: list(Streaming(script=[say("one two")]).stream(ASK)),
    "astream": lambda: asyncio.run(_astreamed()),
    "chain": lambda: (RunnableLambda(lambda asked: asked) | MODEL).invoke(ASK),
    "batch": lambda: MODEL.batch([ASK]),
    "own callbacks": lambda: MODEL.invoke(ASK, {"callbacks": []}),
    "completion": lambda: FakeListLLM(responses=["hi"]).invoke("hello"),
}


@pytest.mark.parametrize("way", CALLS)
def test_every_model_call_is_counted_once_and_can_be_refused(guard: Guard, way: str) -> None:
    """One call is one call, and none is made when the budget has no room for it."""
    with guard.run(run_id="enough", max_model_calls=1) as run, reporting(run):
        CALLS[way]()
    assert guard.runs.show("enough").model_calls == 1
    refused = pytest.raises(BudgetExceeded, match="max_model_calls is 0")
    with guard.run(run_id="none", max_model_calls=0) as run, reporting(run), refused:
        CALLS[way]()
    assert guard.runs.show("none").model_calls == 0


async def test_it_is_a_block_on_an_event_loop_too(guard: Guard) -> None:
    """Tokens that the provider counted are the run's, and a cancelled call is settled."""
    entered = asyncio.Event()

    class Hanging(Scripted):
        async def _agenerate(self, *_: Any, **__: Any) -> Any:
            entered.set()
            await asyncio.Event().wait()

    async def ask() -> None:
        async with guard.run(run_id="r") as run, reporting(run):
            await MODEL.ainvoke(ASK)
            await Hanging(script=[]).ainvoke(ASK)

    asking = asyncio.create_task(ask())
    await entered.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    told = guard.runs.show("r")
    assert (told.model_calls, told.input_tokens) == (2, 10)
    assert told.held_usd == 0


def test_in_a_bare_thread_its_handler_is_passed_on(guard: Guard) -> None:
    """A thread that knows nothing of the block reports through the callback that the block gives."""
    with guard.run(run_id="r") as run, reporting(run) as handler, ThreadPoolExecutor(1) as pool:
        pool.submit(MODEL.invoke, ASK, {"callbacks": [handler]}).result()
        MODEL.invoke(ASK, {"callbacks": [handler]})
    assert guard.runs.show("r").model_calls == 2


def test_outside_of_the_block_nothing_is_reported(guard: Guard) -> None:
    """What is left is left, also for model calls that inherit nothing."""
    with guard.run(run_id="r") as run:
        with reporting(run):
            MODEL.invoke(ASK)
        MODEL.invoke(ASK)
    assert guard.runs.show("r").model_calls == 1


def test_blocks_inside_one_another_report_once(guard: Guard) -> None:
    """A library that reports by itself does not count its caller's calls twice."""
    with guard.run(run_id="r") as run, reporting(run) as outer:
        with reporting(run) as inner:
            MODEL.invoke(ASK)
        MODEL.invoke(ASK)
    assert inner is outer
    assert guard.runs.show("r").model_calls == 2


def adding(world: World) -> BaseTool:
    """A tool that may rightly repeat."""

    @tool
    @tool_contract(effect="write")
    @idempotent(per="call")
    def add(item: str) -> str:
        """Put *item* into the basket."""
        return world.happen(f"{item} {current_run().call.id}")

    return add


def test_a_loop_of_ones_own_delivers_each_call_once(guard: Guard, world: World) -> None:
    """Guarded tools know the model's call: delivered again it is answered from the record."""
    add = adding(world)
    turn = call(("add", {"item": "egg"}, "c-1"), ("add", {"item": "egg"}, "c-2"))
    for _ in range(2):  # the program is run again after a crash
        with guard.run(run_id="r") as run, reporting(run):
            messages = [add.invoke({**wanted, "type": "tool_call"}) for wanted in turn.tool_calls]
    assert world.effects == ["egg c-1", "egg c-2"]
    assert [m.content for m in messages] == ["done egg c-1", "done egg c-2"]


def test_the_model_is_told_what_a_person_changed(guard: Guard, world: World) -> None:
    """The answer of an edited call says so, also when it is replayed."""

    @tool
    @tool_contract(effect="write")
    @idempotent(key="pay:{to}")
    @requires_approval(allow_edit=True)
    def pay(to: str, amount: int) -> str:
        """Pay."""
        return world.happen(f"{to} {amount}")

    wanted = {"type": "tool_call", "name": "pay", "id": "1", "args": {"to": "ann", "amount": 9}}

    def deliver() -> ToolMessage:
        with guard.run(run_id="r") as run, reporting(run):
            answer: ToolMessage = pay.invoke(wanted)
            return answer

    with pytest.raises(ApprovalRequired) as stopped:
        deliver()
    waiting = stopped.value.approval.id
    guard.approvals.decide(waiting, "edit", by="erin", edits={"amount": 7})
    guard.approvals.decide(waiting, "approve", by="dana")
    for _ in range(2):
        said = deliver().content
        assert said == ('done ann 7\nA person changed the arguments before this ran: {"amount": 7}')
    assert world.effects == ["ann 7"]


def test_a_run_of_plain_python_gets_langchains_host(guard: Guard) -> None:
    """The host is what tells calls apart; one that a runtime gave stays."""
    with guard.run() as run, reporting(run):
        assert isinstance(run.host, LangChainHost)
    host = LangGraphHost(guard)
    with guard.run(host=host) as run, reporting(run):
        assert run.host is host


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("in_a_chain", [False, True])
def test_a_guarded_graph_inside_reports_for_itself(
    guard: Guard, world: World, *, asynchronous: bool, in_a_chain: bool
) -> None:
    """Its calls are counted once, and are those that they are in the graph alone."""

    @tool_contract(effect="write")
    @idempotent(per="call")
    def add() -> str:
        return world.happen(str(current_run().call.id))

    def node(_: Any) -> None:
        MODEL.invoke(ASK)
        add()

    graph: Any = guard_graph(one_node(node).compile(), guard)
    chain = RunnableLambda(lambda _: HELLO) | graph if in_a_chain else graph
    with guard.run(run_id="r") as run, reporting(run):
        asyncio.run(chain.ainvoke(HELLO)) if asynchronous else chain.invoke(HELLO)
        MODEL.invoke(ASK)
    assert guard.runs.show("r").model_calls == 2
    assert world.effects == ["node@1"]


def test_a_tool_call_inside_a_graph_inside_a_block_has_one_name(guard: Guard, world: World) -> None:
    """Of two handlers that hear of a tool call, the graph's names it."""
    add = adding(world)

    def node(_: Any) -> None:
        add.invoke({"type": "tool_call", "name": "add", "id": "c-1", "args": {"item": "egg"}})

    chain: Any = RunnableLambda(lambda _: HELLO) | guard_graph(one_node(node).compile(), guard)
    with guard.run(run_id="r") as run, reporting(run):
        chain.invoke(None)
    (step,) = [step for step in fold(guard.runs.events("r")) if step.kind == "write"]
    assert (step.call_id, world.effects) == ("node@1/c-1", ["egg node@1/c-1"])


def test_langchain_alone_is_enough() -> None:
    """Importing the adapter imports no LangGraph."""
    program = (
        "import sys, agentguard_langchain; print([m for m in sys.modules if 'langgraph' in m])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert said.stdout.decode().strip() == "[]"


@pytest.mark.parametrize(
    ("metadata", "prompt"),
    [
        ({"prompt_name": "answer", "prompt_version": 7}, ("answer", "7")),
        ({"prompt_name": "answer"}, ("answer", None)),
        ({"lc_hub_owner": "acme", "lc_hub_repo": "reply", "lc_hub_commit_hash": "c0ffee"},
         ("acme/reply", "c0ffee")),
        ({"thread_id": "t"}, (None, None)),
    ],
)  # fmt: skip
def test_the_prompt_stands_in_the_metadata(
    guard: Guard, metadata: dict[str, Any], prompt: tuple[str | None, str | None]
) -> None:
    """As whoever calls the model, or LangSmith's hub, names it."""
    with guard.run("chain", run_id="r-1") as run, reporting(run):
        MODEL.invoke(ASK, {"metadata": metadata})
    (data,) = (e.data for e in guard.runs.events("r-1") if e.kind == "model.called")
    assert (data.get("prompt_name"), data.get("prompt_version")) == prompt


@pytest.mark.parametrize(
    "details",
    [
        {"cache_read": 60, "cache_creation": 30},
        {"cache_read": 60, "cache_creation": 0, "ephemeral_5m_input_tokens": 10,
         "ephemeral_1h_input_tokens": 20},
        {"cache_read": 60, "cache_creation": 30, "ephemeral_5m_input_tokens": 30},
        {"flex": 10, "flex_cache_read": 60, "cache_read": None, "cache_creation": 30},
    ],
    ids=["plain", "anthropic by lifetime", "anthropic before that", "openai by tier"],
)  # fmt: skip
def test_tokens_in_and_out_of_the_cache_are_told(guard: Guard, details: dict[str, Any]) -> None:
    """As LangChain counts them, under whichever names: both are part of the input."""

    class Caching(Scripted):
        """A model whose provider keeps prompts."""

        def _generate(self, *given: Any, **more: Any) -> Any:
            found = super()._generate(*given, **more)
            said: Any = found.generations[0].message
            said.usage_metadata = {
                "input_tokens": 100, "output_tokens": 1, "total_tokens": 101,
                "input_token_details": details,
            }  # fmt: skip
            return found

    with guard.run("chain", run_id="r-1") as run, reporting(run):
        Caching(script=[say("hi")]).invoke(ASK)
    (data,) = (e.data for e in guard.runs.events("r-1") if e.kind == "model.called")
    told = [data[f"{name}_tokens"] for name in ("input", "cached", "cache_write")]
    assert told == [100, 60, 30]
