"""Our own stores keep the contract that every store has to keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentguard.testing.stores import StoreContract


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
