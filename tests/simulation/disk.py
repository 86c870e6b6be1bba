"""A store for simulated processes: the product's tables and verbs, and answers that get lost.

All processes share one database in memory. A schedule runs inside one transaction of it, which is
rolled back at the end; what the product takes for transactions are savepoints. So no schedule pays
for a new database, and SQLite keeps its prepared statements.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agentguard.errors import StoreUnavailable
from agentguard.ledger.approvals import expire_late
from agentguard.protocols import Asked, Clock
from agentguard.stores import _files

T = TypeVar("T")

SECOND = 1_000_000
LEASE = 15 * SECOND
"""Every commit of a process renews its lease by so much."""
QUARANTINE = 60 * SECOND
"""So long no hook is believed that a silent process has done nothing."""
LOOK_EVERY = SECOND
"""So often a process's commits write down which approvals' time is over, as in SQLite's store."""


class Fate(enum.Enum):
    """What becomes of a commit, and what its caller hears of that."""

    HEARD = "committed"
    RUN_TWICE = "committed at the second try"
    REFUSED = "not committed, and says so"
    LOST = "not committed, and nobody knows"
    UNHEARD = "committed, and nobody knows"
    LAST_WORD = "committed, and the process dies before it hears of that"


class Crashed(BaseException):
    """The process that executes this is dead."""


class Time:
    """What clocks show, and what has really passed."""

    def __init__(self) -> None:
        self.true = 1_767_603_600 * SECOND
        self.ahead = 0
        self.forward = self.back = 0

    def jump(self, micros: int) -> None:
        """Set the clock, which changes nothing of what has really passed."""
        self.ahead += micros
        self.forward += max(0, micros)
        self.back += max(0, -micros)

    def now(self) -> int:
        """Return what the store's clock shows."""
        return self.true + self.ahead

    def monotonic(self) -> float:
        """Return seconds that have really passed; a stopped process is no exception."""
        return self.true / SECOND

    def monotonic_ns(self) -> int:
        """Return nanoseconds that have really passed."""
        return self.true * 1000


@dataclass(eq=False, slots=True)
class Process:
    """A process that owns effects. It may stand still, and it may die.

    Attributes:
        wakes: true time before which it stands still.
        renewed: true time at which its lease was renewed last.
        unbroken: true time since which its lease has not run out.
        lease_until: when its lease is over, by the store's clock.
        seen: the latest time that it has seen on the store's clock.
    """

    name: str
    host: str
    alive: bool = True
    wakes: int = 0
    renewed: int = 0
    unbroken: int = 0
    lease_until: int = 0
    seen: int = 0
    looked: int = 0
    registered: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction that has become durable; *looked* is the time if it expired what was late."""

    verb: Any
    args: tuple[Any, ...]
    result: Any
    looked: int


class Disk:
    """The database that all simulated processes share."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        _files.check_schema(self.connection, ":memory:", migrate=False)

    def begin(self) -> None:
        """Start a schedule."""
        self.connection.execute("BEGIN")

    def undo(self) -> None:
        """End a schedule and forget all of it."""
        self.connection.execute("ROLLBACK")

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """Read past the product's code."""
        return self.connection.execute(sql, values).fetchall()


class Machines:
    """The processes of one schedule, and what they can tell of each other's death.

    Args:
        leases: whether silence counts, as between hosts; otherwise locks of one host tell.
    """

    def __init__(self, disk: Disk, time: Time, *, leases: bool) -> None:
        self.disk, self.time, self.leases = disk, time, leases
        self.processes: dict[str, Process] = {}
        self.fate: Callable[[Process], Fate] = lambda _: Fate.HEARD
        self.watch: Callable[[Process, Commit], None] = lambda *_: None

    def start(self, host: str) -> Process:
        """Start a process."""
        process = Process(f"p{len(self.processes) + 1}", host, wakes=self.time.true)
        self.processes[process.name] = process
        return process

    def beat(self, process: Process) -> None:
        """Renew the lease of *process*, as its heartbeat does while it executes something."""
        if self.time.true >= process.renewed + LEASE:
            process.unbroken = self.time.true
        process.renewed = self.time.true
        process.lease_until = max(process.seen, self.time.now()) + LEASE

    def is_dead(self, viewer: Process, owner: str) -> bool:
        """Return whether *viewer* can prove the death of *owner*: its lock is free on this host."""
        found = self.processes[owner]
        return found.host == viewer.host and not found.alive

    def is_late(self, viewer: Process, owner: str, now: int) -> bool:
        """Return whether *owner* has been silent for longer than its lease."""
        return self.leases and owner != viewer.name and now >= self.processes[owner].lease_until

    def is_seen(self, viewer: Process, owner: str, now: int) -> bool:
        """Return whether *viewer* sees that *owner* lives."""
        found = self.processes[owner]
        return found.alive if found.host == viewer.host else now < found.lease_until


class SimulatedTx:
    """One transaction of a simulated process; *looked* is the time if it expired what was late."""

    __slots__ = ("_machines", "_process", "afterwards", "looked", "now")
    quarantine_us = QUARANTINE
    one_file = True

    def __init__(self, machines: Machines, process: Process) -> None:
        self._machines, self._process = machines, process
        process.seen = self.now = max(process.seen, machines.time.now())
        self.afterwards: list[Callable[[], object]] = []
        self.looked = 0

    @property
    def owner(self) -> str:
        """The process that runs this transaction."""
        return self._process.name

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Execute one statement."""
        self._machines.disk.connection.execute(sql, values)

    def changed(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Execute one statement and return how many rows it changed."""
        return self._machines.disk.connection.execute(sql, values).rowcount

    def row(self, sql: str, values: Sequence[Any] = ()) -> Any | None:
        """Return the first row or None."""
        return self._machines.disk.connection.execute(sql, values).fetchone()

    lock = row  # transactions here are serial

    def gate(self, name: str, *, alone: bool) -> None:
        """Nobody else is in any gate."""

    def ahead(self, *questions: Asked) -> None:
        """Here no question travels."""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterable[Any]:
        """Return all rows."""
        return self._machines.disk.connection.execute(sql, values).fetchall()

    def is_dead(self, owner: str) -> bool:
        """Return whether *owner* is proven to be gone."""
        return self._machines.is_dead(self._process, owner)

    def is_lost(self, owner: str) -> bool:
        """Return whether *owner* is dead, or silent for longer than a living one would be."""
        late = self._machines.is_late(self._process, owner, self.now)
        return late or self._machines.is_dead(self._process, owner)

    def is_alive(self, owner: str) -> bool:
        """Return whether *owner* is seen to live."""
        return self._machines.is_seen(self._process, owner, self.now)

    def forget(self, owner: str) -> None:
        """Remove what is kept about a dead owner."""
        self.run("DELETE FROM owners WHERE owner = ?", (owner,))

    def after_commit(self, done: Callable[[], object]) -> None:
        """Call *done* once this transaction is durable."""
        self.afterwards.append(done)


class SimulatedStore:
    """The store as one process sees it (`agentguard.protocols.Store`)."""

    url = "simulated://"

    def __init__(self, machines: Machines, process: Process) -> None:
        self.machines, self.process = machines, process
        self.clock: Clock = machines.time

    def transact(self, verb: Callable[..., T], *args: Any) -> T:
        """Run *verb* in one transaction, whose fate the schedule decides.

        Raises:
            StoreUnavailable: nothing was written; with `uncertain`, it is not known whether it was.
            Crashed: the process died in the moment of the commit.
        """
        self._check_alive()
        fate = self.machines.fate(self.process)
        if fate is Fate.REFUSED:
            raise StoreUnavailable("the simulated store refused")
        connection = self.machines.disk.connection
        connection.execute("SAVEPOINT tx")
        try:
            result, tx = self._tried(verb, args)
            if fate is Fate.RUN_TWICE:
                connection.execute("ROLLBACK TO tx")
                result, tx = self._tried(verb, args)
        except BaseException as error:
            connection.execute("ROLLBACK TO tx")
            connection.execute("RELEASE tx")
            if isinstance(error, sqlite3.Error):
                raise StoreUnavailable(f"the simulated store failed: {error}") from error
            raise
        if fate is Fate.LOST:
            connection.execute("ROLLBACK TO tx")
        connection.execute("RELEASE tx")
        if fate is not Fate.LOST:
            self.machines.watch(self.process, Commit(verb, args, result, tx.looked))
            self._committed(tx, fate)
        if fate in (Fate.LOST, Fate.UNHEARD):
            raise StoreUnavailable("the simulated store did not answer", uncertain=True)
        return result

    def _check_alive(self) -> None:
        if not self.process.alive:
            raise StoreUnavailable("this process is dead")

    def _tried(self, verb: Callable[..., T], args: tuple[Any, ...]) -> tuple[T, SimulatedTx]:
        tx, process = SimulatedTx(self.machines, self.process), self.process
        if not process.registered:
            tx.run(
                "INSERT INTO owners (owner, host, pid, started_at) VALUES (?,?,0,?)"
                " ON CONFLICT DO NOTHING", (process.name, process.host, tx.now),
            )  # fmt: skip
        if tx.now >= process.looked:
            expire_late(tx)
            tx.looked = tx.now
            tx.after_commit(lambda: setattr(process, "looked", tx.now + LOOK_EVERY))
        return verb(tx, *args), tx

    def _committed(self, tx: SimulatedTx, fate: Fate) -> None:
        process = self.process
        process.registered = True
        self.machines.beat(process)
        if fate is Fate.LAST_WORD:
            process.alive = False
            raise Crashed
        if fate is not Fate.UNHEARD:
            for done in tx.afterwards:
                done()

    def submit(
        self, done: Callable[[Any, BaseException | None], None], verb: Any, *args: Any
    ) -> None:
        """Run *verb* at once and tell *done* how it went."""
        self._check_alive()
        try:
            result = self.transact(verb, *args)
        except StoreUnavailable as error:
            done(None, error)
        else:
            done(result, None)

    def read(self, query: Callable[..., T], *args: Any) -> T:
        """Run *query* over the committed state."""
        self._check_alive()
        return query(SimulatedTx(self.machines, self.process), *args)

    def awake(self) -> float:
        """Return seconds that have really passed."""
        return self.machines.time.monotonic()

    def may_begin(self, since: float) -> bool:
        """Return whether nobody can have taken this process for lost after *since*."""
        now, asked, process = self.machines.time.true, since * SECOND, self.process
        unbroken = process.unbroken <= asked and now < process.renewed + LEASE
        return not self.machines.leases or unbroken or now - asked < LEASE

    def lifeline(self) -> tuple[int, ...]:
        """There is no descriptor to inherit."""
        return ()

    def check(self) -> str:
        """Say that nothing is broken."""
        return "ok"

    def close(self) -> None:
        """Leave the process as it is."""
