"""Time is the store's: one moment a transaction, never running backwards."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..crowd import note

if TYPE_CHECKING:
    from ....protocols import Store, Tx
    from ...clock import FakeClock
    from ..openings import Openings

HOUR_US = 3_600_000_000


def now(tx: Tx) -> int:
    """Return the time of a transaction."""
    return tx.now


class Clocks:
    """Whose time it is."""

    def test_a_clock_that_is_given_rules(self, store: Store, clock: FakeClock) -> None:
        """Reads and transactions go by the injected clock, to the microsecond."""
        assert store.clock is clock
        for _ in range(3):
            clock.advance(hours=1, microseconds=1)
            assert store.read(now) == store.transact(now) == clock.now()

    def test_time_does_not_run_backwards(self, store: Store, clock: FakeClock) -> None:
        """Neither transactions nor reads see an earlier time than one before them."""
        before = store.transact(now)
        clock.set_back(days=1)
        assert store.transact(now) == store.read(now) == before
        clock.advance(days=1, hours=1)
        assert store.read(now) == before + HOUR_US
        clock.set_back(days=1)
        assert store.transact(now) == before + HOUR_US

    def test_a_transaction_has_one_moment(self, store: Store, clock: FakeClock) -> None:
        """The time stands still inside a transaction."""

        def verb(tx: Tx) -> tuple[int, int]:
            before = tx.now
            clock.advance(hours=1)
            note(tx, "a")
            return before, tx.now

        before, after = store.transact(verb)
        assert before == after

    def test_the_stores_own_time_is_the_time(self, openings: Openings) -> None:
        """Without a clock given, the time is that of the world, in microseconds, and goes on."""
        store = openings.open_by_its_own_time()
        seen = [store.transact(now) if turn % 2 else store.read(now) for turn in range(20)]
        assert seen == sorted(seen)
        assert abs(seen[-1] / 1_000_000 - time.time()) < 60  # the engine's machine may be another
