"""A trial that the suite makes already: its tests are run, and what they saw becomes the row.

A test that goes through many points says how many with `record_property("points", number)`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forms import SAID
from tests.faults.matrix import COLUMN_OF, Count, NotHere, Result
from tests.support import ROOT

WORDS = re.compile(rf"\b({'|'.join(COLUMN_OF)}): ")


class Seen:
    """Follows the tests of a run."""

    def __init__(self, count: Count) -> None:
        self.tests, self.passed, self.skipped = 0, list[str](), dict[str, int]()
        self._count = count

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a test's end into the count."""
        if report.skipped:
            reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "")
            reason = reason.removeprefix("Skipped: ")
            self.skipped[reason] = self.skipped.get(reason, 0) + 1
        elif report.when == "call" or report.failed:
            self.tests += 1
            self.passed += [report.nodeid] * report.passed
            points = dict[str, Any](report.user_properties).get("points", 1)
            self._count.add(problems(report) if report.failed else [], points)


def problems(report: pytest.TestReport) -> list[str]:
    """Find the oracle's words in what a failed test says; without any it is simply wrong."""
    text, name = report.longreprtext, report.nodeid.rpartition("/")[2]
    lines = [line.strip() for line in text.splitlines() if line.startswith("E ")]
    found = [f"{word}: in {name}" for word in dict.fromkeys(WORDS.findall("\n".join(lines)))]
    return found or [f"{name}: {lines[0] if lines else text[-300:]}"]


def of_tests(
    fault: str,
    store: str,
    nodes: Sequence[str],
    *,
    long: bool,
    seed: int,
    notes: str | Callable[[Sequence[str]], str] = "",
) -> Result:
    """Run tests, named by node ids below tests/, and count what they saw.

    *notes* may be made of the names of the tests that passed.

    Raises:
        NotHere: all of them were skipped; says why.
    """
    count = Count(fault, store, seed)
    seen = Seen(count)
    if long:
        os.environ[SAID] = "1"
    os.chdir(ROOT)
    arguments = ["-q", "-p", "no:cacheprovider", *(f"tests/{node}" for node in nodes)]
    ended = pytest.main(arguments, plugins=[seen])
    if ended not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {ended!r}: {' '.join(arguments)}")
    if not seen.tests:
        raise NotHere("; ".join(seen.skipped))
    words = notes if isinstance(notes, str) else notes(seen.passed)
    left_out = [f"{number} skipped: {reason}" for reason, number in seen.skipped.items()]
    return count.result("; ".join([*([words] if words else []), *left_out]))


def has_test(node: str) -> bool:
    """Tell whether there is a test of this node id, below tests/."""
    path, _, name = node.partition("::")
    source = ROOT / "tests" / Path(path)
    return source.exists() and (not name or f"def {name.partition('[')[0]}(" in source.read_text())
