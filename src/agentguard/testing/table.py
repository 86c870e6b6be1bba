"""The table of a conformance run: behaviours down, runtimes across, every cell a test that ran.

A pytest plugin: `pytest tests/conformance -p agentguard.testing.table`, with or without `-n`.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

LETTERS = {"sync": "s", "async": "a"}
MISSING = "MISSING"


@dataclass
class Cell:
    """What the tests of one behaviour on one runtime came to."""

    passed: list[str] = field(default_factory=list[str])
    failed: list[str] = field(default_factory=list[str])
    reason: str = ""

    def shown(self, notes: list[str]) -> str:
        """Return the cell's text; *notes* collects the reasons of what cannot be."""
        if self.failed:
            return "FAILED"
        if self.passed:
            return "".join(sorted((LETTERS[c] for c in self.passed), reverse=True))
        if not self.reason:
            return MISSING
        if self.reason not in notes:
            notes.append(self.reason)
        return f"-{notes.index(self.reason) + 1}"


class Table:
    """What was seen so far."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str], Cell] = {}
        self._runtimes: dict[str, None] = {}  # in order
        self._behaviours: dict[tuple[str, str], None] = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Give every behaviour its row, in the order of the kit."""
        runtime = getattr(getattr(item, "cls", None), "runtime", None)
        if runtime is None or not isinstance(item, pytest.Function):
            return
        theme = item.function.__qualname__.partition(".")[0]
        self._runtimes.setdefault(runtime.name)
        self._behaviours.setdefault((theme, sentence(item.originalname)))

    @pytest.hookimpl(optionalhook=True)  # of pytest-xdist
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what one of several processes has collected: this one collects nothing."""
        runtimes, behaviours = getattr(node, "workeroutput", {}).get(__name__, ((), ()))
        self._runtimes.update(dict.fromkeys(runtimes))
        self._behaviours.update(dict.fromkeys(map(tuple, behaviours)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a test's end into its cell."""
        seen: dict[str, Any] = dict(report.user_properties)
        if "runtime" not in seen or (report.when != "call" and report.passed):
            return
        row = report.nodeid.rpartition("::")[2].partition("[")[0]
        cell = self._cells.setdefault((seen["runtime"], sentence(row)), Cell())
        if report.skipped:
            cell.reason = report.longrepr[2].removeprefix("Skipped: ")  # type: ignore[index] # a skip's place and reason
        else:
            (cell.passed if report.passed else cell.failed).append(seen["colour"])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, and what cannot be and why."""
        notes: list[str] = []
        terminalreporter.section("conformance")
        for line in self.lines(notes):
            terminalreporter.write_line(line)

    def lines(self, notes: list[str]) -> Iterator[str]:
        """Return the table as text."""
        codes = string.ascii_uppercase[: len(self._runtimes)]
        yield "s: sync, a: async, -n: cannot be, for reason n below"
        yield from (f"{code}  {name}" for code, name in zip(codes, self._runtimes, strict=True))
        width = max((len(row) for _, row in self._behaviours), default=0)
        theme = ""
        for group, row in self._behaviours:
            if group != theme:
                theme = group
                yield ""
                yield f"{theme:{width}}  " + "  ".join(f"{code:2}" for code in codes)
            yield f"{row:{width}}  " + "  ".join(f"{c:2}" for c in self._row(row, notes))
        yield ""
        yield from (f"-{number}  {reason}" for number, reason in enumerate(notes, 1))
        tests = sum(len(c.passed) + len(c.failed) for c in self._cells.values())
        cells = len(self._runtimes) * len(self._behaviours)
        yield f"{cells} cells, {tests} tests, {self.empty()} empty"

    def _row(self, row: str, notes: list[str]) -> list[str]:
        return [self._cells.get((runtime, row), Cell()).shown(notes) for runtime in self._runtimes]

    def empty(self) -> int:
        """Count the cells that no test has filled."""
        rows = (self._row(row, []) for _, row in self._behaviours)
        return sum(cell == MISSING for row in rows for cell in row)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fail if a cell is empty, and keep the table where the caller wants it."""
        if (told := getattr(session.config, "workeroutput", None)) is not None:
            told[__name__] = (list(self._runtimes), list(self._behaviours))
            return  # one of several processes, which has seen a part
        path = session.config.getoption("--conformance-table")
        if path and exitstatus == pytest.ExitCode.OK:
            Path(str(path)).write_text("\n".join(self.lines([])) + "\n", encoding="utf-8")
        if exitstatus == pytest.ExitCode.OK and self.empty():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def sentence(name: str) -> str:
    """Return a test's name as words."""
    return name.removeprefix("test_").replace("_", " ")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller keep the table."""
    parser.addoption("--conformance-table", metavar="FILE", help="write the table to FILE, too")


def pytest_configure(config: pytest.Config) -> None:
    """Watch the whole run."""
    config.pluginmanager.register(Table())
