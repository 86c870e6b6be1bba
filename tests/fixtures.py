"""What the tests of every adapter begin with: a world, and a guard with a store in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentguard import Guard
from tests.support import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Where effects happen."""
    return World(tmp_path / "world.txt")


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    """A guard on an embedded store."""
    opened = Guard(f"sqlite:///{tmp_path}/agentguard.db")
    yield opened
    opened.close()
