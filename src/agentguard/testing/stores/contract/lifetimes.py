"""Opening, closing, forking and interruptions: a store is whole at each of its ends."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ....errors import StoreUnavailable
from ..crowd import Gate, look, note, noted
from ..processes import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

    from ....protocols import Store
    from ..openings import Openings


class Interrupted(BaseException):
    """What a signal handler raises, as Ctrl-C and task queues do."""


def attempt(store: Store, name: str) -> str | None:
    """Write something down, unless the store does not take it any more."""
    try:
        return store.transact(note, name)
    except StoreUnavailable:
        return None


@contextlib.contextmanager
def interrupting() -> Generator[None]:
    """Let SIGALRM raise `Interrupted` in the main thread, and again where Python lets nothing out.

    A signal can fall into a finalizer or a weak reference's callback, whose exceptions go nowhere.
    """

    def handler(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    def swallowed(what: sys.UnraisableHookArgs) -> None:
        if issubclass(what.exc_type, Interrupted):
            signal.setitimer(signal.ITIMER_REAL, 0.000_05)
        else:
            told(what)

    before, told = signal.signal(signal.SIGALRM, handler), sys.unraisablehook
    sys.unraisablehook = swallowed
    try:
        yield
    finally:
        sys.unraisablehook = told
        signal.signal(signal.SIGALRM, before)


class Lifetimes:
    """Closed, forked, interrupted."""

    def test_a_closed_store_stays_closed_and_says_so(self, store: Store) -> None:
        """After `close` everything is refused with the sentence that says why; closing twice is fine."""
        store.transact(note, "a")
        store.close()
        store.close()
        for use in (
            lambda: store.transact(note, "b"),
            lambda: store.read(look, "a"),
            lambda: store.submit(lambda *_: None, note, "c"),
        ):
            with pytest.raises(StoreUnavailable, match="is closed"):
                use()

    def test_closing_one_opening_leaves_the_others_open(self, store: Store, other: Store) -> None:
        """Another opening of the same store goes on."""
        store.transact(note, "a")
        store.close()
        other.transact(note, "b")
        assert noted(other) == ["a", "b"]

    def test_who_comes_while_a_store_closes_is_answered(self, store: Store, other: Store) -> None:
        """Done and kept, or refused and not: nobody hangs and nothing is half."""
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(attempt, store, f"{number:03}") for number in range(100)]
            store.close()
            ends = [call.result(PATIENCE) for call in calls]
        assert sorted(end for end in ends if end is not None) == noted(other)

    def test_a_store_that_is_whole_says_so(self, store: Store) -> None:
        """`check` finds nothing in a store that nobody has damaged."""
        store.transact(note, "a")
        assert store.check() == "ok"

    def test_a_fork_works_with_an_open_store(self, other: Store, openings: Openings) -> None:
        """A forked child uses the store that it inherits, as an owner of its own; the parent goes on."""
        store = openings.open()
        store.transact(note, "parent")
        mine = store.transact(lambda tx: tx.owner)

        def work(say: Any) -> None:
            store.transact(note, "child")
            say([store.transact(lambda tx: tx.owner), noted(store)])

        child = openings.fork_as_it_is(work)
        theirs, there = child.hear()
        store.transact(note, "parent again")
        assert theirs != mine == store.transact(lambda tx: tx.owner)
        assert there == ["child", "parent"]
        child.kill()
        store.transact(note, "at last")
        assert noted(other) == ["at last", "child", "parent", "parent again"]

    def test_forks_amid_a_crowd_break_nothing(self, other: Store, openings: Openings) -> None:
        """While other threads write, forks come and go; every transaction of all of them is whole."""
        store, done = openings.open(), threading.Event()

        def writer(name: str) -> list[str]:
            names: list[str] = []
            while not done.is_set():
                names.append(store.transact(note, f"{name}.{len(names)}"))
            return names

        def work(number: int, say: Any) -> None:
            say([store.transact(note, f"fork {number}.{turn}") for turn in range(3)])

        with ThreadPoolExecutor(2) as pool:
            writers = [pool.submit(writer, name) for name in "ab"]
            told = []
            for number in range(5):
                child = openings.fork_as_it_is(partial(work, number))
                told += child.hear()
                child.leave()
            done.set()
            told += [name for each in writers for name in each.result(PATIENCE)]
        assert noted(other) == sorted(told)

    def test_who_is_interrupted_while_waiting_knows_the_end(self, stores: list[Store]) -> None:
        """An exception of a signal handler leaves `transact` once it is clear whether it is done."""
        if threading.current_thread() is not threading.main_thread():
            pytest.skip("signals are handled by the main thread, and this test runs in another")
        gate, store = Gate(), stores[0]
        opener = threading.Timer(0.2, gate.open)  # only to end what waits rightly
        with interrupting(), ThreadPoolExecutor(1) as pool:
            first = pool.submit(store.transact, gate.verb)
            gate.wait()
            opener.start()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Interrupted):
                store.transact(note, "a")
            told = noted(stores[-1])
            first.result(PATIENCE)
        store.transact(note, "z")  # whatever was queued has been done by now
        assert noted(stores[-1]) == [*told, "z"]

    def test_who_is_interrupted_in_a_commit_knows_the_end(self, stores: list[Store]) -> None:
        """At whatever moment it comes: what was seen when the exception left `transact` stays so."""
        if threading.current_thread() is not threading.main_thread():
            pytest.skip("signals are handled by the main thread, and this test runs in another")
        stores[0].transact(note, "00")  # what is opened at the first use is open by now
        seen = ["00", *(self._interrupted(stores, f"{n:02}", n) for n in range(1, 31))]
        stores[0].transact(note, "z")
        assert noted(stores[-1]) == [name for name in seen if name] + ["z"]

    @staticmethod
    def _interrupted(stores: list[Store], name: str, number: int) -> str | None:
        """Interrupt one transaction after a while; return its name if it is there afterwards."""

        def write() -> None:
            signal.setitimer(signal.ITIMER_REAL, 0.000_05 * number)
            stores[0].transact(note, name)
            for _ in range(PATIENCE * 10):  # the signal comes after the commit
                threading.Event().wait(0.1)  # short: one that comes just before a wait ends no wait

        with interrupting(), pytest.raises(Interrupted):
            write()
        return name if stores[-1].read(look, name) is not None else None
