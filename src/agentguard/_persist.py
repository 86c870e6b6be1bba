"""How an outcome reads in the record, and how it gets there when the store will not take it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import EffectInDoubt, EffectRecordingFailed, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._attempt import End
    from .protocols import Store
    from .redaction import Redactor
    from .tool import Call

T = TypeVar("T")


_PATIENCE = 5.0
"""Seconds that an interrupted caller waits for what is written about it."""


def keep_trying(store: Store, verb: Callable[..., object], *args: Any) -> None:
    """Try to write an outcome until the process ends; the caller was told that it is in doubt."""

    def work() -> None:
        wait = 0.5
        while True:
            time.sleep(wait)
            try:
                store.transact(verb, *args)
            except StoreUnavailable:
                wait = min(wait * 2, 30.0)
            else:
                return

    threading.Thread(target=work, name="agentguard-record", daemon=True).start()


def write_apart(store: Store, verb: Callable[..., T], *args: Any) -> T | None:
    """Have something written by a thread that no signal handler interrupts; None if that takes long."""
    over = threading.Event()
    found: list[T] = []

    def done(result: T, error: BaseException | None) -> None:
        if error is None:
            found.append(result)
        elif isinstance(error, StoreUnavailable):
            keep_trying(store, verb, *args)
        over.set()

    with contextlib.suppress(StoreUnavailable):  # closed: what is open there is found by the next
        store.submit(done, verb, *args)
        over.wait(_PATIENCE)
    return found[0] if found else None


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
