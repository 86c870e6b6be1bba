"""Costs of everything: model, tools, retrieval, second attempts and people's time, in one budget."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentguard import (
    ApprovalRequired,
    BudgetExceeded,
    ConfigurationError,
    EffectInDoubt,
    Guard,
    GuardError,
    NoEffect,
    Retry,
    VerificationFailed,
    budget,
    compensated_by,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.config import loads
from agentguard.hosting import guarded_retrieval
from agentguard.record import Costs, costs_of, fold
from tests import isolated_tools

PEOPLE = """agent_run:
  costs: {human_usd_per_hour: 60, minutes_per_decision: 2.5}
"""


@pytest.fixture(name="guard")
def guard_of_a_file(tmp_path: Path) -> Iterator[Guard]:
    """Open a store under a configuration that says what people's time costs."""
    store = f"sqlite:///{tmp_path / 'store.db'}"
    guard = Guard(store, config=loads(PEOPLE), prices={"fast": ("1", "2")})
    yield guard
    guard.close()


@tool_contract(effect="write")
@idempotent(key="{ticket}")
@requires_approval(quorum=2)
def pay(ticket: str) -> str:
    """Pay, once two people agree."""
    return ticket


@tool_contract(effect="write", retry=Retry(attempts=3, wait=0.0))
@idempotent(per="call")
@budget(cost="0.25")
def flaky(failures: int) -> int:
    """Fail so often, then work; each try is paid for at another place."""
    run = current_run()
    run.add_cost("tool", "0.01", note="a try")
    if run.call.attempt <= failures:
        raise NoEffect("busy")
    return failures


def fee(*_given: Any) -> bool:
    """Pay a fee of three cents, and say yes."""
    current_run().add_cost("tool", "0.03")
    return True


def take_back(_result: Any, ticket: str) -> None:
    """Take a booking back, which costs a dime; a model is asked how."""
    run = current_run()
    run.add_cost("tool", "0.10", note=ticket)
    call = run.model_started(model="fast", messages=["how?"])
    run.model_finished(call, output="so", input_tokens=1_000_000)


@tool_contract(effect="write")
@idempotent(key="{ticket}")
@compensated_by(take_back, verified_by=fee)
def book(ticket: str) -> str:
    """Book something."""
    return ticket


def costs(guard: Guard, run_id: str) -> Costs:
    """Read what a run cost."""
    return costs_of(guard.runs.events(run_id))


def total(found: Costs) -> Decimal:
    """Add everything up."""
    parts = (found.model, found.tool, found.retrieval, found.retry, found.human, found.other)
    return sum(parts, Decimal(0))


def everything(guard: Guard) -> None:
    """Make a run that costs something of every kind."""
    search: Any = guarded_retrieval(
        guard, lambda query: [query], name="search", documents=lambda _found: [], cost="0.002"
    )
    with guard.run("answer", run_id="r-1") as run:
        call = run.model_started(model="fast", messages=["hello"])
        run.model_finished(call, output="hi", input_tokens=1_000, output_tokens=500)
        search(query="refunds")
        flaky(2)
        run.add_cost("retrieval", Decimal("0.003"), note="the vector store")
        run.add_cost("other", 1)
        run.add_human_minutes(3, by="dana")


def test_costs_are_told_apart(guard: Guard) -> None:
    """A run's cost splits by what it was for; second attempts stand apart."""
    everything(guard)
    found = costs(guard, "r-1")
    assert (found.model, found.retrieval, found.other) == (
        Decimal("0.002"), Decimal("0.005"), Decimal("1.00"),
    )  # fmt: skip
    assert (found.tool, found.retry) == (Decimal("0.01"), Decimal("0.27"))
    assert (found.human, found.human_minutes) == (Decimal("3.00"), Decimal(3))


def test_the_parts_are_the_whole(guard: Guard) -> None:
    """What is told apart adds up to what the run has spent."""
    everything(guard)
    assert total(costs(guard, "r-1")) == guard.runs.show("r-1").spent_usd


def test_a_cost_that_is_spent_closes_the_budget(guard: Guard) -> None:
    """What was paid already is recorded over the limit, and the next call does not start."""
    with guard.run("answer", run_id="r-1", max_spend_usd="0.50") as run:
        run.add_cost("other", "0.75")
        assert run.usage.spent == 750_000_000
        with pytest.raises(BudgetExceeded, match=r"max_spend_usd is 0.50 and 0.75 is used"):
            flaky(0)


def test_a_cost_ahead_is_refused_where_there_is_no_room(guard: Guard) -> None:
    """What is not spent yet is refused over the limit, counted nowhere, and that is on record."""
    with guard.run("answer", run_id="r-1", max_spend_usd="0.50") as run:
        run.add_cost("tool", "0.30", ahead=True)
        with pytest.raises(BudgetExceeded):
            run.add_cost("tool", "0.30", ahead=True)
    assert guard.runs.show("r-1").spent_usd == Decimal("0.30")
    assert "budget.exceeded" in [event.kind for event in guard.runs.events("r-1")]


def test_people_who_decide_cost_their_time(guard: Guard) -> None:
    """Each decision counts, in its transaction, as configured; a note says whose time it was."""
    with guard.run("answer", run_id="r-1"), pytest.raises(ApprovalRequired) as waiting:
        pay("T-1")
    for person in ("ann", "bob"):
        guard.approvals.decide(waiting.value.approval.id, "approve", by=person)
    found = costs(guard, "r-1")
    assert (found.human, found.human_minutes) == (Decimal("5.00"), Decimal(5))
    added = [event for event in guard.runs.events("r-1") if event.kind == "cost.added"]
    assert [(event.actor, event.data["by"]) for event in added] == [
        ("person:ann", "ann"), ("person:bob", "bob"),
    ]  # fmt: skip


def test_a_decision_from_elsewhere_costs_the_same(guard: Guard, tmp_path: Path) -> None:
    """Who decides through a guard without that configuration, such as the command line, counts too."""
    with guard.run("answer", run_id="r-1"), pytest.raises(ApprovalRequired) as waiting:
        pay("T-1")
    other = Guard(f"sqlite:///{tmp_path / 'store.db'}")
    other.approvals.decide(waiting.value.approval.id, "reject", by="ann", reason="no")
    other.close()
    assert costs(guard, "r-1").human == Decimal("2.50")


def test_money_never_stops_a_decision(guard: Guard) -> None:
    """A decision is taken though the run has spent everything."""
    with guard.run("answer", run_id="r-1", max_spend_usd=1) as run:
        with pytest.raises(ApprovalRequired) as waiting:
            pay("T-1")
        run.add_cost("other", 1)
    for person in ("ann", "bob"):
        decided = guard.approvals.decide(waiting.value.approval.id, "approve", by=person)
    assert decided.status == "approved"
    assert guard.runs.show("r-1").spent_usd == 6


def test_a_refused_decision_costs_nothing(guard: Guard) -> None:
    """Who may not decide has not decided."""
    with guard.run("answer", run_id="r-1"), pytest.raises(ApprovalRequired) as waiting:
        pay("T-1")
    with pytest.raises(Exception, match="may not decide"):
        guard.approvals.decide(waiting.value.approval.id, "approve", by="agent")
    assert costs(guard, "r-1").human == 0


def test_time_without_a_price_is_unknown_not_free() -> None:
    """Minutes without a rate stand in the record and make the cost incomplete."""
    guard = Guard("memory://")
    with guard.run("answer", run_id="r-1") as run:
        run.add_human_minutes("1.5", by="dana")
    shown, found = guard.runs.show("r-1"), costs(guard, "r-1")
    guard.close()
    assert not shown.cost_complete
    assert shown.spent_usd == 0
    assert (found.human_minutes, found.unknown) == (Decimal("1.5"), ("human",))


def test_a_cost_in_a_body_belongs_to_its_step(guard: Guard) -> None:
    """What a tool adds while it runs stands on its step."""
    with guard.run("answer", run_id="r-1"):
        flaky(0)
    assert fold(guard.runs.events("r-1"))[0].cost_usd == Decimal("0.26")


def test_an_undo_in_a_rollback_tells_its_costs(guard: Guard) -> None:
    """What undoing costs is paid by the run that is rolled back, beside what that had spent."""
    with guard.run("answer", run_id="r-1", max_spend_usd="0.50", max_model_calls=1) as run:
        book("T-1")
        run.add_cost("other", "0.50")
    with guard.run("answer", run_id="r-2"):
        (found,) = guard.rollback("r-1", tools=[book], by="dana", reason="wrong").effects
    assert (found.what, found.detail) == ("undone", "")
    assert guard.runs.show("r-1").spent_usd == Decimal("1.63")
    assert guard.runs.show("r-2").spent_usd == 0
    added = [e for e in guard.runs.events("r-1") if e.kind == "cost.added"][1:]
    assert [(e.step, e.actor, e.data["nanos"]) for e in added] == [
        (2, "person:dana", 100_000_000), (None, "person:dana", 30_000_000),
    ]  # fmt: skip


@pytest.mark.parametrize("ends", ["returns", "raises", "dies"])
def test_a_tool_in_a_process_of_its_own_tells_its_costs(guard: Guard, ends: str) -> None:
    """However its process ends, what it has told is counted for its step."""
    with guard.run("answer", run_id="r-1"), contextlib.suppress(NoEffect, EffectInDoubt):
        isolated_tools.paid("T-1", ends)
    assert fold(guard.runs.events("r-1"))[0].cost_usd == Decimal("0.30")
    assert guard.runs.show("r-1").spent_usd == Decimal("0.30")
    (one, two) = [e for e in guard.runs.events("r-1") if e.kind == "cost.added"]
    assert (one.content, two.data["kind"]) == ({"note": "first"}, "retrieval")


@pytest.mark.parametrize("what", ["ahead", "people"])
def test_what_another_process_cannot_count_is_refused_there(guard: Guard, what: str) -> None:
    """Room for what is not spent yet, and rates of people, are known to the owner alone."""
    with pytest.raises(NoEffect, match=r"it has no \.add_"), guard.run("answer", run_id="r-1"):
        isolated_tools.paid("T-1", what)
    assert guard.runs.show("r-1").spent_usd == 0


SAYS = {"T-yes": True, "T-no": False}


@tool_contract(effect="write")
@idempotent(key="{ticket}", same_database=True)
@verified_by(lambda arguments, _result: fee() and SAYS[arguments["ticket"]])
def note_down(ticket: str, ends: str) -> str:
    """Write beside the record; the paper costs a dime."""
    current_run().add_cost("tool", "0.10", ahead=ends == "asks")
    current_run().call.connection.execute("INSERT INTO notes VALUES (?)", (ticket,))
    if ends == "raises":
        raise ValueError(ticket)
    return ticket


@pytest.mark.parametrize(
    ("ticket", "ends", "costs_usd", "stands"),
    [
        ("T-yes", "returns", "0.13", True), ("T-no", "returns", "0.13", False),
        ("T-yes", "raises", "0.10", False), ("T-yes", "asks", "0.00", False),
    ],
)  # fmt: skip
def test_what_is_spent_in_the_stores_transaction_is_spent(
    guard: Guard, tmp_path: Path, ticket: str, ends: str, costs_usd: str, *, stands: bool
) -> None:
    """What body and verifier of such a tool pay is counted, whether its writes stand or not."""
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("CREATE TABLE notes (ticket TEXT)")
    run = guard.run("answer", run_id="r-1")
    with contextlib.suppress(GuardError, ValueError), run:
        note_down(ticket, ends)
    known = run.usage.spent / Decimal(10**9)
    assert (guard.runs.show("r-1").spent_usd, known) == (Decimal(costs_usd), Decimal(costs_usd))
    with sqlite3.connect(tmp_path / "store.db") as connection:
        assert bool(connection.execute("SELECT * FROM notes").fetchall()) is stands


def ask_about(_run: Any, _effects: Any) -> bool:
    """Ask a model about a run as a whole."""
    run = current_run()
    call = run.model_started(model="fast", messages=["well?"])
    run.model_finished(call, output="yes", input_tokens=1_000_000)
    return fee()


def test_verifying_a_run_as_a_whole_is_paid_by_it(guard: Guard) -> None:
    """What its verifiers spend and ask of models is its own, and held against its budget."""
    with guard.run("answer", run_id="r-1", verified_by=ask_about):
        pass
    (called,) = [e.data for e in guard.runs.events("r-1") if e.kind == "model.called"]
    assert called["verifier"] == "ask_about"
    assert guard.runs.show("r-1").spent_usd == Decimal("1.03")
    run = guard.run("answer", run_id="r-2", verified_by=ask_about, max_model_calls=0)
    with pytest.raises(VerificationFailed, match="max_model_calls"), run:
        pass
    assert guard.runs.show("r-2").status == "failed"


def test_notes_can_be_erased(guard: Guard) -> None:
    """A note stands beside the chain, not in it."""
    with guard.run("answer", run_id="r-1") as run:
        run.add_cost("other", 1, note="lunch with kim")
    (event,) = [event for event in guard.runs.events("r-1") if event.kind == "cost.added"]
    assert event.content == {"note": "lunch with kim"}
    assert "kim" not in str(event.data)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda run: run.add_cost("lunch", 1), "there is no kind 'lunch'"),
        (lambda run: run.add_cost("other", "much"), "'much' is not an amount"),
        (lambda run: run.add_cost("other", -1), "is not between 0 and"),
        (lambda run: run.add_human_minutes("long", by="dana"), "'long' is not a number of minutes"),
        (lambda run: run.add_human_minutes(-1, by="dana"), "-1 is not a number of minutes"),
        (lambda run: run.add_human_minutes(True, by="dana"), "True is not a number of minutes"),
        (lambda run: run.add_human_minutes(1, by=" "), "whose time was it"),
    ],
)
def test_a_cost_that_is_none_is_refused(guard: Guard, call: Any, says: str) -> None:
    """What cannot be counted is refused with the sentence that mends it."""
    with guard.run("answer") as run, pytest.raises(ConfigurationError, match=says):
        call(run)


def test_a_run_that_is_not_entered_costs_nothing(guard: Guard) -> None:
    """A cost belongs to the record, and that begins when the run is entered."""
    with pytest.raises(ConfigurationError, match="is not entered yet"):
        guard.run("answer").add_cost("other", 1)


async def test_costs_on_an_event_loop(guard: Guard) -> None:
    """`aadd_cost` and `aadd_human_minutes` count the same without blocking the loop."""
    async with guard.run("answer", run_id="r-1") as run:
        await run.aadd_cost("other", "0.10")
        await run.aadd_human_minutes(1, by="dana")
    assert guard.runs.show("r-1").spent_usd == Decimal("1.10")


def test_decisions_cost_the_same_on_a_server(postgres_url: str) -> None:
    """On PostgreSQL, too, a decision and its cost are one transaction."""
    guard = Guard(postgres_url, config=loads(PEOPLE))
    with guard.run("answer", run_id="r-1") as run:
        run.add_cost("other", "0.50")
        with pytest.raises(ApprovalRequired) as waiting:
            pay("T-1")
    guard.approvals.decide(waiting.value.approval.id, "approve", by="ann")
    found = costs(guard, "r-1")
    spent = guard.runs.show("r-1").spent_usd
    guard.close()
    assert (found.human, spent) == (Decimal("2.50"), Decimal("3.00"))
