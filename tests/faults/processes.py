"""Real processes for the tests: fresh ones, forks of them, and pipes to keep them in step."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import ROOT

PATIENCE = 60
"""Seconds after which a test that waits for another process gives up."""


def ask(module: str, *arguments: str) -> Any:
    """Run a module of this folder in a fresh process and return the JSON that it prints."""
    words = [sys.executable, "-m", "tests.faults.mutants", f"tests.faults.{module}", *arguments]
    ended = subprocess.run(
        words, cwd=ROOT, check=False, capture_output=True, text=True, timeout=5 * PATIENCE
    )
    if ended.returncode:
        raise AssertionError(f"{module} {arguments}: {ended.stdout}\n{ended.stderr}")
    return json.loads(ended.stdout)


class Gate:
    """Something one process waits for and another one says."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def open(self, times: int = 1) -> None:
        """Let as many waiters through."""
        os.write(self._write, b"." * times)

    def wait(self, times: int = 1) -> None:
        """Wait until it was opened that often."""
        for _ in range(times):
            ready, _, _ = select.select([self._read], [], [], PATIENCE)
            if not ready:
                raise TimeoutError("nobody opened the gate")
            os.read(self._read, 1)

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._read)
        os.close(self._write)


def fork(work: Callable[..., object], *args: object) -> int:
    """Run *work* in a fork of this process and return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work(*args)
    except BaseException:  # noqa: BLE001 - told on stderr and by the exit code
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(child: int) -> int:
    """Wait for a fork and return its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def on_all_cores(folder: Path, part: Callable[[int, int], Any]) -> list[Any]:
    """Call *part*(core, cores) in one fork for each core; return their answers, which are JSON."""
    cores = os.cpu_count() or 1
    answers = [folder / f"answer-{core}" for core in range(cores)]

    def work(core: int) -> None:
        answers[core].write_text(json.dumps(part(core, cores)))

    exits = [ended(child) for child in [fork(work, core) for core in range(cores)]]
    if any(exits):
        raise ChildProcessError(f"the parts ended with {exits}")
    return [json.loads(answer.read_text()) for answer in answers]
