"""Other processes for the tests: one that has imported a runtime, and a fork of it for every play."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from typing import IO, cast

KILLED = -9
PATIENCE = 120
"""Seconds after which another process is taken to hang."""


class Zygote:
    """A process that has imported a runtime, and forks for every play: imports cost seconds."""

    def __init__(self, module: str) -> None:
        words = [sys.executable, "-m", f"{__package__}.play", module]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(  # noqa: S603 - this Python, this module
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, told: str) -> int:
        """Play as *told*; return the exit code, or minus the signal that ended the fork."""
        asked, answers = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        asked.write(told + "\n")
        asked.flush()
        return int(answers.readline())

    def close(self) -> None:
        """Let the process end."""
        self._process.communicate(timeout=PATIENCE)


_ZYGOTES: dict[str, Zygote] = {}


@atexit.register
def _close() -> None:
    while _ZYGOTES:
        _ZYGOTES.popitem()[1].close()


def zygote(module: str) -> Zygote:
    """Return the process that has imported *module*."""
    if module not in _ZYGOTES:
        _ZYGOTES[module] = Zygote(module)
    return _ZYGOTES[module]
