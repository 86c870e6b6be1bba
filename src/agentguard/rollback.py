"""Rolling a run back: its effects are undone one by one, the last one first, each at most once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ._runtime import run_inline
from .declaration import declaration_of
from .errors import (
    ApprovalRequired,
    ConfigurationError,
    DecisionRefused,
    EffectInDoubt,
    EffectUndone,
    GuardError,
    ResultUnavailable,
    StoreUnavailable,
)
from .ledger import compensating, queries, settling
from .ledger.approvals import is_person
from .ledger.compensating import UNDO, UNDONE, undo_key
from .ledger.rows import load_effect
from .ledger.values import Draft
from .model import EffectState, Principal
from .run import enter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .declaration import Declaration
    from .model import Effect, RunInfo
    from .operations import Runs
    from .protocols import Store
    from .run import Run
    from .tool import Tool

What = Literal[
    "undone", "would be undone", "already undone", "irreversible", "no undo declared", "in doubt",
    "waits for approval", "failed",
]  # fmt: skip

_ALL = 1_000_000
_HAPPENED = (EffectState.SUCCEEDED, EffectState.IN_DOUBT, EffectState.EXECUTING)
_MAYBE = _HAPPENED[1:]
_STOPS = ("in doubt", "waits for approval", "failed")


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What became of one effect.

    Attributes:
        key: the effect, as `agentguard effects show` takes it.
        undo: the effect that undoes it, as `agentguard effects show` takes it.
        detail: why, and what to do about it.
        because: the kind of the error, if there was one.
    """

    tool: str
    step: int
    key: str
    what: What
    detail: str = ""
    because: str = ""

    @property
    def undo(self) -> str:
        """The effect that undoes it, once that was begun."""
        return undo_key(self.key)


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a rollback came to, or would.

    Attributes:
        effects: all that the run wrote from the step on, the last first.
        stopped: at which of them it stopped; those after it were not touched.
        dry_run: nothing was done.
    """

    run_id: str
    effects: tuple[RolledBack, ...]
    stopped: RolledBack | None = None
    dry_run: bool = False

    @property
    def done(self) -> bool:
        """Whether all that can be undone is undone."""
        return self.stopped is None and not self.dry_run


@dataclass(frozen=True, slots=True)
class Wish:
    """Who wants which run rolled back, and how far."""

    run_id: str
    by: str
    reason: str
    step: int | None = None
    dry_run: bool = False
    tenant: str | None = None


class Guarding(Protocol):
    """What a rollback needs of a guard."""

    store: Store
    runs: Runs

    def bind(self, declaration: Declaration, /) -> Tool:
        """Return the sheet of a declared tool."""
        ...

    def run(
        self, workflow: str | None = None, *, run_id: str | None = None,
        principal: Principal | None = None,
    ) -> Run:  # fmt: skip
        """Return a run that is not entered."""
        ...


class Saga:
    """One run's effects, on their way back.

    Raises:
        DecisionRefused: nobody says who wants it and why, or the run is still running.
        ConfigurationError: a tool is missing whose effect has an undo.
    """

    def __init__(self, guard: Guarding, wish: Wish, tools: Iterable[Any]) -> None:
        self._guard, self._wish = guard, wish
        _check(wish)
        self._info = guard.runs.show(wish.run_id, tenant=wish.tenant)
        _check_ended(self._info)
        self._sheets = _sheets(guard, tools)
        self._run = _run_of(guard, self._info, wish.by)
        self._effects = self._written()
        self._check_tools()

    def drive(self) -> Rollback:
        """Roll back from code without an event loop.

        Raises:
            ConfigurationError: there is one here, and an undo is async.
        """
        if not self._is_async():
            return run_inline(self.run())
        import asyncio  # loads longer than all of us

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.run())
        raise ConfigurationError(
            "rollback: an event loop is running here and an undo is async: await guard.arollback(...)"
        )

    async def run(self) -> Rollback:
        """Undo one effect after the other, and stop at the first that is not undone."""
        wish = self._wish
        if wish.dry_run:
            told = tuple(self._foreseen(effect) for effect in self._effects)
            stopped = next((one for one in told if one.what in _STOPS), None)
            return Rollback(self._info.id, told, stopped, dry_run=True)
        self._note("rollback.started", {"by": wish.by, "step": wish.step}, wish.reason)
        found = Rollback(self._info.id, ())
        with enter(self._run):
            for effect in self._effects:
                found = await self._next(found, effect)
        undone = sum(one.what == UNDONE for one in found.effects)
        key = found.stopped.key if found.stopped else None
        self._note("rollback.finished", {"undone": undone, "stopped": key}, None)
        return found

    async def _next(self, found: Rollback, effect: Effect) -> Rollback:
        told = self._foreseen(effect)
        if found.stopped is None and told.what == _AHEAD:
            told = await self._undo(effect)
        stopped = found.stopped or (told if told.what in _STOPS else None)
        return replace(found, effects=(*found.effects, told), stopped=stopped)

    def _written(self) -> Sequence[Effect]:
        """Return what the run wrote or may have written, the last completed first."""
        store = self._guard.store
        store.transact(settling.sweep)
        found = store.read(queries.effects, self._info.tenant, None, self._info.id, _ALL)
        first = self._wish.step or 0
        wrote = [
            e for e in found
            if e.kind == "write" and e.state in _HAPPENED and e.step >= first
            and not e.id.startswith(UNDO)
        ]  # fmt: skip
        return sorted(wrote, key=_completed, reverse=True)

    def _check_tools(self) -> None:
        missing = sorted({
            f"{e.tool} (undone by {e.undo})" for e in self._effects
            if e.tool not in self._sheets and e.result_state != UNDONE
            and e.undo not in (None, "irreversible")
        })  # fmt: skip
        if missing:
            raise ConfigurationError(
                f"run {self._info.id} wrote with {', '.join(missing)}: give the decorated function in"
                " tools"
            )

    def _is_async(self) -> bool:
        sheets = [self._sheets.get(effect.tool) for effect in self._effects]
        return any(s is not None and s.compensation is not None and s.is_async for s in sheets)

    def _foreseen(self, effect: Effect) -> RolledBack:
        """Tell what there is to do about an effect, by what stands on record."""
        tool = self._sheets.get(effect.tool)
        if effect.state in _MAYBE:
            return _told(effect, "in doubt", compensating.in_doubt(effect))
        if effect.result_state == UNDONE:
            return _told(effect, "already undone")
        if effect.undo == "irreversible" or (tool is not None and tool.irreversible):
            return _told(effect, "irreversible", "declared so")
        if tool is None or tool.compensation is None:
            return _told(effect, "no undo declared")
        return self._possible(effect, tool)

    def _possible(self, effect: Effect, tool: Tool) -> RolledBack:
        undo = self._guard.store.read(load_effect, effect.tenant, undo_key(effect.id))
        if undo is not None and undo.state in _MAYBE:
            return _told(effect, "in doubt", compensating.in_doubt(undo))
        if undo is not None and undo.state is EffectState.FAILED_FINAL:
            return _told(effect, "irreversible", f"its undo failed for good: {undo.key}")
        shown = self._guard.store.read(compensating.arguments_of, effect)
        try:
            tool.compensation.call_of(self._run, effect, shown)
        except ResultUnavailable as error:
            return _failed(effect, "irreversible", error)
        return _told(effect, "would be undone")

    async def _undo(self, effect: Effect) -> RolledBack:
        try:
            await self._sheets[effect.tool].compensation.run(self._run, effect)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an undo raises is told in the report
            return _failed(effect, _what(error), error)
        return _told(effect, "undone")

    def _note(self, kind: str, data: Mapping[str, Any], reason: str | None) -> None:
        draft = Draft(kind, data, content=None if reason is None else {"reason": reason})
        self._guard.store.transact(compensating.note_rollback, self._run.ref, draft)


_AHEAD: What = "would be undone"
_WHAT: Mapping[type[Exception], What] = {
    ApprovalRequired: "waits for approval",
    EffectInDoubt: "in doubt",
    EffectUndone: "already undone",
    ResultUnavailable: "irreversible",
}


def _what(error: Exception) -> What:
    for kind, what in _WHAT.items():
        if isinstance(error, kind):
            return what
    return "failed"


def _check(wish: Wish) -> None:
    if not is_person(wish.by) or not wish.reason.strip():
        raise DecisionRefused(
            "a rollback needs the person who wants it (no agent is one) and why: by, reason"
        )


def _check_ended(run: RunInfo) -> None:
    """Whatever is written meanwhile would stay."""
    if run.status == "running":
        raise DecisionRefused(
            f"run {run.id} is running: stop it first with agentguard runs cancel {run.id}, so that"
            " nothing is written meanwhile"
        )


def _sheets(guard: Guarding, tools: Iterable[Any]) -> dict[str, Tool]:
    found: dict[str, Tool] = {}
    for tool in tools:
        declaration = declaration_of(tool)
        if declaration is None:
            raise ConfigurationError(
                f"rollback: {getattr(tool, '__name__', tool)!s} has no agentguard decorator; give the"
                " decorated functions in tools"
            )
        sheet = guard.bind(declaration)
        found[sheet.name] = sheet
    return found


def _completed(effect: Effect) -> tuple[bool, float, int]:
    """Order effects by their end; those without one on record come after all others."""
    ended = effect.finished_at if effect.state is EffectState.SUCCEEDED else None
    return ended is None, ended.timestamp() if ended else 0.0, effect.step


def _run_of(guard: Guarding, info: RunInfo, by: str) -> Run:
    """Return the run with a person at work in it; nothing of it is opened or closed."""
    who = Principal(agent=by, tenant=info.tenant)
    run = guard.run(info.workflow, run_id=info.id, principal=who)
    run.visit(by, unlimited=True)  # undos count in no budget
    return run


def _told(effect: Effect, what: What, detail: str = "") -> RolledBack:
    return RolledBack(effect.tool, effect.step, effect.id, what, detail)


def _failed(effect: Effect, what: What, error: Exception) -> RolledBack:
    if isinstance(error, GuardError):
        detail, because = error.message, error.kind
    else:
        detail, because = f"{type(error).__name__}: {error}", type(error).__name__
    return RolledBack(effect.tool, effect.step, effect.id, what, detail[:500], because)
