"""Which agent runtimes are at work in a run, one inside another or side by side, and where."""

from __future__ import annotations

import itertools
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .protocols import CallRef, Host


@dataclass(frozen=True, slots=True)
class Place:
    """A block in which a runtime is at work.

    Attributes:
        host: the runtime.
        around: the call of the runtime outside, inside which this one is at work.
        told: what named the call when the block began; inside, it is no news.
    """

    host: Host
    around: CallRef | None = None
    told: tuple[CallRef | None, ...] = ()


_PLACES: ContextVar[Mapping[Hosts, Place]] = ContextVar(
    "agentguard_places", default=MappingProxyType({})
)
"""Where this code is in each of the runs around it."""


class Hosts:
    """The runtimes of one run: one host of each kind, which remembers what it has to."""

    def __init__(self, own: Host) -> None:
        self._own = Place(own)
        self._kinds: dict[type[Host], Host] = {type(own): own}
        self._counts: dict[str, Iterator[int]] = {}

    @property
    def here(self) -> Place:
        """The innermost block around this code; outside of all, the run with its own host."""
        return _PLACES.get().get(self, self._own)

    def inside(self, host: Host, named: CallRef | None) -> Block:
        """Return a block in which a runtime of the kind of *host* is at work."""
        here = self.here
        if isinstance(here.host, type(host)):
            return Block(self, here)
        found = self._kinds.setdefault(type(host), host)
        return Block(self, Place(found, self.call(named), (found.call(), named)))

    def call(self, named: CallRef | None) -> CallRef | None:
        """Return the innermost call, as the runtime here says, or the code by hand as *named*."""
        here = self.here
        for ref in (here.host.call(), named):
            if ref is not None and all(ref is not old for old in here.told):
                return ref
        return here.around

    def number(self, what: str, ref: CallRef | None, *, at_least: int = 0) -> int:
        """Count *what* in the execution of the call *ref*, or in the run."""
        counts = self._counts if ref is None else ref.begun
        counter = counts.setdefault(what, itertools.count())  # safe for threads, each in one step
        return next(number for number in counter if number >= at_least)

    def are_steered_by(self, error: BaseException) -> bool:
        """Return whether a runtime that is or was at work in the run steers itself by *error*."""
        return any(isinstance(error, host.control_flow) for host in list(self._kinds.values()))


class Block:
    """A runtime is at work in this block; one that is never left ends with its context."""

    def __init__(self, hosts: Hosts, place: Place) -> None:
        self._hosts, self._place = hosts, place
        self._token: Token[Mapping[Hosts, Place]] | None = None

    def __enter__(self) -> None:
        self._token = _PLACES.set({**_PLACES.get(), self._hosts: self._place})

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _PLACES.reset(self._token)
