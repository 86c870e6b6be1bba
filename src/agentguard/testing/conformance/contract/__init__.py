"""The behaviours that every runtime has to show: one class for each theme, one for all."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, ClassVar

import pytest

from ...clock import FakeClock
from ..scene import COLOURS
from ..stage import Stage
from .approvals import Approvals
from .budgets import Budgets
from .context import Context
from .doubts import Doubts
from .errors import Errors
from .operations import Operations
from .outcomes import Outcomes
from .schemas import Schemas
from .writes import Writes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..runtime import Runtime


class AdapterContract(
    Context, Errors, Budgets, Approvals, Doubts, Outcomes, Operations, Writes, Schemas
):
    """The tests of an adapter: subclass it as `Test…` and name the runtime.

    Every test runs in each of the runtime's colours. A behaviour that the runtime cannot have is
    skipped with the runtime's own reason. (pytest runs the tests of the last base first.)
    """

    runtime: ClassVar[type[Runtime]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test in every colour that the runtime has and the behaviour is about."""
        if "stage" not in metafunc.fixturenames:
            return
        only = getattr(metafunc.function, "colours", COLOURS)
        colours = [colour for colour in self.runtime.colours if colour in only]
        metafunc.parametrize("colour", colours or ["none"])

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The time of world and store; it begins now, since other processes have a real one."""
        return FakeClock(dt.datetime.now(dt.UTC).isoformat())

    @pytest.fixture
    def stage(
        self, tmp_path: Path, colour: str, clock: FakeClock, request: pytest.FixtureRequest,
        record_property: Callable[[str, object], None],
    ) -> Iterator[Stage]:  # fmt: skip
        """A world, a store and the runtime."""
        behaviour = request.node.originalname
        record_property("runtime", self.runtime.name)
        record_property("colour", colour)
        reason = self.runtime.cannot.get(behaviour)
        if reason is None and colour == "none":
            reason = f"{self.runtime.name} has no such form"
        if reason is not None:
            pytest.skip(reason)
        made = Stage(self.runtime, colour, tmp_path, clock)
        made.world.now = clock.advance
        yield made
        made.guard.close()
