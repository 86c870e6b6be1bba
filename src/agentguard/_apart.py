"""Writing that does not depend on its caller: after an interrupt, or until the store takes it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .protocols import Store

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
