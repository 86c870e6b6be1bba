"""The same table three ways: for a terminal, for Markdown, for a program."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any

from .figures import Group, Series, Spread, cost, percentile, rate, ratio, speedup, spread
from .goals import Goal, goals_of
from .machine import Description

LIBRARIES = ("LangGraph", "DBOS", "Powertools")
HEAD = ["P", "subject", "p50", "p99", "noise", "steps/s", "÷ floor", *LIBRARIES, "goal", "met?"]

LESS = "Ratios are time over time: less is better."
TITLES = {
    "read": f"Guarded read, one caller. {LESS}",
    "write": f"Guarded write, one caller, SQLite FULL. {LESS}",
    "writers": "32 writers, SQLite FULL, equal steps each. Ratios are of steps/s: more is better.",
    "replay": f"Replay of a recorded effect, SQLite. {LESS}",
    "contracts": f"Contracts by JSON Schema, bfcl-eval's calls. {LESS}",
    "import": f"Import, on top of pydantic and the OTel API. {LESS}",
}
NOTE = """\
Medians over rounds in which all subjects of a group took turns; noise is half the IQR of the
rounds. A ratio is taken round by round: median (least-most). A peer's column holds the ratio to its
fastest variant. LangGraph returns a task's result before its write is durable (its p50 leaves that
wait out); it and DBOS record only afterwards, one commit a step, and run the step again after a
crash in it. DBOS ships with a rollback journal; it is faster on WAL, so both are measured. Steps/s
include opening and closing each caller's run or workflow, so that all is durable within them.
On a shared machine trust the ratios only."""


def rows(group: Group) -> list[list[str]]:
    """One row a subject, in the order of measuring."""
    return [row(group, series) for series in group.series]


def row(group: Group, series: Series) -> list[str]:
    """The cells of one subject."""
    goals = goals_of(series)
    number, sentence = (
        (goals[0].number if goals else ""),
        " · ".join(goal.sentence for goal in goals),
    )
    if not series.measured:
        blanks = [""] * (len(HEAD) - 6)
        return [number, series.subject.name, "-", "-", *blanks, sentence, short(series.trouble)]
    many = series.subject.callers > 1
    noise = spread(cost(series))
    return [
        number,
        series.subject.name,
        duration(percentile(series, 50) if many else noise.median),
        duration(percentile(series, 99)),
        f"±{noise.iqr / noise.median / 2:.0%}",
        f"{median(rate(series)):,.0f}" if many else "",
        compared(group, series, group.floor),
        *(compared(group, series, group.fastest(library)) for library in LIBRARIES),
        sentence,
        " · ".join(verdict(goal, group, series) for goal in goals),
    ]


def short(trouble: str) -> str:
    """A word for the table; the sentence stands in the notes."""
    return "not built yet" if "not built yet" in trouble else "left out"


def compared(group: Group, series: Series, other: Series | None) -> str:
    """A ratio's cell: blank beside itself, and where a floor would be held against a peer."""
    if (
        other is None
        or other is series
        or (series.subject.role != "ours" and other is not group.floor)
    ):
        return ""
    compare = speedup if series.subject.callers > 1 else ratio
    value = compare(series, other)
    return f"{number_of(value.median)} ({number_of(value.low)}-{number_of(value.high)})"


def verdict(goal: Goal, group: Group, series: Series) -> str:
    """Say whether a goal is met, and by what value."""
    value = goal.value(group, series)
    if value is None:
        return "not measured"
    return f"{'yes' if goal.met(value) else 'NO'} ({number_of(value)})"


def number_of(value: float) -> str:
    """Two or three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 1e-3:
        return f"{number_of(seconds * 1e6)} µs"
    return f"{number_of(seconds * 1e3)} ms" if seconds < 1 else f"{seconds:.2f} s"


def notes(groups: list[Group]) -> list[str]:
    """What was left out and why, each reason once."""
    reasons = [
        f"{one.subject.name}: {one.trouble}"
        for group in groups
        for one in group.series
        if one.trouble
    ]
    return list(dict.fromkeys(reasons))


def text(machine: Description, groups: list[Group]) -> str:
    """The table for a terminal."""
    lines = [f"{name + ':':15} {what}" for name, what in machine.items()]
    for group in groups:
        lines += ["", TITLES[group.name], *aligned([HEAD, *rows(group)])]
    return "\n".join([*lines, "", NOTE, *notes(groups)])


def aligned(table: list[list[str]]) -> list[str]:
    """Pad columns, leaving out those that are empty in every row."""
    columns = [column for column in zip(*table, strict=True) if any(column[1:])]
    padded = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns]
    return ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]


def markdown(machine: Description, groups: list[Group]) -> str:
    """The table for a page."""
    lines = [f"- {name}: {what}" for name, what in machine.items()]
    for group in groups:
        lines += ["", f"### {TITLES[group.name]}", "", piped(HEAD), piped(["---"] * len(HEAD))]
        lines += [piped(cells) for cells in rows(group)]
    return "\n".join([*lines, "", NOTE, *(f"- {note}" for note in notes(groups)), ""])


def piped(cells: list[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def record(machine: Description, groups: list[Group]) -> dict[str, Any]:
    """Everything, for a program that compares two runs."""
    return {
        "machine": machine,
        "groups": {group.name: [entry(group, one) for one in group.series] for group in groups},
    }


def entry(group: Group, series: Series) -> dict[str, Any]:
    """One subject, in seconds and steps a second."""
    subject = series.subject
    named = {
        "subject": subject.name,
        "role": subject.role,
        "callers": subject.callers,
        "mode": subject.mode,
    }
    if not series.measured:
        return named | {"trouble": series.trouble}
    return named | {
        "cost": asdict(spread(cost(series))),
        "rate": asdict(spread(rate(series))),
        "p50": percentile(series, 50),
        "p99": percentile(series, 99),
        "to_floor": optional(series, group.floor),
        "to_peers": {library: optional(series, group.fastest(library)) for library in LIBRARIES},
        "goals": [judged(goal, group, series) for goal in goals_of(series)],
        "rounds": [
            {"cost": step, "wall": lap.wall}
            for step, lap in zip(cost(series), series.laps, strict=True)
        ],
    }


def optional(series: Series, other: Series | None) -> dict[str, float] | None:
    """A ratio of costs, if there is something to compare with."""
    value: Spread | None = ratio(series, other) if other else None
    return asdict(value) if value else None


def judged(goal: Goal, group: Group, series: Series) -> dict[str, Any]:
    """One goal with its value."""
    value = goal.value(group, series)
    met = None if value is None else goal.met(value)
    return {"number": goal.number, "goal": goal.sentence, "value": value, "met": met}
