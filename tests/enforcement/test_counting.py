"""What counts in a service level: every outcome once, in the transaction that settles it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Generator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard import (
    ApprovalRequired,
    Guard,
    NoEffect,
    Retry,
    current_run,
    falls_back_to,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.config import Settings
from agentguard.ledger import slos
from agentguard.ledger.runs import RunLog
from agentguard.ledger.values import RunRef, Watch
from agentguard.model import RetryBudget
from agentguard.slos import Counts, Fact, Window
from agentguard.testing import FakeClock
from tests.enforcement.conftest import Opens
from tests.enforcement.shop import WORKFLOW, Shop, level

PAYS = level("pays", sli="correctness", demote=None)
RUNS = level("runs", demote=None)


def test_every_outcome_of_a_tool_counts_once(any_shop: Opens) -> None:
    """Success is good; a failure for good, an unknown end and a refuted one are bad."""
    shop = any_shop(PAYS)
    shop.call()
    assert shop.counts("pays") == (1, 0)
    shop.breaks()
    shop.call()
    assert shop.counts("pays") == (1, 1)
    shop.broken = lambda: ConnectionError("no answer")
    shop.call()
    assert shop.counts("pays") == (1, 2)
    shop.heals()
    shop.wrong = True
    shop.call()
    assert shop.counts("pays") == (1, 3)


def test_what_does_not_happen_does_not_count(shop: Opens) -> None:
    """Denied, waiting, rejected and repeated calls say nothing about the tool."""
    opened = shop(PAYS)
    asked = opened.tool("pay", requires_approval(when="ticket == 'T-ask'"))
    opened.call(asked, ticket="T-a")
    opened.call(asked, ticket="T-a", run_id="again")
    opened.call(asked, ticket="T-ask", run_id="asks")
    [approval] = opened.guard.approvals.list(status="pending")
    opened.guard.approvals.decide(approval.id, "reject", by="dana", reason="no")
    opened.call(asked, ticket="T-ask", run_id="asks")
    opened.call(ticket="T-b", max_tool_calls=0)
    opened.guard.kill(tool="pay", by="kim", reason="stop")
    opened.call(asked, ticket="T-c")
    assert opened.counts("pays") == (1, 0)


def test_of_attempts_the_last_one_counts(shop: Opens) -> None:
    """What is tried again counts by what comes of that in the end."""
    opened = shop(PAYS)
    fails = iter([True, True, False])

    def sometimes() -> Exception:
        if not next(fails):
            opened.heals()
            return NoEffect("healed by the next call", retryable=True)
        return NoEffect("busy", retryable=True)

    opened.broken = sometimes
    patient = opened.tool("pay", retry=Retry(attempts=5, wait=0))
    assert opened.call(patient, ticket="T-1") == "done pay T-1"
    assert opened.counts("pays") == (1, 0)
    opened.broken = lambda: NoEffect("busy", retryable=True)
    opened.call(patient, ticket="T-2")
    assert opened.counts("pays") == (1, 1)


def test_a_failure_that_nobody_may_try_again_counts(shop: Opens) -> None:
    """Where the tenant's retries are used up, the failed attempt was the last one and is counted."""
    opened = shop(PAYS, retries=RetryBudget(percent=1, burst=1))
    opened.broken = lambda: NoEffect("busy", retryable=True)
    patient = opened.tool("pay", retry=Retry(attempts=4, wait=0))
    opened.call(patient, ticket="T-1")
    assert opened.counts("pays") == (0, 1)
    opened.call(patient, ticket="T-2")
    assert opened.counts("pays") == (0, 2)


def test_a_call_that_is_stopped_between_its_attempts_counts(shop: Opens) -> None:
    """A kill switch before the retry leaves the failed attempt as the call's last."""
    opened = shop(PAYS)

    def stops() -> Exception:
        opened.guard.kill(tool="pay", by="kim", reason="stop")
        return NoEffect("busy", retryable=True)

    opened.broken = stops
    answer = opened.call(opened.tool("pay", retry=Retry(attempts=4, wait=0)))
    assert answer.kind == "run_halted"
    assert opened.counts("pays") == (0, 1)


def test_an_interrupted_call_counts_as_failed(shop: Opens) -> None:
    """Who is interrupted inside a body leaves a doubt, and that is bad."""
    opened = shop(PAYS)

    def interrupted() -> Exception:
        raise KeyboardInterrupt

    opened.broken = interrupted
    with pytest.raises(KeyboardInterrupt):
        opened.call()
    assert opened.counts("pays") == (0, 1)


def test_late_evidence_changes_nothing(shop: Opens) -> None:
    """A doubt was counted when it arose; a person's ruling later does not count it again."""
    opened = shop(PAYS)
    opened.broken = lambda: ConnectionError("no answer")
    opened.call()
    [doubt] = opened.guard.effects.list("in_doubt")
    opened.guard.effects.resolve(doubt.id, "happened", by="kim", reason="saw it")
    assert opened.counts("pays") == (0, 1)


def test_reads_count_where_a_level_watches_them(shop: Opens) -> None:
    """A watched read has a start of its own, and its end counts; it needs no key for that."""
    opened = shop(level("looks", sli="correctness", tool="look", demote=None))

    @tool_contract(effect="read")
    def look(ticket: str) -> str:
        """Look."""
        if ticket == "gone":
            raise ConnectionError(ticket)
        return ticket

    assert [opened.call(look, ticket=name) for name in ("a", "a")] == ["a", "a"]
    opened.call(look, ticket="gone")
    assert opened.counts("looks") == (2, 1)


# Runs.


def test_a_run_counts_once_for_each_end(shop: Opens) -> None:
    """A run that is resumed and ends the same is not counted again; one that ends otherwise is."""
    opened = shop(RUNS)
    opened.breaks()
    opened.call(ticket="T-1", run_id="r")
    opened.call(ticket="T-2", run_id="r")
    assert opened.counts() == (0, 1)
    opened.heals()
    opened.call(ticket="T-3", run_id="r")
    opened.call(ticket="T-4", run_id="r")
    assert opened.counts() == (1, 1)


def test_waiting_is_no_end(shop: Opens) -> None:
    """A run that waits for people is not counted until they have decided and it has ended."""
    opened = shop(RUNS)
    asked = opened.tool("pay", requires_approval())
    opened.call(asked, ticket="T-1", run_id="r")
    assert opened.counts() == (0, 0)
    [status] = opened.guard.slos.status()
    assert (status.open, status.stale) == (1, 0)
    opened.approve()
    opened.call(asked, ticket="T-1", run_id="r")
    assert opened.counts() == (1, 0)


def test_how_a_run_ended_decides(shop: Opens) -> None:
    """A budget that ran out and a safe ending are bad by default, a kill says nothing."""
    opened = shop(RUNS)
    opened.call(max_tool_calls=0)
    assert opened.counts() == (0, 1)
    opened.call(opened.tool("pay", falls_back_to("draft")), max_tool_calls=0)
    assert opened.counts() == (0, 2)
    opened.guard.kill(tool="pay", by="kim", reason="stop")
    opened.call()
    assert opened.counts() == (0, 2)


@pytest.mark.parametrize("stop", [asyncio.CancelledError, KeyboardInterrupt, GeneratorExit])
def test_a_run_that_was_stopped_says_nothing_about_the_agent(
    shop: Opens, stop: type[BaseException]
) -> None:
    """Cancelled, interrupted, or closed with the stream that it feeds: none is a failure."""
    opened = shop(RUNS)

    def stream() -> Generator[str]:
        with opened.guard.run(WORKFLOW):
            yield "the first words"

    words = stream()
    next(words)
    with contextlib.suppress(stop):
        words.throw(stop())
    assert opened.counts() == (0, 0)


def test_a_run_that_was_killed_counts_when_it_ends(shop: Opens) -> None:
    """A run that nobody closed is open and stale until somebody resumes it."""
    opened = shop(RUNS)
    run = opened.guard.run(WORKFLOW, run_id="r")
    with contextlib.ExitStack() as held:
        held.enter_context(run)
        opened.clock.advance(hours=2)
        [status] = opened.guard.slos.status()
        assert (status.open, status.stale) == (1, 1)
    assert opened.counts() == (1, 0)


@pytest.mark.parametrize("looks", ["a review", "another process"])
def test_an_abandoned_run_counts_after_the_declared_time(any_shop: Opens, looks: str) -> None:
    """Nothing was heard of it for so long: it is a failure, once, however often somebody looks."""
    opened = any_shop(level(abandoned=3600))
    with opened.guard.run(WORKFLOW, run_id="r"):
        opened.clock.advance(minutes=59)
        _look(opened, looks)
        assert opened.counts() == (0, 0)
        opened.clock.advance(minutes=1)
        for _ in range(2):
            _look(opened, looks)
        assert opened.counts() == (0, 1)
        report = opened.guard.slos.report("runs")
        assert [(bad.run_id, bad.outcome) for bad in report.spent] == [("r", "failure")]


def _look(opened: Shop, looks: str) -> None:
    if looks == "a review":
        opened.guard.slos.review()
    elif (other := opened.another()).store is not opened.guard.store:
        other.close()


def test_a_run_that_tells_something_is_not_abandoned(shop: Opens) -> None:
    """Each call begins the time anew, also where the run takes hours."""
    opened = shop(level(abandoned=3600))
    with opened.guard.run(WORKFLOW):
        for ticket in ("T-1", "T-2", "T-3"):
            opened.clock.advance(minutes=59)
            opened.guard.slos.review()
            opened.pay(ticket)
    assert opened.counts() == (1, 0)


@pytest.mark.parametrize(("ends", "counted"), [("well", (1, 1)), ("badly", (0, 1))])
def test_an_abandoned_run_that_ends_counts_as_it_ends(
    shop: Opens, ends: str, counted: tuple[int, int]
) -> None:
    """It was only silent: it counts once more if it ends otherwise, as one that was resumed does."""
    opened = shop(level(abandoned=3600))
    with contextlib.suppress(ConnectionError), opened.guard.run(WORKFLOW):
        opened.clock.advance(hours=2)
        opened.guard.slos.review()
        if ends == "badly":
            raise ConnectionError
    assert opened.counts() == counted


def test_processes_that_die_take_autonomy_away(shop: Opens) -> None:
    """An agent that is killed in each of its runs is demoted by who finds that nobody ends them."""
    opened = shop(level(abandoned=600))
    dead = [opened.guard.run(WORKFLOW, run_id=f"dead-{number}") for number in range(5)]
    with contextlib.ExitStack() as held:
        for run in dead:
            held.enter_context(run)
        opened.clock.advance(minutes=10)
        opened.guard.slos.review()
        assert opened.stage() == "approve"
        assert [c["why"] for c in opened.changes()] == ["slo runs exhausted"]
    assert isinstance(opened.call(), ApprovalRequired)


def test_what_was_abandoned_long_ago_is_history(shop: Opens) -> None:
    """Who declares a time today is not demoted by what was killed weeks before."""
    opened = shop(level(abandoned=3600))
    with opened.guard.run(WORKFLOW):
        opened.clock.advance(days=8)
        opened.guard.slos.review()
        assert opened.counts() == (0, 0)


def test_a_run_of_unknown_cost_is_not_cheap(shop: Opens) -> None:
    """Under a limit of cost a run whose cost nobody knows is bad, a cheap one good."""
    opened = shop(level("cheap", sli="cost", at_most=Decimal("0.10"), demote=None))
    opened.call()
    assert opened.counts("cheap") == (1, 0)
    with opened.guard.run(WORKFLOW) as run:
        call = run.model_started(model="of unknown price", messages=["hello"])
        run.model_finished(call, output="hello", input_tokens=5, output_tokens=5)
    assert opened.counts("cheap") == (1, 1)


def test_a_slow_run_is_bad(shop: Opens) -> None:
    """Under a limit of time a run counts by the time from its beginning to its end, waits included."""
    opened = shop(level("quick", sli="latency", at_most=Decimal(30), demote=None))
    for seconds in (30, 31):
        with opened.guard.run(WORKFLOW):
            opened.clock.advance(seconds)
    assert opened.counts("quick") == (1, 1)


def test_a_run_that_asked_people_was_escalated(shop: Opens) -> None:
    """A run whose call waited for people counts as escalated, however it ended."""
    opened = shop(level("alone", sli="escalation", demote=None))
    asked = opened.tool("pay", requires_approval(when="ticket == 'T-1'"))
    opened.call(asked, ticket="T-1", run_id="r")
    opened.approve()
    opened.call(asked, ticket="T-1", run_id="r")
    opened.call(asked, ticket="T-2")
    assert opened.counts("alone") == (1, 1)


# Owners that died.


def _dies(url: str, folder: str) -> None:
    shop = Shop(_world(folder), url)
    shop.broken = lambda: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    shop.call(ticket="T-lost", run_id="lost")


def _world(folder: str) -> Any:
    from tests.support import World

    return World(Path(folder) / "world.txt")


def dead(shop: Shop, folder: Path) -> None:
    """Let another process die inside a body of the tool."""
    shop.guard.close()
    process = multiprocessing.get_context("fork").Process(
        target=_dies, args=(shop.url, str(folder))
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("finds", ["opening", "listing", "calling", "ruling"])
def test_an_effect_whose_owner_died_counts_wherever_it_is_found(
    shop: Opens, tmp_path: Path, finds: str
) -> None:
    """At the opening of a guard, in a list, by the next call or a ruling: once, as bad."""
    opened = shop(PAYS)
    url = opened.url
    guard = Guard(url, config=Settings(slos=(PAYS,)))
    dead(opened, tmp_path)
    if finds == "opening":
        Guard(url, config=Settings(slos=(PAYS,))).close()
    elif finds == "listing":
        guard.effects.list()
    elif finds == "calling":
        assert (
            opened.call(opened.tool("pay"), ticket="T-lost", guard=guard).kind == "effect_in_doubt"
        )
    else:
        [effect] = guard.store.read(_executing)
        guard.effects.resolve(effect, "not_happened", by="kim", reason="looked")
    [found] = guard.slos.status()
    assert (found.head.good, found.head.bad) == (0, 1)
    guard.effects.list()
    Guard(url, config=Settings(slos=(PAYS,))).close()
    assert guard.slos.status()[0].head.bad == 1
    guard.close()


def _executing(tx: Any) -> list[str]:
    return [key for (key,) in tx.rows("SELECT key FROM effects WHERE state = 'executing'")]


def test_dead_owners_take_autonomy_away(shop: Opens, tmp_path: Path) -> None:
    """Effects that were lost are judged when they are found: the sweep that finds them demotes."""
    watched = level("pays", sli="correctness", target=Decimal("0.9"), min_count=1)
    opened = shop(watched)
    dead(opened, tmp_path)
    guard = Guard(opened.url, config=Settings(slos=(watched,)))
    assert guard.slos.status()[0].head.stage == "approve"
    assert isinstance(opened.call(opened.tool("pay"), guard=guard), ApprovalRequired)
    guard.close()


# The arithmetic of counting.


def _recount(shop: Shop) -> dict[str, tuple[int, int]]:
    """Count once more from the events alone."""
    pays, ends = [0, 0], [0, 0]
    for run in shop.guard.runs.list(limit=1_000):
        last = None
        for event in shop.guard.runs.events(run.id):
            if event.kind == "step.finished":
                pays[event.data["outcome"] != "succeeded" or "error" in event.data] += 1
            if event.kind == "run.finished" and event.data["outcome"] != "pending":
                if event.data["outcome"] != last:
                    ends[event.data["outcome"] != "success"] += 1
                last = event.data["outcome"]
    return {"pays": (pays[0], pays[1]), "runs": (ends[0], ends[1])}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ok", "no", "lost", "wrong"]))))
def test_what_is_counted_is_what_the_record_tells(calls: list[tuple[str, str]]) -> None:
    """Whatever becomes of calls and runs, the rows count what a recount of the events gives."""
    shop = Shop(_nowhere(), "memory://", PAYS, RUNS)
    breaks = {"no": lambda: NoEffect("no", retryable=False), "lost": lambda: ConnectionError("?")}
    for number, (run, fate) in enumerate(calls):
        shop.broken, shop.wrong = breaks.get(fate), fate == "wrong"
        shop.call(ticket=f"T-{number}", run_id=f"{run}-{number // 3}")
    found = {
        status.head.slo: (status.head.good, status.head.bad) for status in shop.guard.slos.status()
    }
    assert found == _recount(shop)
    shop.guard.close()


def _nowhere() -> Any:
    class Nowhere:
        def happen(self, effect: str) -> str:
            return f"done {effect}"

    return Nowhere()


WINDOWS = [
    Window(last=1),
    Window(last=4),
    Window(seconds=1),
    Window(seconds=10),
    Window(seconds=60),
]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=25))
def test_every_window_is_the_difference_of_two_rows(outcomes: list[tuple[bool, int]]) -> None:
    """Windows of time and of outcomes hold exactly the outcomes that a naive count finds in them."""
    clock = FakeClock()
    guard = Guard("memory://", clock=clock)
    with guard.run("w", run_id="r"):
        pass
    told: list[tuple[bool, int]] = []
    watch = Watch((RUNS,), lambda _counted: None)
    for good, wait in outcomes:
        clock.advance(wait)
        guard.store.transact(_record, watch, "success" if good else "failure")
        told.append((good, clock.now()))
    found = guard.store.read(_windows)
    for window in WINDOWS:
        since = clock.now() - window.size * 1_000_000
        inside = told[-window.size :] if window.last else [one for one in told if one[1] > since]
        many = sum(was_good for was_good, _ in inside)
        assert found[window] == Counts(many, len(inside) - many)
    guard.close()


def _record(tx: Any, watch: Watch, outcome: str) -> None:
    log = RunLog(tx, RunRef("default", "r", "agent:bot"))
    slos.record(tx, log, watch, Fact(outcome))
    log.save()


def _windows(tx: Any) -> dict[Window, Counts]:
    row = tx.row(slos.ONE, ("default", "runs", "workflow:refunds"))
    head = slos.Head("default", "runs", "workflow:refunds") if row is None else slos.Head(*row)
    return slos.counts(tx, head, WINDOWS)


def test_a_verb_that_is_run_twice_counts_once(shop: Opens) -> None:
    """A transaction that another one got in the way of is made again, and tells its outcome once."""
    told: list[str] = []
    opened = shop()
    with opened.guard.run(WORKFLOW, run_id="r"):
        pass
    watch = Watch((RUNS,), lambda counted: told.append(counted.verdict))

    def twice(tx: Any) -> None:
        log = RunLog(tx, RunRef("default", "r", "agent:bot"))
        slos.record(tx, log, watch, Fact("success"))
        log.save()

    def breaks(tx: Any) -> None:
        twice(tx)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        opened.guard.store.transact(breaks)
    assert told == []
    opened.guard.store.transact(twice)
    assert told == ["good"]


def test_the_call_of_a_nested_run_counts_for_its_own_workflow(shop: Opens) -> None:
    """A run inside a run has its own workflow, and each counts its own end."""
    opened = shop(
        level("outer", workflow="outer", demote=None), level("inner", workflow="inner", demote=None)
    )
    with opened.guard.run("outer"):
        opened.breaks()
        opened.call(workflow="inner")
        assert current_run().workflow == "outer"
    assert (opened.counts("outer"), opened.counts("inner")) == ((1, 0), (0, 1))


def test_a_write_of_each_call_is_counted_and_held_like_any_other(shop: Opens) -> None:
    """A tool whose key is the call itself waits under a demotion and goes on under its approval."""
    opened = shop(level())
    opened.breaks()
    opened.calls_of(5)

    @tool_contract(effect="write")
    @idempotent(per="call")
    def note(ticket: str) -> str:
        """Note."""
        return opened.world.happen(f"note {ticket}")

    assert isinstance(opened.call(note, ticket="T-n", run_id="n"), ApprovalRequired)
    opened.approve()
    assert opened.call(note, ticket="T-n", run_id="n") == "done note T-n"
