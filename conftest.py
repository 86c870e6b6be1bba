"""What pytest needs to know in the whole checkout: documents are tests, examples repeat."""

from __future__ import annotations

import hypothesis
from sybil import Sybil

from tests import documents

pytest_plugins = ["pytester"]  # it runs suites of users in tests/testing

# The same examples on every machine: a red run can be repeated, and no slow disk fails one.
hypothesis.settings.register_profile("agentguard", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("agentguard")

pytest_collect_file = Sybil(
    parsers=[documents.parse],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    setup=documents.enter_folder,
    teardown=documents.leave_folder,
).pytest()
