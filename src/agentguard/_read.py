"""A plain read: no transaction of its own, an event that rides along with the next commit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ._attempt import End, attempt, retrieved_by
from ._backoff import Backoff
from ._decide import call_id, shown
from ._runaway import next_wait, note_outcome
from .errors import BudgetExceeded
from .ledger.values import NEW_STEP, Draft, end_kind
from .model import EffectState
from .telemetry import told

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._runtime import Runtime
    from .run import Run
    from .tool import Call


async def read(runtime: Runtime, run: Run, call: Call, body: Callable[[], Any]) -> tuple[Any, str]:
    """Run a read without rules, budget or rate of its own."""
    run.check_switches(call.tool.name)
    try:
        run.meter.take()
    except BudgetExceeded as over:
        run.meter.note(Draft("budget.exceeded", dict(over.details())))
        raise
    began, backoff = time.monotonic_ns(), Backoff(call.tool.retry)
    try:
        run.meter.count_repeat(call.tool.name, call.payload_hash)
        end = await attempt(runtime, run, call, body)
        while (wait := await next_wait(runtime, run, call, backoff, end)) is not None:
            await runtime.sleep(wait)
            call.attempt += 1
            end = await attempt(runtime, run, call, body)
    except BaseException as error:  # noqa: BLE001 - its step is taken, so it is told, then raised
        end = End(EffectState.FAILED_RETRYABLE, error=error)
    if end.verdicts:
        told(call).verdicts.extend(end.verdicts)
    note_outcome(call, end)
    _note_read(run, call, end, (time.monotonic_ns() - began) // 1000)
    if run.meter.due():
        await run.flush(runtime)
    if end.error is not None:
        raise end.error
    return end.value, "ok"


def _note_read(run: Run, call: Call, end: End, duration_us: int) -> None:
    content = {"arguments": shown(run, call), **end.content()}
    data: dict[str, Any] = {
        "tool": call.tool.name, "effect": call.tool.effect, "decision": "allow",
        "outcome": "succeeded" if end.error is None else "failed", "attempts": call.attempt,
        "payload_hash": call.payload_hash, "contract": call.tool.version,
        "duration_us": duration_us, "at": call.at, **retrieved_by(run, call, end),
    }  # fmt: skip
    if call.ref is not None:
        data["call_id"] = call_id(call)
    if end.error is not None:
        data["error"] = type(end.error).__name__
    run.meter.note(
        Draft(end_kind(data), data, NEW_STEP, run.redactor.scrub(content)), tool_call=True
    )
