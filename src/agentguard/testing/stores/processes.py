"""Forks of a test's process, that work on the store in an opening of their own and can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import traceback
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60
"""Seconds after which another process is taken to hang."""


class Child:
    """A fork of this process: it works, says what it has to say, and stays until it is let go.

    Args:
        work: is called in the fork with a function that says something (JSON) to the parent.
    """

    def __init__(self, work: Callable[[Callable[[Any], None]], object]) -> None:
        self._heard, told = os.pipe()
        ordered, self._order = os.pipe()
        with warnings.catch_warnings():
            # A fork that hangs on a lock of a thread it did not inherit is killed, and that is told.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if not self.pid:
            _live(work, told, ordered)
        for end in (told, ordered):
            os.close(end)
        self._text, self._ended = b"", False

    def hear(self) -> Any:
        """Return what the fork says next.

        Raises:
            AssertionError: it says nothing, or it failed.
        """
        while b"\n" not in self._text:
            ready, _, _ = select.select([self._heard], [], [], PATIENCE)
            piece = os.read(self._heard, 65_536) if ready else b""
            if not piece:
                raise AssertionError("the other process hangs" if not ready else "it ended unheard")
            self._text += piece
        line, _, self._text = self._text.partition(b"\n")
        said = json.loads(line)
        if "failed" in said:
            raise AssertionError(f"in the other process: {said['failed']}")
        return said["said"]

    def heard(self) -> list[Any]:
        """Return everything else that the fork has said until its end."""
        while piece := os.read(self._heard, 65_536):
            self._text += piece
        lines = self._text.splitlines(keepends=True)
        return [json.loads(line)["said"] for line in lines if line.endswith(b"\n")]

    def stop(self) -> None:
        """Suspend the fork (SIGSTOP), which is not its death."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def wake(self) -> None:
        """Let a suspended fork go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the fork by SIGKILL, as a crash does."""
        if not self._ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._ended = True

    def leave(self) -> int:
        """Let the fork end without closing anything; return its exit code."""
        os.write(self._order, b".")
        self._ended = True
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        """Make sure that nothing is left of it."""
        self.kill()
        for end in (self._heard, self._order):
            with contextlib.suppress(OSError):
                os.close(end)


def _live(work: Callable[[Callable[[Any], None]], object], told: int, ordered: int) -> None:
    """Be the fork, to its end; the parent's clean-up is not its business."""

    def say(what: Any) -> None:
        os.write(told, (json.dumps({"said": what}) + "\n").encode())

    code = 0
    try:
        work(say)
        os.read(ordered, 1)
    except BaseException:  # noqa: BLE001 - told to the parent
        code = 1
        os.write(told, (json.dumps({"failed": traceback.format_exc()}) + "\n").encode())
    finally:
        os._exit(code)
