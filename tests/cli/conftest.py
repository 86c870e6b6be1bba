"""One record for all tests of the command; each gets a copy of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli import world

Call = Callable[..., Result]


@pytest.fixture(scope="session", name="filled")
def a_filled_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Make the record once; return its file and the time at its end."""
    path, clock = tmp_path_factory.mktemp("cli") / "store.db", world.Clock()
    world.fill(path, clock)
    return path, clock.micros


@pytest.fixture(name="clock")
def a_clock(filled: tuple[Path, int]) -> world.Clock:
    """Go on from the end of the record."""
    clock = world.Clock()
    clock.micros = filled[1]
    return clock


@pytest.fixture(name="store")
def a_copy(filled: tuple[Path, int], tmp_path: Path) -> Path:
    """Copy the record for one test."""
    return Path(shutil.copy(filled[0], tmp_path / "store.db"))


@pytest.fixture(name="run")
def the_command(store: Path, clock: world.Clock) -> Call:
    """Return the command on this store, at this time."""
    return lambda *words, **options: world.call(store, clock, *words, **options)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in ("AGENTGUARD_STORE", "AGENTGUARD_BY", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
