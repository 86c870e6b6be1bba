"""KeyboardInterrupt at every instruction of ours after which Python looks for signals.

    python -m tests.faults.mutants tests.faults.instructions '{"story": "plain", …}'

prints how many such instructions a worker passes, and what was wrong after which of them.
"""

from __future__ import annotations

import asyncio
import dis
import itertools
import json
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import agentguard
from agentguard import _durable
from tests.faults import oracle
from tests.faults.processes import PATIENCE
from tests.faults.stories import STORIES, Worker
from tests.faults.world import World

PACKAGE = str(Path(agentguard.__file__).parent)
LOOKS = {
    number
    for name, number in dis.opmap.items()
    if name.startswith("CALL") or name in ("RESUME", "JUMP_BACKWARD")
}
"""Instructions after which the interpreter runs signal handlers that are due."""


class Interrupts:
    """Counts the places of this thread where a handler could raise; raises at the chosen one."""

    def __init__(self, chosen: int) -> None:
        self.count, self.place = 0, ""
        self._chosen = chosen
        self._last: dict[int, int] = {}

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "call" and not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        if event == "return":
            self._last.pop(id(frame), None)
        elif event == "opcode":
            self._pass(frame)
        return self._trace

    def _pass(self, frame: FrameType) -> None:
        before = self._last.get(id(frame))
        self._last[id(frame)] = frame.f_code.co_code[frame.f_lasti]
        self.count += before in LOOKS
        if before in LOOKS and self.count == self._chosen:
            code = frame.f_code
            self.place = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_qualname}"
            sys.settrace(None)
            raise KeyboardInterrupt


def play(story: str, worker: Worker) -> None:
    """Tell a story; a sync one without an event loop."""
    told = STORIES[story](worker)
    if worker.is_async:
        asyncio.run(told)
        return
    try:
        told.send(None)
    except StopIteration:
        return


def problems(story: str, world: World, chosen: int, *, is_async: bool) -> tuple[str, list[str]]:
    """Interrupt a worker at one place, do all of it again, and compare the record with the world."""
    found, workers = Interrupts(chosen), [Worker(world, is_async, hook=False) for _ in range(3)]
    try:
        with found:
            play(story, workers[0])
    except KeyboardInterrupt:
        """It is what was asked for."""
    for worker in workers[1:]:
        play(story, worker)
    wrong, end = oracle.problems(worker.guard, world, denied=["denied"]), worker.ends["T-1"]
    for worker in workers:
        if hasattr(worker, "guard"):  # the first may not have got as far as that
            worker.guard.close()
    return found.place, wrong + ([] if end in ("success", "effect_in_doubt") else [end])


def main(argument: str) -> None:
    """Interrupt one worker after the other, at every place or at some of them."""
    plan = json.loads(argument)
    _durable._PATIENCE = 0.05  # nobody is there to be waited for
    told, cases = [], 0
    for chosen in itertools.count(1, plan["step"]):
        signal.alarm(PATIENCE)  # a lock that nobody gives back is a failure, too
        folder = Path(plan["folder"]) / str(chosen)
        folder.mkdir()
        place, wrong = problems(plan["story"], World(folder), chosen, is_async=plan["is_async"])
        shutil.rmtree(folder)
        if not place:
            break
        cases += 1
        told += [f"{chosen} {place}: {wrong}"] if wrong else []
    print(json.dumps({"cases": cases, "problems": told}))  # noqa: T201 - the answer to the test


if __name__ == "__main__":
    main(sys.argv[1])
