"""A call is the same call wherever the runtime repeats it, and another where it is another."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from llama_index.core.tools import FunctionTool
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, StartEvent, StopEvent
from workflows.resource import Resource

from agentguard import Guard, Principal, current_run, idempotent, tool_contract
from agentguard_llamaindex import guard_workflow
from tests.llamaindex.world import (
    Answer,
    Question,
    agent,
    answers,
    call,
    restored,
    saved,
    tool,
    until_asked,
)
from tests.support import World


def adding(world: World) -> Any:
    """A function whose effect may rightly repeat: one for each call."""

    @tool_contract(effect="write")
    @idempotent(per="call")
    async def add(item: str) -> str:
        """Add an item."""
        return world.happen(item)

    return add


def adding_tool(world: World) -> FunctionTool:
    """The same as a tool."""
    return tool(adding(world))


def clerk() -> str:
    """Say who does it."""
    return "kim"


class Again(Event):
    """Come back."""

    times: int


class Ticket(StartEvent):
    """What a refund is for."""

    ticket: str


class Part(Event):
    """A piece of work."""

    number: int


class Done(Event):
    """A piece of work that is done."""


async def ask(ctx: Context, name: str) -> str:
    """Wait for a person's answer to a question of the workflow's own."""
    answer: Any = await ctx.wait_for_event(
        HumanResponseEvent, waiter_event=Question(prefix=name), requirements={"to": name},
        timeout=None,
    )  # fmt: skip
    return str(answer.response)


async def test_a_step_that_waits_makes_its_calls_once(guard: Guard, world: World) -> None:
    """The step is executed from its start after each wait; equal calls in it are not one."""
    add = adding(world)

    class Shopping(Workflow):
        @step
        async def shop(self, ctx: Context, ev: StartEvent) -> StopEvent:
            bought = [await add("egg"), await add("egg")]
            answer = await ask(ctx, "more?")
            return StopEvent(result=[*bought, await add(answer), await ask(ctx, "well?")])

    handler = guard_workflow(Shopping(timeout=None), guard).run()
    for name, answer in (("more?", "egg"), ("well?", "fine")):
        assert (await until_asked(handler))[0]["prefix"] == name
        handler.ctx.send_event(Answer(to=name, response=answer))
    assert await handler == ["done egg"] * 3 + ["fine"]
    assert world.effects == ["egg"] * 3


async def test_a_step_that_is_visited_again_makes_its_calls_again(
    guard: Guard, world: World
) -> None:
    """Equal calls of two visits to one step are two calls, also if the second one is repeated."""
    add = adding(world)

    class Looping(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Again:
            return Again(times=0)

        @step
        async def work(self, ctx: Context, ev: Again) -> Again | StopEvent:
            await add("egg")
            if ev.times < 2:
                return Again(times=ev.times + 1)
            return StopEvent(result=await ask(ctx, "done?"))

    workflow = guard_workflow(Looping(timeout=None), guard)
    handler = workflow.run(run_id="r-1")
    await until_asked(handler)
    handler = restored(workflow, await saved(handler))
    handler.ctx.send_event(Answer(to="done?", response="yes"))
    assert await handler == "yes"
    assert world.effects == ["egg"] * 3


def splitting(world: World) -> Any:
    """A workflow of five branches at once."""
    add = adding(world)

    class Splitting(Workflow):
        @step
        async def split(self, ctx: Context, ev: StartEvent) -> Part | None:
            for number in range(5):
                ctx.send_event(Part(number=number))
            return None

        @step(num_workers=5)
        async def work(self, ev: Part) -> Done:
            await asyncio.sleep(0)
            await add("egg")
            return Done()

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            if ctx.collect_events(ev, [Done] * 5) is None:
                return None
            return StopEvent(result="joined")

    return Splitting(timeout=None)


async def test_parallel_branches_make_their_own_calls(guard: Guard, world: World) -> None:
    """Branches of one step are different places."""
    assert await guard_workflow(splitting(world), guard).run() == "joined"
    assert world.effects == ["egg"] * 5


def shopping(world: World, crashes: list[bool]) -> Any:
    """A workflow of two steps that make equal calls, and may crash at its end."""
    add = adding(world)

    class Shopping(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Part:
            await add("egg")
            return Part(number=1)

        @step
        async def end(self, ev: Part) -> StopEvent:
            await add("egg")
            if crashes and crashes.pop():
                raise KeyError("power cut")
            return StopEvent(result="bought")

    return Shopping(timeout=None)


async def test_a_run_that_begins_anew_under_its_id_repeats_no_call(
    guard: Guard, world: World
) -> None:
    """Without any saved context: the same run id means that the same work is done again."""
    workflow = guard_workflow(shopping(world, [True]), guard)
    with pytest.raises(KeyError):
        await workflow.run(run_id="r-1")
    assert guard.runs.show("r-1").status == "failed"
    assert await workflow.run(run_id="r-1") == "bought"
    assert (world.effects, guard.runs.show("r-1").part) == (["egg"] * 2, 2)


async def test_another_run_makes_its_own_calls(guard: Guard, world: World) -> None:
    """Runs without an id are different runs, and each handler tells its run's id."""
    workflow = guard_workflow(splitting(world), guard)
    handlers = [workflow.run(), workflow.run()]
    await asyncio.gather(*handlers)
    assert {run.id for run in guard.runs.list()} == {handler.run_id for handler in handlers}
    assert world.effects == ["egg"] * 10


async def test_calls_of_an_agent_are_told_apart_by_their_ids(guard: Guard, world: World) -> None:
    """Equal arguments under two ids are two calls; one id twice in one turn is one call."""
    twice = call(("add", {"item": "egg"}, "1"), ("add", {"item": "egg"}, "1"))
    other = call(("add", {"item": "egg"}, "2"))
    workflow = agent("FunctionAgent", [twice, other, "done"], [adding_tool(world)])
    result = await guard_workflow(workflow, guard).run(user_msg="hello")
    assert answers(result) == [(False, "done egg")] * 3
    assert world.effects == ["egg"] * 2


async def test_an_id_that_the_model_uses_again_is_another_call(guard: Guard, world: World) -> None:
    """Some models number their calls from one in every answer."""
    again = call(("add", {"item": "egg"}, "call.1"))
    workflow = guard_workflow(
        agent("FunctionAgent", [again, again, again, "done"], [adding_tool(world)]), guard
    )
    await workflow.run(user_msg="hello", run_id="r-1")
    assert world.effects == ["egg"] * 3
    await workflow.run(user_msg="hello", run_id="r-1")  # from the start, as after a crash
    assert world.effects == ["egg"] * 3


async def test_a_conversation_that_goes_on_makes_new_calls_in_its_run(
    guard: Guard, world: World
) -> None:
    """The context keeps the run's id; the same call id in the next conversation is another call."""
    script = [
        call(("add", {"item": "egg"}, "1")),
        "one",
        call(("add", {"item": "egg"}, "1")),
        "two",
    ]
    workflow = guard_workflow(agent("FunctionAgent", script, [adding_tool(world)]), guard)
    context = Context(workflow)
    assert str(await workflow.run(user_msg="hello", ctx=context, run_id="r-1")) == "one"
    assert str(await workflow.run(user_msg="again", ctx=context)) == "two"
    assert world.effects == ["egg"] * 2
    assert [(run.id, run.part) for run in guard.runs.list()] == [("r-1", 2)]


async def test_the_tool_sees_its_call_and_who_made_it(guard: Guard) -> None:
    """A tool's body can read the id of the model's call, also a sync one in its thread."""
    seen = []

    @tool_contract(effect="write")
    @idempotent(key="note:{text}")
    def note(text: str) -> str:
        """Note *text*."""
        here = current_run().call
        seen.append((here.id, here.ref and here.ref.agent, bool(here.idempotency_key)))
        return "noted"

    script = [call(("note", {"text": "a"}, "call_7")), "done"]
    for kind in ("FunctionAgent", "AgentWorkflow"):
        await guard_workflow(agent(kind, script, [tool(note)]), guard).run(user_msg="hello")
    assert seen == [("call_7", "payer", True)]


async def test_parallel_calls_of_one_turn_are_told_apart(guard: Guard) -> None:
    """Many parallel tool calls, sync ones in threads, each know which call they are."""
    seen: dict[str, str | None] = {}

    @tool_contract(effect="read")
    def sync(name: str) -> str:
        """Look something up."""
        seen[name] = current_run().call.id
        return name

    @tool_contract(effect="read")
    async def coroutine(name: str) -> str:
        """Look something up."""
        await asyncio.sleep(0)
        seen[name] = current_run().call.id
        return name

    calls = call(
        *(("sync" if n % 2 else "coroutine", {"name": f"n{n}"}, f"n{n}") for n in range(30))
    )
    workflow = agent("FunctionAgent", [calls, "done"], [tool(sync), tool(coroutine)])
    await guard_workflow(workflow, guard).run(user_msg="hello")
    assert seen == {f"n{n}": f"n{n}" for n in range(30)}


async def test_two_runs_side_by_side_do_not_mix(guard: Guard) -> None:
    """Each run's steps, tools and threads see their own run and who acts in it."""
    seen: dict[str, set[tuple[str, str]]] = {}

    @tool_contract(effect="read")
    def look(name: str) -> str:
        """Look something up."""
        run = current_run()
        seen.setdefault(name, set()).add((run.id, run.principal.agent))
        return name

    async def one(name: str) -> None:
        calls = [call(*(("look", {"name": name}, f"{n}.{m}") for m in range(5))) for n in range(3)]
        workflow = guard_workflow(
            agent("FunctionAgent", [*calls, "done"], [tool(look)]), guard,
            principal=Principal(agent=name), loops="off",
        )  # fmt: skip
        await workflow.run(user_msg="hello", run_id=f"run of {name}")

    await asyncio.gather(*(one(name) for name in ("ann", "bob", "eve")))
    assert seen == {name: {(f"run of {name}", name)} for name in ("ann", "bob", "eve")}


async def test_a_step_that_is_itself_a_write_happens_once(guard: Guard, world: World) -> None:
    """Over or under `@step`: the event is an argument, context and resources are not."""

    class Refunding(Workflow):
        @step
        @tool_contract(effect="write")
        @idempotent(key="under:{ev.ticket}")
        async def begin(
            self, ctx: Context, ev: Ticket, by: Annotated[str, Resource(clerk)]
        ) -> Part:
            world.happen(f"under {ev.ticket} {by}")
            return Part(number=1)

        @tool_contract(effect="write")
        @idempotent(key="over:{ev.number}")
        @step
        def end(self, ctx: Context, ev: Part) -> StopEvent:
            return StopEvent(result=world.happen(f"over {ev.number}"))

    workflow = guard_workflow(Refunding(timeout=None), guard)
    for _ in range(2):
        assert await workflow.run(ticket="T-1") == "done over 1"
    assert world.effects == ["under T-1 kim", "over 1"]


async def test_a_call_from_inside_a_tool_is_part_of_the_models_call(
    guard: Guard, world: World
) -> None:
    """A guarded function, and a workflow that a tool runs, act once for each call of the tool."""
    add = adding(world)

    class Inner(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await add("in a workflow"))

    inner = guard_workflow(Inner(), guard)

    async def shop() -> str:
        """Buy several things."""
        await add("in code")
        await add("in code")
        await inner.run()
        await inner.run()
        return "bought"

    workflow = guard_workflow(
        agent("FunctionAgent", [call(("shop", {}, "1"), ("shop", {}, "2")), "done"], [tool(shop)]),
        guard,
    )
    for _ in range(2):
        await workflow.run(user_msg="hello", run_id="r-1")
    assert sorted(world.effects) == ["in a workflow"] * 4 + ["in code"] * 4
    assert [run.id for run in guard.runs.list()] == ["r-1"]


async def test_workflows_in_one_run_make_their_own_calls_also_when_it_is_run_again(
    guard: Guard, world: World
) -> None:
    """A program that runs workflows inside its own run has each call once, across a crash too."""
    workflow = guard_workflow(shopping(world, []), guard)

    async def program(*, crash: bool) -> None:
        async with guard.run("shopping", run_id="r-1"):
            await workflow.run()
            await workflow.run()
            if crash:
                raise KeyError("power cut")
            await workflow.run()

    with pytest.raises(KeyError):
        await program(crash=True)
    assert len(world.effects) == 4
    await program(crash=False)
    assert len(world.effects) == 6


async def test_a_free_function_as_a_step_is_guarded_too(guard: Guard, world: World) -> None:
    """Steps that stand outside of the class belong to the workflow all the same."""
    add = adding(world)

    class Free(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Part:
            return Part(number=1)

    @step(workflow=Free)
    async def end(ctx: Context, ev: Part) -> StopEvent:
        await add("egg")
        return StopEvent(result=await ask(ctx, "done?"))

    handler = guard_workflow(Free(timeout=None), guard).run()
    await until_asked(handler)
    handler.ctx.send_event(Answer(to="done?", response="yes"))
    assert await handler == "yes"
    assert world.effects == ["egg"]
