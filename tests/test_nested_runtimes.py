"""Several runtimes in one run: each is itself where it is at work, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, RetryPolicy
from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent

from agentguard import Guard, current_run, idempotent, requires_approval, tool_contract
from agentguard.hosting import Host
from agentguard_langgraph import guard_graph
from agentguard_llama_workflows import guard_workflow
from agentguard_semantic_kernel import guard_kernel
from agentguard_semantic_kernel import questions as placeholders
from tests.langgraph import world as lg
from tests.semantic_kernel import world as sk
from tests.support import World

AT_ONCE = RetryPolicy(initial_interval=0, jitter=False)
NOTE = sk.call(("note", {"text": "x"}, "1"))


class Desk:
    """The same tools for all runtimes: only the call tells apart what is done with them."""

    def __init__(self, guard: Guard, world: World) -> None:
        self.guard, self.world = guard, world

        @tool_contract(effect="write")
        @idempotent(per="call")
        def note(text: str) -> str:
            """Note something."""
            run = current_run()
            ref = run.call.ref
            return world.happen(f"{text} {run.host.name} {ref and ref.path}")

        @tool_contract(effect="write")
        @idempotent(key="pay:{to}")
        @requires_approval()
        def pay(to: str) -> str:
            """Pay somebody."""
            return world.happen(f"pay {to}")

        @tool_contract(effect="forbidden")
        def erase() -> None:
            """Erase everything."""

        self.note: Any = note
        self.pay: Any = pay
        self.erase: Any = erase

    def kernel(self, *script: Any, functions: Any = ()) -> Any:
        """A guarded kernel whose model follows a script."""
        kernel = sk.kernel_of(sk.scripted(*script), self.note, self.pay, *functions)
        return guard_kernel(kernel, self.guard)

    async def ask_kernel(self) -> str:
        """Have the model of a kernel note something, always under the same id."""
        return str((await sk.Talk(self.kernel(NOTE, "done")).ask("go"))[0])

    async def run_workflow(self) -> Any:
        """Have a workflow note something in its only step."""
        note = self.note

        class Noting(Workflow):
            @step
            async def write(self, _: StartEvent) -> StopEvent:
                return StopEvent(result=note("x"))

        return await guard_workflow(Noting(), self.guard).run()

    def graph(self, node: Any, policy: RetryPolicy | None = None) -> Any:
        """A guarded graph of one node."""
        built = lg.one_node(node, retry_policy=policy)
        return guard_graph(built.compile(checkpointer=InMemorySaver()), self.guard)

    def agent(self, helper: Any, *script: Any) -> Any:
        """A guarded agent of LangChain, with the tools of this desk and a helper."""

        @tool
        async def delegate() -> str:
            """Ask another agent."""
            return str(await helper())

        tools = [delegate, *map(tool, (self.note, self.pay, self.erase))]
        model = lg.Scripted(script=list(script))
        return guard_graph(create_agent(model, tools, checkpointer=InMemorySaver()), self.guard)

    def status(self, run_id: str = "r-1") -> str:
        """How a run stands."""
        return str(self.guard.runs.show(run_id).status)


@pytest.fixture(name="desk")
def desk_of_a_test(tmp_path: Path) -> Iterator[Desk]:
    """The tools on a guard of their own, in a world of their own."""
    guard = Guard("memory://")
    yield Desk(guard, World(tmp_path / "world.txt"))
    guard.close()


INSIDE = ["kernel", "workflow"]
IN_TOOL = {"kernel": "x semantic_kernel 1/1", "workflow": "x llamaindex 1/write@1"}


def helper(desk: Desk, kind: str) -> Any:
    """Another runtime that notes something."""
    return {"kernel": desk.ask_kernel, "workflow": desk.run_workflow}[kind]


# Inside LangGraph.


@pytest.mark.parametrize("kind", INSIDE)
async def test_a_graph_pauses_after_another_runtime_was_at_work_in_it(
    desk: Desk, kind: str
) -> None:
    """An approval in a later tool interrupts the graph, which goes on once somebody has decided."""
    agent = desk.agent(
        helper(desk, kind),
        lg.call(("delegate", {}, "1")), lg.call(("pay", {"to": "ann"}, "2")), lg.say(),
    )  # fmt: skip
    (question,) = lg.questions(await agent.ainvoke(lg.HELLO, lg.thread()))
    assert (desk.world.effects, desk.status()) == ([IN_TOOL[kind]], "waiting")
    result = await agent.ainvoke(Command(resume=lg.yes(question)), lg.thread())
    assert lg.answers(result)[-1] == ("success", "done pay ann")
    assert (desk.world.effects, desk.status()) == ([IN_TOOL[kind], "pay ann"], "succeeded")


@pytest.mark.parametrize("kind", INSIDE)
async def test_calls_of_a_graph_keep_their_ids_after_another_runtime(desk: Desk, kind: str) -> None:
    """A call that another runtime's model made under the same id is another call: two effects."""
    agent = desk.agent(
        helper(desk, kind),
        lg.call(("delegate", {}, "1")), lg.call(("note", {"text": "x"}, "1")), lg.say(),
    )  # fmt: skip
    await agent.ainvoke(lg.HELLO, lg.thread())
    assert desk.world.effects == [IN_TOOL[kind], "x langgraph 1"]


@pytest.mark.parametrize("kind", INSIDE)
async def test_refusals_are_told_to_a_graphs_model_after_another_runtime(
    desk: Desk, kind: str
) -> None:
    """A refusal in a later tool is an error that ToolNode tells the model, as it always is."""
    agent = desk.agent(
        helper(desk, kind),
        lg.call(("delegate", {}, "1")), lg.call(("erase", {}, "2")), lg.say(),
    )  # fmt: skip
    result = await agent.ainvoke(lg.HELLO, lg.thread())
    assert [how for how, _ in lg.answers(result)] == ["success", "error"]


@pytest.mark.parametrize(
    ("kind", "done"),
    [
        ("kernel", ["x semantic_kernel node@1/1", "x semantic_kernel node@1/1#1"]),
        ("workflow", ["x llamaindex node@1/write@1", "x llamaindex node@1+1/write@1"]),
    ],
)
async def test_a_runtime_in_a_node_that_is_executed_again_does_nothing_again(
    desk: Desk, kind: str, done: list[str]
) -> None:
    """Neither in a retry, in the same part of the run, nor after a pause, in the next."""
    attempts: list[int] = []

    async def node(_: Any) -> None:
        for _ in range(2):
            await helper(desk, kind)()
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError
        desk.pay("ann")

    graph = desk.graph(node, AT_ONCE)
    (question,) = lg.questions(await graph.ainvoke(lg.HELLO, lg.thread()))
    assert (desk.world.effects, len(attempts)) == (done, 2)
    await graph.ainvoke(Command(resume=lg.yes(question)), lg.thread())
    assert (desk.world.effects, len(attempts)) == ([*done, "pay ann"], 3)


# Around LangGraph.


async def test_a_graph_in_a_function_leaves_the_kernel_as_it_was(desk: Desk) -> None:
    """Its calls stand below the function's; later calls are the kernel's, and wait as its calls do."""
    model = lg.Scripted(script=[lg.call(("note", {"text": "x"}, "1")), lg.say()])
    graph = guard_graph(create_agent(model, [tool(desk.note)]), desk.guard)

    async def research() -> str:
        """Ask a graph."""
        await graph.ainvoke(lg.HELLO)
        return "found"

    script = [sk.call(("research", {}, "1")), NOTE, sk.call(("pay", {"to": "ann"}, "2")), "done"]
    talk = sk.Talk(desk.kernel(*script, functions=[research]))
    async with desk.guard.run("w", run_id="r-1"):
        said = await talk.ask("go")
    assert desk.world.effects == ["x langgraph 1/1", "x semantic_kernel 1#1"]
    (question,) = placeholders(said)
    assert desk.status() == "waiting"
    desk.guard.approvals.decide(question["approval_id"], "approve", by="dana")
    async with desk.guard.run("w", run_id="r-1"):
        await talk.ask()
    assert (desk.world.effects[2:], desk.status()) == (["pay ann"], "succeeded")


async def test_a_graph_in_a_step_leaves_the_workflow_as_it_was(desk: Desk) -> None:
    """Its calls stand below the step's; later calls of the step are the step's."""
    node = lg.one_node(lambda _: {"messages": [desk.note("x")]})
    graph = guard_graph(node.compile(), desk.guard)

    class Researching(Workflow):
        @step
        async def research(self, _: StartEvent) -> StopEvent:
            for _attempt in range(2):
                await graph.ainvoke(lg.HELLO)
            return StopEvent(result=desk.note("x"))

    await guard_workflow(Researching(), desk.guard).run()
    assert desk.world.effects == [
        "x langgraph research@1/node@1",
        "x langgraph research@1+1/node@1",
        "x llamaindex research@1",
    ]


# Side by side.


async def test_runtimes_side_by_side_do_not_see_each_other(desk: Desk) -> None:
    """In one run, and at the same time, each call knows its own runtime; around them it is Python."""
    barrier = asyncio.Barrier(3)

    async def meet(name: str) -> str:
        """Wait until all are inside, then write."""
        await barrier.wait()
        assert current_run().host.name == name
        await barrier.wait()
        return str(desk.note("x"))

    async def meet_in_kernel() -> str:
        """Meet the others."""
        return await meet("semantic_kernel")

    class Meeting(Workflow):
        @step
        async def meet(self, _: StartEvent) -> StopEvent:
            return StopEvent(result=await meet("llamaindex"))

    async def node(_: Any) -> None:
        await meet("langgraph")

    kernel = desk.kernel(sk.call(("meet_in_kernel", {}, "1")), "done", functions=[meet_in_kernel])
    async with desk.guard.run("w", run_id="r-1") as run:
        await asyncio.gather(
            desk.graph(node).ainvoke(lg.HELLO, lg.thread()),
            sk.Talk(kernel).ask("go"),
            guard_workflow(Meeting(), desk.guard).run(),
        )
        assert type(run.host) is Host
        desk.note("x")
    assert sorted(desk.world.effects) == [
        "x langgraph node@1",
        "x llamaindex meet@1",
        "x python None",
        "x semantic_kernel 1",
    ]
    assert desk.status() == "succeeded"
