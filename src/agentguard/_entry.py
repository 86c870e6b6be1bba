"""How an adapter enters a run: a new one, one to resume, or the one it is already in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .model import Principal
from .run import active_run

if TYPE_CHECKING:
    from types import TracebackType

    from ._hosts import Block
    from .guard import Guard
    from .protocols import Host
    from .run import Run

T = TypeVar("T")
RunIdOf = str | Callable[[Any], str | None] | None
"""A run's id, or a function of what the runtime knows of an invocation."""
Who = Principal | Callable[[Any], Principal | None] | None
"""Who acts, or a function of what the runtime knows of an invocation."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is the same for all runs of one guarded graph, kernel or workflow.

    Attributes:
        guard: where the runs are kept.
        workflow: what kind of runs they are.
        principal: who acts; the guard's principal by default.
        run_id: the run's id; the runtime's own by default.
        budget: what `Guard.run` takes, such as `max_steps`.
    """

    guard: Guard
    workflow: str
    principal: Who = None
    run_id: RunIdOf = None
    budget: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __deepcopy__(self, memo: object) -> Entry:
        return self  # the guard holds a store, and is the same for all copies

    def id_for(self, where: Any, known: str | None = None) -> str | None:
        """Return the id of the run for *where*, or else the one the runtime has *known* it by."""
        if callable(self.run_id):
            return self.run_id(where)
        return self.run_id or known

    def choose(
        self, where: Any, host: Host, *, known: str | None = None, inside: bool = False,
        join: bool = False,
    ) -> tuple[Run, Run | Block]:  # fmt: skip
        """Return the run for *where*, and the block in which *host* is at work there.

        The block is the run itself if it is a new one, to be entered.

        Args:
            where: what the runtime knows of this invocation.
            host: the runtime.
            known: the runtime's own id for what goes on under one run.
            inside: it is part of what runs here already, whatever its id.
            join: as for `Guard.run`.
        """
        run_id, active = self.id_for(where, known), active_run()
        here = active if active is not None and active.guard is self.guard else None
        if here is not None and (inside or run_id in (None, here.id)):
            return here, here.inside(host)
        who = self.principal(where) if callable(self.principal) else self.principal
        run = self.guard.run(
            self.workflow, run_id=run_id, principal=who, host=host, join=join, **self.budget
        )
        return run, run


class Blocks(Generic[T]):
    """Several blocks as one, for `with` and `async with` alike, that gives *value*."""

    def __init__(self, value: T, *blocks: Any) -> None:
        self._value, self._blocks = value, blocks
        self._left: ExitStack | None = None
        self._aleft: AsyncExitStack | None = None

    def __enter__(self) -> T:
        with ExitStack() as stack:
            for block in self._blocks:
                stack.enter_context(block)
            self._left = stack.pop_all()
        return self._value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:  # fmt: skip
        return self._left.__exit__(kind, error, traceback) if self._left else None

    async def __aenter__(self) -> T:
        async with AsyncExitStack() as stack:
            for block in self._blocks:
                if hasattr(block, "__aenter__"):
                    await stack.enter_async_context(block)
                else:
                    stack.enter_context(block)
            self._aleft = stack.pop_all()
        return self._value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:  # fmt: skip
        return await self._aleft.__aexit__(kind, error, traceback) if self._aleft else None
