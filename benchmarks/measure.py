"""The measuring loop: subjects take turns, A B C A B C …, each in its own process."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .figures import Group, Series
from .laps import Lap, Subject

PATIENCE = 180.0
"""Seconds after which a subject that gives no answer is left out."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: how often each subject has its turn.
        steps: how many steps each caller does in a turn.
    """

    rounds: int
    steps: int


FULL = {
    "read": Plan(11, 2000),
    "write": Plan(13, 60),
    "write-postgres": Plan(13, 60),
    "writers": Plan(5, 25),
    "writers-postgres": Plan(5, 25),
    "replay": Plan(15, 1000),
    "replay-postgres": Plan(15, 500),
    "size": Plan(9, 40),
    "length": Plan(9, 20),
    "memory": Plan(1, 100_000),
    "disk": Plan(1, 1000),
    "contracts": Plan(7, 6600),
    "frameworks": Plan(9, 189),
    "import": Plan(5, 1),
}
QUICK = {
    "read": Plan(7, 1000),
    "write": Plan(5, 40),
    "write-postgres": Plan(5, 40),
    "writers": Plan(3, 10),
    "writers-postgres": Plan(3, 10),
    "replay": Plan(7, 500),
    "replay-postgres": Plan(7, 300),
    "size": Plan(5, 20),
    "length": Plan(5, 10),
    "memory": Plan(1, 6400),
    "disk": Plan(1, 100),
    "contracts": Plan(5, 3300),
    "frameworks": Plan(5, 63),
    "import": Plan(3, 1),
}

Say = Callable[[str], None]


class Worker:
    """A subject's process, and its answers."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.series = Series(subject)
        self._log = folder / "stderr.txt"
        command = [
            sys.executable,
            "-m",
            "benchmarks.worker",
            subject.group,
            subject.name,
            str(folder),
        ]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer; none, or a bad one, becomes the trouble of the series."""
        stream = self._process.stdout
        assert stream is not None
        arrived, _, _ = select.select([stream], [], [], PATIENCE)
        line = stream.readline() if arrived else ""
        answer: dict[str, Any] = (
            json.loads(line) if line else {"failed": self._silence(ended=bool(arrived))}
        )
        self.series.trouble = answer.get("missing") or answer.get("failed") or ""
        return answer

    def lap(self, steps: int) -> Lap | None:
        """Have it run one lap."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its end is told by the answer that does not come
            print(steps, file=self._process.stdin, flush=True)
        answer = self.answer()
        return None if self.series.trouble else Lap(**answer)

    def dismiss(self) -> None:
        """Tell it that no more laps come."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def end(self) -> None:
        """Wait for it to end by itself, or end it."""
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _silence(self, *, ended: bool) -> str:
        last = self._log.read_text().strip().rpartition("\n")[2]
        return f"ended: {last}" if ended else f"no answer in {PATIENCE:.0f} s"


def measure(
    name: str,
    subjects: Iterable[Subject],
    plan: Plan,
    folder: Path,
    say: Say,
    *,
    quick: bool = False,
) -> Group:
    """Measure one group: open its subjects one after another, warm each up, then take turns."""
    workers: list[Worker] = []
    series: list[Series] = []
    try:
        for number, subject in enumerate(subjects):
            if quick and subject.full:
                series.append(Series(subject, trouble="only in the full run"))
                continue
            say(f"{name}: opening {subject.name}")
            workers.append(Worker(subject, folder / name / str(number)))
            series.append(workers[-1].series)
            warm_up(workers[-1], plan)
        take_turns(name, workers, plan, say)
    finally:
        for worker in workers:
            worker.dismiss()
        for worker in workers:
            worker.end()
    return Group(name, series, plan.steps)


def warm_up(worker: Worker, plan: Plan) -> None:
    """Open one subject; its first lap, which pays for imports and caches, is thrown away."""
    worker.answer()
    if not worker.series.trouble:
        worker.lap(min(plan.steps, 100))


def take_turns(name: str, workers: list[Worker], plan: Plan, say: Say) -> None:
    """Run the rounds; a subject in trouble is passed over from then on."""
    for round_number in range(1, plan.rounds + 1):
        for worker in workers:
            if worker.series.trouble:
                continue
            say(f"{name}: round {round_number} of {plan.rounds}, {worker.series.subject.name}")
            if lap := worker.lap(plan.steps):
                worker.series.laps.append(lap)
