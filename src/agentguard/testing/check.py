"""Deliver a write twice in every way, kill it at every point, and ask its backend what it saw."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import tempfile
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import config as configuration
from ..declaration import declaration_of
from ..errors import ConfigurationError
from ..guard import Guard
from ..idempotency import Idempotency
from ..tool import Stage
from ._worker import CROWD, Order, Worker
from .report import Case, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.context import ForkContext
    from multiprocessing.process import BaseProcess

    from ..config import Settings
    from ..model import Principal
    from .report import Verdict

    _Arguments = Mapping[str, Any] | Callable[[int], Mapping[str, Any]]
    _Seen = Callable[[], Sequence[object]]
    _Step = Callable[[Worker], None]

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
"""What a killed process has written is the kernel's, on any file system; in memory it is faster."""
_FIRST, _OTHER = "run-1", "run-2"


def check_idempotent(
    tool: Callable[..., Any], arguments: Mapping[str, Any] | Callable[[int], Mapping[str, Any]], *,
    backend: str | Path | Callable[[], Sequence[object]], reset: Callable[[], object] | None = None,
    config: Settings | str | Path | None = None, principal: Principal | None = None,
    patience: float = 60.0,
) -> Report:  # fmt: skip
    """Deliver a write twice in every way, kill it at every point, and report what its backend saw.

    Every case has a store of its own. The call runs in a fork of this process; forks are killed by
    SIGKILL around each commit and before each line of the body, and the call is delivered again in
    another fork, in the same run and in another one. What waits for people is approved.

    Args:
        tool: a write with agentguard's decorators, sync or async.
        arguments: of the call; or a function of the case's number, for a backend that cannot be
            emptied.
        backend: what its backend has seen so far, oldest first, an effect an item: a function, or
            a file to which the tool's backend appends a line for every effect. It must outlive
            the process that wrote to it; a list in memory does not.
        reset: empties the backend before each case. A file is emptied without it.
        config: the settings, or the file with them, under which the tool runs.
        principal: who acts.
        patience: seconds that one process may take.

    Raises:
        ConfigurationError: the tool, the arguments or the backend cannot be checked so, with the
            sentence that mends it; or this system cannot fork.
    """
    __tracebackhide__ = True
    lab = _Lab(tool, arguments, backend, reset, config, principal, patience)
    where = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="agentguard-", dir=where) as folder:
        return Report(lab.name, tuple(lab.cases(Path(folder))))


@dataclass
class _End:
    """How one process ended; None is the exit code of one that had to be stopped."""

    exit_code: int | None
    passed: Sequence[str] = ()
    left: Sequence[str] = ()
    states: Sequence[str] = ()
    answers: Sequence[str] = ()
    succeeded: Sequence[bool] = ()


class _Lab:
    """Plays the cases of one tool."""

    def __init__(
        self, tool: Any, arguments: _Arguments, backend: str | Path | _Seen,
        reset: Callable[[], object] | None, config: Settings | str | Path | None,
        principal: Principal | None, patience: float,
    ) -> None:  # fmt: skip
        self._fork = _forking()
        self._tool, self._principal, self._patience = tool, principal, patience
        self._settings: Settings | None = (
            configuration.load(config) if isinstance(config, (str, Path)) else config
        )
        self.name, self._policy = _write(tool, self._settings)
        self._look, self._reset = _backend(backend, reset)
        if self._reset is None and not callable(arguments):
            raise ConfigurationError(
                "check_idempotent: every case makes the same call, and the backend would remember the"
                " cases before: give reset= to empty it, or arguments= as a function of the case's number"
            )
        self._arguments: Callable[[int], Mapping[str, Any]] = (
            arguments if callable(arguments) else lambda _number: arguments
        )
        self._number = 0
        self._folder = Path()

    def cases(self, folder: Path) -> list[Case]:
        """Play all cases; those after the first only if the call works at all."""
        self._folder = folder
        hook = "-" if self._policy.reconcile is None else "on"
        first, passed = self._play("delivered once", hook, [partial(_once, _FIRST)])
        if first.verdict != "once":
            return [first]
        found = [first, *(self._play(what, hook, steps)[0] for what, steps in self._deliveries())]
        for place in passed:
            found.append(self._killed(place, hook))
            if hook == "on" and "executing" in found[-1].left:  # so the hook was asked
                found.append(self._killed(place, "off"))
        return found

    def _killed(self, place: str, hook: str) -> Case:
        steps: list[_Step] = [partial(_once, _FIRST), self._again]
        return self._play(f"killed {place}", hook, steps, die_at=place)[0]

    def _deliveries(self) -> list[tuple[str, list[_Step]]]:
        """Name the ways to deliver a call twice without killing anybody."""
        ways: list[tuple[str, list[_Step]]] = [
            ("delivered twice in one process", [partial(_twice, _FIRST)]),
            ("delivered again by a resumed run", [partial(_once, _FIRST)] * 2),
            (f"delivered {CROWD} times at once", [partial(_at_once, _FIRST)]),
        ]
        if self._across_runs:
            again = [partial(_once, _FIRST), partial(_once, _OTHER)]
            ways.append(("delivered again by another run", list(again)))
        return ways

    @property
    def _across_runs(self) -> bool:
        """Whether the call of another run is the same effect."""
        return self._policy.per is None and self._policy.scope != "run"

    def _again(self, worker: Worker) -> None:
        """Do what comes after a kill: the run is resumed, and another one wants the same."""
        worker.deliver(_FIRST)
        worker.deliver(_OTHER if self._across_runs else _FIRST)

    def _play(
        self, what: str, hook: str, steps: Sequence[_Step],
        die_at: str | None = None,
    ) -> tuple[Case, Sequence[str]]:  # fmt: skip
        """Play one case, each step in a process of its own, and judge it."""
        self._number += 1
        if self._reset is not None:
            self._reset()
        before = len(self._look())
        order = Order(
            self._tool, dict(self._arguments(self._number)), self._settings, self._principal,
            f"sqlite:///{self._folder}/{self._number}.db", die_at, hook != "off",
        )  # fmt: skip
        ends = []
        for step in steps:
            ends.append(self._process(order, step))
            order = replace(order, die_at=None)
        seen = tuple(str(effect) for effect in self._look()[before:])
        if self._number == 1 and not seen and any(ends[0].succeeded):
            raise ConfigurationError(
                f"check_idempotent: {self.name} succeeded and its backend saw nothing of it;"
                " what backend= returns must outlive the process that wrote it, as a file or a service"
                " does and a list in memory does not"
            )
        return _judged(what, hook, ends, seen, die_at), ends[0].passed

    def _process(self, order: Order, step: _Step) -> _End:
        """Run *step* in a fork and return how that ended."""
        answer = self._folder / f"{self._number}.json"
        answer.unlink(missing_ok=True)
        process = self._fork.Process(target=_work, args=(order, step, answer))
        with warnings.catch_warnings():
            # A fork that hangs on a lock of a thread it did not inherit is stopped, and that is told.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        code = _ended(process, self._patience)
        told = json.loads(answer.read_text()) if answer.exists() else {}
        return _End(code, **told)


def _once(run_id: str, worker: Worker) -> None:
    worker.deliver(run_id)


def _twice(run_id: str, worker: Worker) -> None:
    worker.deliver(run_id, 2)


def _at_once(run_id: str, worker: Worker) -> None:
    worker.deliver(run_id, CROWD, at_once=True)


def _work(order: Order, step: _Step, answer: Path) -> None:
    """Be one process, to its end or its death."""
    worker = Worker(order)
    step(worker)
    worker.tell(answer)


def _ended(process: BaseProcess, patience: float) -> int | None:
    process.join(patience)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    process.close()
    return code


def _judged(
    what: str, hook: str, ends: Sequence[_End], seen: tuple[str, ...], die_at: str | None
) -> Case:
    """Return the case with what its ends and the backend say about it."""
    last = ends[-1]
    verdict, detail = _verdict(ends, seen, die_at)
    left = tuple(last.left) if die_at else ()
    return Case(what, hook, left, seen, tuple(last.states), tuple(last.answers), verdict, detail)


def _verdict(
    ends: Sequence[_End], seen: tuple[str, ...], die_at: str | None
) -> tuple[Verdict, str]:
    last = ends[-1]
    told = [pair for end in ends for pair in zip(end.succeeded, end.answers, strict=True)]
    problem = next(filter(None, map(_broken, ends[bool(die_at) :])), "")
    if die_at and ends[0].exit_code != -signal.SIGKILL:
        problem = (
            "its process never came to this place again; the body has to do the same each time"
        )
    if len(seen) > 1:
        keys = f" under {len(last.states)} keys" if len(last.states) > 1 else ""
        return "DUPLICATE", f"the backend saw {len(seen)} effects{keys}: {', '.join(seen)}"
    if any(ok for ok, _ in told) and not seen:
        return "LOST", f"a caller was told {last.answers[-1]}, and the backend saw nothing"
    if not problem and "in_doubt" in last.states:
        return "in doubt", last.answers[-1]
    refused = [answer for ok, answer in told if not ok]
    if problem or refused:
        return "FAILED", problem or f"a caller got {refused[0]}"
    return "once", ""


def _broken(end: _End) -> str:
    if end.exit_code is None:
        return "a process did not end in time and was stopped"
    return f"a process ended with {end.exit_code}; see its output" if end.exit_code else ""


def _forking() -> ForkContext:
    with contextlib.suppress(ValueError):
        return multiprocessing.get_context("fork")
    raise ConfigurationError(
        "check_idempotent kills forks of its process, and this system cannot fork: run it on Linux or"
        " macOS"
    )


def _write(tool: Any, settings: Settings | None) -> tuple[str, Idempotency]:
    """Return the name and the key's policy of a tool that can be checked."""
    declaration = declaration_of(tool)
    if declaration is None:
        raise ConfigurationError(
            f"check_idempotent: {getattr(tool, '__name__', tool)!s} has no agentguard decorator; give it"
            " the decorated function, or what Guard.protect returns"
        )
    guard = Guard("memory://", config=settings)
    try:
        sheet = guard.bind(declaration)
    finally:
        guard.close()
    policy = declaration.policies.get(Stage.IDEMPOTENCY)
    if sheet.effect != "write" or not isinstance(policy, Idempotency):
        raise ConfigurationError(
            f"check_idempotent: {sheet.name} is no write; a read may happen as often as it likes"
        )
    return sheet.name, policy


def _backend(
    backend: str | Path | _Seen, reset: Callable[[], object] | None
) -> tuple[_Seen, Callable[[], object] | None]:
    """Return how to ask the backend what it has seen, and how to empty it."""
    if not isinstance(backend, (str, Path)):
        return backend, reset
    path = Path(backend)

    def lines() -> list[str]:
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    return lines, reset or partial(path.write_text, "", encoding="utf-8")
