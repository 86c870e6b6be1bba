"""Approvals pause the step; the store alone says what was decided, and for which call."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from workflows import Context, Workflow, step
from workflows.events import HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from workflows.retry_policy import retry_policy, stop_after_attempt, wait_fixed

from agentguard import (
    ApprovalRequired,
    Guard,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.testing import FakeClock
from agentguard_llamaindex import guard_workflow
from tests.llamaindex.world import (
    KINDS,
    Answer,
    Question,
    agent,
    answers,
    call,
    restored,
    saved,
    tool,
    until_asked,
    until_idle,
    yes,
)
from tests.support import World


def paying(world: World, *, asynchronous: bool = True, **approval: Any) -> FunctionTool:
    """A tool that needs a person above 50."""

    def pay(to: str, amount: int, iban: str = "") -> str:
        """Pay *amount* to *to*."""
        return world.happen(f"{to} {amount}")

    async def apay(to: str, amount: int, iban: str = "") -> str:
        """Pay *amount* to *to*."""
        await asyncio.sleep(0)
        return world.happen(f"{to} {amount}")

    rule = {"when": "amount > 50", **approval}
    function: Any = apay if asynchronous else pay
    guarded = requires_approval(**rule)(idempotent(key="pay:{to}")(function))
    return tool(tool_contract(effect="write", name="pay", sensitive=["iban"])(guarded), name="pay")


def asked(*names: str, amount: int = 100) -> Any:
    """The model wants to pay several people in one turn."""
    return call(*(("pay", {"to": name, "amount": amount, "iban": "DE89"}, name) for name in names))


def payer(guard: Guard, world: World, *names: str, kind: str = "FunctionAgent", **more: Any) -> Any:
    """A guarded agent that wants to pay these people, and then is done."""
    return guard_workflow(agent(kind, [asked(*names), "done"], [paying(world, **more)]), guard)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_approved_call_runs_once(
    guard: Guard, world: World, kind: str, *, asynchronous: bool
) -> None:
    """The agent pauses before the effect; an answer that names the approval lets it happen."""
    handler = payer(guard, world, "ann", kind=kind, asynchronous=asynchronous).run(
        user_msg="hello", run_id="r-1"
    )
    (question,) = await until_asked(handler)
    assert world.effects == []
    handler.ctx.send_event(yes(question))
    result = await handler
    assert (answers(result), str(result)) == ([(False, "done ann 100")], "done")
    assert (world.effects, guard.runs.show("r-1").status) == (["ann 100"], "succeeded")


async def test_a_waiting_run_is_seen_to_wait_and_its_time_does_not_count(
    guard: Guard, world: World
) -> None:
    """While nothing but an answer can go on, the run is left; the answer enters it again."""
    handler = payer(guard, world, "ann").run(user_msg="hello", run_id="r-1")
    (question,) = await until_asked(handler)
    await until_idle(handler)
    assert guard.runs.show("r-1").status == "waiting"
    handler.ctx.send_event(yes(question))
    await handler
    assert (guard.runs.show("r-1").status, guard.runs.show("r-1").part) == ("succeeded", 2)


async def test_the_question_says_all_that_a_person_needs(guard: Guard, world: World) -> None:
    """The event is plain JSON, without sensitive arguments, and says how to answer."""
    workflow = payer(guard, world, "ann", roles=["finance"], quorum=2, allow_edit=True)
    handler = workflow.run(user_msg="hello", run_id="r-1")
    (question,) = await until_asked(handler)
    (approval,) = guard.approvals.list("pending")
    asked_for = json.loads(json.dumps(question))
    assert "DE89" not in json.dumps(question)
    assert asked_for["arguments"] == {"to": "ann", "amount": 100, "iban": "[hidden]"}
    assert (asked_for["approval_id"], asked_for["rule"]) == (approval.id, "amount > 50")
    assert f"agentguard approvals approve {approval.id} --by NAME" in asked_for["how"]
    assert asked_for["resume"] == {
        "approval_id": approval.id, "generation": 1, "decision": "approve or reject",
        "by": "", "roles": [], "reason": "",
    }  # fmt: skip
    await handler.cancel_run()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_decision_elsewhere_wakes_a_running_workflow(
    guard: Guard, world: World, kind: str
) -> None:
    """Nobody sends an event: the workflow sees by itself that the store has a decision."""
    handler = payer(guard, world, "ann", kind=kind).run(user_msg="hello")
    (question,) = await until_asked(handler)
    with closing(Guard(guard.store.url)) as elsewhere:
        elsewhere.approvals.decide(question["approval_id"], "approve", by="dana")
    await handler
    assert world.effects == ["ann 100"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decided", ["before", "after"])
async def test_a_saved_workflow_goes_on_with_a_decision(
    guard: Guard, world: World, kind: str, decided: str
) -> None:
    """Decided before or after it is restored: the call runs once, in the run it was in."""
    workflow = payer(guard, world, "ann", kind=kind)
    handler = workflow.run(user_msg="hello", run_id="r-1")
    (question,) = await until_asked(handler)
    context = json.loads(json.dumps(await saved(handler)))
    assert (world.effects, guard.runs.show("r-1").status) == ([], "waiting")
    if decided == "before":
        guard.approvals.decide(question["approval_id"], "approve", by="dana")
    handler = restored(payer(guard, world, "ann", kind=kind), context)
    if decided == "after":
        assert (await until_asked(handler))[0]["approval_id"] == question["approval_id"]
        handler.ctx.send_event(yes(question))
    assert answers(await handler) == [(False, "done ann 100")]
    assert (world.effects, guard.runs.show("r-1").status) == (["ann 100"], "succeeded")
    assert [run.id for run in guard.runs.list()] == ["r-1"]


@pytest.mark.parametrize("kind", KINDS)
async def test_answers_right_after_a_restore_count_for_the_calls_they_name(
    guard: Guard, world: World, kind: str
) -> None:
    """Sent at once, before any step runs again, each answer reaches its own call, and only that."""
    names = ("ann", "bob", "eve", "kim")
    handler = payer(guard, world, *names, kind=kind).run(user_msg="hello", run_id="r-1")
    questions = {q["arguments"]["to"]: q for q in await until_asked(handler, 4)}
    handler = restored(payer(guard, world, *names, kind=kind), await saved(handler))
    for name in ("kim", "bob", "ann", "eve"):
        said = {"decision": "reject", "reason": "no"} if name in ("ann", "kim") else {}
        handler.ctx.send_event(yes(questions[name], **said))
    result = await handler
    assert sorted(world.effects) == ["bob 100", "eve 100"]
    told = {made.tool_id: made.tool_output.is_error for made in result.tool_calls}
    assert told == {"ann": True, "bob": False, "eve": False, "kim": True}
    assert guard.runs.show("r-1").model_calls == 2


async def test_one_answer_wakes_only_its_own_call(guard: Guard, world: World) -> None:
    """The other calls of the turn wait on, and are not executed again."""
    handler = payer(guard, world, "ann", "bob").run(user_msg="hello", run_id="r-1")
    first, second = await until_asked(handler, 2)
    handler.ctx.send_event(yes(first))
    async for event in handler.stream_events():
        if type(event).__name__ == "ToolCallResult":
            break
    assert world.effects == [f"{first['arguments']['to']} 100"]
    assert [a.id for a in guard.approvals.list("pending")] == [second["approval_id"]]
    handler.ctx.send_event(yes(second))
    await handler
    assert sorted(world.effects) == ["ann 100", "bob 100"]


@pytest.mark.parametrize("again", [False, True])
async def test_an_answer_delivered_twice_is_taken_once(
    guard: Guard, world: World, *, again: bool
) -> None:
    """Neither the effect nor the agent's next turn is repeated, restored or not."""
    handler = payer(guard, world, "ann").run(user_msg="hello", run_id="r-1")
    (question,) = await until_asked(handler)
    if again:
        handler = restored(payer(guard, world, "ann"), await saved(handler))
    for _ in range(3):
        handler.ctx.send_event(yes(question))
    result = await handler
    assert (world.effects, len(result.tool_calls)) == (["ann 100"], 1)
    assert guard.runs.show("r-1").model_calls == 2


async def test_a_context_restored_twice_writes_once(guard: Guard, world: World) -> None:
    """Two processes that go on with the same saved context share one effect."""
    workflow = payer(guard, world, "ann")
    handler = workflow.run(user_msg="hello", run_id="r-1")
    (question,) = await until_asked(handler)
    context = await saved(handler)
    guard.approvals.decide(question["approval_id"], "approve", by="dana")
    for _ in range(2):
        assert answers(await restored(workflow, context)) == [(False, "done ann 100")]
    assert world.effects == ["ann 100"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(response="yes"),
        Answer(decision="approve", by="dana"),
        Answer(approval_id="ap_unknown", decision="approve", by="dana"),
    ],
)
async def test_being_woken_is_not_being_approved(guard: Guard, world: World, answer: Any) -> None:
    """An answer that names no waiting approval decides nothing."""
    handler = payer(guard, world, "ann").run(user_msg="hello", run_id="r-1")
    (question,) = await until_asked(handler)
    handler.ctx.send_event(answer)
    await asyncio.sleep(0)
    assert (world.effects, len(guard.approvals.list("pending"))) == ([], 1)
    handler.ctx.send_event(yes(question))
    await handler
    assert world.effects == ["ann 100"]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"by": ""}, "must say by"),
        ({"by": "agent"}, "agent"),
        ({"roles": ["sales"]}, "role finance"),
        ({"decision": "maybe"}, "maybe"),
        ({"generation": 7}, "was edited meanwhile"),
        ({"amount": 1}, "no field 'amount'"),
    ],
)
async def test_a_decision_that_cannot_be_taken_is_asked_for_again(
    guard: Guard, world: World, more: dict[str, Any], problem: str
) -> None:
    """Wrong people and wrong words decide nothing, and the next question says what was wrong."""
    handler = payer(guard, world, "ann", roles=["finance"]).run(user_msg="hello")
    (question,) = await until_asked(handler)
    handler.ctx.send_event(yes(question, **{"roles": ["finance"], **more}))
    (question,) = await until_asked(handler)
    assert problem in question["problem"]
    assert world.effects == []
    await handler.cancel_run()


async def test_two_people_decide_in_two_answers(guard: Guard, world: World) -> None:
    """With a quorum of two the workflow asks until two different people have said yes."""
    handler = payer(guard, world, "ann", quorum=2).run(user_msg="hello")
    (question,) = await until_asked(handler)
    handler.ctx.send_event(yes(question))
    (question,) = await until_asked(handler)
    assert world.effects == []
    handler.ctx.send_event(yes(question, by="erin"))
    await handler
    assert world.effects == ["ann 100"]


async def test_an_edited_call_runs_after_somebody_else_approved_it_and_the_model_is_told(
    guard: Guard, world: World
) -> None:
    """The edited question is asked anew; the tool's answer says what a person changed."""
    handler = payer(guard, world, "ann", allow_edit=True).run(user_msg="hello")
    (question,) = await until_asked(handler)
    handler.ctx.send_event(yes(question, decision="edit", edits={"amount": 70}))
    (edited,) = await until_asked(handler)
    assert (edited["generation"], edited["arguments"]["amount"]) == (2, 70)
    handler.ctx.send_event(yes(question))  # an answer to what was asked before
    (again,) = await until_asked(handler)
    assert "was edited meanwhile" in again["problem"]
    handler.ctx.send_event(yes(edited, by="erin"))
    ((is_error, text),) = answers(await handler)
    assert (world.effects, is_error) == (["ann 70"], False)
    assert text == ('done ann 70\nA person changed the arguments before this ran: {"amount": 70}')


async def test_an_edit_made_elsewhere_is_asked_for_again(guard: Guard, world: World) -> None:
    """A person edits with the command line: the running workflow shows the new question."""
    handler = payer(guard, world, "ann", allow_edit=True).run(user_msg="hello")
    (question,) = await until_asked(handler)
    guard.approvals.decide(question["approval_id"], "edit", by="dana", edits={"amount": 70})
    (edited,) = await until_asked(handler)
    assert (edited["generation"], edited["arguments"]["amount"]) == (2, 70)
    await handler.cancel_run()


async def test_a_rejection_reaches_the_model_with_its_reason(guard: Guard, world: World) -> None:
    """The call never runs; the tool's answer is the error object with the person's words."""
    handler = payer(guard, world, "ann").run(user_msg="hello")
    (question,) = await until_asked(handler)
    handler.ctx.send_event(yes(question, decision="reject", reason="too much"))
    ((is_error, text),) = answers(await handler)
    told = json.loads(text)
    assert (is_error, told["error"], world.effects) == (True, "approval_rejected", [])
    assert "too much" in told["message"]


async def test_a_rejected_call_never_runs_whatever_the_predicate_says_later(
    guard: Guard, world: World
) -> None:
    """The rule's answer is frozen with the question; turning the rule around afterwards is late."""
    rule = {"amount": 50}
    workflow = payer(guard, world, "ann", when=lambda amount: amount > rule["amount"])
    handler = workflow.run(user_msg="hello")
    (question,) = await until_asked(handler)
    rule["amount"] = 1000
    handler.ctx.send_event(yes(question, decision="reject", reason="no"))
    await handler
    assert world.effects == []


async def test_the_workflows_own_question_gets_its_own_answer(guard: Guard, world: World) -> None:
    """A step that asks people itself, before and after a guarded call, is never given a decision."""
    pay = paying(world).real_fn

    class Asking(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            first = await ctx.wait_for_event(
                HumanResponseEvent, waiter_event=Question(prefix="first?"),
                requirements={"to": "first"}, timeout=None,
            )  # fmt: skip
            paid = await pay(to="ann", amount=100)
            second = await ctx.wait_for_event(
                HumanResponseEvent, waiter_event=Question(prefix="second?"),
                requirements={"to": "second"}, timeout=None,
            )  # fmt: skip
            return StopEvent(result=f"{first.response} {paid} {second.response}")

    handler = guard_workflow(Asking(timeout=None), guard).run(run_id="r-1")
    assert (await until_asked(handler))[0]["prefix"] == "first?"
    handler.ctx.send_event(Answer(to="first", response="1"))
    (question,) = await until_asked(handler)
    handler.ctx.send_event(yes(question))
    assert (await until_asked(handler))[0]["prefix"] == "second?"
    handler.ctx.send_event(Answer(to="second", response="2"))
    assert await handler == "1 done ann 100 2"
    assert world.effects == ["ann 100"]


async def test_two_guarded_calls_of_one_step_are_asked_for_one_by_one(
    guard: Guard, world: World
) -> None:
    """The step is executed again after each answer; what is done stays done, restored or not."""
    pay = paying(world).real_fn

    class Paying(Workflow):
        @step
        async def both(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=[await pay(to=name, amount=100) for name in ("ann", "bob")])

    workflow = guard_workflow(Paying(timeout=None), guard)
    handler = workflow.run(run_id="r-1")
    (question,) = await until_asked(handler)
    handler.ctx.send_event(yes(question))
    (question,) = await until_asked(handler)
    assert (question["arguments"]["to"], world.effects) == ("bob", ["ann 100"])
    handler = restored(workflow, await saved(handler))
    handler.ctx.send_event(yes(question))
    assert await handler == ["done ann 100", "done bob 100"]
    assert world.effects == ["ann 100", "bob 100"]


async def test_an_answered_question_leaves_nothing_in_the_context(
    guard: Guard, world: World
) -> None:
    """Once the step has done its work, a saved context knows of no waiter of ours."""
    pay = paying(world).real_fn

    class Paying(Workflow):
        @step
        async def pay(self, ev: StartEvent) -> InputRequiredEvent:
            asked_for: InputRequiredEvent = Question(prefix=await pay(to="ann", amount=100))
            return asked_for

        @step
        async def end(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent()

    handler = guard_workflow(Paying(timeout=None), guard).run()
    (question,) = await until_asked(handler)
    assert question["approval_id"] in json.dumps(handler.ctx.to_dict()["workers"])
    handler.ctx.send_event(yes(question))
    await until_asked(handler)
    assert question["approval_id"] not in json.dumps(handler.ctx.to_dict()["workers"])
    await handler.cancel_run()


async def test_a_workflow_that_is_stopped_while_a_call_waits_is_a_waiting_run(
    guard: Guard, world: World
) -> None:
    """Also if another tool is at work at that moment."""
    entered = asyncio.Event()

    async def hang() -> None:
        """Take long."""
        entered.set()
        await asyncio.Event().wait()

    calls = [*asked("ann"), *call(("hang", {}, "2"))]
    tools = [paying(world), tool(hang)]
    handler = guard_workflow(agent("FunctionAgent", [calls, "done"], tools), guard).run(
        user_msg="hello", run_id="r-1"
    )
    await until_asked(handler)
    await entered.wait()
    await handler.cancel_run()
    assert guard.runs.show("r-1").status == "waiting"


async def test_a_tool_that_is_called_outside_of_a_workflow_cannot_pause(
    guard: Guard, world: World
) -> None:
    """There the error says which approval is waited for, and calling again goes on."""
    pay = paying(world)
    arguments = {"to": "ann", "amount": 100}
    with pytest.raises(ApprovalRequired) as waiting:
        async with guard.run("r", run_id="r-1"):
            await pay.acall(**arguments)
    assert guard.runs.show("r-1").status == "waiting"
    guard.approvals.decide(waiting.value.approval.id, "approve", by="dana")
    async with guard.run("r", run_id="r-1"):
        assert (await pay.acall(**arguments)).content == "done ann 100"


async def test_a_step_of_an_unguarded_workflow_inside_a_tool_does_not_wait_for_ever(
    guard: Guard, world: World
) -> None:
    """Nobody would wake it: the call says what it waits for, which ends the run as waiting."""
    pay = paying(world).real_fn

    class Inner(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await pay(to="ann", amount=100))

    async def delegate() -> str:
        """Have it paid."""
        return str(await Inner(timeout=None).run())

    script = [call(("delegate", {}, "1")), "done"]
    workflow = guard_workflow(agent("FunctionAgent", script, [tool(delegate)]), guard)
    with pytest.raises(ApprovalRequired) as waiting:
        await workflow.run(user_msg="hello", run_id="r-1")
    assert guard.runs.show("r-1").status == "waiting"
    guard.approvals.decide(waiting.value.approval.id, "approve", by="dana")
    await workflow.run(user_msg="hello", run_id="r-1")
    assert world.effects == ["ann 100"]


@pytest.mark.filterwarnings("ignore::workflows.context.state_store.UnserializableKeyWarning")
async def test_a_memory_that_is_lost_with_the_context_repeats_nothing(
    guard: Guard, world: World
) -> None:
    """The restored agent fails for want of its memory, after the effect; with it, it goes on."""

    class Unserialisable(ChatMemoryBuffer):
        """As `Memory` is, which every LlamaIndex user is advised to use."""

        def to_dict(self, **_: Any) -> Any:
            raise TypeError

    workflow, memory = payer(guard, world, "ann"), Unserialisable.from_defaults(token_limit=9999)
    handler = workflow.run(user_msg="hello", memory=memory, run_id="r-1")
    (question,) = await until_asked(handler)
    context = await saved(handler)
    guard.approvals.decide(question["approval_id"], "approve", by="dana")
    with pytest.raises(ValueError, match="memory"):
        await restored(workflow, context)
    assert (world.effects, guard.runs.show("r-1").status) == (["ann 100"], "failed")
    handler = restored(workflow, context)
    await handler.ctx.store.set("memory", memory)
    assert answers(await handler) == [(False, "done ann 100")]
    assert (world.effects, guard.runs.show("r-1").status) == (["ann 100"], "succeeded")


async def test_an_expired_approval_is_told_to_the_model(world: World, tmp_path: Path) -> None:
    """The workflow wakes up when the time is over, and the call has not run."""
    clock = FakeClock()
    guard = Guard(f"sqlite:///{tmp_path}/agentguard.db", clock=clock)
    handler = payer(guard, world, "ann").run(user_msg="hello")
    await until_asked(handler)
    clock.advance(days=8)
    ((is_error, text),) = answers(await handler)
    guard.close()
    assert (is_error, json.loads(text)["error"], world.effects) == (True, "approval_expired", [])


async def test_a_step_that_is_retried_after_an_approval_asks_nobody_again(
    guard: Guard, world: World
) -> None:
    """The approval was used for the one effect; what fails after it is tried again without it."""
    pay, attempts = paying(world).real_fn, []

    class Failing(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(3)))
        async def work(self, ev: StartEvent) -> StopEvent:
            paid = await pay(to="ann", amount=100)
            attempts.append(1)
            if len(attempts) < 3:
                raise ConnectionError
            return StopEvent(result=paid)

    handler = guard_workflow(Failing(timeout=None), guard).run(run_id="r-1")
    (question,) = await until_asked(handler)
    handler.ctx.send_event(yes(question))
    assert await handler == "done ann 100"
    assert (len(attempts), world.effects) == (3, ["ann 100"])
