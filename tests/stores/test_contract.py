"""Our own stores keep the contract that every store has to keep."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from agentguard.testing.stores import StoreContract
from tests.postgres.server import Server

NUMBERS = itertools.count()


class TestMemory(StoreContract):
    """`memory://`."""

    alone = "a store in memory is seen by nobody but the object that holds it"

    @pytest.fixture
    def store_url(self) -> str:
        """A store in memory is always empty at first."""
        return "memory://"


class TestSqlite(StoreContract):
    """One SQLite file."""

    @pytest.fixture
    def store_url(self, tmp_path: Path) -> str:
        """A file of its own."""
        return f"sqlite:///{tmp_path}/a.db"


class TestPostgres(StoreContract):
    """One PostgreSQL server."""

    @pytest.fixture
    def store_url(self, postgres_server: Server) -> str:
        """A schema of its own, which is made faster than a database."""
        return f"{postgres_server.url('postgres')}?schema=contract{next(NUMBERS)}"
