"""A world for each test, and a guard for those that need no process of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentguard import Guard
from tests.faults.world import World

# A killed process leaves to the kernel what it has written, on whatever file system that is; only
# a power cut needs a disk. In memory these tests take a fraction of the time.
MEMORY = Path("/dev/shm")


@pytest.fixture(name="folder")
def folder_in_memory(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory, or on disk where there is none."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="agentguard-") as name:
        yield Path(name)


@pytest.fixture(name="world")
def world_of_its_own(folder: Path) -> World:
    """Give a world in which nothing has happened yet."""
    return World(folder)


@pytest.fixture(name="guard")
def guard_of_its_own(world: World) -> Iterator[Guard]:
    """Give a guard whose store lies in the world."""
    guard = Guard(world.url)
    yield guard
    guard.close()
