"""Budgets: reserved before the call, never overshot, given back when nothing happened."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentguard import (
    BudgetExceeded,
    ConfigurationError,
    ContractViolation,
    EffectInDoubt,
    Guard,
    GuardError,
    LoopDetected,
    NoEffect,
    Retry,
    ToolTimeout,
    budget,
    current_run,
    idempotent,
    tool_contract,
)

PRICES = {"big": ("1000", "4000")}  # US dollars a million tokens, asked and answered


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = dt.datetime(2026, 11, 23, 8, tzinfo=dt.UTC)

    def now(self) -> int:
        """Return the time."""
        return int(self.moment.timestamp() * 1_000_000)

    def move(self, **amount: float) -> None:
        """Let time pass."""
        self.moment += dt.timedelta(**amount)


@pytest.fixture(name="clock")
def a_clock() -> Clock:
    """A Monday morning."""
    return Clock()


@pytest.fixture(name="guard")
def guard_without_a_file(clock: Clock) -> Iterator[Guard]:
    """A guard whose store lives as long as the test."""
    guard = Guard("memory://", clock=clock, prices=PRICES)
    yield guard
    guard.close()


class Refunds:
    """A refund tool under a budget, and everything it did."""

    def __init__(self, *, retry: Retry | None = None, **limits: Any) -> None:
        self.done: list[str] = []
        self.fails: list[BaseException] = []

        @tool_contract(effect="write", retry=retry)
        @idempotent(key="{ticket}")
        @budget(**limits)
        def refund(ticket: str, usd: Decimal = Decimal(0)) -> str:
            if self.fails:
                raise self.fails.pop()
            self.done.append(ticket)
            return f"{ticket} {usd}"

        self.tool: Any = refund

    def passed(self, *calls: Any) -> list[bool]:
        """Make calls and tell which of them the budget let through."""
        return [self._passed(*(call if isinstance(call, tuple) else (call,))) for call in calls]

    def _passed(self, *call: Any) -> bool:
        try:
            self.tool(*call)
        except BudgetExceeded:
            return False
        return True


# A tool's own budget.


def test_calls_are_counted_per_run(guard: Guard) -> None:
    """`max_calls` lets so many effects through in a run; the next run has room again."""
    refunds = Refunds(max_calls=2)
    with guard.run("w"):
        assert refunds.passed("a", "b", "c") == [True, True, False]
    with guard.run("w"):
        assert refunds.passed("c", "d", "e") == [True, True, False]
    assert refunds.done == ["a", "b", "c", "d"]


def test_a_resumed_run_has_what_is_left(guard: Guard) -> None:
    """Entering a run again goes on with its budget."""
    refunds = Refunds(max_calls=2)
    for tickets, passed in (("a", [True]), ("bc", [True, False]), ("d", [False])):
        with guard.run("w", run_id="r-1"):
            assert refunds.passed(*tickets) == passed


def test_replays_are_free(guard: Guard) -> None:
    """A repeat of a recorded effect takes no room, also when none is left."""
    refunds = Refunds(max_calls=1)
    with guard.run("w"):
        assert refunds.passed("a", "a", "b", "a") == [True, True, False, True]
    assert refunds.done == ["a"]


def test_money_is_counted_exactly(guard: Guard) -> None:
    """Ten times ten cents are one dollar, to the last nano-dollar, whatever floats make of it."""
    refunds = Refunds(max_spend_usd="1.00", cost="usd")
    with guard.run("w"):
        assert refunds.passed(*((str(n), "0.10") for n in range(10))) == [True] * 10
        assert refunds.passed(("more", "0.000000001"), ("free", 0)) == [False, True]


@pytest.mark.parametrize("amount", [0.1, "0.1", Decimal("0.1"), Decimal("0.10000000000")], ids=repr)
def test_every_way_to_write_money_is_the_same(amount: Any, guard: Guard) -> None:
    """Floats, texts and Decimals of a tenth are all exactly a tenth."""
    refunds = Refunds(max_spend_usd="0.3", cost="usd")
    with guard.run("w"):
        assert refunds.passed(*(((str(n)), amount) for n in range(4))) == [True] * 3 + [False]


def test_fractions_of_a_nano_dollar_are_rounded_up(guard: Guard) -> None:
    """A reservation is never too small."""
    refunds = Refunds(max_spend_usd="0.000000002", cost="usd")
    with guard.run("w"):
        assert refunds.passed(*((str(n), "0.0000000001") for n in range(3))) == [True, True, False]


@pytest.mark.parametrize(
    ("cost", "usd", "passed"),
    [
        ("usd", "40", 2),
        ("0.40", "40", 2),
        (Decimal("0.50"), "40", 2),
        (1, "40", 1),
        (lambda usd, **_: usd / 100, "40", 2),
        (lambda **_: "0.25", "40", 4),
    ],
)
def test_costs_are_arguments_amounts_or_callables(
    cost: Any, usd: str, passed: int, guard: Guard
) -> None:
    """What one call costs is read from an argument, fixed, or computed from the arguments."""
    limit = "100" if cost == "usd" else "1.00"
    refunds = Refunds(max_spend_usd=limit, cost=cost)
    with guard.run("w"):
        assert refunds.passed(*((str(n), usd) for n in range(6))).count(True) == passed


@pytest.mark.parametrize("cost", [-1, "-0.01", "many", None, Decimal("NaN"), 10**11], ids=repr)
def test_a_cost_that_is_no_amount_refuses_the_call(cost: Any, guard: Guard) -> None:
    """Negative, absurd and missing costs are contract violations; nothing runs, nothing is held."""
    refunds = Refunds(max_spend_usd=1, cost=lambda **_: cost)
    with (
        guard.run("w") as run,
        pytest.raises(ContractViolation, match="not an amount in US dollars"),
    ):
        refunds.tool("a")
    assert (refunds.done, run.usage.held, guard.effects.list()) == ([], 0, [])


def test_money_that_a_tool_moves_is_not_what_the_run_costs(guard: Guard) -> None:
    """A limit on an argument binds the tool alone; other costs count against the run too."""
    moved, paid = Refunds(max_spend_usd=100, cost="usd"), Refunds(cost="0.30")
    with guard.run("w", max_spend_usd="0.50") as run:
        assert moved.passed(("a", 90)) == [True]
        assert paid.passed("b", "c") == [True, False]
    assert guard.runs.show(run.id).spent_usd == Decimal("0.30")


def test_what_had_no_effect_is_given_back(guard: Guard) -> None:
    """A call that is known to have done nothing leaves calls and money as they were."""
    refunds = Refunds(max_calls=1, max_spend_usd=5, cost="usd")
    refunds.fails = [NoEffect("busy"), NoEffect("never", retryable=False)]
    with guard.run("w") as run:
        for ticket in "ab":
            with pytest.raises(NoEffect):
                refunds.tool(ticket, 5)
        assert refunds.passed(("c", 5), ("d", 5)) == [True, False]
        assert run.usage.tool_calls == 1


def test_what_is_in_doubt_stays_held_until_somebody_knows(guard: Guard) -> None:
    """Doubtful calls keep their room; a ruling spends it or gives it back."""
    refunds = Refunds(max_calls=2, max_spend_usd=10, cost="usd", per="day")
    refunds.fails = [OSError("gone"), OSError("gone")]
    for run_id in "ab":  # a doubt closes the write path of its own run
        with guard.run("w", run_id=run_id), pytest.raises(EffectInDoubt):
            refunds.tool(run_id, 5)
    with guard.run("w", run_id="c"):
        assert refunds.passed(("c", 1)) == [False]
        first, second = reversed(guard.effects.list("in_doubt"))
        guard.effects.resolve(first.id, "not_happened", by="dana", reason="I looked")
        assert refunds.passed(("c", 5), ("d", 1)) == [True, False]
        guard.effects.resolve(second.id, "happened", by="dana", reason="I looked")
        assert refunds.passed(("d", 1)) == [False]
    assert refunds.done == ["c"]


def test_retries_take_their_room_once(guard: Guard) -> None:
    """Attempts of one call are one call to the budget, and money is not held twice."""
    refunds = Refunds(max_calls=1, max_spend_usd=5, cost="usd", retry=Retry(attempts=3, wait=0))
    refunds.fails = [NoEffect("busy"), NoEffect("busy")]
    with guard.run("w"):
        assert refunds.passed(("a", 5), ("b", 0)) == [True, False]


async def test_a_timeout_keeps_its_money_held(guard: Guard) -> None:
    """Money of a call that did not end in time stays held, and the run knows it."""

    @tool_contract(effect="write", timeout=0.01)
    @idempotent(key="{ticket}")
    @budget(cost="0.20")
    async def slow(ticket: str) -> None:
        await asyncio.Event().wait()

    async with guard.run("w", max_spend_usd="0.30") as run:
        with pytest.raises(ToolTimeout):
            await slow("a")
        assert (run.usage.spent, run.usage.held) == (0, 200_000_000)
        with pytest.raises(BudgetExceeded):
            run.model_started(model="big", messages=[], max_output_tokens=100)


WINDOWS: list[tuple[Any, dict[str, float], dict[str, float]]] = [
    ("hour", {"minutes": 59, "seconds": 59}, {"seconds": 1}),
    ("day", {"hours": 15, "minutes": 59}, {"minutes": 1}),
    ("week", {"days": 6, "hours": 15}, {"hours": 1}),
    ("month", {"days": 7, "hours": 15}, {"hours": 1}),
]


@pytest.mark.parametrize(("per", "still", "over"), WINDOWS, ids=[window[0] for window in WINDOWS])
def test_windows_follow_the_stores_clock(
    per: Any, still: dict[str, float], over: dict[str, float], clock: Clock, guard: Guard
) -> None:
    """A budget per hour, day, week or month spans runs and begins anew with the window, in UTC."""
    refunds = Refunds(max_calls=1, per=per)
    passed = []
    for ticket, moved in (("a", {}), ("b", still), ("c", over), ("d", {})):
        clock.move(**moved)
        with guard.run("w"):
            passed += refunds.passed(ticket)
    assert passed == [True, False, True, False]


def test_a_budget_counts_for_one_tool(guard: Guard) -> None:
    """Two tools of different names do not share a budget."""
    first, second = Refunds(max_calls=1), Refunds(max_calls=1)
    other = guard.protect(
        lambda ticket: ticket, name="other", effect="write", key="{ticket}", max_calls=1
    )
    with guard.run("w"):
        assert first.passed("a", "b") == [True, False]
        assert second.passed("c") == [False]  # of the same name
        assert other("d") == "d"


# The run's budget.


@tool_contract(effect="read")
def look(what: str) -> str:
    """Read something."""
    return what


def test_steps_count_reads_writes_and_models(guard: Guard) -> None:
    """`max_steps` counts all that a run does, one after the other, and refuses the next."""
    refunds = Refunds(max_calls=9)
    with guard.run("w", max_steps=3) as run:
        look("a")
        refunds.tool("b")
        run.model_finished(run.model_started(model="big", messages=[]))
        for more in (lambda: look("c"), lambda: refunds.tool("d"),
                     lambda: run.model_started(model="big", messages=[])):  # fmt: skip
            with pytest.raises(BudgetExceeded) as refused:
                more()
            assert (refused.value.budget, refused.value.limit) == ("max_steps", "3")
    assert refunds.done == ["b"]


def test_tool_calls_count_reads_and_writes(guard: Guard) -> None:
    """`max_tool_calls` leaves model calls out."""
    refunds = Refunds(max_calls=9)
    with guard.run("w", max_tool_calls=2) as run:
        look("a")
        refunds.tool("b")
        run.model_finished(run.model_started(model="big", messages=[]))
        for more in (lambda: look("c"), lambda: refunds.tool("d")):
            with pytest.raises(BudgetExceeded, match="max_tool_calls"):
                more()
    assert refunds.done == ["b"]


def test_model_calls_are_counted_and_paid(guard: Guard) -> None:
    """A model call is settled with what it used; tokens, money and calls are the run's."""
    with guard.run("w", max_model_calls=2) as run:
        for _ in range(2):
            call = run.model_started(model="big", messages=["hello"], max_output_tokens=100)
            run.model_finished(call, output="hi", input_tokens=100, output_tokens=10)
        with pytest.raises(BudgetExceeded, match="max_model_calls"):
            run.model_started(model="big", messages=[])
    info = guard.runs.show(run.id)
    assert (info.model_calls, info.input_tokens, info.output_tokens) == (2, 200, 20)
    assert (info.spent_usd, info.held_usd, info.cost_complete) == (
        Decimal("0.28"),
        Decimal(0),
        True,
    )


def test_a_model_call_reserves_its_worst_case(guard: Guard) -> None:
    """What a call may cost at most is held while it runs, so parallel calls cannot overshoot."""
    with guard.run("w", max_spend_usd="1.00") as run:
        first = run.model_started(model="big", messages=[], max_output_tokens=200)
        assert run.usage.held > 800_000_000
        with pytest.raises(BudgetExceeded, match="max_spend_usd"):
            run.model_started(model="big", messages=[], max_output_tokens=200)
        run.model_finished(first, input_tokens=10, output_tokens=10)
        assert (run.usage.held, run.usage.spent) == (0, 50_000_000)
        run.model_started(model="big", messages=[], max_output_tokens=200)


def test_a_model_without_a_price_makes_the_cost_incomplete(guard: Guard) -> None:
    """An unknown price is said to be unknown, never taken for zero."""
    with guard.run("w") as run:
        call = run.model_started(model="unknown", messages=[])
        run.model_finished(call, input_tokens=1_000_000)
    assert guard.runs.show(run.id).cost_complete is False


def test_seconds_do_not_count_between_parts(clock: Clock, guard: Guard) -> None:
    """`max_seconds` counts the time a run is entered; waiting for a person outside is free."""
    with guard.run("w", run_id="r-1", max_seconds=60):
        clock.move(seconds=30)
        look("a")
    clock.move(days=3)
    refunds = Refunds(max_calls=9)
    with guard.run("w", run_id="r-1", max_seconds=60) as run:
        clock.move(seconds=30)
        look("b")
        refunds.tool("c")
        clock.move(seconds=1)
        for more in (lambda: look("d"), lambda: refunds.tool("d"),
                     lambda: run.model_started(model="big", messages=[])):  # fmt: skip
            with pytest.raises(BudgetExceeded, match="max_seconds"):
                more()
    assert refunds.done == ["c"]


def test_repeats_without_progress_are_a_loop(guard: Guard) -> None:
    """The same call again and again is stopped; other calls are not, and an effect is progress."""
    refunds = Refunds(max_calls=9)
    with guard.run("w", max_repeats=3):
        for _ in range(3):
            look("a")
        with pytest.raises(LoopDetected, match="look came 4 times with the same arguments"):
            look("a")
        look("b")
        refunds.tool("t")
        look("a")


def test_a_loop_of_refused_writes_is_stopped(guard: Guard) -> None:
    """A model that repeats a call that can only fail is stopped as well."""

    @tool_contract(effect="write")
    @idempotent(key="{ticket}")
    def refund(ticket: str) -> None:
        raise NoEffect("closed")

    ends = []
    with guard.run("w", max_repeats=3):
        for _ in range(5):
            with pytest.raises((NoEffect, GuardError)) as raised:
                refund("T-1")
            ends.append(type(raised.value).__name__)
    assert ends == ["NoEffect"] * 3 + ["LoopDetected"] * 2


def test_a_limit_of_zero_lets_nothing_through(guard: Guard) -> None:
    """Zero is a limit, not the absence of one."""
    refunds = Refunds(max_calls=0)
    with guard.run("w"):
        assert refunds.passed("a") == [False]
    limits: list[dict[str, Any]] = [{"max_steps": 0}, {"max_tool_calls": 0}]
    for limit in limits:
        with guard.run("w", **limit), pytest.raises(BudgetExceeded, match=next(iter(limit))):
            look("a")
    with guard.run("w", max_model_calls=0, max_spend_usd=0) as run:
        assert Refunds(cost="0.01").passed("a") == [False]
        with pytest.raises(BudgetExceeded, match="max_model_calls"):
            run.model_started(model="big", messages=[])


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"max_step": 5}, "run has no limit 'max_step'; it has loops, max_model_calls"),
        ({"max_steps": -1}, "is not a number from 0"),
        ({"max_steps": "5"}, "is not a number from 0"),
        ({"max_steps": True}, "is not a number from 0"),
        ({"max_spend_usd": "a lot"}, "not an amount in US dollars"),
        ({"max_spend_usd": -1}, "not between 0 and 9 billion"),
    ],
    ids=str,
)
def test_a_limit_that_is_none_is_refused(
    limits: dict[str, Any], sentence: str, guard: Guard
) -> None:
    """Unknown limits and limits that are no numbers are refused before the run begins."""
    with pytest.raises(ConfigurationError, match=sentence):
        guard.run("w", **limits)
    assert guard.runs.list() == []


def test_a_refusal_says_which_limit(guard: Guard) -> None:
    """The refusal names the limit and what is used, for people and for the model; it halts the run."""
    refunds = Refunds(max_spend_usd="1.50", cost="usd")
    with guard.run("w") as run:
        refunds.tool("a", 1)
        with pytest.raises(BudgetExceeded) as refused:
            refunds.tool("b", 1)
    error = refused.value
    assert (error.budget, error.limit, error.used) == (
        "max_spend_usd of refund per run",
        "1.50",
        "1.00",
    )
    assert (error.halts, error.retryable) == (True, False)
    assert "budget.exceeded" in [event.kind for event in guard.runs.events(run.id)]


# Many at once.


def test_threads_never_overshoot(tmp_path: Path) -> None:
    """Any number of threads spend exactly what the run may, not a nano-dollar more."""
    guard = Guard(f"sqlite:///{tmp_path}/a.db")
    refunds = Refunds(cost="0.10")
    names = itertools.count()

    def caller(_: int) -> int:
        with guard.run("w", run_id="r-1", max_spend_usd="1.00"):
            return refunds.passed(*(f"T-{next(names)}" for _ in range(4))).count(True)

    with ThreadPoolExecutor(32) as pool:
        assert sum(pool.map(caller, range(32))) == 10
    assert (len(refunds.done), guard.runs.show("r-1").spent_usd) == (10, Decimal("1.00"))
    guard.close()


async def test_tasks_never_overshoot(tmp_path: Path) -> None:
    """Two hundred tasks of one run are let through ten times at ten cents each."""
    guard = Guard(f"sqlite:///{tmp_path}/a.db")
    done: list[int] = []

    @tool_contract(effect="write")
    @idempotent(key="{n}")
    @budget(cost="0.10")
    async def refund(n: int) -> None:
        await asyncio.sleep(0)
        done.append(current_run().call.arguments["n"])

    async with guard.run("w", run_id="r-1", max_spend_usd="1.00"):
        ends = await asyncio.gather(*(refund(n) for n in range(200)), return_exceptions=True)
    assert [type(end).__name__ for end in ends if end].count("BudgetExceeded") == 190
    assert (len(done), guard.runs.show("r-1").spent_usd) == (10, Decimal("1.00"))
    guard.close()


def test_reads_in_threads_never_overshoot(tmp_path: Path) -> None:
    """Reads, which need no transaction, are counted before they run as well."""
    guard = Guard(f"sqlite:///{tmp_path}/a.db")
    with guard.run("w", max_steps=50) as run, ThreadPoolExecutor(16) as pool:
        import contextvars

        contexts = [contextvars.copy_context() for _ in range(200)]

        def read(n: int) -> bool:
            try:
                return contexts[n].run(look, str(n)) == str(n)
            except BudgetExceeded:
                return False

        assert sum(pool.map(read, range(200))) == 50
    assert guard.runs.show(run.id).steps == 50
    guard.close()
