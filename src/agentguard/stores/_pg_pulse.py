"""A heartbeat: while this process executes something, others hear of it in time."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING

from ..errors import GuardError

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger("agentguard")
_FORGOTTEN = 60.0
"""So often a thread that waits looks whether its store is still there."""


class Pulse:
    """Calls *beat* in a thread of its own, for as long as it returns that there is need.

    Args:
        beat: a method of the store; it is not kept alive by this.
        every: seconds between two beats.
    """

    def __init__(self, beat: Callable[[], bool], every: float) -> None:
        self._beat, self._every = weakref.WeakMethod(beat), every
        self._wanted, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def want(self) -> None:
        """Begin to beat, unless it does."""
        self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._go, name="agentguard-pulse", daemon=True)
            self._thread.start()

    def _go(self) -> None:
        while True:
            while not self._wanted.wait(_FORGOTTEN):
                if self._beat() is None:
                    return
            if self._over.wait(self._every) or not self._once():
                return

    def _once(self) -> bool:
        """Beat, and return whether there is still somebody to beat for."""
        beat = self._beat()
        if beat is None:
            return False
        self._wanted.clear()
        try:
            needed = beat()
        except GuardError as error:
            _LOG.warning("the lease was not renewed: %s", error)
            needed = True
        if needed:
            self._wanted.set()
        return True

    def close(self) -> None:
        """Beat no more."""
        self._over.set()
        self._wanted.set()
