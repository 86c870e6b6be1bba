"""One guarded call end to end on one runtime, in an environment that has nothing else.

    python -I smoke.py EXTRA

The call waits for a person, is approved, and happens once; no framework of another extra is loaded.
Run as a plain script by whatever Python the environment has: nothing of the checkout is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

from agentguard import ApprovalRequired, Guard, idempotent, requires_approval, tool_contract

LANGCHAIN = {"langchain", "langchain_core", "langgraph"}
LLAMA = {"llama_index", "llama_index_core", "workflows"}
FRAMEWORKS: dict[str, set[str]] = {
    "none": set(),
    "langchain": {"langchain_core"},
    "langgraph": LANGCHAIN,
    "llamaindex": LLAMA,
    "semantic-kernel": {"semantic_kernel"},
    "testing": {"pytest"},
}
"""Which frameworks an extra brings, by import name."""

paid: list[str] = []


@tool_contract(effect="write")
@idempotent(key="pay:{to}")
@requires_approval(when="amount > 50")
def pay(to: str, amount: int) -> str:
    """Pay *amount* to *to*."""
    paid.append(to)
    return f"paid {to} {amount}"


def approve(guard: Guard) -> None:
    """Be the person who says yes to what waits."""
    assert paid == [], "it was paid before anybody was asked"
    (approval,) = guard.approvals.list("pending")
    guard.approvals.decide(approval.id, "approve", by="dana", reason="matches the ticket")


def plain(guard: Guard) -> None:
    """Plain Python, and the command line beside it."""
    with contextlib.suppress(ApprovalRequired), guard.run("w", run_id="r-1"):
        pay("ann", 60)
    approve(guard)
    for _ in range(2):
        with guard.run("w", run_id="r-1"):
            assert pay("ann", 60) == "paid ann 60"
    command = [sys.executable, "-m", "agentguard", "--store", guard.store.url, "runs", "list"]
    assert b"r-1" in subprocess.run(command, check=True, capture_output=True).stdout


def langchain(guard: Guard) -> None:
    """A tool of LangChain outside of any graph, which nobody has decorated."""
    from langchain_core.tools import tool

    from agentguard_langchain import guard_tools

    bare = tool(pay.__wrapped__)  # type: ignore[attr-defined]
    policy = {"effect": "write", "key": "pay:{to}", "when": "amount > 50"}
    (guarded,) = guard_tools([bare], guard, **policy)
    call = {"name": "pay", "args": {"to": "ann", "amount": 60}, "id": "1", "type": "tool_call"}
    with contextlib.suppress(ApprovalRequired), guard.run("w", run_id="r-1"):
        guarded.invoke(call)
    approve(guard)
    with guard.run("w", run_id="r-1"):
        assert guarded.invoke(call).content == "paid ann 60"


def langgraph(guard: Guard) -> None:
    """A graph that pauses by its own `interrupt()`."""
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, StateGraph

    from agentguard_langgraph import guard_graph

    class State(TypedDict, total=False):
        """What the graph knows."""

        question: str
        answer: str

    builder = StateGraph(State)
    builder.add_node("pay", lambda _state: {"answer": pay("ann", 60)})
    builder.add_edge(START, "pay")
    graph = guard_graph(builder.compile(checkpointer=InMemorySaver()), guard)
    thread: Any = {"configurable": {"thread_id": "t-1"}}
    assert "__interrupt__" in graph.invoke({"question": "pay ann"}, thread)
    approve(guard)
    assert graph.invoke(None, thread)["answer"] == "paid ann 60"


def llamaindex(guard: Guard) -> None:
    """A workflow that asks by its own events."""
    from workflows import Workflow, step
    from workflows.events import HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

    from agentguard_llamaindex import guard_workflow

    class Payer(Workflow):
        """Pays in its only step."""

        @step
        async def pay(self, event: StartEvent) -> StopEvent:
            return StopEvent(result=pay("ann", 60))

    async def play() -> str:
        handler = guard_workflow(Payer(), guard).run(run_id="r-1")
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                asked = dict(event.items())
                break
        assert paid == []
        answer: Any = HumanResponseEvent
        handler.ctx.send_event(
            answer(approval_id=asked["approval_id"], decision="approve", by="dana")
        )
        return str(await handler)

    assert asyncio.run(play()) == "paid ann 60"


def semantic_kernel(guard: Guard) -> None:
    """A kernel that is asked to invoke a function, once before and once after the decision."""
    from semantic_kernel import Kernel
    from semantic_kernel.functions import kernel_function

    from agentguard_semantic_kernel import guard_kernel

    kernel = Kernel()
    kernel.add_function("shop", kernel_function(pay))
    guarded = guard_kernel(kernel, guard, run_id="r-1")

    async def invoke() -> str:
        return str(
            await guarded.invoke(plugin_name="shop", function_name="pay", to="ann", amount=60)
        )

    with contextlib.suppress(ApprovalRequired):
        asyncio.run(invoke())
    approve(guard)
    assert asyncio.run(invoke()) == "paid ann 60"


SUITE = '''
from agentguard import idempotent, requires_approval, tool_contract
from agentguard.testing import assert_wrote_once, check_idempotent

@tool_contract(effect="write")
@idempotent(key="pay:{to}")
@requires_approval()
def pay(to: str) -> str:
    """Pay."""
    with open(JOURNAL, "a") as journal:
        journal.write(to + "\\n")
    return "paid"

JOURNAL = "journal.txt"

def test_once(guard, approve_all, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with guard.run("w", host=approve_all):
        pay("ann")
        pay("ann")
    assert_wrote_once(guard, tool=pay)

def test_kills(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    report = check_idempotent(pay, {"to": "ann"}, backend=tmp_path / JOURNAL)
    assert report.ok, report
'''


def testing(guard: Guard) -> None:
    """The plugin in a user's suite, with every warning an error."""
    folder = Path(guard.store.url.removeprefix("sqlite:///")).parent
    (folder / "test_pay.py").write_text(SUITE, encoding="utf-8")
    words = [sys.executable, "-m", "pytest", "-q", "-W", "error", "test_pay.py"]
    ended = subprocess.run(words, cwd=folder, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    paid.append("ann")


SMOKES: dict[str, Callable[[Guard], None]] = {
    "none": plain,
    "langchain": langchain,
    "langgraph": langgraph,
    "llamaindex": llamaindex,
    "semantic-kernel": semantic_kernel,
    "testing": testing,
}


def main(extra: str) -> None:
    """Make the call of one extra, and look at what was loaded for it."""
    with tempfile.TemporaryDirectory() as folder:
        guard = Guard(f"sqlite:///{folder}/agentguard.db")
        SMOKES[extra](guard)
        guard.close()
    assert paid == ["ann"], f"paid {paid}, not once"
    others = set().union(*FRAMEWORKS.values()) - FRAMEWORKS[extra]
    loaded = sorted(others & set(sys.modules))
    assert not loaded, f"{extra} loads {', '.join(loaded)}"
    print(len(list(metadata.distributions())), "packages")


if __name__ == "__main__":
    main(sys.argv[1])
