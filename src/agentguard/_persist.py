"""How an outcome reads in the record, and what is told of one on record, or of one that cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._attempt import retrieved_by, strikes
from ._runaway import note_outcome
from .errors import EffectInDoubt, EffectRecordingFailed, ResultUnavailable, ToolFailed
from .ledger.compensating import UNDONE, undone_already
from .ledger.values import Settlement
from .model import EffectState

if TYPE_CHECKING:
    from ._attempt import End
    from .autonomy import Ladder
    from .errors import StoreUnavailable
    from .model import Effect
    from .redaction import Redactor
    from .run import Run
    from .tool import Call, Tool


def settlement_of(run: Run, call: Call, row: Any, end: End, duration_us: int) -> Settlement:
    """Return what is to be written of an end under the fence of its start."""
    error, scrub = end.error, run.redactor.scrub
    note_outcome(call, end)
    final = end.state in (EffectState.FAILED_FINAL, EffectState.FAILED_RETRYABLE)
    return Settlement(
        run=run.ref,
        key=call.idempotency_key,
        fence=call.fence,
        step=call.step or 0,
        state=end.state,
        data={
            "attempt": call.attempt, "duration_us": duration_us, **end.facts(),
            **retrieved_by(run, call, end),
        },
        result=end.kept,
        result_state=end.result_state,
        error=error_of(run.redactor, end) if final or error is not None else None,
        doubt_reason=end.doubt,
        content=scrub(end.content()),
        verdicts=tuple(scrub(end.verdicts)),
        pending=run.meter.drain(),
        row=row,
        ladder=_ladder(run, call),
        breaker=call.tool.circuit,
        struck=strikes(end),
        watch=run.guard.slos.of_tools.get(call.tool.name),
    )  # fmt: skip


def _ladder(run: Run, call: Call) -> Ladder | None:
    """Return how the verdicts move the tool's stage, if they do."""
    said = run.autonomy
    if said is None or not call.tool.checks or call.undoes is not None:
        return None
    return said.ladder(call.tool.name)


def recorded(tool: Tool, effect: Effect) -> Any:
    """Return the recorded result of an effect, or raise what stands there instead.

    Raises:
        EffectUndone: it was undone since.
        ToolFailed: it failed for good.
        ResultUnavailable: it was done, and its result is not kept.
    """
    if effect.result_state == UNDONE:
        raise undone_already(effect)
    if effect.result_state == "stored":
        return tool.results.restore(effect.result)
    if effect.state is EffectState.FAILED_FINAL:
        raise ToolFailed(
            f"{effect.tool} failed for good earlier: {(effect.error or {}).get('message', '')}"
        )
    raise ResultUnavailable(
        f"{effect.tool} was done in run {effect.run_id}, step {effect.step}; its result is"
        f" {effect.result_state or 'not kept'}"
    )


def error_of(redactor: Redactor, end: End) -> dict[str, str]:
    """Return what the effect's row says of a failure."""
    error = end.error
    if error is None:
        return {"kind": "returned", "message": "the tool answered that it failed"}
    cause = error.__cause__ if isinstance(error, EffectInDoubt) and error.__cause__ else error
    return {"kind": type(cause).__name__, "message": redactor.scrub(str(cause))[:500]}


def unrecorded(call: Call, end: End, error: StoreUnavailable) -> EffectRecordingFailed:
    """Return what the caller is told when the end of a body could not be written."""
    failed = EffectRecordingFailed(
        f"{call.tool.name} ended, but its outcome could not be written ({error.message}); it counts as in"
        " doubt until it is",
        result=end.value,
        effect_id=call.idempotency_key,
        reason="record_failed",
    )
    failed.__cause__ = error
    return failed
