"""What agent runtimes tell a run: who is at work, which call it is, for what it waits."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from ._contexts import setting
from .protocols import CallRef

if TYPE_CHECKING:
    from collections.abc import Generator

    from ._hosts import Block, Hosts
    from .protocols import Host

REF: ContextVar[CallRef | None] = ContextVar("agentguard_call_ref", default=None)
"""The model's call that is being executed, as `tool_call` names it."""


class Hosting(Protocol):
    """What these need from a run."""

    hosts: Hosts
    waits: dict[tuple[type[Host], str], str]

    @property
    def host(self) -> Host:
        """The agent runtime at work here."""
        ...

    def call_ref(self) -> CallRef | None:
        """Return the model's call that is being executed."""
        ...


class Hosted:
    """What runtimes tell a run."""

    @property
    def host(self: Hosting) -> Host:
        """The agent runtime at work here: that of the innermost block, or the run's own."""
        return self.hosts.here.host

    def inside(self: Hosting, host: Host) -> Block:
        """Return a block in which a runtime of the kind of *host* is at work, for adapters.

        The run has one host of each kind: *host* is taken if it has none yet. In a block of that
        kind this changes nothing.
        """
        return self.hosts.inside(host, REF.get())

    def waiting(self: Hosting, reason: str, of: str = "") -> None:
        """Say that the run pauses when it is left without an error; it has not succeeded yet.

        Args:
            reason: for what it waits; empty if it waits for nothing any more. That takes back what
                the runtime at work here has said, not what others have.
            of: what in this runtime waits, where several things may.
        """
        self.waits[type(self.host), of] = reason

    @contextlib.contextmanager
    def tool_call(self: Hosting, call_id: str, occurrence: int = 0) -> Generator[None]:
        """Say which call of the model the guarded calls inside belong to.

        For loops without an adapter: one block for every delivery of a call. A delivery of the
        same id and arguments is the same call; *occurrence* tells reused ids apart.
        """
        with setting(REF, CallRef(call_id, occurrence)):
            yield

    def root(self: Hosting, what: str = "") -> str:
        """Return how the ids of calls begin that a runtime makes here: with the call around them.

        Args:
            what: something that the runtime begins here, such as a graph; each gets a root of its
                own, the same one whenever the call around it is executed again.
        """
        ref = self.call_ref()
        path, number = ref.path if ref else "", self.hosts.number(what, ref) if what else 0
        if number:
            return f"{path}+{number}/"
        return f"{path}/" if path else ""

    def number(self: Hosting, what: str, at_least: int = 0) -> int:
        """Count *what*: from 0 in each execution of the call around, or in this run."""
        return self.hosts.number(what, self.call_ref(), at_least=at_least)
