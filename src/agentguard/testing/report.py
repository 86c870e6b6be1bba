"""What `check_idempotent` found: one case for each death and each way to deliver a call twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["once", "in doubt", "DUPLICATE", "LOST", "FAILED"]
_WIDEST = 64
_HEADS = ("what happened", "hook", "left behind", "backend saw", "store says", "verdict")


@dataclass(frozen=True, slots=True)
class Case:
    """One call: how it was cut off or delivered again, and what came of it.

    Attributes:
        what: where its process was killed, or how it was delivered.
        hook: whether the tool's reconcile hook could be asked: `on`, `off`, or `-` if it has none.
        left: states of its effect in the store as the killed process left them.
        seen: what the backend saw of it, in all deliveries together.
        states: states of its effect in the end.
        answers: what the callers after the kill got.
        verdict: `once` is right; `in doubt` stops and waits for a person; the others are faults.
        detail: for everything but `once`, one sentence.
    """

    what: str
    hook: str
    left: tuple[str, ...]
    seen: tuple[str, ...]
    states: tuple[str, ...]
    answers: tuple[str, ...]
    verdict: Verdict
    detail: str = ""

    def row(self) -> tuple[str, ...]:
        """Return the case as a line of the table."""
        left, states = (", ".join(part) or "-" for part in (self.left, self.states))
        return (_cut(self.what), self.hook, left, str(len(self.seen)), states, self.verdict)


@dataclass(frozen=True, slots=True)
class Report:
    """All cases of one tool; `str(report)` is a table with what is wrong below it.

    Attributes:
        tool: its name.
        cases: in the order in which they were played.
    """

    tool: str
    cases: tuple[Case, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing happened twice, was lost, or ended in another way than it should."""
        return not (self.duplicates or self.lost or self.failed)

    @property
    def duplicates(self) -> tuple[Case, ...]:
        """The cases in which the backend saw more than one effect."""
        return self._with("DUPLICATE")

    @property
    def lost(self) -> tuple[Case, ...]:
        """The cases in which a caller was told of a success that the backend never saw."""
        return self._with("LOST")

    @property
    def failed(self) -> tuple[Case, ...]:
        """The cases that ended neither with a result nor with a doubt."""
        return self._with("FAILED")

    @property
    def doubts(self) -> tuple[Case, ...]:
        """The cases that a person has to look at, with the tool as it is declared.

        Cases with the hook off are left out: they show what happens when it cannot answer.
        """
        return tuple(case for case in self._with("in doubt") if case.hook != "off")

    def _with(self, verdict: Verdict) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.verdict == verdict)

    def __str__(self) -> str:
        counts = Counter[str](case.verdict for case in self.cases)
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        faults = [case for case in self.cases if case.verdict not in ("once", "in doubt")]
        notes = [
            f"{case.verdict}: {case.what} (hook {case.hook}): {case.detail}" for case in faults
        ]
        table = _table([_HEADS, *(case.row() for case in self.cases)])
        return "\n".join([f"{self.tool}: {len(self.cases)} cases, {told}", *table, *notes])


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
