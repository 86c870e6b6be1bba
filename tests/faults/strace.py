"""strace around a fork of ours: what it asks of the kernel is written down, or one answer is changed."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.processes import Gate, ended, fork

_ANYBODY_MAY_TRACE = 0x59616D61, ctypes.c_ulong(-1)
"""prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY): where only a parent may trace, strace is none."""
_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += +(-?\d+|\?)(.*)")


class NoTrace(Exception):
    """Processes cannot be traced here; says why."""


@dataclass(frozen=True)
class Call:
    """One system call: its name, its arguments as strace writes them, and what the kernel said."""

    name: str
    arguments: str
    answer: str
    more: str

    @property
    def injected(self) -> bool:
        """Whether strace and not the kernel gave the answer."""
        return "INJECTED" in self.more


def traced(work: Callable[[], object], output: Path, *options: str) -> int:
    """Run *work* in a fork under strace and return how the fork ended.

    Raises:
        NoTrace: strace is not installed, or this machine does not let it trace.
    """
    program = shutil.which("strace")
    if program is None:
        raise NoTrace("strace is not installed")
    gate = Gate()

    def wait_and_work() -> None:
        ctypes.CDLL(None).prctl(*_ANYBODY_MAY_TRACE, 0, 0, 0)
        gate.wait()
        work()

    child = fork(wait_and_work)
    words = [program, "-f", "-y", "-o", str(output), *options, "-p", str(child)]
    tracer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    gate.open()
    died = ended(child)
    complaints = tracer.communicate()[1]
    gate.close()
    if "attached" not in said:
        raise NoTrace(f"strace cannot trace here: {said}{complaints}".strip())
    return died


def calls(output: Path) -> Iterator[Call]:
    """Read what strace has written down."""
    for line in output.read_text().splitlines():
        found = _LINE.fullmatch(line)
        if found:
            yield Call(*found.groups())
