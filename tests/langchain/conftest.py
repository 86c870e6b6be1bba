"""Every test gets a guard with a store in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentguard import Guard


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    """A guard on an embedded store."""
    opened = Guard(f"sqlite:///{tmp_path}/agentguard.db")
    yield opened
    opened.close()
