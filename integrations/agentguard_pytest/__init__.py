"""The pytest plugin: a guard for every test, time and people that obey it.

pytest imports this module in every session of everybody who has agentguard installed, so it
imports pytest only, and everything else where a fixture is used. It stands outside the package
`agentguard`, because importing anything inside that imports its core first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agentguard import Guard
    from agentguard.testing import FakeClock, Person

__all__ = [
    "approve_all",
    "fake_clock",
    "guard",
    "guard_options",
    "guard_store",
    "reject_all",
]


@pytest.fixture
def guard_store(tmp_path: Path) -> str:
    """URL of the store that `guard` uses: a fresh file. Override it to put the store elsewhere."""
    return f"sqlite:///{tmp_path / 'agentguard.db'}"


@pytest.fixture
def guard_options() -> dict[str, Any]:
    """Options of `Guard` for `guard`; `config` may be the path of the file. Override it to set some."""
    return {}


@pytest.fixture
def fake_clock() -> FakeClock:
    """Time that stands still until `advance(seconds)`; a test that uses it moves `guard`'s time."""
    from agentguard.testing import FakeClock

    return FakeClock()


@pytest.fixture
def guard(
    request: pytest.FixtureRequest, guard_store: str, guard_options: dict[str, Any]
) -> Iterator[Guard]:
    """A Guard on a fresh store, also the one for calls outside any run while the test lasts."""
    from pathlib import Path

    from agentguard import Guard
    from agentguard.testing import override

    options = dict(guard_options)
    if "fake_clock" in request.fixturenames:
        options["clock"] = request.getfixturevalue("fake_clock")
    if isinstance(options.get("config"), (str, Path)):
        fresh = Guard.from_config(options.pop("config"), store=guard_store, **options)
    else:
        fresh = Guard(guard_store, **options)
    with override(fresh):
        yield fresh
    fresh.close()


@pytest.fixture
def approve_all(guard: Guard) -> Person:
    """Somebody who approves what waits when called; as a run's `host`, as soon as it waits."""
    from agentguard.testing import Person

    return Person(guard, "approve", by="approve_all", reason="the test approves everything")


@pytest.fixture
def reject_all(guard: Guard) -> Person:
    """Somebody who rejects what waits when called; as a run's `host`, as soon as it waits."""
    from agentguard.testing import Person

    return Person(guard, "reject", by="reject_all", reason="the test rejects everything")
