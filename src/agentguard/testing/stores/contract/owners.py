"""Who executes an effect, and whether that process still lives: death is proven, never assumed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ....ledger import effects, settling
from ....ledger.rows import load_effect
from ....ledger.values import Busy, RunRef, Started
from ..ledger import enter, intent
from ..processes import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ....protocols import Store, Tx
    from ..processes import Child

    Fork = Callable[[Callable[[Store, Callable[[Any], None]], object]], Child]

RUN = RunRef("acme", "r", "agent:bot")


def me(tx: Tx) -> str:
    """Return who asks."""
    return tx.owner


def seen(tx: Tx, owner: str) -> tuple[bool, bool, bool]:
    """Return whether *owner* is alive, lost, dead, as far as can be seen."""
    return tx.is_alive(owner), tx.is_lost(owner), tx.is_dead(owner)


def start(store: Store, say: Callable[[Any], None]) -> None:
    """Enter a run, begin an effect and say who did it."""
    enter(store, RUN)
    answer, _ = store.transact(effects.begin, intent(RUN))
    say([isinstance(answer, Started), store.transact(me)])


def start_and_close(store: Store, say: Callable[[Any], None]) -> None:
    """Begin an effect and close the store while its body runs."""
    start(store, lambda _: None)
    owner = store.transact(me)
    store.close()
    say([True, owner])


def state(store: Store) -> str:
    """Return the state of the effect."""
    row = store.read(load_effect, "acme", "k")
    return str(row.state) if row else "none"


ALIVE, DEAD = (True, False, False), (False, True, True)


class Owners:
    """Proof of life and proof of death."""

    def test_a_process_is_one_owner_and_lives(self, store: Store) -> None:
        """All transactions and reads of one opening have one owner, who is alive to itself."""
        owner = store.transact(me)
        assert owner
        assert store.transact(me) == store.read(me) == owner
        assert store.transact(seen, owner) == store.read(seen, owner) == ALIVE

    def test_a_process_that_has_just_committed_may_begin(self, store: Store) -> None:
        """Who asked and was answered at once may begin the body; the clock for that goes on."""
        since = store.awake()
        store.transact(me)
        assert store.may_begin(since)
        assert store.awake() >= since

    def test_of_a_stranger_nothing_is_proven(self, store: Store) -> None:
        """An owner that nobody knows is neither alive nor dead."""
        alive, _, dead = store.transact(seen, "own_of_nobody")
        assert (alive, dead) == (False, False)

    def test_two_openings_are_two_owners_who_see_each_other(
        self, store: Store, other: Store
    ) -> None:
        """Each opening answers for its own effects."""
        mine, theirs = store.transact(me), other.transact(me)
        assert mine != theirs
        _, lost, dead = store.transact(seen, theirs)
        assert (lost, dead) == (False, False)

    def test_a_process_that_lives_is_not_lost(self, store: Store, fork: Fork) -> None:
        """While a process lives its effect is its own, and a sweep leaves it alone."""
        child = fork(start)
        began, owner = child.hear()
        assert began
        _, lost, dead = store.transact(seen, owner)
        assert (lost, dead) == (False, False)
        answer, _ = store.transact(effects.begin, intent(RUN))
        assert isinstance(answer, Busy)
        assert (store.transact(settling.sweep), state(store)) == (0, "executing")

    @pytest.mark.usefixtures("can_prove_death")
    def test_a_process_that_was_killed_is_dead(self, store: Store, fork: Fork) -> None:
        """After a SIGKILL everybody sees the death, and a sweep lists the doubt, once."""
        child = fork(start)
        _, owner = child.hear()
        assert store.transact(seen, owner) == ALIVE
        child.kill()
        assert store.transact(seen, owner) == store.read(seen, owner) == DEAD
        assert (store.transact(settling.sweep), state(store)) == (1, "in_doubt")
        assert store.transact(settling.sweep) == 0

    @pytest.mark.usefixtures("can_prove_death")
    def test_a_process_that_sleeps_is_not_dead(self, store: Store, fork: Fork) -> None:
        """A process that is suspended, for however long, is never taken for dead."""
        child = fork(start)
        _, owner = child.hear()
        child.stop()
        asleep = store.transact(seen, owner)
        child.wake()
        assert asleep[2] is False

    @pytest.mark.usefixtures("can_prove_death")
    def test_a_body_outlives_the_closing_of_its_store(self, store: Store, fork: Fork) -> None:
        """Who closes the store while a body runs stays alive for it until the process ends."""
        child = fork(start_and_close)
        _, owner = child.hear()
        assert store.transact(seen, owner) == ALIVE
        child.kill()
        assert store.transact(seen, owner) == DEAD

    @pytest.mark.usefixtures("can_prove_death")
    def test_who_holds_the_lifeline_keeps_the_owner_alive(self, store: Store, fork: Fork) -> None:
        """A child process that acts for its parent keeps the proof of life when the parent is killed."""

        def work(mine: Store, say: Callable[[Any], None]) -> None:
            start(mine, lambda _: None)
            words = [sys.executable, "-c", "import signal; signal.pause()"]
            helper = subprocess.Popen(words, pass_fds=mine.lifeline())  # noqa: S603 - this Python
            say([mine.transact(me), helper.pid])

        child = fork(work)
        owner, helper = child.hear()
        child.kill()
        try:
            while_it_lives = store.transact(seen, owner)
        finally:
            end(helper)
        assert while_it_lives[2] is False
        assert store.transact(seen, owner) == DEAD


def end(process: int) -> None:
    """Kill a process that is not our child, and wait until it is gone."""
    gone = os.pidfd_open(process)
    os.kill(process, signal.SIGKILL)
    select.select([gone], [], [], PATIENCE)
    os.close(gone)
