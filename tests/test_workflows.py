"""Workflows: each call of a function is a run, under the budget that stands on the function."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from agentguard import (
    BudgetExceeded,
    ConfigurationError,
    ContractViolation,
    Guard,
    Principal,
    budget,
    current_run,
    idempotent,
    tool_contract,
    verified_by,
    workflow,
)
from agentguard.guard import override


@pytest.fixture(name="guard", autouse=True)
def the_configured_guard() -> Iterator[Guard]:
    """Make a guard whose store lives as long as the test the configured one."""
    with override(Guard("memory://")) as guard:
        yield guard
    guard.close()


@tool_contract(effect="read")
def look_up(ticket: str) -> str:
    """Return a ticket."""
    return ticket


def test_each_call_is_a_run(guard: Guard) -> None:
    """A call runs inside a run of the workflow, named after the function, and ends it."""

    @workflow
    def triage(ticket: str) -> str:
        return f"{current_run().workflow} {look_up(ticket)}"

    assert [triage("T-1"), triage("T-2")] == ["triage T-1", "triage T-2"]
    assert [(r.workflow, r.status, r.steps) for r in guard.runs.list()] == [
        ("triage", "succeeded", 1)
    ] * 2


async def test_an_async_function_is_a_workflow_too(guard: Guard) -> None:
    """An async function is awaited inside its run."""

    @workflow("refunds", run_id="r-{ticket}")
    async def refund(ticket: str) -> str:
        return f"{current_run().id} {look_up(ticket)}"

    assert await refund("T-1") == "r-T-1 T-1"
    assert guard.runs.show("r-T-1").workflow == "refunds"


def test_a_failing_call_fails_its_run(guard: Guard) -> None:
    """What the function raises reaches the caller, and the run is failed."""

    @workflow(run_id="{ticket}")
    def triage(ticket: str) -> None:
        raise ValueError(ticket)

    with pytest.raises(ValueError, match="T-1"):
        triage("T-1")
    assert guard.runs.show("T-1").status == "failed"


def test_the_same_arguments_go_on_in_the_same_run(guard: Guard) -> None:
    """With a run id over the arguments a second call resumes, and nothing happens twice."""
    paid: list[str] = []

    @tool_contract(effect="write")
    @idempotent(key="{ticket}")
    def pay(ticket: str) -> str:
        paid.append(ticket)
        return ticket

    @workflow(run_id="refund-{ticket}-{number}")
    def refund(ticket: str, number: int = 1) -> str:
        return pay(ticket)

    assert [refund("T-1"), refund(ticket="T-1")] == ["T-1", "T-1"]
    assert paid == ["T-1"]
    assert guard.runs.show("refund-T-1-1").part == 2


def test_a_guard_and_a_principal_of_its_own() -> None:
    """`guard=` says where the runs are, `principal=` who acts, by the arguments if need be."""
    own = Guard("memory://")

    @workflow(guard=own, run_id="{ticket}", principal=lambda ticket: Principal(tenant=ticket[0]))
    def triage(ticket: str) -> str:
        return current_run().principal.tenant

    assert triage("A-1") == "A"
    assert own.runs.show("A-1").tenant == "A"
    own.close()


def test_a_method_is_a_workflow(guard: Guard) -> None:
    """A method's receiver is no part of its run's id."""

    class Desk:
        name = "desk"

        @workflow(run_id="{ticket}")
        def triage(self, ticket: str) -> str:
            return f"{self.name} {current_run().id}"

    assert Desk().triage("T-1") == "desk T-1"
    assert Desk.triage(Desk(), "T-2") == "desk T-2"


BUDGETED: list[Any] = [
    lambda f: workflow(run_id="{ticket}")(budget(max_steps=2, max_spend_usd="0.40")(f)),
    lambda f: budget(max_steps=2, max_spend_usd="0.40")(workflow(run_id="{ticket}")(f)),
]


@pytest.mark.parametrize("decorate", BUDGETED, ids=["workflow above", "budget above"])
def test_a_budget_on_a_workflow_limits_its_runs(guard: Guard, decorate: Any) -> None:
    """The limits are the run's, whichever decorator stands above the other."""

    def triage(ticket: str) -> list[str]:
        return [look_up(f"{ticket}-{n}") for n in range(3)]

    with pytest.raises(BudgetExceeded, match="max_steps is 2"):
        decorate(triage)("T-1")
    limits = guard.runs.show("T-1").limits
    assert (limits.max_steps, limits.max_spend) == (2, 400_000_000)


ORDERS = [
    lambda f: workflow(budget(max_spend_usd="0.40")(f)),
    lambda f: budget(max_spend_usd=Decimal("0.40"))(workflow(f)),
]


@pytest.mark.parametrize("decorate", ORDERS, ids=["workflow above", "budget above"])
def test_money_alone_limits_a_workflow(guard: Guard, decorate: Any) -> None:
    """`max_spend_usd` without a cost is the run's where the function is a workflow."""

    def triage() -> int | None:
        return current_run().limits.max_spend

    assert decorate(triage)() == 400_000_000


def test_every_limit_of_a_run_stands_on_a_workflow() -> None:
    """All limits that `Guard.run` takes can be declared."""

    @workflow
    @budget(
        max_steps=1, max_model_calls=2, max_tool_calls=3, max_seconds=4.5, max_repeats=5, loops=6
    )
    def triage() -> Any:
        return current_run().limits

    found = triage()
    assert (found.max_steps, found.max_model_calls, found.max_tool_calls) == (1, 2, 3)
    assert (found.max_seconds, found.max_repeats, found.loops) == (4.5, 5, 6)


def test_loops_can_be_let_go_on() -> None:
    """`loops="off"` on a workflow is that of its runs."""

    @workflow
    @budget(loops="off")
    def triage() -> Any:
        return current_run().limits.loops

    assert triage() == 0


def ends(ticket: str) -> str:
    """Do nothing."""
    return ticket


@pytest.mark.parametrize(
    ("decorate", "says"),
    [
        (lambda: workflow(workflow(ends)), "workflow is declared twice"),
        (lambda: budget(max_steps=1)(budget(max_steps=2)(ends)), "budget is declared twice"),
        (lambda: workflow(tool_contract(effect="read")(ends)), "contract is for tools"),
        (lambda: tool_contract(effect="read")(workflow(ends)), "contract is for tools"),
        (lambda: workflow(verified_by(lambda *_: True)(ends)), "verification is for tools"),
        (lambda: workflow(budget(max_calls=1)(ends)), "max_calls, cost and per are for tools"),
        (lambda: budget(cost="0.1")(workflow(ends)), "max_calls, cost and per are for tools"),
        (lambda: budget(max_steps=1, max_calls=1)(ends), "put each on the function that it is for"),
        (lambda: budget(max_steps=1, per="day")(ends), "per is for a tool and max_steps for a"),
        (lambda: budget(max_steps=-1)(ends), "max_steps=-1 is not a number from 0"),
        (lambda: budget(max_steps=True)(ends), "max_steps=True is not a number from 0"),
        (lambda: budget(max_steps=1, max_spend_usd="x")(ends), "'x' is not an amount"),
        (lambda: budget(max_steps=1)(tool_contract(effect="read")(ends)), "limits a run"),
        (lambda: tool_contract(effect="read")(budget(max_steps=1)(ends)), "limits a run"),
        (lambda: workflow(run_id="{order}")(ends), "names 'order', which is none of its arguments"),
        (lambda: workflow(run_id="fixed")(ends), "names no argument"),
        (lambda: workflow(run_id="{ticket.id}")(ends), "more than names of arguments"),
        (lambda: workflow(run_id="{ticket")(ends), "is no template"),
        (lambda: workflow(" ")(ends), "is not a name"),
    ],
)
def test_a_workflow_that_contradicts_itself_is_refused(decorate: Any, says: str) -> None:
    """What cannot stand together is refused where it stands, with the sentence that mends it."""
    with pytest.raises(ConfigurationError, match=says):
        decorate()


@pytest.mark.parametrize("value", [None, "", " ", True, ["T-1"], 1.5])
def test_a_run_is_named_by_texts_and_numbers_only(value: Any) -> None:
    """An argument that cannot name a run is refused before anything happens."""

    @workflow(run_id="r-{ticket}")
    def triage(ticket: Any) -> None:
        raise AssertionError(ticket)

    with pytest.raises(ContractViolation, match="its run is named by ticket"):
        triage(value)


@pytest.mark.parametrize("value", ["T-1", 7, Decimal("7.5"), UUID(int=7)])
def test_a_run_may_be_named_by_an_id(value: Any) -> None:
    """Texts, numbers and UUIDs name runs."""

    @workflow(run_id="r-{ticket}")
    def triage(ticket: Any) -> str:
        del ticket
        return current_run().id

    assert triage(value) == f"r-{value}"


def test_a_workflow_is_no_tool(guard: Guard) -> None:
    """Who checks a workflow among tools is told what it is."""

    @workflow
    def triage() -> None:
        """Do nothing."""

    assert "triage" in guard.check([triage])[0]


def test_a_workflow_inside_another_is_a_run_of_its_own(guard: Guard) -> None:
    """A workflow that calls a workflow has two runs."""

    @workflow(run_id="inner-{ticket}")
    def inner(ticket: str) -> str:
        return current_run().id

    @workflow(run_id="outer-{ticket}")
    def outer(ticket: str) -> tuple[str, str]:
        return inner(ticket), current_run().id

    assert outer("T-1") == ("inner-T-1", "outer-T-1")
