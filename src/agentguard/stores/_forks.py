"""A store survives a fork: closed before it, opened again on both sides at its next use."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What a store does around a fork of its process."""

    @property
    def closed(self) -> bool:
        """Whether there is nothing left to do."""
        ...

    def before_fork(self) -> None:
        """Close what a child must not inherit, and hold the locks while the fork happens."""
        ...

    def after_fork_in_parent(self) -> None:
        """Let go of the locks."""
        ...

    def after_fork_in_child(self) -> None:
        """Start afresh, with locks and an identity of its own."""
        ...


_STORES: weakref.WeakSet[Forked] = weakref.WeakSet()
_FORKING: list[Forked] = []


def watch(store: Forked) -> None:
    """Tell *store* of every fork from now on, for as long as it is used."""
    _STORES.add(store)


def _before() -> None:
    _FORKING[:] = [store for store in list(_STORES) if not store.closed]
    for store in _FORKING:
        store.before_fork()


def _in_parent() -> None:
    for store in _FORKING:
        store.after_fork_in_parent()
    _FORKING.clear()


def _in_child() -> None:
    for store in _FORKING:
        store.after_fork_in_child()
    _FORKING.clear()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
