"""The openings of one store that a test makes, in this process and in forks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .processes import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...protocols import Clock, Store


class Openings:
    """Opens one store again and again, and closes what is left.

    Attributes:
        url: where the store is; empty at first.
        clock: the time of all openings.
    """

    def __init__(self, make: Callable[[str, Clock | None], Store], url: str, clock: Clock) -> None:
        self._make, self.url, self.clock = make, url, clock
        self._open: list[Store] = []
        self._forks: list[Child] = []

    def open(self, clock: Clock | None = None) -> Store:
        """Open the store once more, as another worker would."""
        store = self._make(self.url, clock or self.clock)
        self._open.append(store)
        return store

    def open_by_its_own_time(self) -> Store:
        """Open the store with no clock given to it."""
        store = self._make(self.url, None)
        self._open.append(store)
        return store

    def fork(self, work: Callable[[Store, Callable[[Any], None]], object]) -> Child:
        """Let a fork of this process open the store and work on it."""
        child = Child(lambda say: work(self._make(self.url, self.clock), say))
        self._forks.append(child)
        return child

    def fork_as_it_is(self, work: Callable[[Callable[[Any], None]], object]) -> Child:
        """Let a fork of this process work with what it inherits."""
        child = Child(work)
        self._forks.append(child)
        return child

    def close(self) -> None:
        """Close every store and end every fork."""
        for child in self._forks:
            child.close()
        for store in self._open:
            store.close()
