"""What pytest needs to know in the whole checkout: documents are tests, examples repeat."""

from __future__ import annotations

import hypothesis
import pytest
from sybil import Sybil

from tests import documents

pytest_plugins = [
    "pytester",  # it runs suites of users in tests/testing
    "tests.postgres.fixtures",
]

# The same examples on every machine: a red run can be repeated, and no slow disk fails one.
hypothesis.settings.register_profile("agentguard", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("agentguard")

pytest_collect_file = Sybil(
    parsers=[documents.parse],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    setup=documents.enter_folder,
    teardown=documents.leave_folder,
).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the blocks of a document together: later ones see the names of earlier ones."""
    for item in items:
        if item.path.suffix == ".md":
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
