"""Runs an undo: a guarded call of its own, made of what the record kept of the effect it undoes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from . import _decide
from ._attempt import body_of, steers
from ._callfacts import tool_outcome
from ._durable import DurableCall
from ._independence import look
from ._pipeline import late_answer
from ._runtime import AsyncioRuntime, ThreadRuntime
from ._together import TogetherCall, TogetherRuntime
from .canonical import jsonable
from .codec import NotStorable
from .declaration import runtime_for
from .errors import (
    ApprovalRequired,
    ContractViolation,
    GuardError,
    ResultUnavailable,
    VerificationFailed,
)
from .ledger import compensating
from .model import EffectState
from .redaction import HIDDEN
from .run import CALL
from .telemetry import ToolSpan
from .tool import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._attempt import End
    from ._runtime import Runtime
    from .model import Effect
    from .run import Run
    from .tool import Tool


@dataclass(frozen=True, slots=True)
class Given:
    """Arguments that come from the record, where they were checked before."""

    names: tuple[str, ...]

    def read(self, _instance: Any, _args: Any, kwargs: Mapping[str, Any]) -> Any:
        return dict(kwargs), {}

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return dict(values)

    def recall(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return dict(values)

    def place(
        self, _instance: Any, values: Mapping[str, Any], _given: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        rest = dict(values)
        return [rest.pop(self.names[0])], rest

    def write(self, _values: Mapping[str, Any]) -> str:
        raise NotStorable("an undo's arguments stay in its process")

    def restore(self, _text: str) -> dict[str, Any]:
        raise NotStorable("an undo's arguments stay in its process")


@dataclass(frozen=True, slots=True)
class Undo:
    """What undoes the effects of one tool under one guard.

    Attributes:
        tool: whose effects.
        sheet: the undo as a tool of its own.
        names: its parameters, the result's first.
        on_verdict: it is run when a verifier does not confirm an outcome.
    """

    tool: Tool
    sheet: Tool
    names: tuple[str, ...]
    on_verdict: bool

    async def after_verdict(
        self, run: Run, effect: Effect, failed: VerificationFailed
    ) -> VerificationFailed:
        """Undo an effect whose outcome was not confirmed; return *failed*, which tells the end.

        Raises:
            ApprovalRequired: people have to decide on the undo.
        """
        try:
            await self.run(run, effect)
            ending = f"it was undone, by {compensating.undo_key(effect.id)}"
        except Exception as error:
            if isinstance(error, ApprovalRequired) or steers(run, error):
                raise
            failed.__cause__ = error
            ending = f"it was not undone: {_told(error)}"
        failed.message = f"{failed.message}; {ending}"
        failed.args = (failed.message,)
        return failed

    async def run(self, run: Run, effect: Effect) -> None:
        """Undo *effect*, once; return when it is undone.

        Raises:
            ResultUnavailable: what the undo takes is not kept.
            GuardError: something keeps it from starting, or nobody knows whether it happened.
        """
        runtime = AsyncioRuntime() if self.sheet.is_async else runtime_for(self.sheet)
        shown = await runtime.look(run.around.store, compensating.arguments_of, effect)
        call = self.call_of(run, effect, shown)
        if self.sheet.duties is not None:
            await look(runtime, run, call, self.sheet.duties)
        runtime.take(call, run.around.store)
        body = body_of(call, self.sheet.function, None)
        span = ToolSpan(run, self.sheet, None)
        if isinstance(runtime, ThreadRuntime):
            runtime.late = late_answer(run, call, body, span)
        try:
            value, outcome = await _path(runtime, run, call, body).run()
        except BaseException as error:
            span.end("pending" if steers(run, error) else tool_outcome(error), error, call)
            raise
        span.end(outcome, None, call, value)
        runtime.check_cancelled()

    def call_of(self, run: Run, effect: Effect, shown: Mapping[str, Any] | None) -> Call:
        """Return the call of the undo, made of what the record kept: the same one at any time.

        Raises:
            ResultUnavailable: the result is not kept, or an argument that the undo takes.
        """
        if effect.result is None:
            self._unavailable(effect, "its result is not kept")
        named = {name: (shown or {}).get(name, HIDDEN) for name in self.names[1:]}
        lost = [name for name, value in named.items() if value == HIDDEN]
        if lost:
            self._unavailable(effect, f"its argument {lost[0]} is not kept")
        try:
            result = self.tool.results.restore(effect.result)
            values = self.tool.arguments.recall(named)
            plain = {self.names[0]: jsonable(result, "result"), **named}
            payload = _decide.payload_hash(run, self.sheet, plain)
        except ContractViolation as error:
            self._unavailable(effect, error.message)
        except ValueError:
            self._unavailable(effect, f"its result is none that {effect.tool} returns now")
        return Call(
            tool=self.sheet, run_id=run.id, principal=run.principal,
            arguments={self.names[0]: result, **values}, given={}, plain=plain,
            payload_hash=payload, at=run.around.store.clock.now(), outer=CALL.get(),
            idempotency_key=compensating.undo_key(effect.id), scope="undo", undoes=effect.id,
        )  # fmt: skip

    def _unavailable(self, effect: Effect, why: str) -> NoReturn:
        raise ResultUnavailable(f"{effect.tool}, step {effect.step}, cannot be undone: {why}")


def _told(error: Exception) -> str:
    text = error.message if isinstance(error, GuardError) else f"{type(error).__name__}: {error}"
    return f"{text[:500]} (agentguard runs rollback tries again)"


class _Undoing(DurableCall):
    """Drives an undo: it is no call of the agent, and a failure is never its last."""

    async def _known(self) -> None:
        """Ask the start at once: repeats of an undo are no loop of the agent."""

    async def _settle(self, end: End, duration_us: int) -> End:
        if end.state is EffectState.FAILED_FINAL:
            end.state = EffectState.FAILED_RETRYABLE
        return await super()._settle(end, duration_us)


class _UndoingTogether(_Undoing, TogetherCall):
    """Drives an undo that writes into the database of the store."""

    runtime: TogetherRuntime


def _path(runtime: Runtime, run: Run, call: Call, body: Callable[[], Any]) -> DurableCall:
    path = _UndoingTogether if isinstance(runtime, TogetherRuntime) else _Undoing
    return path(runtime, run, call, body)
