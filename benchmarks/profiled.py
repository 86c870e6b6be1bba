"""One subject, again and again for some seconds, under a sampler of CPU.

Started by costs.py as `python -m benchmarks.profiled GROUP NAME FOLDER SECONDS`; says in one JSON line
what the steps took.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, cast

from .laps import AsyncWork, Lap, Place, Subject, SyncWork, in_tasks, named_callers
from .postgres import place_of
from .registry import ALL
from .worker import private_output, run_sync

STEPS = 25
SAMPLES = "samples.txt"
EVERY = 0.004
"""Seconds of CPU between two looks: kernels look no more often."""


def main(group: str, name: str, folder: str, seconds: str) -> None:
    """Run the subject for *seconds*, and say how many steps that were and what they took."""
    output = private_output()
    subject = next(known for known in ALL if (known.group, known.name) == (group, name))
    with asyncio.Runner() as runner:
        place = place_of(Path(folder), runner)
        with subject.open(place) as work:
            told = steady(subject, place, work, float(seconds))
    with os.fdopen(output, "w") as stream:
        print(json.dumps(told), file=stream)


def steady(subject: Subject, place: Place, work: Any, seconds: float) -> dict[str, float]:
    """Warm up, then do laps under the sampler until the time is over."""
    callers = named_callers(subject.callers)
    lap(subject, place, work, next(callers))
    with sampled(place.folder / SAMPLES):
        cpu, wall, steps = process_time(), perf_counter(), 0
        for crowd in callers:
            steps += len(lap(subject, place, work, crowd).steps)
            if perf_counter() - wall > seconds:
                break
        cpu, wall = process_time() - cpu, perf_counter() - wall
    return {"steps": steps, "cpu": cpu / steps, "wall": wall / steps}


@contextmanager
def sampled(file: Path) -> Iterator[None]:
    """Write down the stack of whichever thread is using a processor, every few milliseconds of use.

    The kernel counts the process's CPU and interrupts the thread that is using it, in C code too;
    the handler of faulthandler writes that thread's stack then and there. Waiting uses nothing, so
    it is not seen.
    """
    with file.open("w") as stream:
        faulthandler.register(signal.SIGPROF, stream, all_threads=False)
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.unregister(signal.SIGPROF)


def lap(subject: Subject, place: Place, work: Any, crowd: list[Any]) -> Lap:
    """Do one lap, as `worker` does."""
    if subject.mode == "tasks":
        return place.runner.run(in_tasks(cast(AsyncWork, work), crowd, STEPS))
    return run_sync(cast(SyncWork, work), crowd, STEPS if subject.callers > 1 else 40 * STEPS)


if __name__ == "__main__":
    main(*sys.argv[1:5])
