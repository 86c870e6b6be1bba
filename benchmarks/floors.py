"""The floors: the least that each promise costs on this machine, without any guard."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from .laps import MANY, Caller, NotAvailable, Place, Subject, SyncWork, timed, timed_in_batches
from .spans import Tracing, batching_tracer
from .sqlite_floor import (
    CLAIM,
    LOOK_UP,
    SETTLE,
    GroupCommit,
    connect,
    extend_wal,
    no_op_tool,
    two_commits,
)

PAGE = b"\0" * 4096
PREALLOCATED_PAGES = 256
RECORDED_EFFECTS = 1000

ATTRIBUTES = {f"bench.attribute_{number}": "value" for number in range(8)}

IMPORT_BASE = "import pydantic, opentelemetry.trace; from pydantic import BaseModel, TypeAdapter"
"""What the import goal does not count as ours, and so is loaded before each library is timed."""


@contextmanager
def bare_call(place: Place) -> Iterator[SyncWork]:
    """A call of the tool, and nothing else."""

    def work(caller: Caller, steps: int) -> list[float]:
        return timed_in_batches(no_op_tool, caller.tickets(steps // 20))

    yield work


@contextmanager
def one_span(place: Place) -> Iterator[SyncWork]:
    """One current span with 8 attributes around the call, in the cheapest way to make one."""
    with batching_tracer() as tracing:
        from opentelemetry.trace import use_span

        def step(ticket: str) -> None:
            span = tracing.tracer.start_span("execute_tool", attributes=ATTRIBUTES)
            with use_span(span, end_on_exit=True):
                no_op_tool(ticket)

        yield partial(timed_and_forgotten, tracing, step)


@contextmanager
def detached_span(place: Place) -> Iterator[SyncWork]:
    """The same span, but not current: the tool's own spans would not find their parent."""
    with batching_tracer() as tracing:

        def step(ticket: str) -> None:
            span = tracing.tracer.start_span("execute_tool", attributes=ATTRIBUTES)
            no_op_tool(ticket)
            span.end()

        yield partial(timed_and_forgotten, tracing, step)


def timed_and_forgotten(
    tracing: Tracing, step: Callable[[str], object], caller: Caller, steps: int
) -> list[float]:
    """Time a lap with an empty exporter."""
    tracing.forget()
    return timed(step, caller.tickets(steps))


@contextmanager
def fresh_wal(place: Place) -> Iterator[SyncWork]:
    """Two FULL commits on a new file each lap, whose WAL grows with every commit."""

    def work(caller: Caller, steps: int) -> list[float]:
        with closing(connect(place.folder / f"{caller.name}.db")) as connection:
            return timed(partial(two_commits, connection), caller.tickets(steps))

    yield work


@contextmanager
def extended_wal(place: Place) -> Iterator[SyncWork]:
    """Two FULL commits on a file whose WAL is already as large as it will get."""
    with closing(connect(place.folder / "floor.db")) as connection:
        extend_wal(connection)

        def work(caller: Caller, steps: int) -> list[float]:
            return timed(partial(two_commits, connection), caller.tickets(steps))

        yield work


@contextmanager
def own_connections(place: Place) -> Iterator[SyncWork]:
    """Two FULL commits a step, every caller with a connection of its own."""
    path = place.folder / "floor.db"
    connections = [connect(path) for _ in range(MANY)]

    def work(caller: Caller, steps: int) -> list[float]:
        step = partial(two_commits, connections[caller.number])
        return timed(step, caller.tickets(steps))

    yield work
    for connection in connections:
        connection.close()


@contextmanager
def one_connection(place: Place) -> Iterator[SyncWork]:
    """Two FULL commits a step, all callers taking turns on one connection."""
    turn = threading.Lock()
    with closing(connect(place.folder / "floor.db")) as connection:

        def step(ticket: str) -> None:
            with turn:
                connection.execute(CLAIM, (ticket,))
            result = no_op_tool(ticket)
            with turn:
                connection.execute(SETTLE, (result, ticket))

        yield lambda caller, steps: timed(step, caller.tickets(steps))


@contextmanager
def group_commit(place: Place) -> Iterator[SyncWork]:
    """Two durable commits a step, shared with whoever waits: what is feasible."""
    with closing(connect(place.folder / "floor.db")) as connection:
        extend_wal(connection)
        group = GroupCommit(connection)

        def step(ticket: str) -> None:
            group.write(CLAIM, (ticket,))
            group.write(SETTLE, (no_op_tool(ticket), ticket))

        yield lambda caller, steps: timed(step, caller.tickets(steps))


@contextmanager
def look_up(place: Place) -> Iterator[SyncWork]:
    """Find one recorded result among a thousand by its key."""
    with closing(connect(place.folder / "floor.db")) as connection:
        connection.execute("BEGIN")
        for number in range(RECORDED_EFFECTS):
            connection.execute(CLAIM, (f"T-{number}",))
            connection.execute(SETTLE, (f"T-{number}", f"T-{number}"))
        connection.execute("COMMIT")

        def step(ticket: str) -> None:
            connection.execute(LOOK_UP, (ticket,)).fetchone()

        def work(caller: Caller, steps: int) -> list[float]:
            return timed(step, [f"T-{number % RECORDED_EFFECTS}" for number in range(steps)])

        yield work


@contextmanager
def file_descriptor(path: Path, flags: int = 0) -> Iterator[int]:
    """Open a file below every buffer of Python's."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def synced_append(place: Place) -> Iterator[SyncWork]:
    """Append 4 KB and fdatasync: the new length of the file is written too."""
    with file_descriptor(place.folder / "append", os.O_APPEND) as descriptor:

        def step(_: str) -> None:
            os.write(descriptor, PAGE)
            os.fdatasync(descriptor)

        yield lambda caller, steps: timed(step, caller.tickets(steps))


@contextmanager
def synced_overwrite(place: Place) -> Iterator[SyncWork]:
    """Overwrite 4 KB of a preallocated file and fdatasync: only the bytes are written."""
    with file_descriptor(place.folder / "overwrite") as descriptor:
        os.write(descriptor, PAGE * PREALLOCATED_PAGES)
        os.fsync(descriptor)

        def work(caller: Caller, steps: int) -> list[float]:
            def step(ticket: str) -> None:
                page = int(ticket.rpartition("-")[2]) % PREALLOCATED_PAGES
                os.pwrite(descriptor, PAGE, page * len(PAGE))
                os.fdatasync(descriptor)

            return timed(step, caller.tickets(steps))

        yield work


def seconds_to_import(statement: str, after: str = "") -> float:
    """Time an import in a new interpreter, after what is not to be counted was loaded."""
    code = (
        f"{after}\nfrom time import perf_counter\nstart = perf_counter()\n{statement}\n"
        "print(perf_counter() - start)"
    )
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, capture_output=True, check=False, text=True)
    if finished.returncode:
        raise NotAvailable(finished.stderr.strip().rpartition("\n")[2])
    return float(finished.stdout.strip().rpartition("\n")[2])


@contextmanager
def imported(statement: str, after: str, place: Place) -> Iterator[SyncWork]:
    """Import in a new interpreter each step; the first import, which may compile, is not timed."""
    seconds_to_import(statement, after)
    yield lambda caller, steps: [seconds_to_import(statement, after) for _ in range(steps)]


FLOORS = [
    Subject("one OTel span, SDK + batch processor", "read", "floor", one_span),
    Subject("the same, not current", "read", "floor", detached_span),
    Subject("bare call", "read", "floor", bare_call),
    Subject("raw two FULL commits, fresh WAL", "write", "floor", fresh_wal),
    Subject("raw two FULL commits, extended WAL", "write", "floor", extended_wal),
    Subject("fdatasync of a 4 KB append", "write", "floor", synced_append),
    Subject("fdatasync of a 4 KB overwrite", "write", "floor", synced_overwrite),
    Subject("raw, one connection + lock", "writers", "floor", one_connection, callers=MANY),
    Subject("raw, own connections", "writers", "floor", own_connections, callers=MANY),
    Subject("raw, group commit (feasible)", "writers", "floor", group_commit, callers=MANY),
    Subject("look-up by key", "replay", "floor", look_up),
    Subject("pydantic + OTel API", "import", "floor", partial(imported, IMPORT_BASE, "")),
]
"""The first of each group is the floor that the group's ratios are taken to."""
