"""What a run has used, as one process counts it, and the events that wait for the next commit.

The store counts exactly, across processes, whatever passes through a transaction. Plain reads do
not: they are counted here, before they run, and written with the next commit. Calls whose
transaction is under way are counted here too, so that no read slips past them.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ._loops import REPEATS, Past, Streaks, shared, started_by
from .errors import ConfigurationError, LoopDetected, StoreUnavailable
from .ledger import recent
from .ledger.runs import exceeded
from .ledger.values import NEW_STEP, Draft, Pending, RunRef
from .model import Limits, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._runtime import Runtime
    from .protocols import Clock, Store

T = TypeVar("T")

_FEWEST = 2
"""Fewer rounds are no loop."""
FLUSH_AFTER = 64
"""So many events of reads wait for a commit at the most."""
FLUSH_SECONDS = 1.0
"""So old does a waiting event of a read get before the next call writes it."""


OPEN: ContextVar[Runtime | None] = ContextVar("agentguard_open", default=None)
"""The runtime of the call that is being executed inside a transaction of the store."""
_METERS: weakref.WeakSet[Meter] = weakref.WeakSet()


class Meter:
    """Counters and waiting events of one run in one process; safe for threads."""

    def __init__(self, run_id: str, clock: Clock) -> None:
        self._run_id, self._clock = run_id, clock
        self._lock = threading.Lock()
        self.limits = Limits()
        self._base = Usage()
        self._steps_ahead = self._tools_ahead = 0
        self._flying_steps = self._flying_tools = 0
        self._active_us = self._part_started = 0
        self._pending, self._oldest = Pending(), 0.0
        self._patience = FLUSH_AFTER
        self._repeats: dict[tuple[str, str], int] = {}
        self._occurrences: dict[tuple[str, str], int] = {}
        self._visited: set[str] = set()
        self.streaks = Streaks()
        self.started = [0]
        _METERS.add(self)

    def renew_lock(self) -> None:
        """Forget the lock: in a fork, whoever held it is not there to let it go."""
        self._lock = threading.Lock()

    def open(self, usage: Usage, limits: Limits, active_us: int, part_started: int) -> None:
        """Go on from what the store knows."""
        self.limits = limits
        self._active_us, self._part_started = active_us, part_started
        self._take_over(usage)

    async def recall(self, runtime: Runtime, store: Store, ref: RunRef, *, join: bool) -> None:
        """Take up the calls before this part of the run, or before this process joined it."""
        known, self.started = False, started_by(store, ref.tenant)
        if join:
            self.streaks, known = shared(store, ref)
        if known or not self.repeats or not self._base.steps:
            return
        before = self.streaks.past()
        if not before:
            before = [_past(found) for found in await runtime.look(store, recent.calls, ref)]
        self.streaks.resumed(before)

    @property
    def turn(self) -> int:
        """How often a model has answered, as far as this process knows."""
        return self._base.model_calls

    @property
    def repeats(self) -> int:
        """So many rounds may a loop go; 0 for as many as it likes."""
        limits = self.limits
        if limits.loops is not None:
            return limits.loops
        return REPEATS if limits.max_repeats is None else max(limits.max_repeats, _FEWEST)

    def _take_over(self, usage: Usage) -> None:
        """Count on from *usage*. The closer a limit that other processes share, the fewer events wait."""
        self._base = usage
        room, limits = 8 * FLUSH_AFTER, self.limits
        if limits.max_steps is not None:
            room = min(room, limits.max_steps - usage.steps)
        if limits.max_tool_calls is not None:
            room = min(room, limits.max_tool_calls - usage.tool_calls)
        self._patience = max(1, room // 8)

    @property
    def usage(self) -> Usage:
        """What the run has used, as far as this process knows."""
        with self._lock:
            base, steps, tools = self._base, self._steps_ahead, self._tools_ahead
            spent, known = self._pending.spent, not self._pending.unpriced
        return Usage(
            base.steps + steps, base.model_calls, base.tool_calls + tools, base.spent + spent,
            base.held, base.input_tokens, base.output_tokens, base.cost_complete and known,
        )  # fmt: skip

    def note(self, draft: Draft, *, tool_call: bool = False, spent: int | None = 0) -> None:
        """Keep an event until the next commit; it is written before anything newer."""
        with self._lock:
            if not self._pending.drafts:
                self._oldest = time.monotonic()
            self._pending.drafts.append(draft)
            self._pending.spent += spent or 0
            self._pending.unpriced |= spent is None
            if draft.step == NEW_STEP:
                self._pending.steps += 1
                self._pending.tool_calls += tool_call

    def waiting(self) -> list[Draft]:
        """Return the events that wait for the next commit."""
        with self._lock:
            return list(self._pending.drafts)

    def due(self) -> bool:
        """Return whether waiting events should be written now."""
        count = len(self._pending.drafts) if OPEN.get() is None else 0
        return count >= self._patience or (
            count > 0 and time.monotonic() - self._oldest > FLUSH_SECONDS
        )

    def drain(self, steps: int = 0, tools: int = 0) -> Pending:
        """Take the waiting events for a commit; give them back with `restore` if it fails.

        What the commit itself may count is expected at the same moment: between the two, a read
        could take the same room.
        """
        with self._lock:
            taken, self._pending = self._pending, Pending()
            taken.flying_steps = self._flying_steps - taken.steps
            taken.flying_tools = self._flying_tools - taken.tool_calls
            self._steps_ahead += steps
            self._tools_ahead += tools
            return taken

    def restore(self, taken: Pending) -> None:
        """Put events back whose commit failed; count them if only its caller was interrupted."""
        with self._lock:
            if taken.written:
                self._count_written(taken)
                return
            later, self._pending = self._pending, taken
            taken.drafts.extend(later.drafts)
            taken.steps += later.steps
            taken.tool_calls += later.tool_calls
            taken.spent += later.spent
            taken.unpriced |= later.unpriced

    def _count_written(self, taken: Pending) -> None:
        base = self._base
        self._take_over(replace(
            base, steps=base.steps + taken.steps, tool_calls=base.tool_calls + taken.tool_calls,
            spent=base.spent + taken.spent, cost_complete=base.cost_complete and not taken.unpriced,
        ))  # fmt: skip
        self._uncount(taken)

    def _uncount(self, taken: Pending) -> None:
        """Stop counting reads here that the store counts."""
        self._steps_ahead -= taken.steps
        self._tools_ahead -= taken.tool_calls
        self._flying_steps -= taken.steps
        self._flying_tools -= taken.tool_calls

    async def commit(
        self, runtime: Runtime, store: Store, taken: Pending, verb: Callable[..., T], *args: Any
    ) -> T:
        """Run one verb that also writes the waiting events *taken*; keep those if it fails.

        Raises:
            ConfigurationError: the caller is at work inside a tool's transaction.
        """
        try:
            _check_not_inside(runtime)
            return await runtime.commit(store, verb, *args)
        except BaseException as error:
            # Rather missing in the record than in it twice, if nobody knows whether they are.
            taken.written |= isinstance(error, StoreUnavailable) and error.uncertain
            self.restore(taken)
            raise

    def expect(self, steps: int, tools: int) -> None:
        """Count what a transaction under way may count."""
        with self._lock:
            self._steps_ahead += steps
            self._tools_ahead += tools

    def synced(self, usage: Usage, taken: Pending, steps: int = 0, tools: int = 0) -> None:
        """Take over what the store counts now, and stop counting that here."""
        with self._lock:
            if usage.steps >= self._base.steps:
                self._take_over(usage)
            self._uncount(taken)
            self._steps_ahead -= steps
            self._tools_ahead -= tools

    def take(self, *, tool: bool = True) -> None:
        """Count one step of a call that needs no transaction, or refuse it.

        Raises:
            BudgetExceeded: a limit of the run would be crossed.
        """
        limits = self.limits
        with self._lock:
            steps = self._base.steps + self._steps_ahead
            tools = self._base.tool_calls + self._tools_ahead
            if limits.max_steps is not None and steps + 1 > limits.max_steps:
                raise exceeded("max_steps", limits.max_steps, steps, self._run_id)
            if tool and limits.max_tool_calls is not None and tools + 1 > limits.max_tool_calls:
                raise exceeded("max_tool_calls", limits.max_tool_calls, tools, self._run_id)
            if limits.max_seconds is not None:
                self._check_seconds(limits.max_seconds)
            self._steps_ahead += 1
            self._tools_ahead += tool
            self._flying_steps += 1
            self._flying_tools += tool

    def _check_seconds(self, limit: float) -> None:
        active = (self._active_us + self._clock.now() - self._part_started) / 1_000_000
        if active > limit:
            raise exceeded("max_seconds", limit, round(active, 3), self._run_id)

    def count_repeat(self, tool: str, payload_hash: str) -> None:
        """Count equal calls without progress between them.

        Raises:
            LoopDetected: the same call came more often than `max_repeats`.
        """
        limit = self.limits.max_repeats
        if limit is None:
            return
        with self._lock:
            count = self._repeats.get((tool, payload_hash), 0) + 1
            self._repeats[tool, payload_hash] = count
        if count > limit:
            raise LoopDetected(
                f"{tool} came {count} times with the same arguments and no progress between",
                budget="max_repeats",
                limit=str(limit),
                used=str(count - 1),
                run_id=self._run_id,
            )

    def progressed(self) -> None:
        """A new effect happened: what came before it is no loop."""
        with self._lock:
            self._repeats.clear()

    def occurrence(self, tool: str, payload_hash: str) -> int:
        """Count equal calls that the runtime gives no id, in this part of the run."""
        with self._lock:
            count = self._occurrences.get((tool, payload_hash), 0)
            self._occurrences[tool, payload_hash] = count + 1
            return count

    def visit(self, key: str) -> bool:
        """Return whether *key* comes for the first time in this part of the run."""
        with self._lock:
            first = key not in self._visited
            self._visited.add(key)
            return first


def _past(found: recent.Recent) -> Past:
    """Return a call of the record as it is held against others."""
    plain = None if found.arguments is None else dict(found.arguments)
    past = Past(
        found.tool, found.payload_hash or "", plain, found.effect, found.call_id, key=found.key
    )
    past.step = found.step
    if found.error is not None:
        past.outcome = (False, found.error)
    elif found.documents is not None:
        past.outcome = (True, found.documents)
    else:
        past.brought(found.result)
    return past


def _check_not_inside(runtime: Runtime) -> None:
    if OPEN.get() not in (None, runtime):
        raise ConfigurationError(
            "a tool with same_database=True, and its verifiers, cannot make guarded writes or model calls"
            " while its transaction is open: make them before or after it"
        )


def _after_fork_in_child() -> None:
    for meter in list(_METERS):
        meter.renew_lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
