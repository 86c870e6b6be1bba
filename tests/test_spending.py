"""What workflows spend: work, rework and waiting add up, and a success costs what all runs cost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard import (
    ApprovalRequired,
    ConfigurationError,
    Guard,
    GuardError,
    NoEffect,
    Principal,
    Retry,
    Verdict,
    budget,
    compensated_by,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.caching import cached
from agentguard.config import loads
from agentguard.ledger.spent import runs_of
from agentguard.protocols import Tx
from agentguard.record import Spending, costs_of, named, runs_that_spent, spent
from agentguard.testing import FakeClock

PEOPLE = "agent_run:\n  costs: {human_usd_per_hour: 60, minutes_per_decision: 2}\n"
PRICES = {"m": ("1", "2", "0.10"), "judge": ("10", "10")}


def usd(text: str) -> Decimal:
    """An amount as the record has it."""
    return Decimal(text)


@pytest.fixture(name="clock")
def a_clock() -> FakeClock:
    """Time that a test moves."""
    return FakeClock()


@pytest.fixture(name="guard")
def guard_with_prices(clock: FakeClock) -> Iterator[Guard]:
    """A guard that knows what models and people cost."""
    guard = Guard("memory://", config=loads(PEOPLE), prices=PRICES, clock=clock)
    yield guard
    guard.close()


def ask(model: str = "m", tokens: int = 1_000_000, answer: int = 0, **more: Any) -> None:
    """Ask a model; a million tokens of `m` cost one dollar."""
    run = current_run()
    call = run.model_started(model=model, messages=["?"])
    run.model_finished(call, output="!", input_tokens=tokens, output_tokens=answer, **more)


VERDICTS: dict[str, bool] = {}
UNDONE: list[str] = []


def judged(arguments: dict[str, Any], _result: Any) -> Verdict:
    """Say what the test wants to be said of this order."""
    return Verdict(passed=VERDICTS.get(arguments["order"], True), reason="looked")


def take_back(_result: Any, order: str) -> None:
    """Cancel an order."""
    UNDONE.append(order)


def cancel(_result: Any, order: str) -> None:
    """Cancel an order, which costs five cents, unless it is shipped."""
    if order == "shipped":
        raise NoEffect("it is on its way")
    UNDONE.append(order)
    current_run().add_cost("tool", "0.05")


@tool_contract(effect="write")
@idempotent(key="{order}")
@budget(cost="0.50")
@verified_by(judged)
@compensated_by(take_back, when="rollback_only")
def place(order: str) -> str:
    """Place an order for half a dollar."""
    return order


@tool_contract(effect="write")
@idempotent(key="{order}")
@budget(cost="0.50")
@verified_by(judged)
@compensated_by(cancel)
def place_or_cancel(order: str) -> str:
    """Place an order for half a dollar; a no cancels it."""
    return order


@tool_contract(effect="write", retry=Retry(attempts=3, wait=0.0))
@idempotent(per="call")
@budget(cost="0.25")
def flaky(failures: int) -> int:
    """Fail so often; each try costs a cent, and the one that works a quarter."""
    run = current_run()
    run.add_cost("tool", "0.01")
    if run.call.attempt <= failures:
        raise NoEffect("busy")
    return failures


@tool_contract(effect="write")
@idempotent(key="{order}")
@requires_approval()
@budget(cost="0.10")
def approved(order: str) -> str:
    """Do what a person allows."""
    return order


@tool_contract(effect="read")
@verified_by(lambda arguments, _result: VERDICTS.get(arguments["order"], True))
def look(order: str) -> str:
    """Look an order up."""
    return order


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    """Begin every test with verifiers that say yes."""
    VERDICTS.clear()
    UNDONE.clear()


def go(guard: Guard, *does: Callable[[], Any], workflow: str = "w", **options: Any) -> str:
    """Make a run that does these things; what is refused or fails ends it."""
    run = guard.run(workflow, **options)
    with contextlib.suppress(GuardError, RuntimeError), run:
        for one in does:
            one()
    return run.id


def fail() -> None:
    """End the run as failed."""
    raise RuntimeError("broken")


def only(guard: Guard, **window: Any) -> Spending:
    """What the one workflow spent."""
    (found,) = spent(guard.store, **window)
    return found


def parts(found: Spending) -> tuple[Decimal, Decimal, Decimal]:
    """Work, rework, waiting."""
    return found.work, found.rework, found.waiting


def test_a_workflow_without_runs_spent_nothing(guard: Guard) -> None:
    """There is no row for what never ran."""
    assert spent(guard.store) == []


def test_nothing_completed_has_no_cost_per_run(guard: Guard) -> None:
    """While no run has succeeded there is nothing to divide by, and nothing is invented."""
    with guard.run("w"):
        ask()
        found = only(guard)
    assert (found.usd, found.runs, found.unfinished) == (usd("1.00"), 1, 1)
    assert (found.completed, found.per_completed, found.per_verified) == (0, None, None)
    assert (found.median_usd, found.p95_usd) == (None, None)


def test_when_all_failed_all_of_it_is_rework(guard: Guard) -> None:
    """What failed runs spent came to nothing, and no success bears it."""
    go(guard, ask, fail)
    go(guard, ask, ask, fail)
    found = only(guard)
    assert parts(found) == (usd("0.00"), usd("3.00"), usd("0.00"))
    assert (found.usd, found.completed, found.per_completed) == (usd("3.00"), 0, None)


def test_failed_runs_are_paid_by_those_that_succeed(guard: Guard) -> None:
    """Two dollars of work and one of failure over two successes: a dollar and a half each."""
    go(guard, ask)
    go(guard, ask)
    go(guard, ask, fail)
    found = only(guard)
    assert (found.runs, found.completed, found.per_completed) == (3, 2, usd("1.50"))
    assert parts(found) == (usd("2.00"), usd("1.00"), usd("0.00"))


def test_only_verified_runs_bear_the_cost_of_a_verified_one(guard: Guard) -> None:
    """A run without any verdict succeeded, and is not verified."""
    go(guard, ask, lambda: place("a"))
    go(guard, ask)
    found = only(guard)
    assert (found.completed, found.verified) == (2, 1)
    assert (found.per_completed, found.per_verified) == (usd("1.25"), usd("2.50"))


def test_an_unknown_price_makes_the_least_of_it(guard: Guard) -> None:
    """What is not known is not free: the amounts are a lower bound, and that is said."""
    go(guard, ask, lambda: ask("stranger"), lambda: place("a"))
    go(guard, ask, lambda: place("b"))
    found = only(guard)
    assert (found.complete, found.unknown_runs, found.usd) == (False, 1, usd("3.00"))
    assert found.per_verified == usd("1.50")


def test_second_attempts_are_rework_and_so_are_failed_ones(guard: Guard) -> None:
    """Three tries at a cent and the quarter of the third: nothing of it is first-time work."""
    go(guard, lambda: flaky(2))
    found = only(guard)
    assert parts(found) == (usd("0.00"), usd("0.28"), usd("0.00"))
    assert found.retry == usd("0.27")  # the first try was no retry


def test_a_first_attempt_that_stands_is_work(guard: Guard) -> None:
    """A tool that works at once, with what it adds in its body."""
    go(guard, lambda: flaky(0))
    assert parts(only(guard)) == (usd("0.26"), usd("0.00"), usd("0.00"))


@tool_contract(effect="read", retry=Retry(attempts=2, wait=0.0))
def search(failures: int) -> str:
    """Ask a search engine that charges two cents a question."""
    run = current_run()
    run.add_cost("retrieval", "0.02")
    if run.call.attempt <= failures:
        raise OSError("busy")
    return "found"


def test_what_a_plain_read_costs_is_told_by_its_tool(guard: Guard) -> None:
    """It has no step while it runs, and stands under its name all the same; second tries are rework."""
    go(guard, partial(search, 1), partial(search, 0))
    (found,) = named(runs_that_spent(guard.store), "tool")
    assert (found.name, found.usd, found.work, found.retry) == (
        "search", usd("0.06"), usd("0.04"), usd("0.02"),
    )  # fmt: skip


@tool_contract(effect="write")
@idempotent(key="{order}")
@budget(cost="0.50")
@verified_by(judged)
@compensated_by(take_back, verified_by=lambda _arguments, _result: True)
def place_or_undo(order: str) -> str:
    """Place an order for half a dollar; somebody looks whether it was taken back."""
    return order


def test_that_an_undo_undid_verifies_no_run(guard: Guard) -> None:
    """A yes to an undo is none to the outcome that it undoes, and the next model call is rework."""
    VERDICTS["a"] = False
    with guard.run("w"):
        with contextlib.suppress(GuardError):
            place_or_undo("a")
        ask()
    found = only(guard)
    assert UNDONE == ["a"]
    assert (found.completed, found.verified, found.per_verified) == (1, 0, None)
    assert (found.work, found.rework) == (usd("0.00"), usd("1.50"))


def test_a_run_that_people_roll_back_is_verified_no_more(guard: Guard) -> None:
    """What verifiers said of its effects, and of the run as a whole, was said before they were undone."""
    go(guard, partial(place_or_undo, "a"), run_id="r-1", verified_by=lambda _run, _effects: True)
    before = only(guard)
    guard.rollback("r-1", tools=[place_or_undo], by="dana", reason="the wrong customer")
    found = only(guard)
    assert (before.verified, before.per_verified) == (1, usd("0.50"))
    assert (found.completed, found.verified, found.per_verified) == (1, 0, None)
    assert parts(found) == (usd("0.00"), usd("0.50"), usd("0.00"))


def test_a_refuted_step_is_rework_and_its_run_not_verified(guard: Guard) -> None:
    """It happened, a verifier said no, it could not be taken back; a yes to another one is no cure."""
    VERDICTS["shipped"] = False
    go(guard, ask, lambda: _suppressed(lambda: place_or_cancel("shipped")),
       lambda: place_or_cancel("b"))  # fmt: skip
    found = only(guard)
    assert parts(found) == (usd("1.50"), usd("0.50"), usd("0.00"))
    assert (found.completed, found.verified, found.per_verified) == (1, 0, None)
    assert (found.complete, found.per_completed) == (True, usd("2.00"))


def test_what_was_undone_is_rework(guard: Guard) -> None:
    """Half a dollar for an order that was rolled back; what is left of the run is verified."""
    run = go(guard, ask, lambda: place("a"), lambda: place("b"))
    guard.rollback(run, tools=[place], by="dana", reason="wrong", step=3)
    found = only(guard)
    assert UNDONE == ["b"]
    assert parts(found) == (usd("1.50"), usd("0.50"), usd("0.00"))
    assert found.verified == 1


def test_a_refuted_step_that_is_undone_takes_its_undo_along(guard: Guard) -> None:
    """The order, and the five cents to cancel it; what nobody refuted is work, and verified."""
    VERDICTS["a"] = False
    go(guard, lambda: _suppressed(lambda: place_or_cancel("a")), lambda: place_or_cancel("b"))
    found = only(guard)
    assert UNDONE == ["a"]
    assert parts(found) == (usd("0.50"), usd("0.55"), usd("0.00"))
    assert found.verified == 1


def test_a_run_of_which_nothing_is_left_is_not_verified(guard: Guard) -> None:
    """A verifier's no on what was undone counts no more, and neither does a yes."""
    VERDICTS["a"] = False
    run = go(guard, lambda: _suppressed(lambda: place_or_cancel("a")), lambda: place("b"))
    guard.rollback(run, tools=[place, place_or_cancel], by="dana", reason="wrong")
    assert only(guard).verified == 0
    assert (UNDONE, only(guard).work) == (["a", "b"], usd("0.00"))


def test_model_calls_after_a_failed_verdict_are_rework(guard: Guard) -> None:
    """The model is asked again because a verifier said no; once one says yes it is work again."""
    VERDICTS["a"] = False

    def refused() -> None:
        with contextlib.suppress(GuardError):
            look("a")

    go(guard, ask, refused, ask, ask, lambda: look("b"), ask)
    found = only(guard)
    assert parts(found) == (usd("2.00"), usd("2.00"), usd("0.00"))
    assert found.verified == 1  # the verifier's last word of this tool is a yes


def test_a_model_call_that_failed_is_rework(guard: Guard) -> None:
    """What the provider charged for an answer that never came stands for nothing."""
    go(guard, ask, lambda: ask(error=RuntimeError("cut off")))
    assert parts(only(guard)) == (usd("1.00"), usd("1.00"), usd("0.00"))


def test_people_are_waiting_with_a_rate(guard: Guard) -> None:
    """A decision of two minutes and half an hour besides, at a dollar a minute."""
    run = guard.run("w", run_id="r")
    with run:
        with pytest.raises(ApprovalRequired) as waits:
            approved("a")
        run.add_human_minutes(30, by="dana")
    guard.approvals.decide(waits.value.approval.id, "approve", by="ann")
    with guard.run("w", run_id="r"):
        approved("a")
    found = only(guard)
    assert parts(found) == (usd("0.10"), usd("0.00"), usd("32.00"))
    assert (found.completed, found.per_completed, found.complete) == (1, usd("32.10"), True)


def test_people_in_a_second_attempt_are_waiting_all_the_same(guard: Guard) -> None:
    """A minute is a minute; the try around it is rework."""

    @tool_contract(effect="write", retry=Retry(attempts=2, wait=0.0))
    @idempotent(per="call")
    def helped() -> int:
        run = current_run()
        if run.call.attempt == 1:
            raise NoEffect("stuck")
        run.add_human_minutes(1, by="ann")
        run.add_cost("tool", "0.01")
        return 1

    go(guard, helped)
    assert parts(only(guard)) == (usd("0.00"), usd("0.01"), usd("1.00"))
    assert only(guard).retry == usd("0.01")


def test_people_without_a_rate_cost_something_unknown() -> None:
    """Minutes that nobody has priced make the whole a lower bound."""
    guard = Guard("memory://", prices=PRICES)
    go(guard, ask, lambda: current_run().add_human_minutes(3, by="dana"))
    found = only(guard)
    guard.close()
    assert (found.usd, found.complete) == (usd("1.00"), False)
    assert found.per_completed == usd("1.00")


def test_cached_tokens_have_their_price_and_their_share(guard: Guard) -> None:
    """A million tokens, half of them cached at a tenth of the price: 55 cents."""
    go(guard, lambda: ask(cached_tokens=500_000), lambda: ask(tokens=1_000_000))
    found = only(guard)
    assert found.usd == usd("1.55")
    assert (found.cached_tokens, found.cached_tokens_share) == (500_000, usd("0.2500"))


def test_without_model_calls_there_is_no_share(guard: Guard) -> None:
    """A share of nothing is not zero."""
    go(guard, lambda: flaky(0))
    assert (only(guard).cached_tokens_share, only(guard).artifact_hit_rate) == (None, None)


def test_artifacts_that_were_found_saved_what_they_had_cost(guard: Guard) -> None:
    """One summary is made for 20 cents and found twice; what was found is not spent."""

    @cached("summary", version="1", cost="0.20")
    def summarize(text: str) -> str:
        return text[:3]

    for _ in range(3):
        go(guard, ask, lambda: summarize("a long text"))
    found = only(guard)
    assert (found.artifact_hits, found.artifact_misses) == (2, 1)
    assert (found.artifact_hit_rate, found.saved_usd) == (usd("0.6667"), usd("0.40"))
    assert found.usd == usd("3.00")


def test_tenants_never_mix(guard: Guard) -> None:
    """The same workflow of two tenants is two rows, and one tenant's view holds its own."""
    go(guard, ask, principal=Principal(tenant="acme"))
    go(guard, ask, ask, fail, principal=Principal(tenant="globex"))
    found = {row.tenant: row for row in spent(guard.store)}
    assert (found["acme"].per_completed, found["globex"].per_completed) == (usd("1.00"), None)
    (own,) = spent(guard.store, tenant="globex")
    assert (own.usd, own.runs) == (usd("2.00"), 1)


def test_workflows_never_mix(guard: Guard) -> None:
    """Each workflow bears its own failures."""
    go(guard, ask, workflow="one")
    go(guard, ask, fail, workflow="two")
    assert {row.workflow: row.per_completed for row in spent(guard.store)} == {
        "one": usd("1.00"), "two": None,
    }  # fmt: skip
    assert [row.workflow for row in spent(guard.store, workflow="two")] == ["two"]


def test_a_window_of_time_or_of_runs(guard: Guard, clock: FakeClock) -> None:
    """Old runs are left out, by their time or by their number, the newest first."""
    go(guard, ask, fail)
    clock.advance(days=8)
    go(guard, ask)
    clock.advance(hours=1)
    go(guard, ask, ask)
    assert only(guard).runs == 3
    assert (only(guard, since="7d").runs, only(guard, since="7d").per_completed) == (2, usd("1.50"))
    assert (only(guard, last=1).runs, only(guard, last=1).usd) == (1, usd("2.00"))
    with pytest.raises(ConfigurationError, match="since='soon': write a number and a unit"):
        spent(guard.store, since="soon")


def test_a_doubt_is_no_verified_run_and_its_cost_not_known(guard: Guard) -> None:
    """What may have happened may have been paid: the amounts are the least, and nothing is verified."""

    @tool_contract(effect="write")
    @idempotent(key="{order}")
    @budget(cost="0.75")
    def vanish(order: str) -> None:
        raise ConnectionError(order)

    def doubts() -> None:
        with contextlib.suppress(GuardError):
            vanish("d")

    go(guard, lambda: place("a"), doubts)
    found = only(guard)
    assert (found.complete, found.usd, found.verified) == (False, usd("0.50"), 0)


def test_a_cost_that_a_tool_cannot_tell_is_unknown(guard: Guard) -> None:
    """A cost of None lets the call through where nothing limits it, and is no zero."""

    @tool_contract(effect="read")
    @budget(cost=lambda query: None)
    def search(query: str) -> str:
        return query

    run = go(guard, lambda: search("x"))
    info, split = guard.runs.show(run), costs_of(guard.runs.events(run))
    assert (info.cost_complete, split.unknown, only(guard).complete) == (False, ("tool",), False)


def test_median_and_the_ninety_fifth_of_a_hundred(guard: Guard) -> None:
    """Of verified runs at 1.50 to 5.50 dollars, 3.50 is the middle and 5.50 the dear end."""
    for calls in (5, 1, 3, 2, 4):
        go(guard, *[ask] * calls, partial(place, f"o-{calls}"))
    go(guard, *[ask] * 9)  # not verified
    found = only(guard)
    assert (found.verified, found.median_usd, found.p95_usd) == (5, usd("3.50"), usd("5.50"))


def test_a_third_of_a_dollar_is_rounded_to_the_nano(guard: Guard) -> None:
    """A division that does not come out even ends at the billionth of a dollar."""
    for _ in range(3):
        go(guard, lambda: ask(tokens=1_000_001))
    go(guard, lambda: ask(tokens=2), fail)
    assert only(guard).per_completed == usd("1.000001667")  # 3.000005 over 3


def test_what_went_to_each_model_and_each_tool(guard: Guard) -> None:
    """The same amounts by name; what belongs to no call has none."""
    go(guard, ask, lambda: ask("judge", answer=500_000), lambda: flaky(1),
       lambda: current_run().add_cost("other", "0.07"))  # fmt: skip
    runs = list(runs_that_spent(guard.store))
    models = [(one.name, one.amounts, one.usd, one.output_tokens) for one in named(runs, "model")]
    assert models == [("judge", 1, usd("15.00"), 500_000), ("m", 1, usd("1.00"), 0)]
    tools = [(one.name, one.usd, one.rework) for one in named(runs, "tool")]
    assert tools == [("flaky", usd("0.27"), usd("0.27")), ("", usd("0.07"), usd("0.00"))]


def test_what_operators_do_is_no_workflow(guard: Guard) -> None:
    """The record of pins and overrides is not a run that could succeed."""
    guard.pin("place", "approve", by="dana", reason="new")
    assert spent(guard.store) == []


def test_runs_are_found_by_the_index_of_their_time(tmp_path: Any) -> None:
    """The newest runs are read without sorting all that ever were."""
    guard = Guard(f"sqlite:///{tmp_path / 'store.db'}")

    class Explained:
        """A transaction that explains what it is asked instead of answering it."""

        def __init__(self, tx: Tx) -> None:
            self.tx, self.plan = tx, ""

        def rows(self, sql: str, values: Any) -> list[Any]:
            """Return no rows, and keep how they would be found."""
            self.plan += str(list(self.tx.rows(f"EXPLAIN QUERY PLAN {sql}", values)))
            return []

    def plan(tx: Tx) -> str:
        explained: Any = Explained(tx)
        runs_of(explained, "default", "w", 0, 10)
        return str(explained.plan)

    found = guard.store.read(plan)
    guard.close()
    assert "runs_by_time" in found
    assert "TEMP B-TREE" not in found


def test_the_same_on_a_server(postgres_url: str) -> None:
    """PostgreSQL holds and adds up the same."""
    guard = Guard(postgres_url, prices=PRICES)
    go(guard, ask, lambda: place("a"))
    go(guard, ask, fail)
    found = only(guard, last=10)
    guard.close()
    assert (found.per_completed, found.per_verified, found.rework) == (
        usd("2.50"), usd("2.50"), usd("1.00"),
    )  # fmt: skip


# Properties.

DEEDS: dict[str, Callable[[], Any]] = {
    "model": ask,
    "unknown": lambda: ask("stranger"),
    "broken": lambda: ask(error=RuntimeError("no")),
    "cached": lambda: ask(cached_tokens=123_457),
    "write": lambda: place(f"o-{len(UNDONE)}-{current_run().usage.steps}"),
    "doubtful": lambda: _suppressed(lambda: place("bad")),
    "undone": lambda: _suppressed(lambda: place_or_cancel("bad, again")),
    "refuted": lambda: _suppressed(lambda: place_or_cancel("shipped")),
    "read": lambda: _suppressed(lambda: look("bad")),
    "good read": lambda: look("good"),
    "retried": lambda: flaky(1),
    "never": lambda: _suppressed(lambda: flaky(9)),
    "person": lambda: current_run().add_human_minutes("0.7", by="ann"),
    "other": lambda: current_run().add_cost("other", "0.000000001"),
    "fail": fail,
}


def _suppressed(deed: Callable[[], Any]) -> None:
    with contextlib.suppress(GuardError, NoEffect):
        deed()


def _made(guard: Guard, script: list[list[str]]) -> None:
    VERDICTS.update({"bad": False, "bad, again": False, "shipped": False})
    for deeds in script:
        go(guard, *(DEEDS[deed] for deed in deeds))


SCRIPTS = st.lists(
    st.lists(st.sampled_from(sorted(DEEDS)), min_size=1, max_size=6), min_size=1, max_size=4
)


@settings(max_examples=30, deadline=None)
@given(SCRIPTS)
def test_the_parts_always_add_up(script: list[list[str]]) -> None:
    """Whatever runs do: work, rework and waiting are what the runs' rows say was spent."""
    guard = Guard("memory://", config=loads(PEOPLE), prices=PRICES)
    _made(guard, script)
    found, rows = only(guard), guard.runs.list(limit=100)
    runs = list(runs_that_spent(guard.store))
    guard.close()
    assert sum(parts(found)) == found.usd == sum(row.spent_usd for row in rows)
    assert all(run.work + run.rework + run.waiting == run.usd for run in runs)
    by_name = [*named(runs, "model"), *named(runs, "tool")]
    assert sum(one.usd for one in by_name) == found.usd
    assert found.retry <= found.rework
    assert found.complete == all(row.cost_complete and not row.held_usd for row in rows)


@settings(max_examples=30, deadline=None)
@given(SCRIPTS)
def test_a_verified_run_never_costs_less_than_a_completed_one(script: list[list[str]]) -> None:
    """All of it is divided by fewer runs: verified ones are among those that succeeded."""
    guard = Guard("memory://", config=loads(PEOPLE), prices=PRICES)
    _made(guard, script)
    found = only(guard)
    guard.close()
    assert found.verified <= found.completed <= found.runs
    if found.per_verified is not None:
        assert found.per_completed is not None
        assert found.per_verified >= found.per_completed
