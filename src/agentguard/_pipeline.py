"""The guarded call: decide, start, run, settle. Written once for sync and async tools.

    decide   no I/O: contract in, identity, rules, key and payload hash         (`_decide`)
    start    one transaction, the point of no return                            (`ledger.effects`)
    run      the tool's body: deadline, output contract, verifiers              (`_attempt`)
    settle   one transaction: what happened, or that nobody knows               (`ledger.settling`)

`_durable` drives the four for writes. A plain read (`_read`) has no start transaction: it is
counted in memory and written with the next commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._attempt import body_of, judge, steers
from ._callfacts import tool_outcome
from ._decide import decide, needs_start, note_refusal
from ._durable import DurableCall
from ._independence import look
from ._read import read
from ._runaway import held_refusal, hold_against_past, note_end
from ._runtime import InlineRuntime, ThreadRuntime, run_inline
from ._together import TogetherCall, TogetherRuntime
from .errors import BudgetExceeded, GuardError
from .ledger import settling
from .ledger.values import Draft
from .telemetry import ToolSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ._runtime import Outcome, Runtime
    from .run import Run
    from .tool import Call, Tool


async def guarded(
    runtime: Runtime, run: Run, tool: Tool, wrapped: Callable[..., Any], instance: Any,
    args: Sequence[Any], kwargs: Mapping[str, Any],
) -> Outcome:  # fmt: skip
    """Run one guarded call and return its end as a value."""
    ref = run.call_ref()
    span = ToolSpan(run, tool, ref)
    try:
        call = decide(run, tool, ref, instance, args, kwargs)
        await hold_against_past(runtime, run, call)
        if tool.duties is not None:
            await look(runtime, run, call, tool.duties)
        runtime.take(call, run.around.store)
    except GuardError as error:
        return await _refused(runtime, run, tool, ref, span, error, (instance, args, kwargs))
    except BaseException as error:  # a key's own code, a cancellation: nothing has begun
        span.end("error", error)
        raise
    body = body_of(call, wrapped, instance)
    if isinstance(runtime, ThreadRuntime) and tool.durable:
        runtime.late = late_answer(run, call, body, span)
    try:
        if needs_start(run, call):
            path = TogetherCall if isinstance(runtime, TogetherRuntime) else DurableCall
            value, outcome = await path(runtime, run, call, body).run()
        else:
            value, outcome = await read(runtime, run, call, body)
    except GuardError as error:
        error.run_id, error.step = error.run_id or run.id, error.step or call.step
        note_end(run, call, error)
        told = await _ended_by(runtime, run, tool, error, call)
        span.end(tool_outcome(told), told, call)
        return None, _shown(run, told)
    except BaseException as error:  # noqa: BLE001 - the end is a value, raised at the edge
        note_end(run, call, error)
        span.end("pending" if steers(run, error) else "error", error, call)
        return None, error
    note_end(run, call)
    span.end(outcome, None, call, value)
    return (run.host.edited(value, call.edits) if call.edits else value), None


async def _refused(
    runtime: Runtime, run: Run, tool: Tool, ref: Any, span: ToolSpan, error: GuardError,
    given: tuple[Any, ...],
) -> Outcome:  # fmt: skip
    """End a call that was refused before it could start."""
    try:
        error = await held_refusal(runtime, run, tool, ref, given[1], given[2], error)
        refusal = _note_refusal(run, tool, ref, error)
        told = await _ended_by(runtime, run, tool, refusal, None, given)
    except BaseException as failure:
        span.end(tool_outcome(failure), failure)
        raise
    span.end(tool_outcome(told), told)
    return None, _shown(run, told)


async def _ended_by(
    runtime: Runtime, run: Run, tool: Tool, error: GuardError, call: Call | None,
    given: tuple[Any, ...] = (),
) -> BaseException:  # fmt: skip
    """Return what the caller is told of *error*: itself, or that the run has ended safely instead."""
    fallback = tool.fallback or run.fallback_here()
    if fallback is None:
        return error
    try:
        told: GuardError = await fallback.end(runtime, run, tool, error, call, given)
    except BaseException as interrupt:  # noqa: BLE001 - the end is a value, raised at the edge
        return interrupt
    return told


def _shown(run: Run, told: BaseException) -> BaseException:
    return run.host.failure(told) if isinstance(told, GuardError) else told


def late_answer(
    run: Run, call: Call, body: Callable[[], Any], span: ToolSpan
) -> Callable[[Any, BaseException | None], None]:
    """Return what settles the effect when an abandoned thread answers after its deadline."""

    def settle(value: Any, error: BaseException | None) -> None:
        path = DurableCall(InlineRuntime(), run, call, body)
        end = run_inline(judge(run, call, (value, error)))
        late = path.settlement(end, 0)
        settled = run_inline(run.commit(path.runtime, late.pending, settling.settle, late))
        run.meter.synced(settled.usage, late.pending)
        span.late(end.verdicts)

    return settle


def _note_refusal(run: Run, tool: Tool, ref: Any, error: GuardError) -> GuardError:
    """Record a refusal; a model that only collects refusals uses up its steps all the same."""
    try:
        run.meter.take(tool=False)
    except BudgetExceeded as over:
        run.meter.note(Draft("budget.exceeded", dict(over.details())))
        return over
    note_refusal(run, tool, ref, error)
    return error
