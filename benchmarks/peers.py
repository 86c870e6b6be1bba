"""The peers: what a team would use today, each set up as its own documentation says.

Every caller opens one workflow and does its steps in it, as every caller of ours opens one run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from .floors import IMPORT_BASE, imported
from .laps import MANY, AsyncWork, Caller, Place, Subject, SyncWork, need, timed, timed_async
from .sqlite_floor import no_op_tool

if TYPE_CHECKING:
    from dbos import DBOSConfig
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver


async def no_op_tool_async(ticket: str) -> str:
    """Do nothing, awaited."""
    return ticket


def thread_of(caller: Caller) -> RunnableConfig:
    """Give each caller a conversation of its own."""
    return {"configurable": {"thread_id": caller.name}}


def langgraph_tasks(saver: BaseCheckpointSaver[Any]) -> SyncWork:
    """LangGraph's `@task` in an `@entrypoint`, durability="sync"."""
    from langgraph.func import entrypoint, task

    tool = task(no_op_tool)
    taken: dict[str, list[float]] = {}

    @entrypoint(checkpointer=saver)
    def workflow(order: tuple[str, list[str]]) -> None:
        name, tickets = order
        taken[name] = timed(lambda ticket: tool(ticket).result(), tickets)

    def work(caller: Caller, steps: int) -> list[float]:
        order = (caller.name, caller.tickets(steps))
        workflow.invoke(order, thread_of(caller), durability="sync")
        return taken.pop(caller.name)

    return work


def langgraph_tasks_async(saver: BaseCheckpointSaver[Any]) -> AsyncWork:
    """The same with an async tool."""
    from langgraph.func import entrypoint, task

    tool = task(no_op_tool_async)
    taken: dict[str, list[float]] = {}

    @entrypoint(checkpointer=saver)
    async def workflow(order: tuple[str, list[str]]) -> None:
        name, tickets = order
        taken[name] = await timed_async(tool, tickets)

    async def work(caller: Caller, steps: int) -> list[float]:
        order = (caller.name, caller.tickets(steps))
        await workflow.ainvoke(order, thread_of(caller), durability="sync")
        return taken.pop(caller.name)

    return work


@contextmanager
def langgraph(place: Place) -> Iterator[SyncWork]:
    """SqliteSaver as it ships."""
    need("langgraph-checkpoint-sqlite", "langgraph.checkpoint.sqlite")
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(str(place.folder / "langgraph.db")) as saver:
        yield langgraph_tasks(saver)


@contextmanager
def langgraph_async(place: Place) -> Iterator[AsyncWork]:
    """AsyncSqliteSaver as it ships."""
    need("langgraph-checkpoint-sqlite", "langgraph.checkpoint.sqlite.aio")
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    opening = AsyncSqliteSaver.from_conn_string(str(place.folder / "langgraph.db"))
    saver = place.runner.run(opening.__aenter__())
    yield langgraph_tasks_async(saver)
    place.runner.run(opening.__aexit__(None, None, None))


def dbos_config(place: Place, *, wal: bool) -> DBOSConfig:
    """Describe a SQLite system database; *wal* sets a journal that DBOS leaves as SQLite has it.

    A file keeps WAL once it was set. DBOS is faster on it, so the goals are held against it.
    """
    path = place.folder / "dbos.db"
    if wal:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    return {"name": "benchmarks", "system_database_url": f"sqlite:///{path}", "log_level": "ERROR"}


@contextmanager
def dbos_steps(config: DBOSConfig) -> Iterator[SyncWork]:
    """A DBOS step in a DBOS workflow, called in the caller's own thread."""
    from dbos import DBOS

    taken: dict[str, list[float]] = {}
    DBOS(config=config)
    tool = DBOS.step()(no_op_tool)

    def steps_of(name: str, tickets: list[str]) -> None:
        taken[name] = timed(tool, tickets)

    workflow = DBOS.workflow()(steps_of)

    def work(caller: Caller, steps: int) -> list[float]:
        workflow(caller.name, caller.tickets(steps))
        return taken.pop(caller.name)

    DBOS.launch()
    yield work
    DBOS.destroy()


@contextmanager
def dbos_steps_async(config: DBOSConfig) -> Iterator[AsyncWork]:
    """An async DBOS step in an async DBOS workflow."""
    from dbos import DBOS

    taken: dict[str, list[float]] = {}
    DBOS(config=config)
    tool: Callable[[str], Awaitable[str]] = DBOS.step()(no_op_tool_async)

    async def steps_of(name: str, tickets: list[str]) -> None:
        taken[name] = await timed_async(tool, tickets)

    workflow = DBOS.workflow()(steps_of)

    async def work(caller: Caller, steps: int) -> list[float]:
        await workflow(caller.name, caller.tickets(steps))
        return taken.pop(caller.name)

    DBOS.launch()
    yield work
    DBOS.destroy()


@contextmanager
def dbos(place: Place, *, wal: bool) -> Iterator[SyncWork]:
    """DBOS on SQLite, with WAL or as it ships."""
    need("dbos", "dbos")
    with dbos_steps(dbos_config(place, wal=wal)) as work:
        yield work


@contextmanager
def dbos_async(place: Place, *, wal: bool) -> Iterator[AsyncWork]:
    """The same, async."""
    need("dbos", "dbos")
    with dbos_steps_async(dbos_config(place, wal=wal)) as work:
        yield work


@contextmanager
def powertools_tool(place: Place) -> Iterator[Callable[[str], object]]:
    """Powertools' `idempotent_function` around the tool, on our SQLite layer."""
    need("aws-lambda-powertools", "aws_lambda_powertools")
    need(
        "aws-lambda-powertools[aws-sdk]", "boto3"
    )  # the idempotency package loads its DynamoDB layer
    from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, idempotent_function

    from .powertools_sqlite import LambdaClock, SqlitePersistenceLayer

    with closing(SqlitePersistenceLayer(place.folder / "powertools.db")) as layer:

        def refund_ticket(refund: dict[str, str]) -> str:
            return no_op_tool(refund["ticket_id"])

        tool = idempotent_function(
            refund_ticket,
            data_keyword_argument="refund",
            persistence_store=layer,
            config=IdempotencyConfig(lambda_context=LambdaClock()),
        )
        yield lambda ticket: tool(refund={"ticket_id": ticket})


@contextmanager
def powertools(place: Place) -> Iterator[SyncWork]:
    """A first call for each key."""
    with powertools_tool(place) as tool:
        yield lambda caller, steps: timed(tool, caller.tickets(steps))


@contextmanager
def powertools_replay(place: Place) -> Iterator[SyncWork]:
    """A repeated call for one key, its local cache off as it ships."""
    with powertools_tool(place) as tool:
        tool("T-1")
        yield lambda caller, steps: timed(tool, ["T-1"] * steps)


ON_WAL, AS_SHIPPED = partial(dbos, wal=True), partial(dbos, wal=False)
LANGGRAPH_IMPORT = "import langgraph.func, langgraph.checkpoint.sqlite"
POWERTOOLS_IMPORT = "import aws_lambda_powertools.utilities.idempotency"

EARLY = "which returns before its write is durable"
PEERS = [
    Subject("LangGraph @task", "write", "peer", langgraph, "LangGraph", caveat=EARLY),
    Subject("DBOS step, on WAL", "write", "peer", ON_WAL, "DBOS"),
    Subject("DBOS step, as shipped", "write", "peer", AS_SHIPPED, "DBOS"),
    Subject("Powertools", "write", "peer", powertools, "Powertools"),
    Subject("LangGraph, threads", "writers", "peer", langgraph, "LangGraph", MANY),
    Subject("LangGraph, tasks", "writers", "peer", langgraph_async, "LangGraph", MANY, "tasks"),
    Subject("DBOS on WAL, threads", "writers", "peer", ON_WAL, "DBOS", MANY),
    Subject(
        "DBOS on WAL, tasks",
        "writers",
        "peer",
        partial(dbos_async, wal=True),
        "DBOS",
        MANY,
        "tasks",
    ),
    Subject("DBOS as shipped, threads", "writers", "peer", AS_SHIPPED, "DBOS", MANY),
    Subject("Powertools, threads", "writers", "peer", powertools, "Powertools", MANY),
    Subject("Powertools replay", "replay", "peer", powertools_replay, "Powertools"),
    Subject(
        "LangGraph", "import", "peer", partial(imported, LANGGRAPH_IMPORT, IMPORT_BASE), "LangGraph"
    ),
    Subject("DBOS", "import", "peer", partial(imported, "import dbos", IMPORT_BASE), "DBOS"),
    Subject(
        "Powertools",
        "import",
        "peer",
        partial(imported, POWERTOOLS_IMPORT, IMPORT_BASE),
        "Powertools",
    ),
]
