"""One subject in a process of its own: opens it, and runs a lap for each number of steps sent.

Started by measure.py as `python -m benchmarks.worker GROUP NAME FOLDER`; speaks JSON lines.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from .laps import (
    AsyncWork,
    Lap,
    NotAvailable,
    Place,
    Subject,
    SyncWork,
    alone,
    in_tasks,
    in_threads,
    named_callers,
)
from .postgres import place_of
from .registry import ALL


def main(group: str, name: str, folder: str) -> None:
    """Answer each line of standard input, a number of steps, with a lap."""
    say = answers_on(private_output())
    subject = next(known for known in ALL if (known.group, known.name) == (group, name))
    try:
        with asyncio.Runner() as runner:
            serve(subject, place_of(Path(folder), runner), say)
    except NotAvailable as reason:
        say({"missing": str(reason)})
    except Exception as error:
        say({"failed": f"{type(error).__name__}: {error}"})
        raise


def private_output() -> int:
    """Keep standard output for answers; what a library prints goes to standard error."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return descriptor


def answers_on(descriptor: int) -> Callable[[dict[str, Any]], None]:
    """Write one JSON object a line."""
    stream = os.fdopen(descriptor, "w", buffering=1)
    return lambda answer: print(json.dumps(answer), file=stream)


def serve(subject: Subject, place: Place, say: Callable[[dict[str, Any]], None]) -> None:
    """Open the subject and run laps until standard input ends."""
    with subject.open(place) as work:
        say({"ready": True})
        for line, callers in zip(sys.stdin, named_callers(subject.callers), strict=False):
            gc.collect()  # so that no lap pays for the garbage of the one before
            steps = int(line)
            if subject.mode == "tasks":
                lap = place.runner.run(in_tasks(cast(AsyncWork, work), callers, steps))
            else:
                lap = run_sync(cast(SyncWork, work), callers, steps)
            say(asdict(lap))


def run_sync(work: SyncWork, callers: list[Any], steps: int) -> Lap:
    """One caller needs no thread."""
    return alone(work, callers[0], steps) if len(callers) == 1 else in_threads(work, callers, steps)


if __name__ == "__main__":
    main(*sys.argv[1:4])
