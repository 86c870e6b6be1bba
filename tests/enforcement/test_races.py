"""Once a demotion is committed no write of the workflow starts unasked: threads, processes, server."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from agentguard import Guard, GuardError, NoEffect
from agentguard.config import Settings
from agentguard.ledger import effects, lifecycle, settling
from agentguard.ledger.values import Pending, RunRef, Settlement, Started
from agentguard.model import EffectState
from agentguard.slos import Demotion
from agentguard.testing.stores.ledger import enter, intent
from tests.enforcement.shop import WORKFLOW, Shop, level
from tests.support import World

CALLERS, CALLS = 8, 12
RUNS = level(demote=Demotion("approve", "approve", restore_good=1_000))
OVER_W = level(workflow="w", demote=Demotion("approve", "approve", restore_good=1_000))


def _work(shop: Shop, worker: int, many: int, guard: Guard) -> list[str]:
    """Write as fast as it goes, while payments are broken."""
    pay, ends = shop.tool("pay"), list[str]()
    for number in range(many):
        try:
            with guard.run(WORKFLOW, run_id=f"r-{worker}-{number}"):
                ends.append(str(pay(f"T-{worker}-{number}")))
        except (GuardError, NoEffect) as error:
            ends.append(getattr(error, "kind", "failed"))
    return ends


def _trouble(shop: Shop) -> Iterator[str]:
    """Name every write that started although the demotion had been committed before, by the record."""
    events = shop.guard.store.read(_events)
    [demoted] = [rowid for rowid, kind, _ in events if kind == "autonomy.changed"]
    for rowid, kind, data in events:
        if kind == "step.started" and rowid > demoted:
            yield json.dumps(data)


def _events(tx: Any) -> list[tuple[int, str, Any]]:
    """Return events in the order of their transactions' times; one transaction has one time."""
    rows = tx.rows("SELECT at, kind, data FROM events ORDER BY at, seq")
    return [(at, kind, json.loads(data)) for at, kind, data in rows]


def _process(url: str, folder: str, worker: int, start: Any) -> None:
    shop = Shop(World(Path(folder) / "world.txt"), url)
    shop.breaks()
    guard = Guard(url)  # it has no service level, and no injected clock
    start.wait()
    _work(shop, worker, CALLS, guard)


@pytest.mark.slow
def test_threads_and_processes_start_nothing_unasked_after_the_commit(tmp_path: Path) -> None:
    """Eight threads and two processes write; after the event of the demotion no start is on record."""
    url = f"sqlite:///{tmp_path}/shop.db"
    shop = Shop(World(tmp_path / "world.txt"), url, RUNS)
    shop.breaks()
    shop.guard.close()
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    others = [
        context.Process(target=_process, args=(url, str(tmp_path), 100 + number, start))
        for number in range(2)
    ]
    for process in others:
        process.start()
    start.wait()
    shop.guard = Guard(url, config=Settings(slos=(RUNS,)))
    with ThreadPoolExecutor(CALLERS) as pool:
        done = [pool.submit(_work, shop, n, CALLS, shop.guard) for n in range(CALLERS)]
    ends = [end for future in done for end in future.result()]
    for process in others:
        process.join()
    assert {process.exitcode for process in others} == {0}
    assert set(ends) == {"failed", "approval_required"}
    assert list(_trouble(shop)) == []
    assert shop.guard.slos.status()[0].head.stage == "approve"
    shop.guard.close()


def test_on_a_server_the_demotion_waits_for_starts_that_have_looked_already(
    postgres_url: str,
) -> None:
    """A start that has read the stage commits before the demotion does, and the next one is asked."""
    guard, other = Guard(postgres_url, config=Settings(slos=(OVER_W,))), Guard(postgres_url)
    runs = [RunRef("default", f"r{number}", "agent:bot") for number in range(7)]
    for run in runs:
        enter(guard.store, run)
    watch = guard.slos.of_workflows["w"]
    for run in runs[:4]:
        _close(guard, run, watch)
    looked, go = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        started = pool.submit(other.store.transact, _slow_start, runs[5], looked, go)
        assert looked.wait(10)
        demoting: Future[Any] = pool.submit(_close, guard, runs[4], watch)
        still, _ = wait([demoting], timeout=0.3)
        go.set()
        assert not still, "it was demoted while a start was on its way that had not seen it"
        assert isinstance(started.result(10), Started)
        demoting.result(10)
    assert guard.slos.status()[0].head.stage == "approve"
    answer, _ = other.store.transact(effects.begin, _intent(runs[6]))
    assert type(answer).__name__ == "Waiting"
    guard.close()
    other.close()


def test_a_demotion_is_seen_by_the_starts_of_its_own_batch(postgres_url: str) -> None:
    """A start that is asked for together with the outcome that demotes comes after it, and waits."""
    over_pay = level("pays", sli="correctness", min_count=1)
    guard = Guard(postgres_url, config=Settings(slos=(over_pay,)))
    runs = [RunRef("default", f"r{number}", "agent:bot") for number in range(3)]
    for run in runs:
        enter(guard.store, run)
    started, _ = guard.store.transact(effects.begin, _intent(runs[0]))
    assert isinstance(started, Started)
    end = Settlement(
        runs[0], "key-r0", started.fence, started.step, EffectState.FAILED_FINAL, {},
        watch=guard.slos.of_tools["pay"],
    )  # fmt: skip
    held, go = threading.Event(), threading.Event()
    answers: dict[str, Future[Any]] = {name: Future() for name in ("first", "end", "start")}

    def hold(_tx: Any) -> None:
        held.set()
        go.wait(10)

    def done(name: str) -> Any:
        return lambda result, error: (
            answers[name].set_exception(error) if error else answers[name].set_result(result)
        )

    guard.store.submit(done("first"), hold)
    assert held.wait(10)
    guard.store.submit(done("end"), settling.settle, end)
    guard.store.submit(done("start"), effects.begin, _intent(runs[1]))
    go.set()
    assert answers["end"].result(10).written
    assert type(answers["start"].result(10)[0]).__name__ == "Waiting"
    guard.close()


def _intent(run: RunRef) -> Any:
    wish = intent(run, f"key-{run.run_id}")
    wish.workflow, wish.reservations = "w", ()
    return wish


def _slow_start(tx: Any, run: RunRef, looked: threading.Event, go: threading.Event) -> Any:
    answer, _ = effects.begin(tx, _intent(run))
    looked.set()
    go.wait(10)
    return answer


def _close(guard: Guard, run: RunRef, watch: Any) -> None:
    guard.store.transact(lifecycle.close_run, run, "failed", "no", Pending(), "NoEffect", watch)


@pytest.mark.parametrize("processes", [4])
def test_no_outcome_is_lost_between_processes(tmp_path: Path, processes: int) -> None:
    """Whoever counts at the same time counts all: as many outcomes as runs, good and bad."""
    url = f"sqlite:///{tmp_path}/shop.db"
    counting = level(demote=None)
    guards = [Guard(url, config=Settings(slos=(counting,))) for _ in range(processes)]
    shop = Shop(World(tmp_path / "world.txt"), url)

    def play(number: int) -> None:
        pay = shop.tool("pay")
        for call in range(CALLS):
            with contextlib.suppress(NoEffect), guards[number].run(WORKFLOW):
                pay(f"T-{number}-{call}")
                if call % 3 == 0:
                    raise NoEffect("no")

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(play, range(processes)))
    head = guards[0].slos.status()[0].head
    assert (head.good, head.bad, head.n) == (32, 16, 48)
    for guard in (*guards, shop.guard):
        guard.close()


def test_service_levels_are_locked_in_the_order_of_their_names(postgres_url: str) -> None:
    """Ends that count in several levels at once wait for each other in a line, never in a circle."""
    names = ["c", "a", "b"]
    slos = [level(name, demote=None) for name in names]
    guards = [
        Guard(postgres_url, config=Settings(slos=tuple(order))) for order in (slos, slos[::-1])
    ]

    def play(number: int) -> None:
        for _ in range(10):
            with guards[number].run(WORKFLOW):
                pass

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(play, range(2)))
    assert [found.head.n for found in guards[0].slos.status()] == [20, 20, 20]
    for guard in guards:
        guard.close()
