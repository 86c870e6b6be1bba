"""What keeps a run from going round in circles: each call is held against those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._decide import call_id
from ._loops import SAME, TURNS, Past
from ._meter import OPEN
from .canonical import dumps
from .errors import ApprovalRequired, GuardError, LoopDetected, StoreUnavailable
from .ledger import circuits, recent
from .ledger.values import Draft

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._attempt import End
    from ._backoff import Backoff
    from ._loops import Loop
    from ._runtime import Runtime
    from .model import Effect
    from .protocols import CallRef
    from .run import Run
    from .tool import Call, Tool


async def hold_against_past(runtime: Runtime, run: Run, call: Call) -> None:
    """Refuse a call that would go on with a loop.

    Raises:
        LoopDetected: with the pattern and the steps of the calls before it.
    """
    limit, tool = run.meter.repeats, call.tool
    run.meter.started[0] += 1
    if tool.polls or not limit or call.undoes is not None or call.executes is not None:
        return
    plain = call.plain
    if tool.volatile:
        plain = {name: value for name, value in plain.items() if name not in tool.volatile}
    past = Past(
        tool.name, call.payload_hash, plain, tool.effect, call_id(call),
        key=call.idempotency_key, own=tool.per_call, turn=run.meter.turn,
    )  # fmt: skip
    streaks = run.meter.streaks
    if streaks.delivered(past) or streaks.beside(past):
        return
    call.past = past
    loop = streaks.found(past, limit)
    if loop is not None:
        raise await _detected(runtime, run, loop, past)


async def next_wait(
    runtime: Runtime, run: Run, call: Call, backoff: Backoff, end: End
) -> float | None:
    """Return seconds to wait before the next attempt; None if there is none, or none is left."""
    wait = backoff.next(end.wait) if end.again else None
    if wait is None or await _may_retry(runtime, run):
        return wait
    run.meter.note(Draft("attempt.failed", {
        "tool": call.tool.name, "key": call.idempotency_key, "attempt": call.attempt,
        "error": type(end.error).__name__, "not_retried": "retry_budget",
    }, call.step))  # fmt: skip
    return None


async def _may_retry(runtime: Runtime, run: Run) -> bool:
    """Take one retry out of what the agents of the tenant have together.

    What this process has started pays in here, so that a call without a retry pays nothing.
    """
    budget, started = run.guard.settings.retries, run.meter.started
    if budget is None:
        return True
    if OPEN.get() not in (None, runtime):  # inside somebody's transaction: it is paid later
        started[0] -= 100 // max(budget.percent, 1)
        return True
    starts, started[0] = started[0], 0
    store, tenant = run.around.store, run.principal.tenant
    try:
        return await runtime.commit(store, circuits.take_retry, tenant, budget, max(starts, 0))
    except StoreUnavailable:  # then the failure is told, instead of what stands in its way
        started[0] += starts
        return False


async def held_refusal(
    runtime: Runtime, run: Run, tool: Tool, ref: CallRef | None,
    args: Sequence[Any], kwargs: Mapping[str, Any], error: GuardError,
) -> GuardError:  # fmt: skip
    """Return *error*, or `LoopDetected` if the model only collects the same refusal."""
    limit = run.meter.repeats
    if isinstance(error, LoopDetected) or error.retryable or not limit:
        return error
    try:
        plain = {"args": list(args), "kwargs": dict(kwargs)}
        place = dumps(plain)
    except GuardError:  # nothing that could be held against anything
        return error
    past = Past(tool.name, place, None, tool.effect, None if ref is None else ref.path)
    past.outcome = (False, error.kind)
    streaks = run.meter.streaks
    if streaks.delivered(past):
        return error
    loop = streaks.found(past, limit)
    if loop is None:
        streaks.ended(past)
        return error
    return await _detected(runtime, run, loop, past)


def note_outcome(call: Call, end: End) -> None:
    """Remember what came of a body, to compare it with what came of others."""
    if call.past is None:
        return
    if end.error is not None:
        call.past.outcome = (False, type(end.error.__cause__ or end.error).__name__)
    elif call.retrieved is not None:
        call.past.outcome = (True, tuple(found["sha256"] for found in call.retrieved))
    else:
        call.past.brought(end.kept)


def note_replay(call: Call, effect: Effect) -> None:
    """Remember what a recorded end gives back."""
    if call.past is not None and effect.result_state == "stored":
        call.past.brought(effect.result)


def note_end(run: Run, call: Call, error: BaseException | None = None) -> None:
    """Take a call that has ended in among those that later ones are held against."""
    past = call.past
    if past is None:
        if call.tool.polls:
            run.meter.streaks.broken()
        return
    if past.outcome is None and error is not None:
        if not _is_refusal(error):
            return
        past.outcome = (False, getattr(error, "kind", ""))
    if not isinstance(error, LoopDetected):
        past.step = call.step
        run.meter.streaks.ended(past)


def _is_refusal(error: BaseException) -> bool:
    """Waiting, and being told to try again later, is no end of a call."""
    waits = isinstance(error, ApprovalRequired)
    return isinstance(error, GuardError) and not waits and not error.retryable


async def _detected(runtime: Runtime, run: Run, loop: Loop, past: Past) -> LoopDetected:
    """Return the refusal, with the steps as the record counts them."""
    await run.flush(runtime)
    steps = _steps(loop, await runtime.look(run.around.store, recent.calls, run.ref))
    fact = {"pattern": loop.pattern, "steps": steps}
    run.meter.note(Draft("loop.detected", {"tool": past.tool, "limit": loop.rounds, **fact}))
    rounds = str(loop.rounds)
    return LoopDetected(
        _sentence(loop, past.tool, steps), budget="loops", limit=rounds, used=rounds, run_id=run.id,
        pattern=loop.pattern, steps=steps,
    )  # fmt: skip


def _sentence(loop: Loop, tool: str, steps: list[int]) -> str:
    if loop.pattern == TURNS:
        tools = " and ".join(dict.fromkeys(call.tool for call in loop.calls))
        what = f"calls of {tools} took turns {loop.rounds} times"
    else:
        how = "with the same arguments" if loop.pattern == SAME else "for the same"
        what = f"{tool} came {loop.rounds + 1} times {how}"
    where = f", steps {', '.join(map(str, steps))}" if steps else ""
    return f"{what} and no progress between ({loop.pattern}{where})"


def _steps(loop: Loop, told: list[recent.Recent]) -> list[int]:
    """Find the calls of a loop in the record, the newest first."""
    found: list[int] = []
    for call in reversed(loop.calls):
        while told:
            last = told.pop()
            same = last.payload_hash in (None, call.payload_hash)
            if last.tool == call.tool and same and last.step is not None:
                found.append(last.step)
                break
    return sorted(set(found))
