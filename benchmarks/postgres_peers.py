"""The peers on PostgreSQL, each set up as its own documentation says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from .laps import MANY, AsyncWork, Place, Subject, SyncWork, need
from .peers import EARLY, dbos_steps, dbos_steps_async, langgraph_tasks, langgraph_tasks_async
from .postgres import own_database

if TYPE_CHECKING:
    from dbos import DBOSConfig

POOL = 8


def connections(url: str, opened: ExitStack) -> Any:
    """Open a pool, with the options that the saver's documentation asks for."""
    from psycopg.rows import dict_row
    from psycopg_pool import ConnectionPool

    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool = ConnectionPool(url, min_size=POOL, max_size=POOL, kwargs=options, open=True)
    return opened.enter_context(pool)


@contextmanager
def langgraph(place: Place, *, pool: bool = False) -> Iterator[SyncWork]:
    """LangGraph's `@task` in an `@entrypoint`, PostgresSaver on one connection or on a pool."""
    need("langgraph-checkpoint-postgres", "langgraph.checkpoint.postgres")
    from langgraph.checkpoint.postgres import PostgresSaver

    url = own_database(place)
    with ExitStack() as opened:
        saver = (
            PostgresSaver(connections(url, opened))
            if pool
            else opened.enter_context(PostgresSaver.from_conn_string(url))
        )
        saver.setup()
        yield langgraph_tasks(saver)


@contextmanager
def langgraph_async(place: Place) -> Iterator[AsyncWork]:
    """The same with an async tool and AsyncPostgresSaver."""
    need("langgraph-checkpoint-postgres", "langgraph.checkpoint.postgres.aio")
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    opening = AsyncPostgresSaver.from_conn_string(own_database(place))
    saver = place.runner.run(opening.__aenter__())
    place.runner.run(saver.setup())
    yield langgraph_tasks_async(saver)
    place.runner.run(opening.__aexit__(None, None, None))


def dbos_config(place: Place) -> DBOSConfig:
    """Describe a system database on the server."""
    url = own_database(place)
    return {"name": "benchmarks", "system_database_url": url, "log_level": "ERROR"}


@contextmanager
def dbos(place: Place) -> Iterator[SyncWork]:
    """A DBOS step in a DBOS workflow, called in the caller's own thread."""
    need("dbos", "dbos")
    with dbos_steps(dbos_config(place)) as work:
        yield work


@contextmanager
def dbos_async(place: Place) -> Iterator[AsyncWork]:
    """An async DBOS step in an async DBOS workflow."""
    need("dbos", "dbos")
    with dbos_steps_async(dbos_config(place)) as work:
        yield work


WRITE, WRITERS = "write-postgres", "writers-postgres"
POOLED = partial(langgraph, pool=True)
PEERS = [
    Subject("LangGraph @task", WRITE, "peer", langgraph, "LangGraph", caveat=EARLY),
    Subject("DBOS step", WRITE, "peer", dbos, "DBOS"),
    Subject("LangGraph, threads", WRITERS, "peer", langgraph, "LangGraph", MANY),
    Subject("LangGraph, threads, pool of 8", WRITERS, "peer", POOLED, "LangGraph", MANY),
    Subject("LangGraph, tasks", WRITERS, "peer", langgraph_async, "LangGraph", MANY, "tasks"),
    Subject("DBOS, threads", WRITERS, "peer", dbos, "DBOS", MANY),
    Subject("DBOS, tasks", WRITERS, "peer", dbos_async, "DBOS", MANY, "tasks"),
]
