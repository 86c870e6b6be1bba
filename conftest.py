"""What pytest needs to know in the whole checkout: documents are tests, examples repeat."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from sybil import Sybil

from tests import documents

pytest_plugins = [
    "pytester",  # it runs suites of users in tests/testing
    "tests.postgres.fixtures",
]

ALONE = "tests/faults/"

# The same examples on every machine: a red run can be repeated, and no slow disk fails one.
hypothesis.settings.register_profile("agentguard", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("agentguard")

pytest_collect_file = Sybil(
    parsers=[documents.parse],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    setup=documents.enter_folder,
    teardown=documents.leave_folder,
).pytest()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which the extra `testing` does not bring
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole documents, modules and classes: their parts share names and fixtures.

    Only the tests that break things go out one by one: they are long, and nothing is shared.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc] # of a package without types
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if nodeid.startswith(ALONE) else super()._split_scope(nodeid)

    return Scheduling(config, log)
