"""How an outcome reads in the record, and what its caller is told when it cannot be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import EffectInDoubt, EffectRecordingFailed

if TYPE_CHECKING:
    from ._attempt import End
    from .errors import StoreUnavailable
    from .redaction import Redactor
    from .tool import Call


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
