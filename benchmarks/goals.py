"""The goals that these groups can judge, each as a value and a limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from .figures import Group, Series, cost, percentile, ratio, speedup, spread


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
    value: Callable[[Group, Series], float | None]

    def met(self, value: float) -> bool:
        """Hold a value against the limit."""
        return value >= self.limit if self.at_least else value <= self.limit


def to_floor(group: Group, series: Series) -> float | None:
    """Cost over the group's floor."""
    return ratio(series, group.floor).median if group.floor else None


def above_bare_call(group: Group, series: Series) -> float | None:
    """Microseconds that are ours, the call itself taken off."""
    bare = group.named("bare call")
    if bare is None:
        return None
    return (
        spread([mine - call for mine, call in zip(cost(series), cost(bare), strict=True)]).median
        * 1e6
    )


def over(library: str) -> Callable[[Group, Series], float | None]:
    """Speed over a peer's, in its fastest variant."""

    def value(group: Group, series: Series) -> float | None:
        peer = group.fastest(library)
        return speedup(series, peer).median if peer else None

    return value


def tail(group: Group, series: Series) -> float | None:
    """How many medians the slowest hundredth waits."""
    return percentile(series, 99) / percentile(series, 50)


def microseconds(group: Group, series: Series) -> float | None:
    """The cost itself: for goals that name a time."""
    return median(cost(series)) * 1e6


def milliseconds(group: Group, series: Series) -> float | None:
    """The cost itself, in milliseconds."""
    return median(cost(series)) * 1e3


def writers(subject: str) -> list[Goal]:
    """P4 binds both ways of calling at once."""
    return [
        Goal("P4", "writers", subject, "≥ 15x DBOS", 15, True, over("DBOS")),
        Goal("P4", "writers", subject, "≥ 8x LangGraph", 8, True, over("LangGraph")),
        Goal("P4", "writers", subject, "≥ 4x Powertools", 4, True, over("Powertools")),
        Goal("P4", "writers", subject, "p99 ≤ 5x p50", 5, False, tail),
    ]


GOALS = [
    Goal("P1", "read", "guarded read, SDK span", "≤ 1.6x floor", 1.6, False, to_floor),
    Goal("P1", "read", "guarded read, no provider", "≤ 12 µs ours", 12, False, above_bare_call),
    Goal("P2", "write", "guarded write, new store", "≤ 1.0x floor", 1.0, False, to_floor),
    *writers("guarded write, threads"),
    *writers("guarded write, tasks"),
    Goal("P6", "replay", "guarded replay", "≤ 60 µs", 60, False, microseconds),
    Goal("", "contracts", "contract of protect", "≤ 1.0x floor", 1.0, False, to_floor),
    Goal("P9", "import", "agentguard", "≤ 60 ms", 60, False, milliseconds),
]


def goals_of(series: Series) -> list[Goal]:
    """Find what binds a subject."""
    subject = series.subject
    return [goal for goal in GOALS if (goal.group, goal.subject) == (subject.group, subject.name)]
