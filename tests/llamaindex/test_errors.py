"""What goes wrong is told to the model, or to the caller, and repeated by nobody."""

from __future__ import annotations

import json
from typing import Any

import pytest
from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent
from workflows.retry_policy import retry_policy, stop_after_attempt, wait_fixed

from agentguard import (
    BudgetExceeded,
    ContractViolation,
    EffectInDoubt,
    Guard,
    Happened,
    NoEffect,
    NotHappened,
    Retry,
    RunHalted,
    budget,
    idempotent,
    tool_contract,
)
from agentguard_llamaindex import guard_workflow
from tests.llamaindex.world import KINDS, agent, answers, call, tool
from tests.support import World

AGAIN = retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(3))


def paying(world: World, *, asynchronous: bool, error: Exception | None = None) -> Any:
    """A tool that may fail after it has paid."""

    def pay(to: str, amount: int) -> str:
        """Pay."""
        done = world.happen(f"{to} {amount}")
        if error:
            raise error
        return done

    async def apay(to: str, amount: int) -> str:
        """Pay."""
        return pay(to, amount)

    function: Any = apay if asynchronous else pay
    return tool_contract(effect="write", name="pay")(idempotent(key="pay:{to}")(function))


async def told(guard: Guard, kind: str, script: list[Any], pay: Any, **budget_: Any) -> Any:
    """What the tools of an agent's run answered."""
    workflow = guard_workflow(agent(kind, [*script, "done"], [tool(pay, name="pay")]), guard)
    return answers(await workflow.run(user_msg="hello", run_id="r-1"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_contract_violation_tells_the_model_what_to_correct(
    guard: Guard, world: World, kind: str, *, asynchronous: bool
) -> None:
    """LlamaIndex checks no arguments; the guard does, and its error object is the tool's answer."""
    pay = paying(world, asynchronous=asynchronous)
    wrong, right = ({"to": "ann", "amount": "much"}, {"to": "ann", "amount": "3"})
    script = [call(("pay", wrong, "1")), call(("pay", right, "2"))]
    (first, second) = await told(guard, kind, script, pay)
    error = json.loads(first[1])
    assert (first[0], error["error"], error["retryable"]) == (True, "contract_violation", False)
    assert "amount" in error["message"]
    assert second == (False, "done ann 3")
    assert world.effects == ["ann 3"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_doubt_is_told_to_the_model_and_never_repeated(
    guard: Guard, world: World, kind: str, *, asynchronous: bool
) -> None:
    """The model asks again and gets the doubt again; the effect happened once and is listed."""
    pay = paying(world, asynchronous=asynchronous, error=ConnectionError("secret-host"))
    again = (
        call(("pay", {"to": "ann", "amount": 3}, "1")),
        call(("pay", {"to": "ann", "amount": 3}, "2")),
    )
    first, second = await told(guard, kind, list(again), pay)
    for is_error, text in (first, second):
        assert (is_error, json.loads(text)["error"]) == (True, "effect_in_doubt")
        assert "secret-host" not in text
    assert world.effects == ["ann 3"]
    assert [effect.state.value for effect in guard.effects.list("in_doubt")] == ["in_doubt"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_error_that_halts_ends_the_run_for_the_caller(
    guard: Guard, world: World, kind: str, *, asynchronous: bool
) -> None:
    """The model is not asked again; the caller gets the error, and the stream its last event."""
    pay = budget(max_calls=1)(paying(world, asynchronous=asynchronous))
    calls = [call(("pay", {"to": name, "amount": 3}, name)) for name in ("ann", "bob", "eve")]
    workflow = guard_workflow(agent(kind, [*calls, "done"], [tool(pay, name="pay")]), guard)
    handler = workflow.run(user_msg="hello", run_id="r-1")
    assert [type(e).__name__ async for e in handler.stream_events()][-1] == "WorkflowFailedEvent"
    with pytest.raises(BudgetExceeded, match="pay"):
        await handler
    run = guard.runs.show("r-1")
    assert (run.status, run.model_calls, world.effects) == ("failed", 2, ["ann 3"])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_kill_switch_stops_the_agent(guard: Guard, world: World, kind: str) -> None:
    """An operator's switch reaches the caller, not the model."""
    guard.kill(tool="pay", by="dana", reason="incident 7")
    with pytest.raises(RunHalted, match="incident 7"):
        await told(
            guard, kind, [call(("pay", {"to": "ann", "amount": 3}, "1"))],
            paying(world, asynchronous=True),
        )  # fmt: skip
    assert world.effects == []


async def test_an_error_of_an_unguarded_tool_is_told_as_before(guard: Guard) -> None:
    """What LlamaIndex does with a tool's own errors stays as it is."""

    async def look() -> str:
        """Look."""
        raise KeyError("nothing")

    script = [call(("look", {}, "1")), call(("away", {}, "2")), "done"]
    workflow = guard_workflow(agent("FunctionAgent", script, [tool(look)]), guard)
    first, second = answers(await workflow.run(user_msg="hello"))
    assert first == (True, "'nothing'")
    assert second[0]
    assert "not found" in second[1]


class Flaky(Workflow):
    """A step that pays and may be tried again."""

    def __init__(self, pay: Any, attempts: list[int]) -> None:
        super().__init__(timeout=None)
        self.pay, self.attempts = pay, attempts

    @step(retry_policy=AGAIN)
    async def work(self, ev: StartEvent) -> StopEvent:
        """Pay, and fail twice afterwards."""
        self.attempts.append(1)
        paid = await self.pay("ann", 3)
        if len(self.attempts) < 3:
            raise ConnectionError
        return StopEvent(result=paid)


@pytest.mark.parametrize(("kind", "times"), [("bare", 3), ("guarded", 1)])
async def test_a_retried_step_repeats_no_write(
    guard: Guard, world: World, kind: str, times: int
) -> None:
    """The step is executed three times, the bare effect as well, the guarded one once."""

    async def bare(to: str, amount: int) -> str:
        return world.happen(f"{to} {amount}")

    pay = bare if kind == "bare" else paying(world, asynchronous=True)
    attempts: list[int] = []
    assert await guard_workflow(Flaky(pay, attempts), guard).run() == "done ann 3"
    assert (len(attempts), world.effects) == (3, ["ann 3"] * times)


async def test_a_retried_step_makes_the_calls_that_may_repeat_once(
    guard: Guard, world: World
) -> None:
    """Attempts of one step are one place; equal calls in one attempt are not one call."""
    attempts: list[int] = []

    @tool_contract(effect="write")
    @idempotent(per="call")
    async def add(to: str, amount: int) -> str:
        return world.happen(f"{to} {amount}")

    async def twice(to: str, amount: int) -> str:
        return f"{await add(to, amount)}, {await add(to, amount)}"

    await guard_workflow(Flaky(twice, attempts), guard).run()
    assert (len(attempts), world.effects) == (3, ["ann 3"] * 2)


async def test_a_refusal_is_not_tried_again(guard: Guard, world: World) -> None:
    """A step's retry policy leaves refusals and doubts alone: they would be the same again."""
    for pay, kind in (
        (paying(world, asynchronous=True, error=ConnectionError()), EffectInDoubt),
        (tool_contract(effect="read")(lambda to, amount: amount.missing), AttributeError),
    ):
        attempts: list[int] = []

        async def called(to: str, amount: int, *, pay: Any = pay) -> Any:
            answer = pay(to, amount)
            return answer if isinstance(answer, str) else await answer

        with pytest.raises(kind):
            await guard_workflow(Flaky(called, attempts), guard).run()
        assert len(attempts) == (1 if kind is EffectInDoubt else 3)
    assert world.effects == ["ann 3"]


async def test_a_refused_argument_in_a_step_fails_it_at_once(guard: Guard, world: World) -> None:
    """The error is the step's, as it is, and the workflow's caller gets it."""
    attempts: list[int] = []

    async def wrong(to: str, amount: int) -> Any:
        return await paying(world, asynchronous=True)(to, "much")

    with pytest.raises(ContractViolation, match="amount"):
        await guard_workflow(Flaky(wrong, attempts), guard).run()
    assert (len(attempts), world.effects) == (1, [])


async def test_what_the_tool_declares_harmless_is_tried_again_by_the_guard(
    guard: Guard, world: World
) -> None:
    """The guard's own retries happen inside one call of the model, which never hears of them."""
    failures = [ConnectionError(), NoEffect()]

    @tool_contract(effect="write", retry=Retry(attempts=3, on=(ConnectionError,), wait=0))
    @idempotent(key="pay:{to}")
    async def pay(to: str, amount: int) -> str:
        """Pay."""
        if failures:
            raise failures.pop()
        return world.happen(f"{to} {amount}")

    script = [call(("pay", {"to": "ann", "amount": 3}, "1"))]
    assert await told(guard, "FunctionAgent", script, pay) == [(False, "done ann 3")]
    assert world.effects == ["ann 3"]


async def test_a_reconcile_hook_answers_for_a_retried_step(guard: Guard, world: World) -> None:
    """The answer got lost; the step is tried again, and the hook knows that it happened."""
    lost = [True]

    def look(call_: Any) -> Happened | NotHappened:
        return Happened("found") if world.effects else NotHappened()

    @tool_contract(effect="write")
    @idempotent(key="pay:{to}", reconcile=look, on_doubt="reconcile")
    async def pay(to: str, amount: int) -> str:
        """Pay."""
        world.happen(f"{to} {amount}")
        if lost.pop():
            raise ConnectionError
        return "paid"

    assert await told(
        guard, "FunctionAgent", [call(("pay", {"to": "ann", "amount": 3}, "1"))], pay
    ) == [(False, "found")]
    assert world.effects == ["ann 3"]
