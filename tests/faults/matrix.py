"""The fault matrix: which fault is tried on which store, where its trial is, and what it has found.

A trial is a plain function `(long: bool, seed: int) -> Result` in a module of tests/faults/rows/.
It breaks something at many points, and after each of them holds the record against the world:

    def sqlite(long: bool, seed: int) -> Result:
        count = Count("F3", "sqlite", seed)
        for point in points(all if long else sample):
            count.add(oracle.problems(guard, world))
        return count.result(notes="every write, one by one")

A trial that cannot be made on this machine raises NotHere with the reason. One that is not written
yet is missing, one that raises has failed; neither counts as passed.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

ROOMS = "tests.faults.rows"
COLUMNS = ("duplicates", "lost", "phantom", "stuck", "unreported", "wrong")
COLUMN_OF = {  # by the first word of what the oracle says; everything else is wrong
    "duplicate": "duplicates",
    "lost": "lost",
    "phantom": "phantom",
    "stuck": "stuck",
    "unreported": "unreported",
    "not listed": "unreported",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What a trial has found.

    Attributes:
        fault: its number, F1 to F24.
        what: what is done to the worker, the store or the machine.
        store: what lay under the ledger.
        points: how many places, images, schedules, kills or attacks were tried.
        duplicates: effects that happened twice.
        lost: effects that somebody was told of and that are gone.
        phantom: effects that had been denied and happened.
        stuck: calls that are neither ended nor in doubt.
        unreported: effects that happened, or may have, and that nobody is told of.
        seconds: how long it took.
        seed: with which the same points come again.
        notes: what a reader must know to read the row.
        wrong: all else that must not be: broken chains, wrong budgets, attacks that got through.
        words: what the oracle said, the first of them.
    """

    fault: str
    what: str
    store: str
    points: int
    duplicates: int
    lost: int
    phantom: int
    stuck: int
    unreported: int
    seconds: float
    seed: int
    notes: str = ""
    wrong: int = 0
    words: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether something was tried and nothing was found."""
        return self.points > 0 and not any(getattr(self, column) for column in COLUMNS)


@dataclass(frozen=True, slots=True)
class Row:
    """A fault on a store.

    Attributes:
        where: module and function of the trial, below tests/faults/rows/.
        tests: a file below tests/ that goes through the same points anyway; the suite does not
            make the trial a second time then.
    """

    fault: str
    store: str
    what: str
    where: str
    tests: str = ""

    def __str__(self) -> str:
        return f"{self.fault} {self.store}"


class NotHere(Exception):
    """A program or a right that the trial needs is not on this machine; says which."""


class Missing(Exception):
    """The trial is not written yet."""


@dataclass
class Count:
    """Counts the points of a trial and sorts what the oracle says of each."""

    fault: str
    store: str
    seed: int
    points: int = 0
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    words: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def add(self, problems: Iterable[str], points: int = 1, place: str = "") -> None:
        """Count *points* more, and what was wrong after them, in the words of the oracle."""
        self.points += points
        for problem in problems:
            self.found[COLUMN_OF.get(problem.partition(":")[0], "wrong")] += 1
            self.words.append(f"{place}: {problem}" if place else problem)

    def result(self, notes: str = "") -> Result:
        """Close the count."""
        return Result(
            fault=self.fault,
            what=row_of(self.fault, self.store).what,
            store=self.store,
            points=self.points,
            seconds=round(time.monotonic() - self.began, 1),
            seed=self.seed,
            notes=notes,
            words=tuple(self.words[:20]),
            **self.found,
        )


ROWS = (
    Row("F1", "sqlite", "SIGKILL at named places", "kills:sqlite", "faults/test_kills.py"),
    Row("F1", "postgres", "SIGKILL at named places", "postgres_kills:killed"),
    Row("F2", "sqlite", "SIGKILL at every system call that writes", "system_calls:killed"),
    Row("F3", "sqlite", "disk full at every write", "system_calls:disk_full"),
    Row("F4", "sqlite", "I/O error at every read, write and sync", "system_calls:bad_disk"),
    Row("F5", "sqlite", "power cut: what was not synced is lost, kept or torn", "power:sqlite"),
    Row(
        "F6",
        "simulation",
        "crashes, pauses, lost answers in any order: verbs",
        "simulation:schedules",
        "simulation/test_simulation.py",
    ),
    Row(
        "F6",
        "pipeline",
        "the same, and interrupts: whole guarded calls",
        "simulation:calls",
        "simulation/test_simulation.py",
    ),
    Row(
        "F7",
        "sqlite",
        "every order of verbs, against a model",
        "simulation:model",
        "ledger/test_state_machine.py",
    ),
    Row(
        "F8",
        "sqlite",
        "2, 8 and 16 processes, 50 equal keys",
        "crowds:sqlite",
        "faults/test_crowds.py",
    ),
    Row("F8", "postgres", "8 processes, 150 equal keys", "postgres_workers:crowd"),
    Row(
        "F9",
        "sqlite",
        "threads, tasks cancelled at every await, fork, spawn",
        "crowds:together",
        "faults/test_cancellation.py",
    ),
    Row("F9", "postgres", "threads, cancelled tasks, forks", "postgres_together:together"),
    Row("F10", "postgres", "backends terminated", "postgres_server:terminated"),
    Row("F11", "postgres", "server killed and recovered", "postgres_server:crashed"),
    Row("F12", "postgres", "workers killed", "postgres_workers:killed"),
    Row(
        "F12",
        "postgres_hosts",
        "two hosts: kills, stops, cut networks, crash, failover",
        "postgres_hosts:two",
    ),
    Row(
        "F12",
        "postgres_same",
        "same database: kills, lost backends, server, answers",
        "postgres_same:exactly_once",
    ),
    Row(
        "F13", "postgres", "workers stopped for longer than their lease", "postgres_workers:paused"
    ),
    Row("F14", "postgres", "failover to a standby", "postgres_server:failover"),
    Row(
        "F15", "postgres", "the answer to COMMIT is lost or cancelled", "postgres_commits:ambiguous"
    ),
    Row(
        "F16",
        "simulation",
        "clocks that jump a day, also backwards",
        "simulation:clocks",
        "simulation/test_simulation.py",
    ),
    Row("F17", "sqlite", "flipped bits, cut or missing log, old backup", "corruption:sqlite"),
    Row("F18", "sqlite", "slow disk, stalled writer, late tool, hanging hook", "slowness:sqlite"),
    Row("F18", "postgres", "stalled server, late tool, hanging hook", "postgres_slowness:slow"),
    Row("F19", "sqlite", "old and new SDK on one store; migration killed", "versions:sqlite"),
    Row(
        "F20",
        "sqlite",
        "frameworks that resume, retry and travel back",
        "frameworks:sqlite",
        "langgraph/test_durability.py",
    ),
    Row("F21", "sqlite", "attacks on approvals", "approval_attacks:sqlite", "test_approvals.py"),
    Row("F22", "sqlite", "a record that was tampered with", "tampering:sqlite"),
    Row(
        "F23",
        "sqlite",
        "SIGKILL in undos and rollbacks",
        "undos:sqlite",
        "faults/test_rollback.py",
    ),
    Row("F23", "postgres", "SIGKILL in undos and rollbacks", "undos:postgres"),
    Row(
        "F24",
        "sqlite",
        "SIGKILL in outcomes that take autonomy away",
        "error_budgets:sqlite",
        "faults/test_error_budgets.py",
    ),
    Row("F24", "postgres", "SIGKILL in outcomes that take autonomy away", "error_budgets:postgres"),
)


def row_of(fault: str, store: str) -> Row:
    """Find a row."""
    for row in ROWS:
        if (row.fault, row.store) == (fault, store):
            return row
    raise LookupError(f"the matrix has no row {fault} {store}; its rows are in {__name__}.ROWS")


def trial_of(row: Row) -> Callable[[bool, int], Result]:
    """Load the function that makes the trial.

    Raises:
        Missing: nobody has written it yet.
    """
    room, _, name = row.where.partition(":")
    try:
        module = importlib.import_module(f"{ROOMS}.{room}")
        trial: Callable[[bool, int], Result] = getattr(module, name)
    except ModuleNotFoundError as error:
        if error.name not in (ROOMS, f"{ROOMS}.{room}"):
            raise
        raise Missing(f"tests/faults/rows/{room}.py is not there") from error
    except AttributeError as error:
        raise Missing(f"tests/faults/rows/{room}.py has no {name}") from error
    return trial


def as_json(result: Result) -> dict[str, object]:
    """Show a result as JSON does."""
    return dataclasses.asdict(result)
