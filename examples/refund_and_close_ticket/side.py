"""One side of the demo: a world of its own, and a worker in it that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from agentguard import Guard
from agentguard.model import Event

from .world import ServiceName, World

ROOT = Path(__file__).resolve().parents[2]
WORKER = f"{__package__}.worker"
SECONDS_TO_ANSWER = 60.0

TELLING = {
    ("effect.in_doubt", ""): "in doubt: begun, and no end on record",
    ("effect.resolved", "happened"): "settled by asking the service: it happened",
    ("effect.replayed", ""): "answered from the record, nothing done again",
    ("approval.used", ""): "started under the approval, which that used up",
    ("step.decided", "approval_rejected"): "refused: a person said no",
}
"""What is worth telling of a record: events, and what in them counts."""


class DemoBroken(RuntimeError):
    """Something that the demo stands on did not work; the sentence says what."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a worker came with a ticket.

    Attributes:
        ended: `done`, `waits` for people, or the error that stopped the run.
        waits: the approvals that are waited for.
    """

    ended: str
    model_calls: int
    why: str = ""
    waits: tuple[dict[str, Any], ...] = ()


def run_of(ticket_id: str) -> str:
    """Return the id of the run, and of LangGraph's thread, in which a ticket is handled."""
    return ticket_id.replace("T", "r")


class Worker:
    """A worker process."""

    def __init__(self, side: Side) -> None:
        self._log = side.directory / "worker.log"
        guarded = ["--store", side.store] if side.store else []
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", *side.program, str(side.directory), *guarded],
                cwd=ROOT,
                env={**os.environ, **side.addresses},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops its workers
            )

    def take(self, ticket_id: str) -> None:
        """Give it a ticket."""
        self._patience = time.monotonic() + SECONDS_TO_ANSWER
        assert self._child.stdin is not None
        self._child.stdin.write(f"{run_of(ticket_id)} {ticket_id}\n")
        self._child.stdin.flush()

    def answer(self) -> Outcome:
        """Wait until it comes no further with its ticket."""
        assert self._child.stdout is not None
        timer = threading.Timer(SECONDS_TO_ANSWER, self._child.kill)
        timer.start()
        line = self._child.stdout.readline()
        timer.cancel()
        if not line:
            self._child.wait()
            self.check()
        return Outcome(**json.loads(line))

    def check(self) -> None:
        """Refuse to go on without it.

        Raises:
            DemoBroken: it has ended, or takes too long.
        """
        if self._child.poll() is not None or time.monotonic() > self._patience:
            raise DemoBroken(f"a worker did not come through its ticket; {self._log} says why")

    def kill(self) -> None:
        """End it as a power cut would, wherever it is."""
        self._child.kill()
        self._child.communicate()

    def stop(self) -> None:
        """Let it finish and end."""
        self._child.communicate()


class Side:
    """A world and a worker; use it in a `with`.

    Attributes:
        store: agentguard's store, or nothing on the side without agentguard.
        program: the worker's module, and words that it is given first.
        killed: how many workers were killed so far.
    """

    def __init__(
        self, directory: Path, store: str = "", program: Sequence[str] = (WORKER,)
    ) -> None:
        self.directory, self.store, self.program = directory.resolve(), store, program
        self.name = "with" if store else "without"
        self.world = World(directory)
        self.killed = 0
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self.world)
            if self.store:
                self._guard = Guard(self.store)
                undo.callback(self._guard.close)
            self._worker = Worker(self)
            undo.callback(self._dismiss)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._worker.kill()
        self._undo.close()

    def _dismiss(self) -> None:
        self._worker.stop()  # whichever it is by then

    @property
    def addresses(self) -> dict[str, str]:
        """Where the services are, as environment variables."""
        return {"PAYMENTS_URL": self.world.payments_url, "HELPDESK_URL": self.world.helpdesk_url}

    def work(self, ticket_id: str) -> Outcome:
        """Let the worker come with a ticket as far as it can."""
        self._worker.take(ticket_id)
        return self._worker.answer()

    def kill_after(self, service: ServiceName, ticket_id: str) -> None:
        """Let the worker work until *service* has done something; kill it before it hears of that.

        Another worker takes its place.
        """
        effects = len(self.world.journal(service)) + 1
        self.world.fault(service, hold_reply=1)
        self._worker.take(ticket_id)
        while len(self.world.journal(service, at_least=effects, within=1)) < effects:
            self._worker.check()
        self._worker.kill()
        self.killed += 1
        self.world.release(service)
        self._worker = Worker(self)

    def record(self, ticket_id: str) -> list[str]:
        """Tell what agentguard's record says of a ticket; nothing on the side without."""
        if not self.store:
            return []
        events = self._guard.runs.events(run_of(ticket_id))
        told = Counter(TELLING[key] for e in events if (key := _key_of(e)) in TELLING)
        return [f"{number} {sentence}" for sentence, number in told.items()]

    def broken_records(self) -> list[str]:
        """List the runs whose hash chain is not whole."""
        runs = self._guard.runs
        return [run.id for run in runs.list() if runs.verify(run.id) is not None]

    def waiting(self) -> str:
        """Return the id of the first approval that waits."""
        return next((approval.id for approval in self._guard.approvals.list("pending")), "")

    def person(self, *words: str) -> None:
        """Let somebody type a command of agentguard's."""
        typed = [sys.executable, "-m", "agentguard", *words]
        env = {**os.environ, "AGENTGUARD_STORE": self.store}
        done = subprocess.run(typed, check=False, env=env, capture_output=True, text=True)
        if done.returncode:
            raise DemoBroken(f"agentguard {' '.join(words)}: {done.stderr.strip()}")


def _key_of(event: Event) -> tuple[str, str]:
    return event.kind, str(event.data.get("ruling") or event.data.get("error") or "")
