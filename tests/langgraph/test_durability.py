"""Where LangGraph executes something twice, its guarded effect happens once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib import request

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import CachePolicy, Command, RetryPolicy, interrupt

from agentguard import Guard, Happened, NotHappened, idempotent, tool_contract
from agentguard_langgraph import guard_graph
from tests.langgraph.world import HELLO, Scripted, answers, call, looped, one_node, say, thread
from tests.support import ROOT, World

BOTH = [("bare", 2), ("guarded", 1)]
"""The framework alone, and guarded: how often the one effect happens."""


def either(kind: str, function: Any, **options: Any) -> Any:
    """The function itself, or guarded."""
    if kind == "bare":
        return function
    return tool_contract(effect="write")(idempotent(key="pay:{to}", **options)(function))


def graph_of(kind: str, plain: Any, guard: Guard) -> Any:
    """The graph itself, or guarded."""
    return plain if kind == "bare" else guard_graph(plain, guard)


@pytest.mark.parametrize(("kind", "times"), BOTH)
def test_an_effect_before_an_interrupt(
    guard: Guard, world: World, saver: InMemorySaver, kind: str, times: int
) -> None:
    """A node runs from its start when it is resumed: the bare effect twice, the guarded one once."""

    def pay(to: str) -> str:
        return world.happen(to)

    effect = either(kind, pay)

    def node(_: Mapping[str, Any]) -> dict[str, Any]:
        paid = effect("ann")
        return {"messages": [("ai", f"{paid}, {interrupt('tell her?')}")]}

    graph = graph_of(kind, one_node(node).compile(checkpointer=saver), guard)
    graph.invoke(HELLO, thread())
    result = graph.invoke(Command(resume="yes"), thread())
    assert result["messages"][-1].content == "done ann, yes"
    assert world.effects == ["ann"] * times


@pytest.fixture
def payments(world: World) -> Iterator[str]:
    """A real service that pays, and whose first answer is lost on the wire."""
    lost: list[bool] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            world.happen(self.path)
            if not lost:
                lost.append(True)
                self.connection.close()
                return
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200 if self.path in world.effects else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread_ = threading.Thread(target=server.serve_forever)
    thread_.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread_.join()
    server.server_close()


@pytest.mark.parametrize(("kind", "times"), BOTH)
def test_a_retry_policy_after_a_lost_answer(
    guard: Guard, world: World, payments: str, kind: str, times: int
) -> None:
    """The service did what it was asked and its answer got lost: retrying a bare call repeats it."""

    def pay(to: str) -> str:
        with request.urlopen(f"{payments}/{to}", data=b"", timeout=5):
            return f"paid {to}"

    def look(call: Any) -> Happened | NotHappened:
        to = call.arguments["to"]
        return Happened(f"found {to}") if f"/{to}" in world.effects else NotHappened()

    effect = either(kind, pay, reconcile=look, on_doubt="reconcile")
    policy = RetryPolicy(initial_interval=0, jitter=False, retry_on=lambda _: True)
    node = one_node(lambda _: {"messages": [("ai", effect("ann"))]}, retry_policy=policy)
    result = graph_of(kind, node.compile(), guard).invoke(HELLO)
    assert result["messages"][-1].content in ("paid ann", "found ann")
    assert world.effects == ["/ann"] * times


@pytest.mark.parametrize(("kind", "times"), BOTH)
def test_a_kill_inside_the_node(tmp_path: Path, kind: str, times: int) -> None:
    """The worker is killed after the effect and before any record: a new one finishes its work."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "integrations"), str(ROOT)])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), paths]),
    }
    worker = [sys.executable, str(ROOT / "tests/langgraph/worker.py"), str(tmp_path), kind]
    killed = subprocess.run([*worker, "kill"], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    subprocess.run(worker, env=environment, check=True)
    assert World(tmp_path / f"{kind}.txt").effects == ["ann"] * times
    if kind == "guarded":
        guard = Guard(f"sqlite:///{tmp_path}/agentguard.db")
        assert [effect.state.value for effect in guard.effects.list()] == ["succeeded"]
        assert guard.runs.show("r-1").status == "succeeded"
        guard.close()


@pytest.mark.parametrize(("kind", "times"), [("bare", 3), ("guarded", 1)])
def test_an_old_checkpoint_resumed_twice(
    guard: Guard, world: World, saver: InMemorySaver, kind: str, times: int
) -> None:
    """Travelling back in time and going on from there again does not repeat the effect."""

    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    model = Scripted(script=[call(("pay", {"to": "ann"}, "1")), say()])
    plain = looped(model, [tool(either(kind, pay))]).compile(checkpointer=saver)
    graph = graph_of(kind, plain, guard)
    graph.invoke(HELLO, thread())
    old = next(s for s in graph.get_state_history(thread()) if s.next == ("tools",))
    for _ in range(2):
        assert answers(graph.invoke(None, old.config)) == [("success", "done ann")]
    assert world.effects == ["ann"] * times


@pytest.mark.parametrize(("kind", "times"), [("bare", 2), ("guarded", 1)])
def test_an_old_interrupt_answered_twice(
    guard: Guard, world: World, saver: InMemorySaver, kind: str, times: int
) -> None:
    """Answering the same old interrupt again does not repeat what came after it."""

    def pay(to: str) -> str:
        return world.happen(to)

    effect = either(kind, pay)

    def node(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"messages": [("ai", f"{interrupt('pay?')} {effect('ann')}")]}

    graph = graph_of(kind, one_node(node).compile(checkpointer=saver), guard)
    graph.invoke(HELLO, thread())
    old = graph.get_state(thread()).config
    graph.invoke(Command(resume="yes"), old)
    graph.invoke(Command(resume="yes"), old)
    assert world.effects == ["ann"] * times


@pytest.mark.parametrize(("kind", "times"), BOTH)
def test_a_sibling_of_an_interrupted_call(
    guard: Guard, world: World, saver: InMemorySaver, kind: str, times: int
) -> None:
    """All calls of a ToolNode are executed again when one of them was interrupted."""

    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    @tool
    def ask() -> str:
        """Ask."""
        return str(interrupt("well?"))

    calls = call(("pay", {"to": "ann"}, "1"), ("ask", {}, "2"))
    model = Scripted(script=[calls, say()])
    plain = looped(model, [tool(either(kind, pay)), ask]).compile(checkpointer=saver)
    graph = graph_of(kind, plain, guard)
    graph.invoke(HELLO, thread())
    result = graph.invoke(Command(resume="fine"), thread())
    assert answers(result) == [("success", "done ann"), ("success", "fine")]
    assert world.effects == ["ann"] * times


@pytest.mark.parametrize(("kind", "times"), [("bare", 3), ("guarded", 1)])
def test_a_node_retried_for_a_flaky_sibling(
    guard: Guard, world: World, kind: str, times: int
) -> None:
    """A RetryPolicy runs the whole node again, with the calls that had succeeded."""
    failures = [True, True]

    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    @tool
    def flaky() -> str:
        """Fail twice."""
        if failures:
            failures.pop()
            raise ConnectionError
        return "at last"

    calls = call(("pay", {"to": "ann"}, "1"), ("flaky", {}, "2"))
    policy = RetryPolicy(initial_interval=0, jitter=False)
    plain = looped(
        Scripted(script=[calls, say()]), [tool(either(kind, pay)), flaky], retry_policy=policy
    ).compile()
    result = graph_of(kind, plain, guard).invoke(HELLO)
    assert answers(result) == [("success", "done ann"), ("success", "at last")]
    assert world.effects == ["ann"] * times


def test_a_cached_node_gives_its_answer_without_a_call(
    guard: Guard, world: World, saver: InMemorySaver
) -> None:
    """A CachePolicy on the tools' node answers before the guard is asked, and nothing happens."""

    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    model = Scripted(script=[call(("pay", {"to": "ann"}, "1")), say()])
    policy = CachePolicy(key_func=lambda state: str(state["messages"][-1].tool_calls))
    builder = looped(model, [tool(either("guarded", pay))], cache_policy=policy)
    graph = guard_graph(builder.compile(cache=InMemoryCache(), checkpointer=saver), guard)
    first = graph.invoke(HELLO, thread("r-1"))
    second = graph.invoke(HELLO, thread("r-2"))
    assert answers(first) == answers(second) == [("success", "done ann")]
    assert (world.effects, guard.runs.show("r-2").tool_calls) == (["ann"], 0)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_many_threads_and_one_key(guard: Guard, world: World, *, asynchronous: bool) -> None:
    """Calls of one key in many conversations at once have one effect and one answer."""
    import asyncio

    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    model = Scripted(script=[call(("pay", {"to": "ann"}, "1")), say()])
    graph = guard_graph(create_agent(model, [tool(either("guarded", pay))]), guard)
    configs = [thread(f"t-{n}") for n in range(12)]
    if asynchronous:
        results = await asyncio.gather(*(graph.ainvoke(HELLO, config) for config in configs))
    else:
        results = await asyncio.to_thread(graph.batch, [HELLO] * 12, configs)
    assert [answers(result) for result in results] == [[("success", "done ann")]] * 12
    assert world.effects == ["ann"]
