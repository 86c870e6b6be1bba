"""The table tells what ran, and a hole in it is no pass."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT

ROW = "the record is whole"


def table(*words: str) -> subprocess.CompletedProcess[str]:
    """Run some conformance tests with the table."""
    asked = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*asked, "-p", "agentguard.testing.table", *words],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def row(ended: subprocess.CompletedProcess[str], name: str = ROW) -> list[str]:
    """Return the cells of a behaviour."""
    (found,) = [line for line in ended.stdout.splitlines() if line.startswith(f"{name} ")]
    return found.removeprefix(name).split()


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_cell_that_no_test_has_filled_fails_the_run(processes: str) -> None:
    """With one behaviour run and the others left out, all tests pass and the run does not."""
    asked = ("tests/conformance/test_plain.py", "-k", ROW.replace(" ", "_"))
    ended = table(*asked, "-n", processes)
    assert (row(ended), row(ended, "the record tells the same story on every runtime")) == (
        ["sa"],
        ["MISSING"],
    )
    assert "2 passed" in ended.stdout
    assert ended.returncode == 1


def test_a_behaviour_that_a_runtime_does_not_have_is_shown_as_failed() -> None:
    """Bare tools in the same loop: the cell says FAILED."""
    suite = "tests/conformance/test_kit.py::Suite"
    ended = table(suite, "-o", "python_classes=Suite", "-k", ROW.replace(" ", "_"))
    assert row(ended) == ["FAILED"]
    assert ended.returncode == 1
