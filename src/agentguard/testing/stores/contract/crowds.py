"""Many threads, tasks, openings and processes at once: each gets its own, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ....errors import StoreUnavailable
from ....protocols import Asked, foreseen
from ..crowd import Gate, deliver, gathered, look, note, noted, together
from ..processes import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ....protocols import Store, Tx
    from ..processes import Child


def count(tx: Tx, name: str, *, lock: bool = True) -> int:
    """Read a number, lock its row, write the next one: what budgets do."""
    sql = "SELECT calls FROM budgets WHERE tenant = 't' AND name = ? AND span = ''"
    row = (tx.lock if lock else tx.row)(sql, (name,))
    assert row is not None
    tx.run(
        "UPDATE budgets SET calls = ? WHERE tenant = 't' AND name = ? AND span = ''",
        (row[0] + 1, name),
    )
    return int(row[0]) + 1


def make_counter(tx: Tx, name: str) -> str:
    """Begin at zero."""
    tx.run(
        "INSERT INTO budgets (tenant, name, span, calls, spent, held) VALUES ('t', ?, '', 0, 0, 0)",
        (name,),
    )
    return name


def counted(store: Store, name: str = "n") -> int:
    """Return how far it was counted."""
    row = store.read(lambda tx: tx.row("SELECT calls FROM budgets WHERE name = ?", (name,)))
    return int(row[0]) if row else -1


def take(tx: Tx, key: str, me: str) -> str:
    """Take *key* unless somebody has it; return who has it: what `begin` does."""
    holder = look(tx, key)
    if holder is None:
        note(tx, key, me)
    return str(holder or me)


class Crowds:
    """Callers side by side."""

    @pytest.mark.parametrize(
        "failing",
        [
            lambda tx: [note(tx, "half"), 1 // 0],
            lambda tx: [note(tx, "half"), note(tx, "half")],
            lambda tx: [note(tx, "half"), tx.run("INSERT INTO meta (key) VALUES ('note:b')")],
        ],
        ids=["raises", "breaks a constraint", "breaks one with its last statement"],
    )
    def test_a_verb_that_fails_undoes_only_itself(
        self, store: Store, failing: Callable[[Tx], Any]
    ) -> None:
        """In a crowd one verb's error is its own: the others are kept, and nothing of it is."""
        before, error, after = gathered(
            store, [lambda tx: note(tx, "before"), failing, lambda tx: note(tx, "after")]
        )
        assert isinstance(error, (ZeroDivisionError, StoreUnavailable))
        assert ([before, after], noted(store)) == (["before", "after"], ["after", "before"])

    def test_everybody_is_answered_once_from_another_thread(self, store: Store) -> None:
        """`done` is called exactly once a verb, with its result or its error, by another thread."""
        told: dict[str, list[tuple[Any, Any, int]]] = {}
        answered = threading.Semaphore(0)

        def done(name: str, result: Any, error: BaseException | None) -> None:
            told.setdefault(name, []).append((result, type(error), threading.get_ident()))
            answered.release()

        names = [f"{number}" for number in range(20)]
        for name in names:
            verb = note if int(name) % 5 else fail
            store.submit(partial(done, name), verb, name)
        for _ in names:
            assert answered.acquire(timeout=PATIENCE)
        store.close()  # nothing is under way any more, so nobody can be told twice
        assert {name: len(ends) for name, ends in told.items()} == dict.fromkeys(names, 1)
        for name, ((result, error, thread),) in told.items():
            assert (result, error) == ((name, type(None)) if int(name) % 5 else (None, KeyError))
            assert thread != threading.get_ident()

    def test_an_answer_comes_after_durability(self, store: Store, other: Store) -> None:
        """When `done` is called, everybody sees what was written."""
        seen: list[Any] = []
        answered = threading.Semaphore(0)

        def done(result: str, error: BaseException | None) -> None:
            seen.append((error, other.read(look, result)))
            answered.release()

        for number in range(20):
            store.submit(done, note, f"{number}", "kept")
        for _ in range(20):
            assert answered.acquire(timeout=PATIENCE)
        assert seen == [(None, "kept")] * 20

    def test_threads_get_each_its_own(self, stores: list[Store]) -> None:
        """Every thread gets the result of its own verb, and all of them are kept."""
        names = [f"{number:02}" for number in range(16)]

        def caller(number: int, name: str) -> list[str]:
            store = stores[number % len(stores)]
            return [store.transact(note, f"{name}.{turn}") for turn in range(5)]

        ends = together(partial(caller, number, name) for number, name in enumerate(names))
        assert ends == [[f"{name}.{turn}" for turn in range(5)] for name in names]
        assert noted(stores[-1]) == sorted(end for each in ends for end in each)

    def test_tasks_get_each_its_own(self, store: Store) -> None:
        """Every task of an event loop gets the result of its own verb, and the loop never waits."""

        async def task(name: str) -> str:
            end: Future[str] = Future()
            store.submit(deliver(end), note, name)
            return await asyncio.wait_for(asyncio.wrap_future(end), PATIENCE)

        async def crowd(names: list[str]) -> list[str]:
            return await asyncio.gather(*(task(name) for name in names))

        names = [f"{number:02}" for number in range(64)]
        assert asyncio.run(crowd(names)) == noted(store) == names

    def test_of_those_who_want_the_same_key_one_gets_it(self, stores: list[Store]) -> None:
        """Verbs that collide on a unique key end with one winner, whom all of them name."""
        for turn in range(5):
            ends = together(
                partial(stores[number % len(stores)].transact, take, f"{turn}", f"{number}")
                for number in range(8)
            )
            assert len(set(ends)) == 1, ends
            assert stores[0].read(look, f"{turn}") == ends[0]
        assert len(noted(stores[0])) == 5

    def test_a_locked_row_is_changed_in_turns(self, stores: list[Store]) -> None:
        """Of increments by many threads and openings none is lost, and each sees another number."""
        stores[0].transact(make_counter, "n")

        def caller(number: int) -> list[int]:
            return [stores[number % len(stores)].transact(count, "n") for _ in range(12)]

        ends = together(partial(caller, number) for number in range(8))
        assert sorted(number for each in ends for number in each) == list(range(1, 97))
        assert counted(stores[0]) == 96

    def test_what_a_verb_says_it_will_ask_changes_no_answer(self, stores: list[Store]) -> None:
        """Questions that are told beforehand, needed or not, are answered as if they were not told."""
        sql = "SELECT calls FROM budgets WHERE tenant = 't' AND name = ? AND span = ''"

        @foreseen(lambda name: (
            Asked("gate", "g"), Asked("lock", sql, (name,)), Asked("row", sql, ("nobody",)),
        ))  # fmt: skip
        def foreseeing(tx: Tx, name: str) -> int:
            return count(tx, name)

        @foreseen(lambda name: (Asked("row", sql, (name,)),))
        def twice(tx: Tx, name: str) -> int:
            count(tx, name)
            return count(tx, name)  # what was told is not true any more

        stores[0].transact(make_counter, "n")

        def caller(number: int) -> list[int]:
            store, verb = stores[number % len(stores)], twice if number % 3 == 0 else foreseeing
            return [store.transact(verb, "n") for _ in range(6)]

        ends = together(partial(caller, number) for number in range(9))
        assert counted(stores[0]) == 3 * 6 * 2 + 6 * 6
        assert len({number for each in ends for number in each}) == 9 * 6

    def test_a_locked_row_is_changed_in_turns_by_processes(
        self, store: Store, fork: Callable[[Callable[[Store, Any], object]], Child]
    ) -> None:
        """Of increments by several processes none is lost."""
        store.transact(make_counter, "n")

        def work(mine: Store, say: Callable[[Any], None]) -> None:
            say([mine.transact(count, "n") for _ in range(20)])

        ends = [child.hear() for child in [fork(work) for _ in range(3)]]
        assert sorted(number for each in ends for number in each) == list(range(1, 61))

    def test_locks_taken_crosswise_end(self, stores: list[Store]) -> None:
        """Two transactions that wait for each other's row do not wait for ever, and both happen."""
        stores[0].transact(lambda tx: [make_counter(tx, "a"), make_counter(tx, "b")])
        ways = [("a", "b"), ("b", "a")]

        def caller(number: int) -> None:
            names = ways[number % 2]
            for _ in range(5):
                stores[number % len(stores)].transact(lambda tx: [count(tx, n) for n in names])

        together(partial(caller, number) for number in range(4))
        assert (counted(stores[0], "a"), counted(stores[0], "b")) == (20, 20)

    def test_a_row_that_is_not_there_cannot_be_locked(self, store: Store) -> None:
        """`lock` returns None where there is no row, and holds nothing up."""
        sql = "SELECT calls FROM budgets WHERE name = ?"
        assert store.transact(lambda tx: tx.lock(sql, ("nobody",))) is None

    def test_who_is_in_a_gate_alone_is_alone(self, store: Store, other: Store) -> None:
        """Who wants a gate for itself waits for all who have passed it, and sees what they wrote."""
        gate = Gate()

        def passing(tx: Tx) -> None:
            tx.gate("g", alone=False)
            note(tx, "a", "kept")
            look(tx, "a")  # what was queued has reached the engine by now
            gate.verb(tx)

        def closing(tx: Tx) -> Any:
            tx.gate("g", alone=True)
            return look(tx, "a")

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(store.transact, passing)
            gate.wait()
            second = pool.submit(other.transact, closing)
            wait([second], timeout=0.2)  # it must not end by itself
            gate.open()
            assert (first.result(PATIENCE), second.result(PATIENCE)) == (None, "kept")

    def test_what_was_acknowledged_survives_a_kill(
        self, store: Store, fork: Callable[[Callable[[Store, Any], object]], Child]
    ) -> None:
        """Whatever a process was told to be done is there after its SIGKILL, and nothing is halved."""

        def work(mine: Store, say: Callable[[Any], None]) -> None:
            for number in range(100_000):
                say(mine.transact(note_both, f"{number}"))

        for _ in range(3):
            child = fork(work)
            told = [child.hear() for _ in range(10)]
            child.kill()
            told += child.heard()
            found = noted(store)
            assert {name for pair in told for name in pair} <= set(found)
            assert len(found) == 2 * len({name[:-1] for name in found})
            store.transact(lambda tx: tx.run("DELETE FROM meta WHERE key LIKE 'note:%'"))


def note_both(tx: Tx, name: str) -> list[str]:
    """Write two things down."""
    return [note(tx, f"{name}a"), note(tx, f"{name}b")]


def fail(_tx: Tx, name: str) -> None:
    """End with an error."""
    raise KeyError(name)
