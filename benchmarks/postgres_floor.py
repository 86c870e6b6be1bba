"""The least that PostgreSQL can do for a guarded write: two durable commits, the tool between them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, LiteralString

from .laps import MANY, AsyncWork, Caller, Place, Subject, SyncWork, need, timed, timed_async
from .postgres import own_database
from .sqlite_floor import no_op_tool

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

TABLE: LiteralString = (
    "CREATE TABLE effects (key text PRIMARY KEY, state text NOT NULL, result text)"
)
CLAIM: LiteralString = "INSERT INTO effects (key, state) VALUES (%s, 'executing')"
SETTLE: LiteralString = "UPDATE effects SET state = 'succeeded', result = %s WHERE key = %s"
ONCE: LiteralString = "INSERT INTO effects (key, state, result) VALUES (%s, 'succeeded', %s)"
LOOK_UP: LiteralString = "SELECT state, result FROM effects WHERE key = %s"
FILL: LiteralString = (
    "INSERT INTO effects SELECT 'T-' || n, 'succeeded', 'T-' || n FROM generate_series(0, 999) n"
)
POOL = 8


def connect(url: str) -> Connection[Any]:
    """Open a connection on which each statement is its own commit."""
    import psycopg

    return psycopg.connect(url, autocommit=True)


def with_table(place: Place) -> str:
    """Make the table in a new database and return its address."""
    url = own_database(place)
    with connect(url) as connection:
        connection.execute(TABLE)
    return url


def two_commits(connection: Connection[Any], ticket: str) -> None:
    """Claim, commit, run the tool, record, commit."""
    connection.execute(CLAIM, (ticket,))
    connection.execute(SETTLE, (no_op_tool(ticket), ticket))


def one_commit(connection: Connection[Any], ticket: str) -> None:
    """Run the tool, record, commit: what does not know of a call that was cut off."""
    connection.execute(ONCE, (ticket, no_op_tool(ticket)))


@contextmanager
def one_caller(place: Place, step: Any) -> Iterator[SyncWork]:
    """One caller on one connection."""
    with connect(with_table(place)) as connection:
        yield lambda caller, steps: timed(partial(step, connection), caller.tickets(steps))


@contextmanager
def own_connections(place: Place) -> Iterator[SyncWork]:
    """Two commits a step, every caller with a connection of its own."""
    url = with_table(place)
    with ExitStack() as opened:
        connections = [opened.enter_context(connect(url)) for _ in range(MANY)]

        def work(caller: Caller, steps: int) -> list[float]:
            return timed(partial(two_commits, connections[caller.number]), caller.tickets(steps))

        yield work


@contextmanager
def one_connection(place: Place) -> Iterator[SyncWork]:
    """Two commits a step, all callers taking turns on one connection."""
    turn = threading.Lock()
    with connect(with_table(place)) as connection:

        def step(ticket: str) -> None:
            with turn:
                connection.execute(CLAIM, (ticket,))
            result = no_op_tool(ticket)
            with turn:
                connection.execute(SETTLE, (result, ticket))

        yield lambda caller, steps: timed(step, caller.tickets(steps))


@contextmanager
def pooled(place: Place) -> Iterator[SyncWork]:
    """Two commits a step on a pool of eight; a caller gives its connection back while the tool runs."""
    need("psycopg-pool", "psycopg_pool")
    from psycopg_pool import ConnectionPool

    options = {"autocommit": True}
    with ConnectionPool(with_table(place), min_size=POOL, max_size=POOL, kwargs=options) as pool:
        pool.wait()

        def step(ticket: str) -> None:
            with pool.connection() as connection:
                connection.execute(CLAIM, (ticket,))
            result = no_op_tool(ticket)
            with pool.connection() as connection:
                connection.execute(SETTLE, (result, ticket))

        yield lambda caller, steps: timed(step, caller.tickets(steps))


class BatchingWriter:
    """Callers share commits: what came while one batch was committed is the next one.

    Not asked of any peer; it shows what a few lines reach under 32 callers.
    """

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection
        self._waiting: list[tuple[Any, Any, asyncio.Future[None]]] = []
        self._writing = False

    async def write(self, statement: LiteralString, values: tuple[str, ...]) -> None:
        """Return once the statement is durable."""
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((statement, values, durable))
        if not self._writing:
            self._writing = True
            await self._drain()
        await durable

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            async with self._connection.pipeline(), self._connection.transaction():
                for statement, values, _ in batch:
                    await self._connection.execute(statement, values)
            for _, _, durable in batch:
                durable.set_result(None)
            await asyncio.sleep(0)  # whoever was woken comes back with its next write
        self._writing = False


@contextmanager
def batched(place: Place) -> Iterator[AsyncWork]:
    """Two durable commits a step, shared with whoever waits: what is feasible."""
    url = with_table(place)
    import psycopg

    connecting = psycopg.AsyncConnection.connect(url, autocommit=True)
    connection = place.runner.run(connecting)
    writer = BatchingWriter(connection)

    async def step(ticket: str) -> None:
        await writer.write(CLAIM, (ticket,))
        await writer.write(SETTLE, (no_op_tool(ticket), ticket))

    async def work(caller: Caller, steps: int) -> list[float]:
        return await timed_async(step, caller.tickets(steps))

    yield work
    place.runner.run(connection.close())


@contextmanager
def look_up(place: Place) -> Iterator[SyncWork]:
    """Find one recorded result among a thousand by its key: one select, one round trip."""
    with connect(with_table(place)) as connection:
        connection.execute(FILL)

        def step(ticket: str) -> None:
            connection.execute(LOOK_UP, (ticket,)).fetchone()

        def work(caller: Caller, steps: int) -> list[float]:
            return timed(step, [f"T-{number % 1000}" for number in range(steps)])

        yield work


WRITE, WRITERS = "write-postgres", "writers-postgres"
TWO, ONE = partial(one_caller, step=two_commits), partial(one_caller, step=one_commit)
FLOORS = [
    Subject("raw two commits", WRITE, "floor", TWO),
    Subject("raw one commit", WRITE, "floor", ONE),
    Subject("raw, 32 connections", WRITERS, "floor", own_connections, callers=MANY),
    Subject("raw, one connection + lock", WRITERS, "floor", one_connection, callers=MANY),
    Subject("raw, pool of 8", WRITERS, "floor", pooled, callers=MANY),
    Subject("raw, batching (feasible)", WRITERS, "floor", batched, callers=MANY, mode="tasks"),
    Subject("one select", "replay-postgres", "floor", look_up),
]
