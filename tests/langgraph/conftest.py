"""Every test gets a world of its own, a guard with a store in a file, and a checkpointer."""

from __future__ import annotations

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from tests.fixtures import guard, world

__all__ = ["guard", "saver", "world"]


@pytest.fixture
def saver() -> InMemorySaver:
    """A checkpointer."""
    return InMemorySaver()
