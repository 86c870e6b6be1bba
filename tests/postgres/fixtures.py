"""Fixtures for tests that need a real PostgreSQL; known in the whole checkout by `conftest.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres.bouncer import Bouncer, bouncer_program
from tests.postgres.home import prefer_memory
from tests.postgres.server import Server, database_of

prefer_memory()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """Give the server that the tests of this process share; nobody may crash it."""
    with Server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """Give the address of a new empty database."""
    with database_of(postgres_server) as name:
        yield postgres_server.url(name)


@pytest.fixture
def own_postgres() -> Iterator[Server]:
    """Give a server of the test's own, to crash as it likes."""
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def bouncer(postgres_server: Server) -> Iterator[Bouncer]:
    """Give a pgbouncer in transaction mode before the shared server."""
    if bouncer_program() is None:
        pytest.skip("pgbouncer is not installed")
    bouncer = Bouncer(postgres_server)
    yield bouncer
    bouncer.close()


@pytest.fixture
def pooled_url(postgres_server: Server, bouncer: Bouncer) -> Iterator[str]:
    """Give the address of a new empty database behind pgbouncer in transaction mode."""
    with database_of(postgres_server) as name:
        yield bouncer.url(name)
