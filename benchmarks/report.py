"""The same table three ways: for a terminal, for Markdown, for a program."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any

from .cells import factor, number_of, quantity
from .figures import (
    LIBRARIES,
    Group,
    Series,
    Spread,
    cost,
    percentile,
    rate,
    ratio,
    speedup,
    spread,
)
from .goals import Verdict, goals_of, verdicts
from .losses import where_we_lose
from .machine import Description
from .titles import NOTE, TITLES

HEAD = ["P", "subject", "p50", "p99", "noise", "steps/s", "ratio", *LIBRARIES, "goal", "met?"]


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
    judged = [one for one in verdicts(group) if one.series is series]
    return [
        number,
        series.subject.name,
        *spent(series),
        compared(group, series, group.base(series)),
        *(compared(group, series, group.fastest(library, series)) for library in LIBRARIES),
        sentence,
        " · ".join(map(said, judged)),
    ]


def spent(series: Series) -> list[str]:
    """The cells that tell of one subject alone."""
    subject, noise = series.subject, spread(cost(series))
    many = subject.callers > 1
    typical = percentile(series, 50) if many else noise.median
    return [
        quantity(typical, subject.unit),
        quantity(percentile(series, 99), subject.unit) if subject.unit == "seconds" else "",
        f"±{noise.iqr / noise.median / 2:.0%}" if len(series.laps) > 1 else "",
        f"{median(rate(series)):,.0f}" if many else "",
    ]


def short(trouble: str) -> str:
    """A word for the table; the sentence stands in the notes."""
    known = ("not built yet", "not there yet")
    return next((words for words in known if words in trouble), "left out")


def compared(group: Group, series: Series, other: Series | None) -> str:
    """A ratio's cell: blank beside itself, and where a floor would be held against a peer."""
    if (
        other is None
        or other is series
        or (series.subject.role != "ours" and other is not group.base(series))
    ):
        return ""
    compare = speedup if series.subject.callers > 1 else ratio
    return factor(compare(series, other))


def said(verdict: Verdict) -> str:
    """Say whether a goal is met, and by what value."""
    if verdict.value is None:
        return "not judged"
    return f"{'yes' if verdict.met else 'NO'} ({number_of(verdict.value.median)})"


def notes(groups: list[Group]) -> list[str]:
    """What was left out and why, each reason once."""
    by_reason: dict[str, list[str]] = {}
    for group in groups:
        for one in group.series:
            if one.trouble:
                by_reason.setdefault(one.trouble, []).append(f"{group.name}/{one.subject.name}")
    return [f"{reason}: {', '.join(names)}" for reason, names in by_reason.items()]


def text(machine: Description, groups: list[Group]) -> str:
    """The table for a terminal."""
    lines = [f"{name + ':':15} {what}" for name, what in machine.items()]
    for group in groups:
        lines += ["", TITLES[group.name], *aligned([HEAD, *rows(group)])]
    lost = [f"- {sentence}" for sentence in where_we_lose(groups)]
    return "\n".join([*lines, "", "Where we lose", *lost, "", NOTE, *notes(groups)])


def aligned(table: list[list[str]]) -> list[str]:
    """Pad columns, leaving out those that are empty in every row."""
    columns = [column for column in zip(*table, strict=True) if any(column[1:])]
    padded = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns]
    return ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]


def tables(groups: list[Group]) -> list[str]:
    """The tables for a page, line by line; columns that are empty in every row are left out."""
    lines: list[str] = []
    for group in groups:
        table = [HEAD, *rows(group)]
        columns = [column for column in zip(*table, strict=True) if any(column[1:])]
        head, *body = [list(cells) for cells in zip(*columns, strict=True)]
        lines += ["", f"### {TITLES[group.name]}", "", piped(head), piped(["---"] * len(head))]
        lines += [piped(cells) for cells in body]
    return lines


def piped(cells: list[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def record(machine: Description, groups: list[Group]) -> dict[str, Any]:
    """Everything, for a program that compares two runs."""
    return {
        "machine": machine,
        "where we lose": where_we_lose(groups),
        "groups": {group.name: [entry(group, one) for one in group.series] for group in groups},
    }


def entry(group: Group, series: Series) -> dict[str, Any]:
    """One subject, in its unit and steps a second."""
    subject = series.subject
    named = {
        "subject": subject.name,
        "role": subject.role,
        "callers": subject.callers,
        "mode": subject.mode,
        "unit": subject.unit,
        "goals": [judged(one) for one in verdicts(group) if one.series is series],
    }
    if not series.measured:
        return named | {"trouble": series.trouble}
    base, peers = group.base(series), {}
    for library in LIBRARIES:
        peers[library] = optional(series, group.fastest(library, series))
    return named | {
        "cost": asdict(spread(cost(series))),
        "rate": asdict(spread(rate(series))),
        "p50": percentile(series, 50),
        "p99": percentile(series, 99),
        "base": base.subject.name if base else None,
        "to_base": optional(series, base),
        "to_peers": peers,
        "rounds": [
            {"cost": step, "wall": lap.wall}
            for step, lap in zip(cost(series), series.laps, strict=True)
        ],
    }


def optional(series: Series, other: Series | None) -> dict[str, float] | None:
    """A ratio of costs, if there is something to compare with."""
    value: Spread | None = ratio(series, other) if other else None
    return asdict(value) if value else None


def judged(verdict: Verdict) -> dict[str, Any]:
    """One goal with its value."""
    goal, value = verdict.goal, verdict.value
    return {
        "number": goal.number,
        "goal": goal.sentence,
        "value": asdict(value) if value else None,
        "met": verdict.met,
        "within the noise": not verdict.clear,
    }
