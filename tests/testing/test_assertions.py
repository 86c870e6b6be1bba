"""What the assertions accept, and the paragraph that each of them fails with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentguard import (
    Guard,
    GuardError,
    NoEffect,
    Retry,
    budget,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.testing import assert_waiting, assert_within_budget, assert_wrote_once


@tool_contract(effect="write", retry=Retry(attempts=2, wait=0), sensitive=["card"])
@idempotent(key="pay:{to}")
@budget(max_calls=3, cost="usd", max_spend_usd="100")
def pay(to: str, usd: Decimal = Decimal(1), card: str = "") -> str:
    """Pay."""
    if to == "moved":
        raise ConnectionResetError("while waiting for the answer")
    if to == "busy" and BUSY:
        raise NoEffect(BUSY.pop())
    return f"paid {to}"


@tool_contract(effect="write")
@idempotent(key="ask:{to}")
@requires_approval(when="usd > 50")
def ask(to: str, usd: int = 100) -> str:
    """Pay, if people say so."""
    return f"paid {to}"


@tool_contract(effect="read")
def look(to: str) -> str:
    """Look."""
    return to


BUSY: list[str] = []


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    """Give a guard with a price for one model only."""
    guard = Guard(f"sqlite:///{tmp_path}/a.db", prices={"fast": ("1", "1")})
    yield guard
    guard.close()


def calls(guard: Guard, *given: Callable[[], Any], run_id: str = "r-1", **limits: Any) -> None:
    """Make calls in one run, whatever comes of each."""
    with guard.run("w", run_id=run_id, **limits):
        for call in given:
            with contextlib.suppress(GuardError):
                call()


def complaint(check: Callable[..., Any], *args: Any, **options: Any) -> str:
    """Return what an assertion fails with."""
    with pytest.raises(AssertionError) as failed:
        check(*args, **options)
    return str(failed.value)


# assert_wrote_once.


def test_a_write_and_its_repeats_are_one_write(guard: Guard) -> None:
    """Repeats that are answered from the record count as nothing, in other runs too."""
    calls(guard, lambda: pay("ann"), lambda: pay("ann"))
    calls(guard, lambda: pay("ann"), run_id="r-2")
    effect = assert_wrote_once(guard, tool=pay)
    assert (effect.tool, effect.run_id, effect.fence) == ("pay", "r-1", 1)


def test_a_try_without_an_effect_is_no_write(guard: Guard) -> None:
    """A body that was started again after it had said that nothing happened wrote once."""
    BUSY[:] = ["busy"]
    calls(guard, lambda: pay("busy"))
    assert assert_wrote_once(guard, tool="pay").fence == 2


def test_a_write_is_named_by_arguments_key_or_run(guard: Guard) -> None:
    """Of several writes of a tool, one can be named in each of three ways."""
    calls(guard, lambda: pay("ann", Decimal("2.50")))
    calls(guard, lambda: pay("ben", Decimal(1)), run_id="r-2")
    named = assert_wrote_once(guard, tool=pay, arguments={"usd": Decimal("2.5")})
    assert named == assert_wrote_once(guard, tool=pay, key=named.id)
    assert named == assert_wrote_once(guard, tool=pay, key=named.id[:12])
    assert named == assert_wrote_once(guard, tool=pay, run_id="r-1")


def test_two_writes_are_told_with_their_arguments(guard: Guard) -> None:
    """Each write is told with its run, its step and its arguments, hidden ones stay hidden."""
    calls(guard, lambda: pay("ann"), lambda: pay("ben", Decimal("2.50"), card="4111"))
    assert complaint(assert_wrote_once, guard, tool=pay) == (
        "pay wrote 2 times. The store has:"
        ' succeeded in run r-1, step 1: card="[hidden]", to="ann", usd="1";'
        ' succeeded in run r-1, step 2: card="[hidden]", to="ben", usd="2.5".'
    )


def test_a_write_that_never_came_is_told_with_what_came(guard: Guard) -> None:
    """The complaint repeats the question and tells what the tool did instead."""
    calls(guard, lambda: pay("ann"))
    assert complaint(assert_wrote_once, guard, tool=pay, arguments={"to": "ben"}) == (
        "pay with arguments={'to': 'ben'} did not write."
        ' The store has: succeeded in run r-1, step 1: card="[hidden]", to="ann", usd="1".'
    )


def test_another_tool_is_no_answer(guard: Guard) -> None:
    """If the tool was never called, the complaint names those that were."""
    calls(guard, lambda: look("ann"))
    assert complaint(assert_wrote_once, guard, tool=pay) == (
        "pay did not write. The store has no call of pay; it has calls of look."
    )


def test_an_empty_store_is_told_as_such(guard: Guard) -> None:
    """A store without any call is told so."""
    assert complaint(assert_wrote_once, guard, tool="pay") == (
        "pay did not write. The store has no call of any tool."
    )


def test_a_doubt_is_no_write_and_not_nothing(guard: Guard) -> None:
    """Beside a write that succeeded, one in doubt fails the assertion and is told with its reason."""
    calls(guard, lambda: pay("ann"))
    calls(guard, lambda: pay("moved"), run_id="r-2")
    assert complaint(assert_wrote_once, guard, tool=pay) == (
        "pay wrote once and 1 write more may have happened. The store has:"
        ' succeeded in run r-1, step 1: card="[hidden]", to="ann", usd="1";'
        ' in doubt in run r-2, step 1 (error_unclassified): card="[hidden]", to="moved", usd="1".'
    )


def test_a_call_that_waits_did_not_write(guard: Guard) -> None:
    """A call that waits for a person is told as waiting."""
    with pytest.raises(GuardError), guard.run("w", run_id="r-1"):
        ask("ann")
    assert complaint(assert_wrote_once, guard, tool=ask) == (
        'ask did not write. The store has: waiting in run r-1, step 1: to="ann", usd=100.'
    )


def test_many_calls_are_told_by_number(guard: Guard) -> None:
    """Of many calls ten are told and the others counted, so that the paragraph stays one."""
    calls(guard, *[lambda n=n: look(str(n)) for n in range(13)])
    told = complaint(assert_wrote_once, guard, tool=look)
    assert told.startswith("look did not write. The store has: ")
    assert told.count("in run r-1") == 10
    assert told.endswith("; and 3 more.")


def test_what_is_no_tool_is_refused(guard: Guard) -> None:
    """A function without our decorators is no tool that a record could know."""
    with pytest.raises(TypeError, match="neither a tool with agentguard's decorators nor a name"):
        assert_wrote_once(guard, tool=len)


# assert_waiting.


def test_the_approval_of_what_waits_is_returned(guard: Guard) -> None:
    """The one call that waits, by tool, arguments or run, is returned as its approval."""
    calls(guard, lambda: ask("ann"))
    calls(guard, lambda: ask("ben"), run_id="r-2")
    assert assert_waiting(guard, tool=ask, run_id="r-2").arguments["to"] == "ben"
    assert assert_waiting(guard, arguments={"to": "ann"}).run_id == "r-1"


def test_nothing_that_waits_is_told_with_what_happened(guard: Guard) -> None:
    """If the call did not have to wait, the complaint shows that it went through."""
    calls(guard, lambda: ask("ann", 20))
    assert complaint(assert_waiting, guard, tool=ask) == (
        "No call of ask waits for a person. Nothing waits."
        ' The store has: succeeded in run r-1, step 1: to="ann", usd=20.'
    )


def test_something_else_that_waits_is_told(guard: Guard) -> None:
    """If another call waits, the complaint shows it with its rule."""
    calls(guard, lambda: ask("ann"))
    assert complaint(assert_waiting, guard, tool=pay) == (
        "No call of pay waits for a person."
        ' What waits: ask in run r-1, step 1 (usd > 50): to="ann", usd=100.'
        " The store has no call of pay; it has calls of ask."
    )


def test_two_that_wait_are_not_one(guard: Guard) -> None:
    """If more than one call fits, the complaint says how to name one."""
    calls(guard, lambda: ask("ann"), lambda: ask("ben"))
    told = complaint(assert_waiting, guard)
    assert told.startswith("2 calls of any tool wait, not one: ask in run r-1, step 1 (usd > 50)")
    assert told.endswith("Name one with tool=, arguments= or run_id=.")


# assert_within_budget.


def test_a_run_within_its_limits_is_returned(guard: Guard) -> None:
    """A run that crossed nothing is returned with what it used."""
    calls(guard, lambda: pay("ann"), max_steps=2)
    assert assert_within_budget(guard, run_id="r-1", max_tool_calls=1).steps == 1


def test_a_limit_of_the_test_holds_too(guard: Guard) -> None:
    """A run without limits is measured by those that the assertion is given."""
    calls(guard, lambda: look("a"), lambda: look("b"))
    assert complaint(assert_within_budget, guard, run_id="r-1", max_tool_calls=1) == (
        "Run r-1 is not within its budget: it used 2 of max_tool_calls=1. In all: 2 steps, 0 model"
        " calls, 2 tool calls, 0.00 US dollars spent and 0.00 reserved; the run is succeeded."
    )


def test_a_refused_call_is_not_within_the_budget(guard: Guard) -> None:
    """A call that a limit of the run or of a tool refused is told with that limit."""
    calls(guard, *[lambda n=n: pay(str(n)) for n in range(4)], max_steps=9)
    told = complaint(assert_within_budget, guard, run_id="r-1")
    assert "pay was refused by max_calls of" in told
    assert "(limit 3, used 3)" in told


def test_money_that_nobody_counted_is_not_within_the_budget(guard: Guard) -> None:
    """Where spending is limited, a model without a price makes the answer no."""
    for run_id, model in (("r-1", "fast"), ("r-2", "unknown")):
        with guard.run("w", run_id=run_id, max_spend_usd=1) as run:
            call = run.model_started(model=model, messages=[])
            run.model_finished(call, output="hi", input_tokens=200_000, output_tokens=100_000)
    assert assert_within_budget(guard, run_id="r-1", max_spend_usd="0.30").spent_usd == Decimal(
        "0.30"
    )
    assert "it used 0.30 of max_spend_usd=0.29" in complaint(
        assert_within_budget, guard, run_id="r-1", max_spend_usd="0.29"
    )
    assert "is not known, since a model it called has no price" in complaint(
        assert_within_budget, guard, run_id="r-2"
    )


def test_a_run_without_any_limit_is_within_none(guard: Guard) -> None:
    """An assertion that could not fail fails."""
    calls(guard, lambda: look("a"))
    assert complaint(assert_within_budget, guard, run_id="r-1").startswith(
        "Run r-1 has no limit, so it cannot be within one: give guard.run or this assertion a limit."
    )
