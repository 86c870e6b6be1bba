"""What a proposal shows besides the call: what the world looks like before it, and what would change."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ._runtime import outcome_of
from .canonical import dumps, jsonable
from .errors import ActionDrafted, DecisionRefused, GuardError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._runtime import Runtime
    from .model import Approval
    from .run import Run
    from .tool import Call

_READER_SECONDS = 30.0
"""Seconds that an async reader may take."""
_MOST_BYTES = 64 * 1024
"""Larger evidence is not kept: show a reference to it instead."""


async def proposal_of(runtime: Runtime, run: Run, call: Call) -> dict[str, Any]:
    """Return what people see of the world before *call*, as the tool's reader and preview tell it.

    Neither writes anything, so one that breaks only shows nothing: the proposal says so.
    """
    tool, found = call.tool, dict[str, Any]()
    if tool.evidence is not None:
        before = found["evidence"] = await _asked(runtime, tool.evidence, call.arguments)
        if tool.preview is not None and "failed" not in before:
            after = await _asked(runtime, tool.preview, call.arguments, before["seen"])
            told = "failed" in after
            found["diff"] = after if told else {"fields": _diff(before["seen"], after["seen"])}
    kept: dict[str, Any] = run.redactor.scrub(found)
    return (
        kept if len(dumps(kept)) <= _MOST_BYTES else {"evidence": {"failed": "too large to keep"}}
    )


async def _asked(runtime: Runtime, reader: Callable[..., Any], *given: Any) -> dict[str, Any]:
    """Return what a reader saw as plain JSON, or how it failed."""
    if inspect.iscoroutinefunction(reader):
        seen, error = await runtime.invoke(lambda: reader(*given), _READER_SECONDS)
    else:
        seen, error = outcome_of(lambda: reader(*given))
    if error is None:
        try:
            return {"seen": jsonable(seen, "evidence")}
        except Exception as failure:  # noqa: BLE001 - what cannot be written down is not seen
            error = failure
    if not isinstance(error, Exception):
        raise error
    return {"failed": f"{type(error).__name__}: {error}"[:500]}


def _diff(before: Any, after: Any) -> Mapping[str, Any]:
    """Return what would change: each field with what it is and what it would be."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return {} if before == after else {"": [before, after]}
    return {
        name: [before.get(name), after.get(name)]
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }


def put_down(call: Call, approval: Approval) -> GuardError:
    """Return what the agent is told of a call that is only written down.

    Who wants to execute it before somebody has approved it is told that.
    """
    call.decision, call.approval_id = "require_approval", approval.id
    if call.executes is not None:
        return DecisionRefused(
            f"{approval.id} is {approval.status}, so it cannot be executed: somebody has to approve it"
            f" first, agentguard approvals approve {approval.id}"
        )
    noun = "a draft" if approval.stage == "draft" else "a proposal"
    mend = f"a person executes it with agentguard approvals execute {approval.id}"
    if call.tool.sensitive & call.plain.keys():
        mend = "its sensitive arguments are not on record, so a person has to do it by hand"
    return ActionDrafted(
        f"{call.tool.name} was written down as {noun} and did not happen; {mend}",
        approval=approval,
        stage=approval.stage or "draft",
    )
