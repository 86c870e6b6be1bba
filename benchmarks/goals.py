"""The goals P1 to P10, each as a figure of one subject and the limit that it is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .figures import Group, Series, Spread, cost, percentile, ratio, speedup, spread

Value: TypeAlias = Callable[[Group, Series], Spread | None]

CALLS_FOR_MEMORY = 100_000


@dataclass(frozen=True, slots=True)
class Goal:
    """One promise about one subject.

    Attributes:
        number: its P-number.
        group: where its subject is measured.
        subject: whom it binds.
        sentence: the promise, short enough for a table.
        limit: the bound.
        at_least: whether more is better.
        value: the figure that is held against the limit, or None if what it needs was not measured.
    """

    number: str
    group: str
    subject: str
    sentence: str
    limit: float
    at_least: bool
    value: Value

    def met(self, value: float) -> bool:
        """Hold a value against the limit."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a goal came out.

    Attributes:
        goal: what was promised.
        series: about whom.
        value: what was measured, round by round; None if it could not be.
    """

    goal: Goal
    series: Series
    value: Spread | None

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the promise; None if there is none."""
        return None if self.value is None else self.goal.met(self.value.median)

    @property
    def clear(self) -> bool:
        """Whether all rounds say the same."""
        if self.value is None:
            return True
        return self.goal.met(self.value.low) == self.goal.met(self.value.high)


def to_base(group: Group, series: Series) -> Spread | None:
    """Cost over the cost of what it stands beside."""
    base = group.base(series)
    return ratio(series, base) if base else None


def above_bare_call(group: Group, series: Series) -> Spread | None:
    """Microseconds that are ours, the call itself taken off."""
    bare = group.named("bare call")
    if bare is None:
        return None
    pairs = zip(cost(series), cost(bare), strict=True)
    return spread([(mine - call) * 1e6 for mine, call in pairs])


def over(library: str) -> Value:
    """Speed over a peer's, in its fastest variant."""

    def value(group: Group, series: Series) -> Spread | None:
        peer = group.fastest(library, series)
        return speedup(series, peer) if peer else None

    return value


def tail(group: Group, series: Series) -> Spread | None:
    """How many medians the slowest hundredth waits, over all rounds."""
    return spread([percentile(series, 99) / percentile(series, 50)])


def in_units_of(unit: float) -> Value:
    """The cost itself, for goals that name a time or a size."""
    return lambda group, series: spread([value / unit for value in cost(series)])


def growth(group: Group, series: Series) -> Spread | None:
    """Megabytes that memory has grown or shrunk, once there were calls enough to tell."""
    if group.steps < CALLS_FOR_MEMORY:
        return None
    return spread([abs(value) / 1e6 for value in cost(series)])


def at_most(number: str, where: tuple[str, str], sentence: str, limit: float, value: Value) -> Goal:
    """Promise that something is no more than *limit*; *where* is a group and a subject of it."""
    return Goal(number, *where, sentence, limit, False, value)


def writers(number: str, group: str, subject: str, **factors: int) -> list[Goal]:
    """Promise how many times a peer's steps 32 writers do."""
    return [
        Goal(number, group, subject, f"≥ {factor}x {library}", factor, True, over(library))
        for library, factor in factors.items()
    ]


def large(operation: str, kind: str) -> Goal:
    """Promise that a ledger of 10⁶ records is as good as a small one."""
    subject = f"{operation}, 1,000,000 records, {kind}"
    return at_most("P7", ("size", subject), "≤ 1.2x 10³", 1.2, to_base)


def constant(subject: str, sentence: str, limit: float) -> list[Goal]:
    """Promise bytes a step, in short runs and in the longest."""
    short, long = ("disk", f"{subject}, runs of 10"), ("disk", f"{subject}, runs of 1,000")
    return [
        at_most("P8", short, sentence, limit, in_units_of(1000)),
        at_most("P8", long, sentence, limit, in_units_of(1000)),
        at_most("P8", long, "≤ 1.0x runs of 10", 1.0, to_base),
    ]


US, MS = in_units_of(1e-6), in_units_of(1e-3)
P4 = {"DBOS": 15, "LangGraph": 8, "Powertools": 4}
P5 = {"DBOS": 15, "LangGraph": 8}
CROWDS = ("guarded write, threads", "guarded write, tasks")
GOALS = [
    at_most("P1", ("read", "guarded read, SDK span"), "≤ 1.6x floor", 1.6, to_base),
    at_most("P1", ("read", "guarded read, no provider"), "≤ 12 µs ours", 12, above_bare_call),
    at_most("P2", ("write", "guarded write, new store"), "≤ 1.0x floor", 1.0, to_base),
    at_most("P3", ("write-postgres", "guarded write"), "≤ 1.2x floor", 1.2, to_base),
    *(goal for crowd in CROWDS for goal in writers("P4", "writers", crowd, **P4)),
    *(at_most("P4", ("writers", crowd), "p99 ≤ 5x p50", 5, tail) for crowd in CROWDS),
    *(goal for crowd in CROWDS for goal in writers("P5", "writers-postgres", crowd, **P5)),
    at_most("P6", ("replay", "guarded replay"), "≤ 60 µs", 60, US),
    at_most("P6", ("replay-postgres", "guarded replay"), "≤ 1.5x floor", 1.5, to_base),
    *(large(o, k) for k in ("SQLite", "PostgreSQL") for o in ("start", "look-up", "replay")),
    at_most("P7", ("memory", "guarded reads"), "≤ 5 MB in 10⁵ calls", 5, growth),
    at_most("P7", ("memory", "guarded writes, 32 tasks"), "≤ 5 MB in 10⁵ calls", 5, growth),
    *constant("guarded write", "≤ 1.6 KB", 1.6),
    *constant("guarded read", "≤ 0.6 KB", 0.6),
    at_most("P8", ("disk", "guarded write, PostgreSQL, runs of 10"), "≤ 1.6 KB", 1.6,
            in_units_of(1000)),
    at_most("P9", ("import", "agentguard"), "≤ 60 ms", 60, MS),
    at_most("P10", ("frameworks", "+ guarded tool"), "≤ 1.05x bare", 1.05, to_base),
    at_most("P10", ("frameworks", "+ guard_kernel"), "≤ 2x bare", 2, to_base),
    at_most("P10", ("frameworks", "+ guard_tools"), "≤ 2x bare", 2, to_base),
    at_most("", ("contracts", "contract of protect"), "≤ 1.0x floor", 1.0, to_base),
    at_most("", ("length", "start after 1,000 steps, SQLite"), "≤ 1.2x 10 steps", 1.2, to_base),
    at_most("", ("length", "settle after 1,000 steps, SQLite"), "≤ 1.2x 10 steps", 1.2, to_base),
    at_most("", ("length", "whole after 1,000 steps, PostgreSQL"), "≤ 1.2x 10 steps", 1.2, to_base),
]  # fmt: skip


def goals_of(series: Series) -> list[Goal]:
    """Find what binds a subject."""
    subject = series.subject
    return [goal for goal in GOALS if (goal.group, goal.subject) == (subject.group, subject.name)]


def verdicts(group: Group) -> list[Verdict]:
    """Judge all goals of one group, also those whose subject could not be measured."""
    return [
        Verdict(goal, series, goal.value(group, series) if series.measured else None)
        for series in group.series
        for goal in goals_of(series)
    ]
