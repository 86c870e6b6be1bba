"""What the ledger needs of a store: one class for each theme, one for all."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from ....stores import open_store
from ...clock import FakeClock
from ..openings import Openings
from .clocks import Clocks
from .crowds import Crowds
from .lifetimes import Lifetimes
from .owners import Owners
from .promises import Promises
from .readers import Readers
from .shared import Shared
from .transactions import Transactions
from .transitions import Transitions
from .undoing import Undoing
from .values import Values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ....protocols import Clock, Store
    from ..processes import Child


class StoreContract(
    Readers,
    Promises,
    Undoing,
    Transitions,
    Shared,
    Owners,
    Lifetimes,
    Clocks,
    Values,
    Crowds,
    Transactions,
):
    """The tests of a store: subclass it as `Test…` and give the fixture `store_url`.

    Every test gets a store that was empty. (pytest runs the tests of the last base first.)

    Attributes:
        alone: why nobody else can open the same store, where nobody can; then the tests that need
            a second opening or another process are skipped with this reason.
        without_proof: why the store cannot tell that a process is dead, where it cannot.
    """

    alone: ClassVar[str] = ""
    without_proof: ClassVar[str] = ""

    def open(self, url: str, clock: Clock | None) -> Store:
        """Open the store at *url*; override it for a store that `open_store` does not know."""
        return open_store(url, clock=clock)

    @pytest.fixture
    def store_url(self) -> str:
        """The URL of a store that is empty: one of its own for every test."""
        raise NotImplementedError("override the fixture store_url: the URL of an empty store")

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The time of all openings; it begins now, since other processes have a real one."""
        return FakeClock(dt.datetime.now(dt.UTC).isoformat())

    @pytest.fixture
    def openings(self, store_url: str, clock: FakeClock) -> Iterator[Openings]:
        """Whoever opens the store under test."""
        made = Openings(self.open, store_url, clock)
        yield made
        made.close()

    @pytest.fixture
    def store(self, openings: Openings) -> Store:
        """The store, open."""
        return openings.open()

    @pytest.fixture
    def stores(self, openings: Openings, store: Store) -> list[Store]:
        """The store and another opening of it, where there can be one."""
        return [store] if self.alone else [store, openings.open()]

    @pytest.fixture
    def other(self, stores: list[Store]) -> Store:
        """Another opening of the same store."""
        if self.alone:
            pytest.skip(self.alone)
        return stores[1]

    @pytest.fixture
    def fork(
        self, openings: Openings
    ) -> Callable[[Callable[[Store, Callable[[Any], None]], object]], Child]:
        """Start a process that works on an opening of its own."""
        if self.alone:
            pytest.skip(self.alone)
        return openings.fork

    @pytest.fixture
    def can_prove_death(self) -> None:
        """Skip where the store has no proof of death."""
        if self.alone or self.without_proof:
            pytest.skip(self.alone or self.without_proof)
